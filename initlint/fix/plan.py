"""Plan the edits that mend findings: from the finding, the facts and the statement at its line. No torch, no LibCST.

A plan is a proposal. Whether it holds is decided by ``initlint.fix.verify``, which analyses the edited file again.
"""

from __future__ import annotations

import ast
import os
import re
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

#: The tensor in a line that is written for any: ``nn.init.normal_(w, std=0.02)``.
_ANY = re.compile(r"(?<=_\()(?:w|weight)(?=[,)])")

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
        mended = finding.code in PLANNERS or (finding.fix is not None and _ANY.search(finding.fix.snippet))
        if mended and model is not None and site is not None and not _installed(site.file):
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
    scope = Scope(finding, model, site, source, statement)
    try:
        edits = PLANNERS[finding.code](scope) if finding.code in PLANNERS else ()
        if not edits:
            return _with_target(finding, scope)
    except Exception:  # source may have any form; a plan that fails is no plan
        return finding
    if all(edit.text == edit.before for edit in edits):
        return finding
    added = _added(edits)
    fix = Fix(
        title=f"write: {added[0].strip()}" if added else "delete the comment",
        applicability="safe" if finding.code in SAFE else "unsafe",
        edits=edits,
        snippet=textwrap.dedent("\n".join(added)),
    )
    return replace(finding, fix=fix)


def _with_target(finding: Finding, scope: Scope) -> Finding:
    """The finding with its line for any weight ``w`` written for the tensor that the source initialises there.

    Only where the finding is about all that the line writes: the same line for other layers may well be right.
    """
    node = _target(scope)
    if finding.fix is None or node is None or not _ANY.search(finding.fix.snippet):
        return finding
    target = scope.source.text(node)
    if "\n" in target or {one.weight for one in scope.written_here()} != {one.weight for one in scope.layers}:
        return finding
    title, snippet = (_ANY.sub(lambda _: target, text) for text in (finding.fix.title, finding.fix.snippet))
    return replace(finding, fix=replace(finding.fix, title=title, snippet=snippet))


def _target(scope: Scope) -> ast.expr | None:
    """What the statement initialises, or the attribute that it makes the parameter of."""
    call, statement = scope.call(), scope.statement
    if call is not None or not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
        return call.target if call is not None else None
    target = statement.targets[0]
    local = {parameter.local for parameter in scope.parameters}
    return target if isinstance(target, ast.Attribute) and local == {target.attr} else None


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
