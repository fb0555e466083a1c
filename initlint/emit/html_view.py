"""What the HTML report shows, as plain data for the templates; no markup but charts from ``svg``."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from initlint.emit import svg
from initlint.emit.common import Options, clean, number, relative, seconds, times, unique_fingerprints
from initlint.emit.frame import code_frame
from initlint.emit.html_data import Card, Chart, CodeLine, Model, Page, Row, Value
from initlint.emit.json_document import parameter_count
from initlint.emit.text import describe_input, describe_loss
from initlint.emit.text_findings import compared_keys, named_already, ratio_of
from initlint.emit.text_table import expected_text, feeds_text, scheme_text, std_text, tight
from initlint.emit.view import (
    FINDING,
    Fold,
    Point,
    Tally,
    findings_of,
    folds,
    listing,
    missed,
    places,
    profile_of,
    said_unseen,
    tally,
    traced,
    undetermined_reasons,
    unplaced,
    verdict,
    verdict_of,
)
from initlint.facts import TensorStats
from initlint.findings import Finding, Fix, ModelReport, Run

#: Layer rows of a page that get a histogram (about 1 kB each); more and only layers in findings have one.
MOST_HISTOGRAMS = 120
#: Rows from which on alike layers are folded.
FOLD_FROM = 16


def page(run: Run, options: Options) -> Page:
    """The report's view of a run."""
    ids = dict(zip(map(id, run.findings), unique_fingerprints(run.findings), strict=True))
    crowded = sum(len(report.rows) for report in run.models) > MOST_HISTOGRAMS
    models = [_model(run, report, index, ids, options, crowded) for index, report in enumerate(run.models, 1)]
    alone = len(models) == 1
    fine = [m for m in models if not m.cards and m.status == "analysed" and not alone]
    count = tally(run)
    shown = missed(run)
    return Page(
        title=f"initlint: {verdict_of(run)}",
        level=_level(count, whole=not shown and not said_unseen(run.models)),
        said=verdict_of(run),
        count=count,
        seconds=seconds(run.seconds),
        models=tuple(m for m in models if m not in fine),
        passed=tuple(fine),
        loose=tuple(_card(finding, ids[id(finding)], options) for finding in unplaced(run)),
        not_analysed=tuple((clean(e.target), clean(e.reason), clean(e.hint), _where(e.file, e.line)) for e in shown),
        parts=tuple((clean(e.target), clean(e.reason)) for e in run.not_analysed if e.harmless),
        suppressed=tuple((clean(f.code), clean(f.message), clean(f.suppressed)) for f in run.suppressed),
        facts=_run_facts(run),
        notes=tuple(map(clean, run.notes)),
    )


def _level(count: Tally, *, whole: bool) -> str:
    """The worst severity; without findings only what was looked at as a whole is in order."""
    if not count.findings:
        return "ok" if whole else "undetermined"
    return "error" if count.errors else "warning" if count.warnings else "note"


def _where(file: str, line: int | None) -> str:
    return clean(relative(file) + (f":{line}" if line is not None else "")) if file else ""


def _run_facts(run: Run) -> tuple[tuple[str, str], ...]:
    targets = ", ".join(report.facts.target for report in run.models[:8])
    more = f" and {len(run.models) - 8} more" if len(run.models) > 8 else ""
    entries = (
        ("command", clean(run.command)),
        ("initlint", clean(run.version)),
        ("PyTorch", clean(run.torch)),
        ("Python", clean(run.python)),
        ("seed", str(run.seed)),
        ("fails on", run.fail_on.label if run.fail_on else "never"),
        ("targets", clean(targets) + more),
    )
    return tuple((word, text) for word, text in entries if text)


def _model(run: Run, report: ModelReport, index: int, ids: Mapping[int, str], options: Options, crowded: bool) -> Model:
    facts = report.facts
    findings = findings_of(run, report)
    count = tally(run, [report])
    return Model(
        id=f"model-{index}",
        name=clean(facts.name),
        target=clean(facts.target),
        status=clean(facts.status),
        reason=clean(facts.reason),
        ran=facts.trace.ran,
        level=_level(count, whole=facts.status == "analysed"),
        said=verdict(count),
        count=count,
        facts=_model_facts(report),
        charts=_charts(report, findings),
        cards=tuple(_card(finding, ids[id(finding)], options) for finding in findings),
        rows=_rows(report, findings, ids, crowded),
        undetermined=tuple(
            (", ".join(codes), clean(reason)) for reason, codes, _ in undetermined_reasons(report.undetermined)
        ),
        notes=tuple(clean(note) for note in dict.fromkeys((*facts.notes, *facts.trace.notes)) if note != facts.reason),
    )


def _model_facts(report: ModelReport) -> tuple[tuple[str, str], ...]:
    facts = report.facts
    trace = facts.trace
    known = traced(facts)
    ran = "" if trace.ran else ", forward not run"
    entries = [
        ("parameters", f"{parameter_count(facts):,}"),
        ("layers", f"{len(report.rows):,}"),
        ("trace", f"{trace.method}, {_percent(trace.coverage)}{ran}" if known else "none"),
        ("called part by part", listing(trace.parts) if trace.parts else ""),
        ("inputs", "; ".join(describe_input(entry) for entry in facts.inputs)),
        ("loss at init", describe_loss(report)),
        ("arguments", ", ".join(f"{a.name}={a.value} ({a.origin})" for a in facts.arguments)),
        ("not modelled", ", ".join(trace.unsupported)),
        ("not read by forward", listing(trace.not_reached) if trace.not_reached else ""),
        ("dtype", "" if facts.dtype == "float32" else facts.dtype),
        ("defined at", _where(facts.file, facts.line)),
    ]
    return tuple((word, clean(text)) for word, text in entries if text)


def _percent(share: float) -> str:
    return "every layer seen" if share >= 1 else f"{min(int(100 * share), 99)} % of layers seen"


# -- charts --------------------------------------------------------------------------------------


def _charts(report: ModelReport, findings: Sequence[Finding]) -> tuple[Chart, ...]:
    points = profile_of(report)
    named = {name for finding in findings for name in (*finding.layers, *finding.parameters)}
    flags = [not named.isdisjoint(point.names) for point in points]
    labels = [point.label for point in points]
    found = []
    for kind, title in (("forward", "Activations"), ("gradient", "Gradients"), ("dependent", "Tells inputs apart")):
        values, band, measured = _series(points, kind)
        known = [value for value in values if value is not None]
        # the share of the signal that depends on the input is drawn only where it gets lost
        if len(known) < 2 or (kind == "dependent" and min(known) > 0.1):
            continue
        said = _said(known, kind)
        drawing = svg.curve(svg.Curve(labels, values, band, measured, flags), kind, f"{title} over depth: {said}")
        if drawing:
            has = [any(series) for series in (measured, band)]
            found.append(Chart(kind, title, said, drawing, has[0], has[1], any(flags)))
    return tuple(found)


_Series = list[float | None]


def _series(points: Sequence[Point], kind: str) -> tuple[_Series, _Series, _Series]:
    """Predicted values, their band and measured values of one chart."""
    if kind == "forward":
        return (
            [p.forward_std for p in points],
            [p.forward_band for p in points],
            [p.measured_forward_std for p in points],
        )
    if kind == "gradient":
        return (
            [p.gradient_std for p in points],
            [p.gradient_band for p in points],
            [p.measured_gradient_std for p in points],
        )
    return [p.dependent for p in points], [], []


def _said(values: Sequence[float], kind: str) -> str:
    """What the curve shows, in words, in the direction that the signal travels."""
    first, last = (values[-1], values[0]) if kind == "gradient" else (values[0], values[-1])
    if kind == "dependent":
        return f"share of the signal that depends on the input: {number(first, 2)} to {number(last, 2)}"
    way = "from the last layer back to the first" if kind == "gradient" else "from the first layer to the last"
    if first <= 0 or last <= 0:
        return f"standard deviation {number(first, 2)} to {number(last, 2)} {way}"
    change = last / first
    if 0.5 < change < 2:
        near, low, high = number(math.sqrt(first * last), 2), min(values), max(values)
        if high < 2 * max(first, last) and low > min(first, last) / 2:
            return f"standard deviation stays near {near} {way}"
        return f"standard deviation {number(low, 2)} to {number(high, 2)}, at both ends near {near}"
    return f"standard deviation {number(first, 2)} to {number(last, 2)} {way}, {times(change)}"


# -- layers --------------------------------------------------------------------------------------


def _rows(report: ModelReport, findings: Sequence[Finding], ids: Mapping[int, str], crowded: bool) -> tuple[Row, ...]:
    stats = _stats(report)
    cards: dict[str, list[tuple[str, str]]] = {}
    for finding in findings:
        for name in dict.fromkeys((*finding.layers, *finding.parameters)):
            cards.setdefault(name, []).append((clean(finding.code), ids[id(finding)]))
    least = 3 if len(report.rows) > FOLD_FROM else 10**9
    return tuple(
        _row(fold, stats, cards, crowded and fold.state != FINDING) for fold in folds(report, findings, least=least)
    )


def _stats(report: ModelReport) -> dict[str, TensorStats]:
    weights = {layer.name: layer.weight for layer in report.facts.layers}
    by_name = {n: p.stats for p in report.facts.parameters if p.stats for n in (p.name, *p.aliases)}
    found = {}
    for row in report.rows:
        name = next((n for n in (weights.get(row.name), *row.parameters) if n in by_name), None)
        if name is not None:
            found[row.name] = by_name[name]
    return found


def _row(fold: Fold, stats: Mapping[str, TensorStats], cards: Mapping[str, Any], plain: bool) -> Row:
    row = fold.first
    label = clean(fold.label) or "(root)"
    cut = label.rfind(".") + 1 if " … " not in label else 0
    ratios = [r.ratio for r in fold.rows if r.ratio is not None]
    ratio = sum(ratios) / len(ratios) if ratios else None
    off = abs(math.log10(ratio)) if ratio else 0.0
    names = tuple(clean(r.name) for r in fold.rows) if len(fold.rows) > 1 else ()
    hits = dict.fromkeys(hit for name in (row.name, *row.parameters) for hit in cards.get(name, ()))
    init = row.init or {}
    file, line = init.get("file"), init.get("line")
    return Row(
        stem=label[:cut],
        leaf=label[cut:],
        names=names,
        kind=clean(row.kind),
        fan_in="-" if row.fan_in is None else f"{row.fan_in:,.0f}" if row.fan_in % 1 == 0 else f"{row.fan_in:,.1f}",
        feeds=feeds_text(row),
        scheme=scheme_text(row.scheme),
        place=_where(file, line if isinstance(line, int) else None) if isinstance(file, str) else "",
        std=std_text(fold),
        expected=expected_text(fold),
        ratio=times(ratio),
        bar=svg.ratio_bar(ratio),
        histogram="" if plain else _histogram(stats.get(row.name), row.expected_std),
        forward=_span([r.signal.forward_std for r in fold.rows]),
        gradient=_span([r.signal.gradient_std for r in fold.rows]),
        level=fold.severity.label if fold.severity else fold.state,
        reason=clean(row.undetermined or ""),
        cards=tuple(hits),
        off=round(off, 4),
    )


def _histogram(stats: TensorStats | None, expected: float | None) -> str:
    if stats is None or stats.histogram is None:
        return ""
    # 1.8 is a uniform's kurtosis, 3 a normal's
    uniform = stats.kurtosis is not None and stats.kurtosis < 2.2
    return svg.histogram(stats.histogram.edges, stats.histogram.counts, expected, uniform=uniform)


def _span(values: Sequence[float | None]) -> str:
    known = [v for v in values if v is not None]
    if not known:
        return "-"
    first, last = tight(known[0]), tight(known[-1])
    return number(known[0]) if len(known) == 1 else first if first == last else f"{first} → {last}"


# -- findings ------------------------------------------------------------------------------------


def _card(finding: Finding, key: str, options: Options) -> Card:
    names = finding.parameters or finding.layers
    fix = finding.fix
    return Card(
        id=re.sub(r"\s+", "-", clean(key)),
        level=finding.severity.label,
        code=clean(finding.code),
        name=clean(finding.name),
        message=clean(finding.message),
        place=_where(finding.site.file, finding.site.line) if finding.site else "",
        model=clean(finding.model),
        names=() if named_already(finding) else tuple(map(clean, names)),
        listed=clean(listing(names)),
        frame=_frame(finding, options),
        values=_values(finding),
        effect=clean(finding.effect),
        why=clean(finding.why),
        snippet="\n".join(clean(line) for line in fix.snippet.splitlines()) if fix else "",
        diff=_diff(fix, options) if fix else (),
        fix_title=clean(fix.title) if fix and not fix.title.startswith("write: ") else "",
        fix_status=_fix_status(fix) if fix else "",
        related=tuple((clean(r.role), _where(r.file, r.line)) for r in places(finding)),
        sources=tuple(_source(source) for source in finding.sources),
    )


def _frame(finding: Finding, options: Options) -> tuple[CodeLine, ...]:
    frame = code_frame(finding.site, options)
    if frame is None:
        return ()
    lines = []
    for line, code in frame.lines:
        if line == frame.line:
            parts = (code[: frame.start], code[frame.start : frame.end], code[frame.end :])
            lines.append(CodeLine(line, parts, True))
        else:
            lines.append(CodeLine(line, (code, "", ""), frame.line < line <= frame.end_line))
    return tuple(lines)


def _values(finding: Finding) -> tuple[Value, ...]:
    found = []
    for key in compared_keys(finding):
        actual, expected = finding.actual.get(key), finding.expected.get(key)
        ratio = ratio_of(actual, expected)
        one, other = (number(value) if value is not None else "" for value in (actual, expected))
        name = clean(key).replace("_", " ")
        found.append(Value(name, one, other, times(ratio) if ratio else "", svg.ratio_bar(ratio)))
    return tuple(found)


def _diff(fix: Fix, options: Options) -> tuple[tuple[str, str], ...]:
    """Lines with what becomes of them: "del", "add", "same", or "at", the place of an edit."""
    found: list[tuple[str, str]] = []
    for edit in fix.edits:
        found.append(("at", _where(edit.file, edit.start)))
        old, new = options.sources(edit.file)[edit.start - 1 : edit.end], edit.text.splitlines()
        # lines are added by replacing the one before them: that one stays
        for tag, i, until, j, end in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
            if tag == "equal":
                found += [("same", clean(line)) for line in old[i:until]]
            else:
                found += [("del", clean(line)) for line in old[i:until]]
                found += [("add", clean(line)) for line in new[j:end]]
    return tuple(found)


def _fix_status(fix: Fix) -> str:
    if not fix.edits:
        return ""
    kind = {"safe": "safe: values stay the same", "unsafe": "changes the training"}.get(fix.applicability, "by hand")
    return f"{kind}, {'verified by building again' if fix.verified else 'not verified'}"


def _source(source: str) -> tuple[str, str]:
    """Text and address; only web addresses become links."""
    text = clean(source)
    return text, text if re.fullmatch(r"https?://[^\s\"'<>]+", text) else ""
