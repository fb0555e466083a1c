"""Output formats: each is one small module with ``render(run, options) -> str``, imported when asked for."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Mapping
from typing import TextIO

from initlint.emit.common import Options, Sources, read_lines, spell_for
from initlint.errors import UsageError
from initlint.findings import Run

#: Name of each output format and the module that writes it.
FORMATS: Mapping[str, str] = {
    "text": "text",
    "concise": "concise",
    "json": "json_document",
    "sarif": "sarif",
    "github": "github",
    "gitlab": "gitlab",
    "junit": "junit",
    "markdown": "markdown",
    "html": "html",
}

__all__ = ["FORMATS", "Options", "Sources", "emit", "render"]


def render(format: str, run: Run, options: Options | None = None) -> str:
    """The run as a string in that format, ending in a newline unless empty. Pure but for reading templates.

    Raises:
        UsageError: there is no such format.
    """
    if format not in FORMATS:
        raise UsageError(f"unknown output format {format!r}", f"Formats are {', '.join(FORMATS)}.")
    module = importlib.import_module(f"initlint.emit.{FORMATS[format]}")
    text: str = module.render(run, options or Options())
    return text


def emit(
    format: str,
    run: Run,
    out: TextIO,
    *,
    color: bool = False,
    width: int = 100,
    verbose: int = 0,
    statistics: bool = False,
    sources: Sources | None = None,
    rules: Iterable[object] = (),
    summary: str | None = None,
) -> None:
    """Write the run to ``out`` in that format.

    Args:
        format: one of ``FORMATS``.
        color: style text with ANSI codes (``text`` and ``concise`` only).
        width: columns of the terminal (``text`` only).
        verbose: -1 findings only, 0 usual, 1 a table for every model and what stayed undetermined, 2 every layer.
        statistics: append (or, for ``concise``, print) the count of findings for each code.
        sources: reads a file's lines, ``()`` when it cannot; defaults to the disk.
        rules: rule objects, for the descriptions in SARIF.
        summary: file that the ``github`` format appends its Markdown summary to; by default the one that
            the environment variable GITHUB_STEP_SUMMARY names, ``""`` for none.

    Raises:
        UsageError: there is no such format.
    """
    options = Options(color, width, verbose, statistics, sources or read_lines, tuple(rules))
    out.write(spell_for(render(format, run, options), getattr(out, "encoding", None)))
    if format == "github":
        path = os.environ.get("GITHUB_STEP_SUMMARY", "") if summary is None else summary
        if path:
            from initlint.emit.github import append_summary

            append_summary(path, run, options)
