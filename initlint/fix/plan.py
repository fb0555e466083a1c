"""Plan the edits that mend findings: from the finding, the facts and the statement at its line. No torch, no LibCST.

A plan is a proposal. Whether it holds is decided by ``initlint.fix.verify``, which analyses the edited file again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace

from initlint.findings import Edit, Finding, Fix, Run
from initlint.fix import calls, lines
from initlint.fix.scope import Planner, Scope
from initlint.fix.source import Source, read

#: What to do for each rule. A finding of any other rule keeps the line that the rule proposes, to be written by hand.
PLANNERS: Mapping[str, Planner] = {
    "IL004": calls.other_scheme,
    "IL005": calls.dirac_groups,
    "IL007": lines.norm_gain,
    "IL101": calls.other_scheme,
    "IL103": lines.init_loop,
    "IL104": calls.other_scheme,
    "IL105": calls.grouped_fan,
    "IL106": calls.fan_axis,
    "IL107": calls.packed_gain,
    "IL108": calls.root_of_variance,
    "IL109": calls.centred,
    "IL110": calls.slope,
    "IL111": calls.uniform,
    "IL302": calls.each_gate,
    "IL304": lines.padding_row,
    "IL305": calls.table_std,
    "IL307": lines.layer_scale,
    "IL312": lines.exponent,
    "IL313": lines.zero_layer,
    "IL401": lines.call_init,
    "IL402": lines.selected_class,
    "IL403": lines.the_argument,
    "IL901": lines.unused_comment,
}
#: Rules whose edits leave every value of the model as it is. All others change what training starts from.
SAFE = frozenset({"IL901"})

#: Reads and parses a file; ``None`` when there is nothing to plan on.
Reader = Callable[[str], Source | None]


def plan_fixes(run: Run, source: Reader | None = None) -> Run:
    """The run with edits in the findings that a planner can mend.

    Args:
        run: as the engine gives it; the files of its findings are relative to the working directory.
        source: reads a file; each is read once.
    """
    known: dict[str, Source | None] = {}
    get = source or read

    def cached(file: str) -> Source | None:
        if file not in known:
            known[file] = get(file)
        return known[file]

    facts = {report.facts.target: report.facts for report in run.models}
    found = []
    for finding in run.findings:
        model = facts.get(finding.model)
        scope = None
        if finding.code in PLANNERS and finding.site is not None and not _installed(finding.site.file):
            text = cached(finding.site.file)
            statement = text.statement(finding.site.line) if text is not None and text.fits(finding.site) else None
            if text is not None and model is not None and finding.code in SAFE:
                statement = statement or (text.tree.body[0] if text.tree.body else None)
            if text is not None and statement is not None and model is not None:
                scope = Scope(finding, model, finding.site, text, statement)
        found.append(finding if scope is None else _planned(scope))
    return replace(run, findings=tuple(found))


def _planned(scope: Scope) -> Finding:
    try:
        edits = PLANNERS[scope.finding.code](scope)
    except Exception:  # source may have any form; a plan that fails is no plan
        return scope.finding
    if not edits or all(edit.text == edit.before for edit in edits):
        return scope.finding
    fix = scope.finding.fix or Fix(title=_title(edits))
    kind = "safe" if scope.finding.code in SAFE else "unsafe"
    return replace(scope.finding, fix=replace(fix, applicability=kind, edits=edits, title=_title(edits)))


def _title(edits: tuple[Edit, ...]) -> str:
    """What the edit does, in one line: its first new line."""
    old = {line.strip() for edit in edits for line in edit.before.split("\n")}
    new = [line.strip() for edit in edits for line in edit.text.split("\n") if line.strip() and line.strip() not in old]
    return f"write: {new[0]}" if new else "delete the comment"


def _installed(file: str) -> bool:
    """Files of installed packages are nobody's to edit."""
    return os.path.isabs(file) and ("site-packages" in file or "dist-packages" in file)
