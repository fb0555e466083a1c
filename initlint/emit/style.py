"""Colour on request, by ``click.style``; without it text passes through unchanged."""

from __future__ import annotations

from dataclasses import dataclass

from initlint.findings import Severity

COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}


@dataclass(frozen=True, slots=True)
class Style:
    """Callable that styles text when ``color`` is set."""

    color: bool = False

    def __call__(self, text: str, colour: str | None = None, *, bold: bool = False, dim: bool = False) -> str:
        """The text in that colour (a name that click knows)."""
        if not self.color or not text:
            return text
        import click

        return click.style(text, fg=colour, bold=bold or None, dim=dim or None)
