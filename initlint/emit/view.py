"""Views of a run that several formats share: counts, layers by outcome, alike layers folded into one."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from initlint.emit.common import clean, counted, finite
from initlint.facts import STAND_IN, Histogram, ModelFacts, Node, NotAnalysed, Scalar
from initlint.findings import Finding, LayerRow, ModelReport, Related, Run, Severity, Undetermined
from initlint.records import dataclass

#: Packages that a note names before it counts the rest.
_PACKAGES = 16

OK, FINDING, UNDETERMINED = "ok", "finding", "undetermined"

_INDEX = re.compile(r"(?<![^.\[])\d+(?![^.\]])")


def weights_of(report: ModelReport) -> dict[str, Histogram]:
    """Histogram of each layer's weight, by the layer's name."""
    by_name = {
        name: fact.stats.histogram
        for fact in report.facts.parameters
        if fact.stats is not None and fact.stats.histogram is not None
        for name in (fact.name, *fact.aliases)
    }
    weights = {layer.name: layer.weight for layer in report.facts.layers}
    found = {}
    for row in report.rows:
        for name in (weights.get(row.name), *row.parameters):
            if name in by_name:
                found[row.name] = by_name[name]
                break
    return found


def findings_of(run: Run, report: ModelReport) -> list[Finding]:
    """The findings on one model, worst first, in the run's order otherwise."""
    found = [finding for finding in run.findings if finding.model == report.facts.target]
    return sorted(found, key=lambda finding: -finding.severity)


def unplaced(run: Run) -> list[Finding]:
    """Findings that belong to no model of the run (the tool's own, such as an unused suppression)."""
    targets = {report.facts.target for report in run.models}
    return [finding for finding in run.findings if finding.model not in targets]


def outcomes(report: ModelReport, findings: Iterable[Finding]) -> dict[str, tuple[str, Severity | None]]:
    """For each layer's name: ok, finding or undetermined, and the worst severity that names it."""
    worst: dict[str, Severity] = {}
    for finding in findings:
        for name in (*finding.layers, *finding.parameters):
            worst[name] = max(worst.get(name, finding.severity), finding.severity)
    found: dict[str, tuple[str, Severity | None]] = {}
    for row in report.rows:
        hits = [worst[name] for name in (row.name, *row.parameters) if name in worst]
        if hits:
            found[row.name] = (FINDING, max(hits))
        else:
            found[row.name] = (UNDETERMINED if row.undetermined else OK, None)
    return found


def traced(facts: ModelFacts) -> bool:
    """Whether there is a graph: from symbolic tracing, from a run, or from both."""
    return facts.trace.method in ("symbolic", "recorded", "mixed")


def unseen(reports: Iterable[ModelReport]) -> tuple[int, int]:
    """Tensors of parameters that no trace saw or that stayed within what is not modelled, and their elements.

    The layers of a report are those that its graph reads; such a parameter is in none of the counts of them.
    """
    tensors = elements = 0
    for report in reports:
        trace = report.facts.trace
        none = not traced(report.facts)
        missing = set(trace.not_reached) if report.facts.status != "analysed" or trace.coverage < 1 else set()
        missing |= {name for node in report.facts.nodes if node.op == "opaque" for name in node.parameters.values()}
        told = {name for row in report.rows for name in row.parameters}
        for parameter in report.facts.parameters:
            if parameter.kind != "parameter" or parameter.generated or told & {parameter.name, *parameter.aliases}:
                continue
            if none or parameter.name in missing:
                tensors, elements = tensors + 1, elements + math.prod(parameter.shape)
    return tensors, elements


def said_unseen(reports: Iterable[ModelReport]) -> str:
    """``4 tensors (1,024 values) not looked into``, or nothing."""
    tensors, elements = unseen(reports)
    return f"{counted(tensors, 'tensor')} ({counted(elements, 'value')}) not looked into" if tensors else ""


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts over a run (or one model) as the summary line gives them."""

    models: int
    layers: int
    ok: int
    undetermined: int  # layers
    checks: int  # that are undetermined, of whatever layers or of the whole model
    errors: int
    warnings: int
    notes: int
    worst: Mapping[Severity, int]  # layers by the worst severity of the findings that name them

    @property
    def findings(self) -> int:
        """All findings, whatever their severity."""
        return self.errors + self.warnings + self.notes

    @property
    def touched(self) -> int:
        """Layers that a finding names."""
        return self.layers - self.ok - self.undetermined


def tally(run: Run, reports: Sequence[ModelReport] | None = None) -> Tally:
    """The counts of the run, or of some of its models."""
    chosen = run.models if reports is None else reports
    findings = run.findings if reports is None else [f for r in chosen for f in findings_of(run, r)]
    found = [pair for report in chosen for pair in outcomes(report, findings_of(run, report)).values()]
    states = Counter(state for state, _ in found)
    severities = Counter(finding.severity for finding in findings)
    return Tally(
        models=len(chosen),
        layers=sum(states.values()),
        ok=states[OK],
        undetermined=states[UNDETERMINED],
        checks=sum(len(report.undetermined) for report in chosen),
        errors=severities[Severity.ERROR],
        warnings=severities[Severity.WARNING],
        notes=severities[Severity.NOTE],
        worst=Counter(severity for _, severity in found if severity is not None),
    )


def unknown(count: Tally) -> str:
    """What is undetermined: layers, and checks where there are any (one of the whole model names no layer)."""
    if not count.checks:
        return f"{count.undetermined} undetermined"
    layers = f"{counted(count.undetermined, 'layer')} and " if count.undetermined else ""
    return f"{layers}{counted(count.checks, 'check')} undetermined"


def undetermined_reasons(entries: Iterable[Undetermined]) -> list[tuple[str, list[str], int]]:
    """Undetermined checks grouped by reason: reason, codes, number of checks; the commonest first, texts clean."""
    codes: dict[str, list[str]] = {}
    for entry in entries:
        codes.setdefault(clean(entry.reason), []).append(clean(entry.code))
    groups = [(reason, sorted(set(found)), len(found)) for reason, found in codes.items()]
    return sorted(groups, key=lambda group: -group[2])


@dataclass(frozen=True, slots=True)
class Fold:
    """Rows of the layer table that say the same, shown as one line."""

    rows: tuple[LayerRow, ...]
    state: str
    severity: Severity | None

    @property
    def first(self) -> LayerRow:
        """The row that stands for all."""
        return self.rows[0]

    @property
    def label(self) -> str:
        """``layers.{0…19}``, ``h.{0…11}.attn.c_attn``, or the one row's name."""
        return span_of([row.name for row in self.rows])


def folds(report: ModelReport, findings: Iterable[Finding], *, least: int = 3) -> list[Fold]:
    """The layer table with alike rows (same name but for indices, same facts) folded when ``least`` or more.

    Folding is by pattern, not by neighbourhood: the blocks of a transformer repeat with a period.
    """
    states = outcomes(report, findings)
    groups: dict[tuple[object, ...], list[list[LayerRow]]] = {}
    for row in report.rows:
        clusters = groups.setdefault((_alike(row), states[row.name]), [])
        near = next((cluster for cluster in clusters if _near(cluster[0].ratio, row.ratio)), None)
        if near is None:
            clusters.append([row])
        else:
            near.append(row)
    found: list[tuple[int, Fold]] = []
    order = {id(row): index for index, row in enumerate(report.rows)}
    for rows in (cluster for clusters in groups.values() for cluster in clusters):
        for part in [rows] if len(rows) >= least else [[row] for row in rows]:
            state, severity = states[part[0].name]
            found.append((order[id(part[0])], Fold(tuple(part), state, severity)))
    return [fold for _, fold in sorted(found, key=lambda entry: entry[0])]


def _near(one: float | None, other: float | None) -> bool:
    """Whether two ratios may stand on one line: within 12 %, which draws of one scheme are (Xavier/He is 0.71)."""
    if not one or not other:
        return one == other
    return one > 0 and other > 0 and abs(math.log(one / other)) < 0.12


def _alike(row: LayerRow) -> tuple[object, ...]:
    return (
        _INDEX.sub("#", row.name),
        row.kind,
        row.fan_in,
        row.activation,
        tuple(_INDEX.sub("#", step) for step in row.path),
        row.consumer,
        row.scheme,
        row.undetermined,
    )


def span_of(names: Sequence[str]) -> str:
    """One label for names that differ in their indices only, in numeric order; a list's first and last otherwise."""
    if not names:
        return ""
    if len(names) == 1:
        return names[0]
    if len({_INDEX.sub("#", name) for name in names}) == 1:
        names = sorted(names, key=lambda name: [int(match.group()) for match in _INDEX.finditer(name)])
    columns = [[match.group() for match in _INDEX.finditer(name)] for name in names]
    varying = [i for i in range(len(columns[0])) if len({column[i] for column in columns if len(column) > i}) > 1]
    same = len({_INDEX.sub("#", name) for name in names}) == 1
    if not same or len(varying) != 1:
        return f"{names[0]} … {names[-1]}"
    match = list(_INDEX.finditer(names[0]))[varying[0]]
    last = columns[-1][varying[0]]
    return f"{names[0][: match.start()]}{{{match.group()}…{last}}}{names[0][match.end() :]}"


def listing(names: Sequence[str], limit: int = 4) -> str:
    """Names for a sentence: alike ones folded (``layers.0.weight … layers.19.weight (20)``), the rest counted."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_INDEX.sub("#", name), []).append(name)
    parts: list[str] = []
    for group in groups.values():
        parts += [f"{span_of(group)} ({len(group)})"] if len(group) > 2 else group
    rest = len(parts) - limit
    return ", ".join(parts[:limit]) + (f" and {rest} more" if rest > 0 else "")


def brief_notes(notes: Sequence[str]) -> list[str]:
    """The notes, those on modules that stand-ins replace as one, in the place of the first."""
    replaced = [note for note in notes if STAND_IN in note]
    if len(replaced) < 2:
        return list(notes)
    packages = list(dict.fromkeys(map(_package, replaced)))
    said = ", ".join(packages[:_PACKAGES])
    rest = len(packages) - _PACKAGES
    said += f" and {rest} more" if rest > 0 else ""
    first = notes.index(replaced[0])
    others = [note for note in notes[first:] if STAND_IN not in note]
    return [*notes[:first], f"stand-ins for {said}, which could not be imported; -v lists them", *others]


def _package(note: str) -> str:
    """The package that a note on a stand-in is about: what is missing, else what was asked for."""
    before, _, reason = note.partition(STAND_IN)
    missing = re.search(r"No module named '?([\w.]+)", reason)
    name = missing[1] if missing else before.rpartition(": ")[2].strip()
    return name.split(".")[0]


def places(finding: Finding) -> list[Related]:
    """The related places, one for each line: a loop that makes ten layers is one place."""
    found: dict[tuple[str, int], Related] = {}
    for place in finding.related:
        found.setdefault((place.file, place.line), place)
    return list(found.values())


def statistics(run: Run) -> list[tuple[str, str, int]]:
    """Code, name and count of each kind of finding, the commonest first."""
    counts = Counter((finding.code, finding.name) for finding in run.findings)
    return sorted(
        ((clean(code), clean(name), n) for (code, name), n in counts.items()), key=lambda entry: (-entry[2], entry[0])
    )


def verdict(count: Tally) -> str:
    """``2 errors, 1 warning`` or ``no findings``."""
    parts = [
        f"{n} {word}{'' if n == 1 else 's'}"
        for n, word in ((count.errors, "error"), (count.warnings, "warning"), (count.notes, "note"))
        if n
    ]
    return ", ".join(parts) or "no findings"


def missed(run: Run) -> list[NotAnalysed]:
    """What should have been analysed and could not be; parts of analysed models are no loss."""
    return [entry for entry in run.not_analysed if not entry.harmless]


def listed(run: Run, verbose: int) -> list[NotAnalysed]:
    """What a report for people lists of it; where nothing was analysed, the reasons that are no fault as well."""
    lost = missed(run)
    return list(run.not_analysed) if verbose > 0 or not (lost or run.models) else lost


def verdict_of(run: Run) -> str:
    """The verdict of a whole run, which is not clean while something could not be looked at."""
    count, lost = tally(run), len(missed(run))
    if count.findings:
        return verdict(count)
    blind = said_unseen(run.models)
    return verdict(count) + (f", {lost} not analysed" if lost else "") + (f", {blind}" if blind else "")


@dataclass(frozen=True, slots=True)
class Point:
    """A point of the depth curve: standard deviations at one node of the trunk, or at one layer.

    ``dependent`` is the share of the second moment that depends on the input, q(1-c)/q. Bands are one standard
    deviation of the value's log10 by chance. ``names`` are the layers and parameters that the point stands for.
    """

    label: str
    forward_std: float | None
    gradient_std: float | None
    dependent: float | None
    forward_band: float | None
    gradient_band: float | None
    measured_forward_std: float | None
    measured_gradient_std: float | None
    names: frozenset[str] = frozenset()


def profile_of(report: ModelReport) -> list[Point]:
    """The points of the depth curve: the trunk's, or the layers in their order where there is no trunk."""
    if report.profile:
        nodes = {node.index: node for node in report.facts.nodes}
        return [_trunk_point(entry, nodes) for entry in report.profile]
    return [
        Point(
            clean(row.name),
            row.signal.forward_std,
            row.signal.gradient_std,
            row.signal.dependent,
            row.signal.forward_band,
            row.signal.gradient_band,
            row.signal.measured_forward_std,
            row.signal.measured_gradient_std,
            frozenset((row.name, *row.parameters)),
        )
        for row in report.rows
        if row.signal.forward_std is not None or row.signal.gradient_std is not None
    ]


def _trunk_point(entry: Mapping[str, Scalar], nodes: Mapping[int, Node]) -> Point:
    index = entry.get("node")
    node = nodes.get(index) if isinstance(index, int) else None
    label = str(entry.get("label") or "")
    measured = node.measured if node is not None else None
    names = {label, *(node.parameters.values() if node else ())}
    return Point(
        clean(label),
        finite(entry.get("forward_std")),
        finite(entry.get("gradient_std")),
        finite(entry.get("share")),
        # the profile's noise is of log10 of the second moment, twice that of the standard deviation
        _half(finite(entry.get("noise_q"))),
        _half(finite(entry.get("noise_p"))),
        _root(measured.second) if measured else None,
        _root(measured.gradient_second) if measured else None,
        frozenset(names),
    )


def _half(value: float | None) -> float | None:
    return None if value is None else value / 2


def _root(value: float | None) -> float | None:
    return math.sqrt(value) if value is not None and value >= 0 and math.isfinite(value) else None
