"""Markdown for a pull request's comment or a job's summary: verdict, table, details folded."""

from __future__ import annotations

import re

from initlint.emit.common import Options, clean, counted, number, relative, seconds, times
from initlint.emit.frame import code_frame
from initlint.emit.text_findings import compared_keys, ratio_of
from initlint.emit.view import (
    findings_of,
    listing,
    missed,
    places,
    said_unseen,
    tally,
    undetermined_reasons,
    unknown,
    verdict,
    verdict_of,
)
from initlint.findings import Finding, ModelReport, Run, Severity

#: Findings told in full: 65,536 characters are what GitHub takes in a comment.
MOST = 30
_ICONS = {Severity.ERROR: "🔴", Severity.WARNING: "🟠", Severity.NOTE: "🔵"}
_SPECIAL = re.compile(r"([\\`*_\[\]#|~$]|^[-+](?=\s)|^\d+[.)](?=\s))")


def render(run: Run, options: Options) -> str:
    """The summary; details of each finding are folded."""
    count = tally(run)
    blind = said_unseen(run.models)
    clear = "⚪" if missed(run) or blind else "🟢"
    icon = "🔴" if count.errors else "🟠" if count.warnings else "🔵" if count.notes else clear
    more = f", {blind}" if blind and count.findings else ""  # without findings the headline says it
    facts = (
        f"{counted(count.layers, 'layer')}: {count.ok} ok, {counted(count.findings, 'finding')}, "
        f"{unknown(count)}{more} · {counted(count.models, 'model')} · {seconds(run.seconds)}"
    )
    lines = [f"## {icon} initlint: {verdict_of(run)}", "", facts]
    if run.findings:
        lines += ["", "| | where | what |", "|---|---|---|", *(_table_row(f) for f in run.findings[:MOST])]
        lines += [""]
        for finding in run.findings[:MOST]:
            lines += _details(finding, options)
        if len(run.findings) > MOST:
            lines += [f"… and {counted(len(run.findings) - MOST, 'more finding')}.", ""]
    lines += _models(run) + _undetermined(run) + _not_analysed(run)
    return "\n".join(lines).rstrip() + "\n"


def escape(text: str) -> str:
    """Text that Markdown shows as it is, names in backticks as code: no other markup, no HTML, no mention, no link."""
    parts = re.split(r"`([^`]+)`", clean(text))  # every second part stood between backticks
    return "".join(code(part) if index % 2 else _plain(part) for index, part in enumerate(parts))


def _plain(text: str) -> str:
    safe = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _quiet(_SPECIAL.sub(r"\\\1", safe))


def _quiet(text: str) -> str:
    # a zero-width space keeps names from being mentioned and addresses from being linked
    return re.sub(r"@(?=\w)|:(?=//)|(?<=\bwww)\.", lambda m: f"{m.group()}\u200b", text)


def code(text: str) -> str:
    """An inline code span, also of text with backticks; bars are escaped for tables."""
    safe = clean(text).replace("|", "\\|")
    fence = "`" * (max((len(run) for run in re.findall("`+", safe)), default=0) + 1)
    pad = " " if safe.startswith("`") or safe.endswith("`") or not safe.strip() else ""
    return f"{fence}{pad}{safe}{pad}{fence}"


def fenced(text: str, language: str = "") -> list[str]:
    """A code block whose fence is longer than any in the text."""
    fence = "`" * max(3, max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return [f"{fence}{language}", *(clean(line) for line in text.splitlines()), fence]


def _where(finding: Finding) -> str:
    site = finding.site
    return code(f"{relative(site.file)}:{site.line}" if site and site.file else finding.model or "-")


def _table_row(finding: Finding) -> str:
    what = f"**{escape(finding.code)}** {escape(finding.name)}: {escape(finding.message)}"
    return f"| {_ICONS[finding.severity]} | {_where(finding)} | {what} |"


def _details(finding: Finding, options: Options) -> list[str]:
    title = f"{finding.severity.label} {finding.code} {finding.name}"
    lines = ["<details>", f"<summary>{escape_html(title)}</summary>", "", escape(finding.message) + "."]
    frame = code_frame(finding.site, options)
    if frame is not None:
        width = len(str(frame.lines[-1][0]))
        text = "\n".join(f"{'>' if n == frame.line else ' '} {n:>{width}} {line}" for n, line in frame.lines)
        lines += ["", *fenced(text, "python")]
    keys = compared_keys(finding)
    if keys:
        lines += ["", "| | actual | expected | |", "|---|---|---|---|"]
        for key in keys:
            actual, expected = finding.actual.get(key), finding.expected.get(key)
            ratio = ratio_of(actual, expected)
            cells = (code(number(actual)), code(number(expected)), times(ratio) if ratio else "")
            lines.append(f"| {escape(key)} | {' | '.join(cells)} |")
    names = finding.parameters or finding.layers
    facts = [("Parameters", code(listing(names)) if names else ""), ("Effect", escape(finding.effect))]
    facts.append(("Why", escape(finding.why)))
    items = [f"- {word}: {text}" for word, text in facts if text]
    items += [f"- {escape(r.role)}: {code(f'{relative(r.file)}:{r.line}')}" for r in places(finding)]
    lines += ["", *items] if items else []
    if finding.fix is not None:
        lines += ["", "Write instead:" if finding.fix.snippet else f"Fix: {escape(finding.fix.title)}"]
        lines += ["", *fenced(finding.fix.snippet, "python")] if finding.fix.snippet else []
    return [*lines, "", "</details>", ""]


def escape_html(text: str) -> str:
    """Text inside an HTML element."""
    return _quiet(clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def _models(run: Run) -> list[str]:
    if not run.models:
        return []
    lines = ["", "| model | status | layers | trace | findings |", "|---|---|---|---|---|"]
    return [*lines, *(_model_row(run, report) for report in run.models), ""]


def _model_row(run: Run, report: ModelReport) -> str:
    facts = report.facts
    status = facts.status + (f": {escape(facts.reason)}" if facts.reason else "")
    trace = f"{facts.trace.method}, {int(100 * facts.trace.coverage)} %" if facts.trace.method != "none" else "none"
    said = verdict(tally(run, [report])) if findings_of(run, report) else "none"
    return f"| {code(facts.target)} | {status} | {len(report.rows)} | {trace} | {said} |"


def _undetermined(run: Run) -> list[str]:
    groups = undetermined_reasons(entry for report in run.models for entry in report.undetermined)
    if not groups:
        return []
    total = sum(count for _, _, count in groups)
    lines = ["<details>", f"<summary>{counted(total, 'check')} undetermined</summary>", ""]
    return [
        *lines,
        *(f"- {escape(', '.join(codes))}: {escape(reason)}" for reason, codes, _ in groups),
        "",
        "</details>",
        "",
    ]


def _not_analysed(run: Run) -> list[str]:
    shown = missed(run)
    if not shown:
        return []
    lines = ["**Not analysed**", ""]
    for entry in shown:
        hint = f" {escape(entry.hint)}" if entry.hint else ""
        lines.append(f"- {code(entry.target)}: {escape(entry.reason)}.{hint}")
    return lines
