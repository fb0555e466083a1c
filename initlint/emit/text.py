"""The report for a terminal: a header and the layer table for each model, then its findings, then the summary."""

from __future__ import annotations

from collections import Counter

from initlint.emit.common import Options, cells, clean, counted, number, seconds, truncate
from initlint.emit.json_document import parameter_count
from initlint.emit.style import Style
from initlint.emit.text_findings import finding_lines, wrapped
from initlint.emit.text_table import table_lines
from initlint.emit.view import (
    brief_notes,
    findings_of,
    listed,
    listing,
    missed,
    said_unseen,
    statistics,
    tally,
    traced,
    undetermined_reasons,
    unknown,
    unplaced,
    verdict,
)
from initlint.facts import InputFacts, ModelFacts, NotAnalysed
from initlint.findings import ModelReport, Run

#: Reasons of undetermined checks that are told, the commonest first; ``-v`` lists all.
_REASONS = 3
#: What may be cut at the edge: values that a person has seen where they come from.
_CUT = ("arguments", "unmodelled")


def render(run: Run, options: Options) -> str:
    """The report; models without findings take one line when there are several."""
    style = Style(options.color)
    blocks = [_model(run, report, options, style) for report in run.models]
    brief = [not block or _is_brief(run, report, options) for block, report in zip(blocks, run.models, strict=True)]
    blocks += [finding_lines(finding, options, style) for finding in unplaced(run)]
    if options.verbose >= 0:
        blocks.append(_not_analysed(run, options, style))
    if options.statistics:
        blocks.append(_statistics(run, style))
    if options.verbose >= 0:
        blocks.append(_summary(run, style))
    return _joined(blocks, brief)


def _joined(blocks: list[list[str]], brief: list[bool]) -> str:
    """Blocks of lines, apart by an empty line; neighbouring brief blocks (healthy models, the first) stay together."""
    text: list[str] = []
    together = True
    for index, block in enumerate(blocks):
        if not block:
            continue
        short = len(block) == 1 if index >= len(brief) else brief[index]
        if text and not (together and short and block is not blocks[-1]):
            text.append("")
        together = short
        text += block
    return "".join(f"{line.rstrip()}\n" for line in text)


def _model(run: Run, report: ModelReport, options: Options, style: Style) -> list[str]:
    findings = findings_of(run, report)
    told = [line for finding in findings for line in ("", *finding_lines(finding, options, style))]
    if options.verbose < 0:
        return told[1:]
    if _is_brief(run, report, options):
        return _brief(report, options, style)
    lines = _header(report, options, style)
    if report.rows:
        lines += ["", *table_lines(report, findings, options, style)]
    undetermined = _undetermined(report, options, style)
    return [*lines, *([""] if undetermined else []), *undetermined, *told]


def _is_brief(run: Run, report: ModelReport, options: Options) -> bool:
    """Whether a model takes as little room as can be: one without findings among others."""
    return options.verbose == 0 and len(run.models) > 1 and not findings_of(run, report)


def _brief(report: ModelReport, options: Options, style: Style) -> list[str]:
    """One line, and the reason where there is one, as long as it is."""
    facts = report.facts
    details = [counted(len(report.rows), "layer")]
    if not traced(facts):
        details.append("not traced")
    elif not facts.trace.ran:
        details.append("forward not run")
    if facts.unrun:
        details.append(f"init call at {facts.unrun[0]} not run")
    if report.undetermined:
        details.append(f"{counted(len(report.undetermined), 'check')} undetermined")
    blind = said_unseen([report])
    if blind:
        details.append(blind)
    # what looked at no layer of a model with parameters is no success
    fine = facts.status == "analysed" and bool(report.rows or not blind)
    said = style("ok", "green") if fine else _status(facts, style)
    head = f"{style(clean(facts.target), bold=True)}  {said}  {style(', '.join(details), dim=True)}"
    return [head, *_because(facts, options, style)]


def _status(facts: ModelFacts, style: Style) -> str:
    return style(clean(facts.status), {"failed": "red", "partial": "yellow"}.get(facts.status))


def _header(report: ModelReport, options: Options, style: Style) -> list[str]:
    lines = _title(report.facts, options, style)
    for word, text in _facts(report, options.verbose):
        if word in _CUT and options.verbose < 1:
            lines += _fact(word, [truncate(text, options.width - 14)], style)
        else:
            lines += _fact(word, wrapped(text, options.width, 14, 14), style)
    return lines


def _fact(word: str, lines: list[str], style: Style) -> list[str]:
    """A word and what is to say about it."""
    return [f"  {style(f'{word:<10}', dim=True)}  {lines[0]}", *lines[1:]]


def _title(facts: ModelFacts, options: Options, style: Style) -> list[str]:
    """The model and how far it was analysed; the reason, where it was not analysed whole, on lines of its own."""
    head = f"{style(clean(facts.target), bold=True)}  {_status(facts, style)}"
    return [head, *_because(facts, options, style)]


def _because(facts: ModelFacts, options: Options, style: Style) -> list[str]:
    """Why a model was not analysed whole."""
    return _fact("because", wrapped(clean(facts.reason), options.width, 14, 14), style) if facts.reason else []


def _facts(report: ModelReport, verbose: int) -> list[tuple[str, str]]:
    facts = report.facts
    found = []
    if traced(facts):
        ran = "" if facts.trace.ran else ", forward not run"
        share = facts.trace.coverage
        # 99.6 % must not read as all
        coverage = "every layer seen" if share >= 1 else f"{min(int(100 * share), 99)} % of the layers seen"
        found.append(("trace", f"{facts.trace.method}, {coverage}{ran}"))
        if facts.trace.parts:
            found.append(("called", f"part by part, not as a whole: {clean(listing(facts.trace.parts))}"))
    else:
        found.append(("trace", "none: signals and pairing are not known"))
    if facts.trace.not_reached and (facts.status == "partial" or facts.trace.coverage < 1):
        found.append(("not seen", clean(listing(facts.trace.not_reached))))
    if facts.trace.unsupported:
        found.append(("unmodelled", clean(", ".join(facts.trace.unsupported))))
    size = counted(parameter_count(facts), "parameter")
    found.append(("size", f"{size} in {counted(len(report.rows), 'layer')}, {clean(facts.dtype)}"))
    if facts.inputs:
        found.append(("inputs", "; ".join(describe_input(entry) for entry in facts.inputs)))
    if facts.arguments:
        found.append(
            ("arguments", ", ".join(f"{clean(a.name)}={clean(a.value)} ({clean(a.origin)})" for a in facts.arguments))
        )
    loss = describe_loss(report)
    if loss:
        found.append(("init loss", loss))
    found += [("note", clean(note)) for note in (facts.notes if verbose > 0 else brief_notes(facts.notes))]
    return found


def describe_input(entry: InputFacts) -> str:
    """``x: float32[2, 3, 32, 32] (inferred)``."""
    high = "" if entry.high is None else f" < {entry.high}"
    return f"{clean(entry.name)}: {clean(entry.dtype)}{list(entry.shape)}{high} ({clean(entry.origin)})"


def describe_loss(report: ModelReport) -> str:
    """The predicted loss at initialisation against ln C, as far as known."""
    known = report.init_loss or {}
    parts = []
    if known.get("predicted") is not None:
        parts.append(f"{number(known['predicted'], 4)} predicted")
    if known.get("expected") is not None:
        classes = known.get("classes")
        parts.append(
            f"ln {number(classes)} = {number(known['expected'], 4)}"
            if classes
            else f"{number(known['expected'], 4)} expected"
        )
    if report.facts.measured_loss is not None:
        parts.append(f"{number(report.facts.measured_loss, 4)} measured")
    elif parts:
        parts.append("if the outputs are logits")  # of images, actions or embeddings it is no loss
    return ", ".join(parts)


def _undetermined(report: ModelReport, options: Options, style: Style) -> list[str]:
    groups = undetermined_reasons(report.undetermined)
    if not groups:
        return []
    total = counted(sum(count for _, _, count in groups), "check")
    word = style("undetermined", "magenta")
    if options.verbose > 0:
        lines = [f"  {word}  {total}"]
        return lines + [f"    {', '.join(codes)} ({count}): {clean(reason)}" for reason, codes, count in groups]
    said = "; ".join(f"{', '.join(codes)}: {clean(reason)}" for reason, codes, _ in groups[:_REASONS])
    rest = len(groups) - _REASONS
    more = f"; and {counted(rest, 'more reason')} (-v lists them)" if rest > 0 else ""
    first, *others = wrapped(f"{total}, {said}{more}", options.width, 16, 16)
    return [f"  {word}  {first}", *others]


def _not_analysed(run: Run, options: Options, style: Style) -> list[str]:
    shown = listed(run, options.verbose)
    lines = []
    for entry in shown:
        lines += _entry(entry, options, style)
    hidden = len(run.not_analysed) - len(shown)
    if hidden and shown:
        lines.append(
            style(f"and {counted(hidden, 'part')} of analysed models or abstract classes (-v lists them)", dim=True)
        )
    return lines


def _entry(entry: NotAnalysed, options: Options, style: Style) -> list[str]:
    word = style("not analysed", "red" if entry.named else "yellow", bold=True)
    target = clean(entry.target)
    first, *more = wrapped(clean(entry.reason), options.width, 14 + cells(target) + 2, 14)
    lines = [f"{word}  {style(target, bold=True)}: {first}", *more]
    if entry.hint:
        first, *more = wrapped(clean(entry.hint), options.width, 20, 20)
        lines += [f"{' ' * 14}{style('hint:', 'cyan')} {first}", *more]
    return lines


def _statistics(run: Run, style: Style) -> list[str]:
    return [f"{count:>6}  {style(code, bold=True)}  {clean(name)}" for code, name, count in statistics(run)]


def _summary(run: Run, style: Style) -> list[str]:
    notes = [clean(note) for note in run.notes]
    if run.suppressed:
        causes = Counter(finding.suppressed or "comment" for finding in run.suppressed)
        parts = [f"{count} by {clean(cause)}" for cause, count in sorted(causes.items())]
        notes.append(f"{counted(len(run.suppressed), 'finding')} suppressed ({', '.join(parts)})")
    if run.baseline_stale:
        entries = counted(run.baseline_stale, "baseline entry", "baseline entries")
        notes.append(f"{entries} no longer found: --write-baseline drops them")
    return [*(style(note, dim=True) for note in notes), summary_line(run, style)]


def summary_line(run: Run, style: Style) -> str:
    """``12 layers: 9 ok, 2 findings, 1 undetermined (1 error, 1 warning; 1 model, 0.84 s)``."""
    count = tally(run)
    worst = "red" if count.errors else "yellow" if count.warnings else "cyan" if count.notes else "green"
    found = style(counted(count.findings, "finding"), worst, bold=True)
    by_severity = f"{verdict(count)}; " if count.findings else ""
    partial = sum(report.facts.status != "analysed" for report in run.models)
    models = counted(count.models, "model") + (f", {partial} of them in part" if partial else "")
    lost = len(missed(run))
    models += f", {lost} not analysed" if lost else ""
    rest = f"({by_severity}{models}, {seconds(run.seconds)})"
    blind = said_unseen(run.models)
    counts = f"{count.ok} ok, {found}, {unknown(count)}" + (f", {style(blind, 'yellow')}" if blind else "")
    return f"{counted(count.layers, 'layer')}: {counts} {style(rest, dim=True)}"
