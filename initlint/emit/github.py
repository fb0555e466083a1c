"""GitHub workflow commands: one annotation for each finding, and a Markdown summary of the step.

GitHub shows at most 10 annotations of each level for a step and drops the rest without a word
(actions/toolkit, docs/problem-matchers.md), so the last of ten says how many more there are.
"""

from __future__ import annotations

from collections.abc import Sequence

from initlint.emit.common import Options, clean, relative
from initlint.emit.style import Style
from initlint.emit.text import summary_line
from initlint.findings import Finding, Run, Severity

#: Annotations of one level that GitHub shows for a step.
MOST = 10
#: Bytes of the step summary that GitHub takes (1 MiB), with room for what other commands of the step write.
SUMMARY_BYTES = 900_000

_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}


def render(run: Run, options: Options) -> str:
    """Annotations by level, then the summary line for the log."""
    lines: list[str] = []
    for severity, level in _LEVELS.items():
        entries = [_finding(finding, level) for finding in run.findings if finding.severity is severity]
        entries += [command for wanted, command in _not_analysed(run) if wanted is severity]
        lines += _capped(entries)
    lines.append(summary_line(run, Style()))
    return "".join(f"{line}\n" for line in lines)


def _capped(commands: Sequence[str]) -> list[str]:
    if len(commands) <= MOST:
        return list(commands)
    more = len(commands) - MOST
    return [*commands[: MOST - 1], f"{commands[MOST - 1]}%0A(+{more} more, see the summary of this step)"]


def _finding(finding: Finding, level: str) -> str:
    properties: dict[str, object] = {}
    site = finding.site
    if site is not None and site.file:
        properties["file"] = relative(site.file)
        properties["line"] = site.line
        if site.end_line and site.end_line != site.line:
            properties["endLine"] = site.end_line
        elif site.column is not None:  # GitHub takes columns for a single line only
            properties["col"] = site.column
    properties["title"] = f"{finding.code} {finding.name}"
    parts = [clean(finding.message), clean(finding.effect)]
    if finding.fix is not None and finding.fix.snippet:
        parts.append("Write: " + "\n".join(map(clean, finding.fix.snippet.splitlines())))
    elif finding.fix is not None:
        parts.append(f"Fix: {clean(finding.fix.title)}")
    return command(level, properties, "\n".join(part for part in parts if part))


def _not_analysed(run: Run) -> list[tuple[Severity, str]]:
    found = []
    for entry in run.not_analysed:
        if entry.harmless:
            continue
        severity = Severity.ERROR if entry.named else Severity.NOTE
        properties: dict[str, object] = {"file": relative(entry.file)} if entry.file else {}
        if entry.file and entry.line is not None:
            properties["line"] = entry.line
        properties["title"] = "initlint: not analysed"
        text = "\n".join(part for part in (f"{clean(entry.target)}: {clean(entry.reason)}", clean(entry.hint)) if part)
        found.append((severity, command(_LEVELS[severity], properties, text)))
    return found


def command(level: str, properties: dict[str, object], text: str) -> str:
    """A workflow command, escaped as the runner unescapes it (actions/toolkit, core/src/command.ts)."""
    listed = ",".join(f"{key}={_property(clean(str(value)))}" for key, value in properties.items())
    return f"::{level} {listed}::{_data(text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def append_summary(path: str, run: Run, options: Options) -> None:
    """Append the Markdown summary to the file that GITHUB_STEP_SUMMARY names; an unwritable file is no error."""
    from initlint.emit.markdown import render as markdown

    text = markdown(run, options).encode("utf-8", "replace")
    if len(text) > SUMMARY_BYTES:
        text = text[:SUMMARY_BYTES].decode("utf-8", "ignore").encode() + b"\n\n(cut: see the full report)\n"
    try:
        with open(path, "ab") as stream:
            stream.write(text)
    except OSError:
        pass  # the annotations are out; a summary that cannot be written must not fail the check
