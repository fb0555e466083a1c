"""Plan the edits that mend findings: from the finding, the facts and the statement at its line. No torch, no LibCST.

A plan is a proposal. Whether it holds is decided by ``initlint.fix.verify``, which analyses the edited file again.
"""

from __future__ import annotations

import ast
import os
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import replace

from initlint.facts import ModelFacts, Site
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
    "IL305": lines.table_std,
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
    facts = {report.facts.target: report.facts for report in run.models}
    found = []
    for finding in run.findings:
        model, site = facts.get(finding.model), finding.site
        if finding.code in PLANNERS and model is not None and site is not None and not _installed(site.file):
            if site.file not in known:
                known[site.file] = get(site.file)
            text = known[site.file]
            finding = finding if text is None else _planned(finding, model, site, text)
        found.append(finding)
    return replace(run, findings=tuple(found))


def _planned(finding: Finding, model: ModelFacts, site: Site, source: Source) -> Finding:
    """The finding with its edits; without any where the file is no longer what was analysed."""
    statement = source.statement(site.line, site.column) if source.fits(site) else None
    if statement is None and finding.code in SAFE:
        statement = ast.Pass()  # a comment may stand alone
    if statement is None:
        return finding
    try:
        edits = PLANNERS[finding.code](Scope(finding, model, site, source, statement))
    except Exception:  # source may have any form; a plan that fails is no plan
        return finding
    if not edits or all(edit.text == edit.before for edit in edits):
        return finding
    added = _added(edits)
    fix = Fix(
        title=f"write: {added[0].strip()}" if added else "delete the comment",
        applicability="safe" if finding.code in SAFE else "unsafe",
        edits=edits,
        snippet=textwrap.dedent("\n".join(added)),
    )
    return replace(finding, fix=fix)


def _added(edits: tuple[Edit, ...]) -> list[str]:
    """The lines that the edits write and that were not there before."""
    old = {line.strip() for edit in edits for line in edit.before.split("\n")}
    added = [line for edit in edits for line in edit.text.split("\n") if line.strip() and line.strip() not in old]
    if added and added[-1].rstrip().endswith(":"):  # what was there follows in a branch: it is shown with it
        return [line for edit in edits for line in edit.text.split("\n") if line.strip()]
    return added


def _installed(file: str) -> bool:
    """Files of installed packages are nobody's to edit."""
    return os.path.isabs(file) and ("site-packages" in file or "dist-packages" in file)
