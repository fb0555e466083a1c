"""From facts to a run: rules, duplicates, suppressions, baseline, severities, order. All policy is here, once.

Rules say what they see; whether it is shown, and how loudly, is decided after all of them have run.
"""

from __future__ import annotations

import fnmatch
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from initlint import __version__, baseline, selection, suppressions
from initlint.absorb import absorb
from initlint.config import Config
from initlint.facts import ModelFacts, NotAnalysed, Site
from initlint.findings import Finding, LayerRow, ModelReport, Run, Severity, Undetermined
from initlint.records import dataclass
from initlint.rule import Context, Rule

if TYPE_CHECKING:
    from initlint.signal import Signal
    from initlint.verdicts import Verdict, Verdicts

#: Findings that the engine itself reports; rules/tool/ has their descriptions.
UNUSED_SUPPRESSION = ("IL901", "unused-suppression", Severity.NOTE)
FAILED_RULE = ("IL902", "failed-rule", Severity.NOTE)
INVALID_SUPPRESSION = ("IL903", "invalid-suppression", Severity.WARNING)


@dataclass(frozen=True, slots=True)
class Analysis:
    """What the probe (or the cache) found for one target of the command line."""

    target: str
    models: tuple[ModelFacts, ...] = ()
    not_analysed: tuple[NotAnalysed, ...] = ()
    whole_file: bool = False  # a file or folder, not one named model
    cached: bool = False
    digest: str = ""  # of the facts as the cache holds them; "" where it does not


@dataclass(frozen=True, slots=True)
class Judged:
    """One model after the rules."""

    report: ModelReport
    findings: tuple[Finding, ...]


def run(
    results: Iterable[Analysis],
    config: Config,
    rules: Sequence[Rule],
    *,
    known: Sequence[Rule] | None = None,
    entries: Sequence[baseline.Entry] = (),
    judging: Callable[[Analysis], Sequence[Judged]] | None = None,
    command: str = "",
    started: float | None = None,
) -> Run:
    """Judge what was analysed.

    Args:
        results: one for each target.
        config: the settings.
        rules: the rules that run.
        known: all rules that exist, also those switched off; suppressions may name them.
        entries: the baseline.
        judging: what the rules say about a target, where they may have spoken already; ``judge_all`` without.
        command: how initlint was called, for the report.
        started: ``time.perf_counter()`` at the start of the run.

    Raises:
        UsageError: the severity table or the per-layer ignores name a rule that does not exist.
    """
    results = list(results)
    known = rules if known is None else known
    severities = selection.resolve(config.severity, known)
    judging = judging or (lambda result: judge_all(result, config, rules))
    judged = [model for result in results for model in judging(result)]
    # By place, not in the order of the command line: the joined reports of shards are then those of one run.
    judged.sort(key=lambda model: _model_order(model.report.facts))
    found = absorb((finding for model in judged for finding in model.findings), {rule.code: rule for rule in known})
    found = [replace(f, severity=severities.get(f.code, f.severity)) for f in found]
    found = baseline.with_fingerprints(sorted(found, key=_order), _base(config))
    active, silenced = _ignore_layers(found, config, known)
    active, by_comment, tool = _apply_comments(active, results, rules, known)
    tool = [replace(f, severity=severities.get(f.code, f.severity)) for f in tool]
    active = [*active, *baseline.with_fingerprints(sorted(tool, key=_order), _base(config))]
    active, by_baseline = baseline.apply(active, entries)
    targets = {model.report.facts.target for model in judged}
    return Run(
        models=tuple(model.report for model in judged),
        findings=tuple(sorted(active, key=_order)),
        suppressed=tuple(sorted([*silenced, *by_comment, *by_baseline], key=_order)),
        not_analysed=tuple(sorted((e for result in results for e in result.not_analysed), key=_model_order)),
        seed=config.seed,
        seconds=0.0 if started is None else time.perf_counter() - started,
        fail_on=config.fail_on,
        version=__version__,
        torch=next((model.report.facts.torch for model in judged if model.report.facts.torch), ""),
        python=platform.python_version(),
        command=command,
        notes=() if judged or any(result.not_analysed for result in results) else ("no models found",),
        baseline_stale=len(baseline.stale([*found, *tool], entries, targets)),
        severities={s.label: sum(f.severity is s for f in active) for s in reversed(Severity)},
        unanalysed=_unanalysed(results),
    )


def exit_code(run: Run, *, strict: bool = False, exit_zero: bool = False, allow_unanalysed: bool = False) -> int:
    """2 for trouble, else 1 with findings at or above ``fail_on``, else 0.

    Args:
        strict: 1 also with anything undetermined, or seen only in part.
    """
    if any(finding.code == FAILED_RULE[0] for finding in run.findings):
        return 2
    if run.unanalysed and not allow_unanalysed:
        return 2
    if exit_zero:
        return 0
    if run.fail_on is not None and any(finding.severity >= run.fail_on for finding in run.findings):
        return 1
    undetermined = any(model.undetermined or model.facts.status != "analysed" for model in run.models)
    unread = any(not entry.harmless for entry in run.not_analysed) and not allow_unanalysed
    return 1 if strict and (undetermined or unread) else 0


def _unanalysed(results: Sequence[Analysis]) -> tuple[str, ...]:
    """The targets of the command line that failed: a named model, or a file or folder none of whose models could be."""
    targets: dict[str, list[Analysis]] = {}
    for result in results:
        targets.setdefault(result.target, []).append(result)
    return tuple(target for target, parts in targets.items() if _is_trouble(parts))


def _is_trouble(parts: Sequence[Analysis]) -> bool:
    failed = [entry for part in parts for entry in part.not_analysed if not entry.harmless]
    models = [facts for part in parts for facts in part.models if facts.status != "failed"]
    unbuilt = any(facts.status == "failed" for part in parts for facts in part.models)
    return any(entry.named for entry in failed) or (not models and (bool(failed) or unbuilt))


# -- rules ---------------------------------------------------------------------------------------


def judge_all(
    result: Analysis, config: Config, rules: Sequence[Rule], verdicts: Verdicts | None = None
) -> Sequence[Judged]:
    """All models of a target: from what is kept where the facts, settings and rules are the same, else by the rules."""
    if verdicts is None or not result.digest:
        return [judge(facts, config, rules, cached=result.cached) for facts in result.models]
    kept = verdicts.get(result.digest, config.settings, rules)
    if kept is not None and len(kept) == len(result.models):
        return [_judged_before(facts, was, result.cached) for facts, was in zip(result.models, kept, strict=True)]
    judged = [judge(facts, config, rules, cached=result.cached) for facts in result.models]
    if not any(finding.code == FAILED_RULE[0] for model in judged for finding in model.findings):
        verdicts.put(result.digest, config.settings, rules, [_verdict(model) for model in judged])
    return judged


def _verdict(model: Judged) -> Verdict:
    from initlint.verdicts import Verdict

    report = model.report
    return Verdict(model.findings, report.rows, report.undetermined, report.init_loss, report.profile)


def _judged_before(facts: ModelFacts, was: Verdict, cached: bool) -> Judged:
    report = ModelReport(facts, was.rows, was.undetermined, was.init_loss, was.profile, cached)
    return Judged(report, was.findings)


def judge(facts: ModelFacts, config: Config, rules: Sequence[Rule], *, cached: bool = False) -> Judged:
    """Run the rules on one model; nothing that a rule raises gets out."""
    context = Context(facts, config.settings)
    findings: list[Finding] = []
    undetermined: list[Undetermined] = []
    failures: dict[str, list[str]] = {}
    for rule in rules:
        if rule.by_engine:
            continue
        try:
            for outcome in rule.check(context):
                if isinstance(outcome, Finding):
                    findings.append(_complete(outcome, rule, facts))
                elif isinstance(outcome, Undetermined):
                    undetermined.append(outcome)
                else:
                    raise TypeError(f"check() yielded a {type(outcome).__name__}, neither Finding nor Undetermined")
        except Exception as error:  # a rule may be anybody's code
            failures.setdefault(_trace(error), []).append(rule.code)
    findings += [_failed(facts, codes, trace) for trace, codes in failures.items()]
    return Judged(_report(context, findings, tuple(dict.fromkeys(undetermined)), cached), tuple(findings))


def _complete(finding: Finding, rule: Rule, facts: ModelFacts) -> Finding:
    """Hold the finding to the rule's ceiling, and give it a place: at least the line of the model."""
    site = finding.site or (Site(facts.file, facts.line) if facts.line else None)
    return replace(finding, severity=min(finding.severity, rule.severity), site=site)


def _failed(facts: ModelFacts, codes: Sequence[str], trace: str) -> Finding:
    code, name, severity = FAILED_RULE
    some = ", ".join(codes[:5]) + (f" and {len(codes) - 5} more" if len(codes) > 5 else "")
    return Finding(
        code=code,
        name=name,
        severity=severity,
        message=f"{some} could not be checked: {trace}",
        model=facts.target,
        site=Site(facts.file, facts.line) if facts.line else None,
        topic="tool",
        why="The rule itself failed on this model. Please report it; until then, --ignore the rule.",
    )


def _trace(error: Exception) -> str:
    """The error and the innermost place it came from, in one line."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def _report(
    context: Context, findings: Sequence[Finding], undetermined: tuple[Undetermined, ...], cached: bool
) -> ModelReport:
    signal = _signal(context)
    return ModelReport(
        facts=context.facts,
        rows=_rows(context.facts, signal, findings),
        undetermined=undetermined,
        init_loss=None if signal is None else _plain_mapping(signal.init_loss),
        profile=() if signal is None else tuple(_plain_mapping(point) or {} for point in signal.profile),
        cached=cached,
    )


def _signal(context: Context) -> Signal | None:
    if not context.facts.nodes:
        return None
    try:
        return context.actual
    except Exception:  # the rules that needed it have said so
        return None


def _rows(facts: ModelFacts, signal: Signal | None, findings: Sequence[Finding]) -> tuple[LayerRow, ...]:
    from initlint.table import layer_rows

    return layer_rows(facts, signal, findings)


def _plain_mapping(value: Any) -> Mapping[str, Any] | None:
    import dataclasses

    if value is None or isinstance(value, Mapping):
        return value
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


# -- policy --------------------------------------------------------------------------------------


def _order(finding: Finding) -> tuple[str, int, int, str, str, tuple[str, ...]]:
    site = finding.site
    place = (site.file, site.line, site.column or 0) if site else ("", 0, 0)
    return (*place, finding.code, finding.model, finding.parameters)


def _model_order(entry: ModelFacts | NotAnalysed) -> tuple[str, int, str]:
    return (entry.file, entry.line or 0, entry.target)


def _base(config: Config) -> str:
    """The working directory as seen from the project's root: fingerprints do not depend on where initlint starts."""
    try:
        return os.path.relpath(Path.cwd(), config.root)
    except ValueError:  # another drive
        return ""


def _ignore_layers(
    findings: Sequence[Finding], config: Config, known: Sequence[Rule]
) -> tuple[list[Finding], list[Finding]]:
    """Take out the findings all of whose layers the configuration exempts."""
    exempt = [
        (glob, {rule.code for selector in selectors for rule, _ in selection.matching(selector, known)})
        for glob, selectors in config.per_layer_ignores.items()
    ]
    active, silenced = [], []
    for finding in findings:
        names = finding.layers or finding.parameters
        globs = [glob for glob, codes in exempt if finding.code in codes]
        if names and globs and all(any(fnmatch.fnmatchcase(name, glob) for glob in globs) for name in names):
            silenced.append(replace(finding, suppressed="configuration"))
        else:
            active.append(finding)
    return active, silenced


def _apply_comments(
    findings: Sequence[Finding], results: Sequence[Analysis], rules: Sequence[Rule], known: Sequence[Rule]
) -> tuple[list[Finding], list[Finding], list[Finding]]:
    """Findings that stay, findings that a comment silences, and what is to be said about the comments."""
    models = [facts for result in results for facts in result.models]
    by_target = {facts.target: facts for facts in models}
    places = suppressions.Places(models)
    comments, malformed = suppressions.read(places.files, Path.cwd())
    codes, unknown = suppressions.resolve(comments, known)
    used: set[suppressions.Suppression] = set()
    active, silenced = [], []
    for finding in findings:
        matching = [c for c in comments if finding.code in codes[c.selector]]
        hits = suppressions.hits(finding, by_target.get(finding.model), matching) if matching else None
        used.update(hits.used if hits else ())
        if hits and hits.complete:
            silenced.append(replace(finding, suppressed="comment"))
        else:
            active.append(finding)
    enabled = {rule.code for rule in rules}
    tool: list[Finding] = []
    if UNUSED_SUPPRESSION[0] in enabled:
        whole = _whole_files(results)
        for comment in comments:
            live = codes[comment.selector] & enabled
            if comment not in used and live and (comment.file in whole or places.knows(comment)):
                message = f"`{comment.selector}` silences nothing here"
                tool.append(_comment_finding(UNUSED_SUPPRESSION, comment, message, models))
    if INVALID_SUPPRESSION[0] in enabled:
        for problem in (*malformed, *unknown):
            tool.append(_comment_finding(INVALID_SUPPRESSION, problem, problem.problem, models))
    return active, silenced, tool


def _whole_files(results: Sequence[Analysis]) -> set[str]:
    """The files of which every candidate was analysed, so that a comment without effect is known to be idle."""
    checked = {facts.file for result in results if result.whole_file for facts in result.models}
    return checked - {entry.file for result in results for entry in result.not_analysed if not entry.harmless}


def _comment_finding(
    kind: tuple[str, str, Severity], place: suppressions.Entry, message: str, models: Sequence[ModelFacts]
) -> Finding:
    code, name, severity = kind
    model = next((facts.target for facts in models if facts.file == place.file), place.file)
    site = Site(place.file, place.line, place.column)
    return Finding(code, name, severity, message, model, site, topic="tool")
