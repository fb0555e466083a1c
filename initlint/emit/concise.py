"""One line for each finding: ``file:line:column: severity CODE name: message``."""

from __future__ import annotations

from initlint.emit.common import Options, clean, place
from initlint.emit.view import listed, statistics
from initlint.findings import Run


def render(run: Run, options: Options) -> str:
    """The findings, one a line, and what could not be analysed; counts by code instead with ``statistics``."""
    if options.statistics:
        return "".join(f"{count:>6}  {code}  {clean(name)}\n" for code, name, count in statistics(run))
    lines = [
        f"{place(finding)}: {finding.severity.label} {clean(finding.code)} {clean(finding.name)}: "
        f"{clean(finding.message)}"
        for finding in run.findings
    ]
    lines += [f"{clean(entry.target)}: not analysed: {clean(entry.reason)}" for entry in listed(run, options.verbose)]
    return "".join(f"{line}\n" for line in lines)
