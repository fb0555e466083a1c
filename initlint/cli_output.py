"""Where output goes: standard output, files written at the end, progress on a terminal."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from initlint.config_values import OUTPUT_FORMATS
from initlint.errors import UsageError
from initlint.records import dataclass
from initlint.selection import did_you_mean

if TYPE_CHECKING:
    from initlint.findings import Run
    from initlint.probe.outcome import Event

#: Columns where the output is no terminal: what fits a CI log.
WIDTH = 100


@dataclass(frozen=True, slots=True)
class Sink:
    """One output: a format and the file it goes to (``-`` for standard output)."""

    format: str
    file: str = "-"


def parse_sinks(outputs: Sequence[str], output_format: str | None, default: str) -> tuple[Sink, ...]:
    """All outputs of a run: ``--output FORMAT=FILE`` each, and one to standard output.

    Standard output gets ``output_format``, or the default unless an ``--output`` already goes there.

    Raises:
        UsageError: malformed, an unknown format, or two outputs to one place.
    """
    sinks = [_parse_sink(text) for text in outputs]
    if output_format or not any(sink.file == "-" for sink in sinks):
        sinks.append(Sink(output_format or default))
    places = [sink.file if sink.file == "-" else os.path.abspath(sink.file) for sink in sinks]
    twice = next((place for place in places if places.count(place) > 1), None)
    if twice is not None:
        raise UsageError(f"two outputs go to {'standard output' if twice == '-' else twice}", "Name another file.")
    return tuple(sinks)


def _parse_sink(text: str) -> Sink:
    name, equals, file = text.partition("=")
    if not equals or not file:
        raise UsageError(f"--output {text}: not FORMAT=FILE", "For example: --output html=report.html.")
    if name not in OUTPUT_FORMATS:
        hint = did_you_mean(name, OUTPUT_FORMATS) or f"Formats: {', '.join(OUTPUT_FORMATS)}."
        raise UsageError(f"--output {text}: no format is called `{name}`", hint)
    return Sink(name, file)


def wants_color(choice: str, stream: TextIO, environment: Mapping[str, str] | None = None) -> bool:
    """Whether to use colours: ``always``, ``never``, or ``auto`` (NO_COLOR, FORCE_COLOR, then: a terminal)."""
    environment = os.environ if environment is None else environment
    if choice != "auto":
        return choice == "always"
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return stream.isatty() and environment.get("TERM") != "dumb"


def write(run: Run, sinks: Sequence[Sink], *, color: str, verbose: int, statistics: bool, rules: Sequence[Any]) -> None:
    """Write all outputs; files first, so that they are complete when standard output says so.

    Raises:
        UsageError: a file cannot be written.
    """
    import io

    from initlint.emit import emit
    from initlint.files import write_atomically

    for sink in sorted(sinks, key=lambda sink: sink.file == "-"):
        shared: dict[str, Any] = {"verbose": verbose, "statistics": statistics, "rules": rules}
        if sink.file == "-":
            width = shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else WIDTH
            try:
                emit(sink.format, run, sys.stdout, color=wants_color(color, sys.stdout), width=width, **shared)
                sys.stdout.flush()
            except BrokenPipeError:  # the reader has seen enough; the exit code still counts
                drop_stdout()
        else:
            text = io.StringIO()
            emit(sink.format, run, text, width=WIDTH, **shared)
            write_atomically(Path(sink.file), text.getvalue())


def drop_stdout() -> None:
    """Say nothing more on standard output, also not when Python flushes it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Progress:
    """One line on stderr that says what is going on; nothing where stderr is no terminal."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.shown = not quiet and self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self.running: dict[str, None] = {}
        self.done = 0
        self.total = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._draw("")

    def __call__(self, event: Event) -> None:
        """Take in one event of the probe."""
        if event.kind == "start":
            self.running[event.target] = None
        else:
            self.running.pop(event.target, None)
            self.done, self.total = event.done, event.total
        names = ", ".join(self.running) or "reading the results"
        count = f"[{self.done}/{self.total}] " if self.total > 1 else ""
        self._draw(f"{count}analysing {names}")

    def _draw(self, text: str) -> None:
        if not self.shown:
            return
        width = shutil.get_terminal_size((80, 24)).columns - 1
        self.stream.write("\r\x1b[K" + "".join(c for c in text if c.isprintable())[:width])
        self.stream.flush()
