"""How many programmed initialisation mistakes are found, by kind and by family of models, against what they really do.

    python benchmarks/mutations.py measure DIR [--seconds 540] [--only "variance as std"] [--seed 0]
    python benchmarks/mutations.py judge DIR [--page FILE] [--list]

``measure`` applies each mutation (``mutate``) to each correct model (``healthy_models``) in code that the recorder sees,
and keeps the facts beside the measured effect (``mutation_effect``), one file for each pair; pairs that are there are
left alone, so that it can be stopped and started again. ``judge`` runs the rules on what is kept.

A mutation is worth finding where its effect is a factor 2 or more of a second moment. It is found where a finding names
a parameter that was touched and the correct model has no such finding of this severity; at any severity (note), or at
warning or above.

Some mutations without evidence end in another scheme of the field: He's layers divided by four are at N(0, 0.02), N(0,
0.02) times four is PyTorch's default. What suits a layer is a set, so that this is no mistake; it is counted apart.
"""

from __future__ import annotations

import argparse
import math
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from healthy_models import HEALTHY
from mutate import MUTATIONS, recognised
from mutation_effect import Effect, Reference, built
from torch import nn

from initlint import engine, packs, selection
from initlint.config import Config
from initlint.facts import ModelFacts
from initlint.findings import Finding, Severity
from initlint.options import ProbeOptions

#: An effect worth a word: a factor 2 of a second moment (the severity table's first step).
WORTH = math.log10(2)
#: The file of a model as it is.
PLAIN = "as it is"


@dataclass(frozen=True, slots=True)
class Kept:
    """A mutated model as ``measure`` leaves it; no facts where the mutation touches nothing."""

    touched: tuple[str, ...]
    effect: Effect
    facts: ModelFacts | None
    recognised: bool = False  # the mutation made another scheme of it, see ``mutate.recognised``


@dataclass(frozen=True, slots=True)
class Trial:
    """One mutation of one model, judged."""

    mutation: str
    model: str
    effect: Effect
    found: tuple[Finding, ...]  # new findings that name a touched parameter
    elsewhere: tuple[Finding, ...]  # new ones at warning or above that name none
    recognised: bool

    @property
    def severity(self) -> Severity | None:
        return max((f.severity for f in self.found), default=None)

    @property
    def worth(self) -> bool:
        return self.effect.log10 >= WORTH

    @property
    def loud(self) -> bool:
        return self.severity is not None and self.severity >= Severity.WARNING


# -- measuring -----------------------------------------------------------------------------------


def measure(folder: Path, seed: int, only: str, seconds: float) -> bool:
    """Measure what is missing; False when the time is up before the end."""
    started = time.perf_counter()
    for model, case in HEALTHY.items():
        missing = [name for name in (PLAIN, *MUTATIONS) if only in name and not _file(folder, model, name).exists()]
        reference = Reference(case, seed) if missing else None
        for name in missing:
            if time.perf_counter() - started > seconds:
                return False
            assert reference is not None
            kept = _measured(reference, model, name)
            _file(folder, model, name).parent.mkdir(parents=True, exist_ok=True)
            _file(folder, model, name).write_bytes(pickle.dumps(kept))
    return True


def _file(folder: Path, model: str, mutation: str) -> Path:
    return folder / model / f"{mutation.replace('/', 'div ')}.pickle"


def _measured(reference: Reference, model: str, name: str) -> Kept:
    from initlint.probe import pipeline

    case, options = reference.case, ProbeOptions(seed=reference.seed)
    if name == PLAIN:
        return Kept((), Effect(), pipeline.analyse(case.build, name=model, options=options, inputs=reference.inputs))
    apply = MUTATIONS[name].apply
    torch.manual_seed(reference.seed)
    touched = apply(case.build())
    if not touched:
        return Kept((), Effect(), None)

    def mutated() -> nn.Module:
        net = case.build()
        apply(net)
        return net

    effect = reference.effect(mutated, touched)
    facts = pipeline.analyse(mutated, name=model, options=options, inputs=reference.inputs)
    return Kept(tuple(touched), effect, facts, recognised(built(mutated, reference.seed), touched))


# -- judging -------------------------------------------------------------------------------------


def judged(folder: Path) -> tuple[list[Trial], dict[str, tuple[Finding, ...]]]:
    """All that was measured, by the rules as they are now; and the findings on the models as they are."""
    judge = _judge()
    plain, trials = {}, []
    for model in HEALTHY:
        if not _file(folder, model, PLAIN).exists():
            continue
        plain[model] = judge(_load(folder, model, PLAIN).facts)
        for mutation in MUTATIONS:
            kept = _load(folder, model, mutation) if _file(folder, model, mutation).exists() else None
            if kept is not None and kept.facts is not None:
                trials.append(_trial(mutation, model, kept, judge(kept.facts), plain[model]))
    return trials, plain


def _judge() -> Callable[[ModelFacts | None], tuple[Finding, ...]]:
    config = Config()
    known = packs.load(config.rule_packs)
    rules = selection.choose(known, (config.selectors,))

    def judge(facts: ModelFacts | None) -> tuple[Finding, ...]:
        assert facts is not None
        analysis = engine.Analysis(target=facts.target, models=(facts,))
        return engine.run([analysis], config, rules, known=known).findings

    return judge


def _load(folder: Path, model: str, mutation: str) -> Kept:
    return pickle.loads(_file(folder, model, mutation).read_bytes())


def _trial(mutation: str, model: str, kept: Kept, findings: Sequence[Finding], before: Sequence[Finding]) -> Trial:
    assert kept.facts is not None
    names = {n: {p.name, *p.aliases} for p in kept.facts.parameters for n in (p.name, *p.aliases)}
    touched = set().union(*(names.get(name, {name}) for name in kept.touched))
    new = [f for f in findings if not any(_same(f, old, touched) for old in before)]
    about = tuple(f for f in new if touched.intersection(f.parameters))
    elsewhere = tuple(f for f in new if f not in about and f.severity >= Severity.WARNING)
    return Trial(mutation, model, kept.effect, about, elsewhere, kept.recognised)


def _same(finding: Finding, old: Finding, touched: set[str]) -> bool:
    """Whether the correct model has this finding, too: the same code, line and touched parameters, as severe."""
    if finding.code != old.code or finding.severity > old.severity or finding.site != old.site:
        return False
    return touched.intersection(finding.parameters) <= set(old.parameters)


# -- the tables ----------------------------------------------------------------------------------


def rows(title: str, groups: Mapping[str, Sequence[Trial]]) -> Iterator[str]:
    """A table in Markdown: applied, effect of 2 or more, of these found at any severity and at warning or above."""
    yield f"| {title} | applied | effect >= 2 | found | at warning or above | effect < 2 | found | at warning or above |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, trials in groups.items():
        strong, weak = [t for t in trials if t.worth], [t for t in trials if not t.worth]
        cells = [len(trials)]
        for part in (strong, weak):
            cells += [len(part), sum(t.severity is not None for t in part), sum(t.loud for t in part)]
        yield f"| {name} | {' | '.join(map(str, cells))} |"


def codes(trials: Sequence[Trial]) -> Iterator[str]:
    """Which rules speak, by mutation."""
    yield "| mutation | loudest finding that names what was touched |"
    yield "|---|---|"
    for mutation in dict.fromkeys(t.mutation for t in trials):
        counts: dict[str, int] = {}
        for t in trials:
            if t.mutation == mutation and t.found:
                loudest = max(t.found, key=lambda f: f.severity)
                key = f"{loudest.code} {loudest.severity.label}"
                counts[key] = counts.get(key, 0) + 1
        said = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        yield f"| {mutation} | {', '.join(f'{key}: {count}' for key, count in said) or 'nothing'} |"


def page(trials: Sequence[Trial], plain: Mapping[str, Sequence[Finding]]) -> str:
    """All tables."""

    def by(key: Callable[[Trial], str]) -> dict[str, list[Trial]]:
        return {name: [t for t in trials if key(t) == name] for name in dict.fromkeys(map(key, trials))}

    def kind(trial: Trial) -> str:
        if MUTATIONS[trial.mutation].evidence:
            return "the record or the structure shows the mistake"
        return "mere distance, to another recognised scheme" if trial.recognised else "mere distance, to none"

    mistakes = [t for t in trials if MUTATIONS[t.mutation].evidence or not t.recognised]
    blocks = [
        rows("in all", {"all": trials, "all but other recognised schemes": mistakes, **by(kind)}),
        rows("kind", by(lambda t: MUTATIONS[t.mutation].family)),
        rows("models", by(lambda t: HEALTHY[t.model].family)),
        rows("mutation", by(lambda t: t.mutation)),
        codes(trials),
        _alarms(plain),
    ]
    return "\n\n".join("\n".join(block) for block in blocks)


def _alarms(plain: Mapping[str, Sequence[Finding]]) -> Iterator[str]:
    loud = sum(f.severity >= Severity.WARNING for found in plain.values() for f in found)
    yield f"The {len(plain)} models as they are: {loud} findings at warning or above."
    yield ""
    yield "| model | notes |"
    yield "|---|---|"
    for model, found in plain.items():
        if found:
            yield f"| {model} | {', '.join(f'{f.code} {f.severity.label}' for f in found)} |"


def listed(trials: Sequence[Trial]) -> Iterator[str]:
    """One line for each trial, missed ones marked."""
    for t in trials:
        mark = "MISSED" if t.worth and t.severity is None else "weak" if not t.worth else "ok"
        e = t.effect
        size = f"1e{e.log10:.1f} (f {e.forward:.1f} d {e.dependent:.1f} g {e.gradient:.1f} stuck {e.stuck})"
        said = " ".join(f"{f.code}/{f.severity.label}" for f in t.found)
        other = " ".join(f"{f.code}/{f.severity.label}" for f in t.elsewhere)
        yield f"{mark:6s} {t.mutation} / {t.model}: {size} [{said}]{f' elsewhere [{other}]' if other else ''}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("measure", "judge"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="mutations whose name contains this")
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop measuring after this time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", type=Path, help="write the tables into this file, too")
    parser.add_argument("--list", action="store_true", help="each trial")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.action == "measure":
        done = measure(arguments.folder, arguments.seed, arguments.only, arguments.seconds)
        print("all measured" if done else "time is up; start again for the rest")
        return 0 if done else 3
    trials, plain = judged(arguments.folder)
    if arguments.list:
        print("\n".join(listed(trials)))
    tables = page(trials, plain)
    print(tables)
    if arguments.page:
        arguments.page.write_text(tables + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
