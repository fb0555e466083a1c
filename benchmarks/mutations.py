"""How many programmed initialisation mistakes are found, by kind, against the effect that they really have.

    python benchmarks/mutations.py [--models 4] [--only "variance as std"] [--seed 0]

Correct models (``healthy_models``) are mutated in code that the recorder sees. The effect is measured by running the
correct and the mutated model on the same inputs: the largest change of second moments of the outputs (whole, and the
part that depends on the input) and of the gradients of untouched parameters relative to each other, in log10; beyond
what separates draws of the correct model; infinite where gradients stay exactly zero, units stay exactly equal or numbers are not finite. Found: a finding at warning or
above that names a touched parameter.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from healthy_models import HEALTHY, Case
from mutate import MUTATIONS, applicable
from torch import Tensor, nn

import initlint
from initlint.findings import Severity

#: An effect worth a word: a factor 2 of a second moment (the severity table's first step).
WORTH = math.log10(2)
#: Gradients this many decades below the largest are left out: rounding (a bias before a norm) or a branch that is closed.
ROUNDING = 6.0


@dataclass(frozen=True, slots=True)
class Trial:
    """One mutation of one model."""

    mutation: str
    model: str
    effect: float  # log10 of second moments, may be infinite
    severity: Severity | None  # of the loudest finding that names a touched parameter
    elsewhere: bool  # a warning or error that names none
    codes: tuple[str, ...] = field(default=())

    @property
    def found(self) -> bool:
        return self.severity is not None and self.severity >= Severity.WARNING


def flat(value: Any) -> list[Tensor]:
    """All float tensors in an output."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    values = value.values() if isinstance(value, dict) else value
    return [t for item in values for t in flat(item)]


def backward(model: nn.Module, inputs: tuple[Any, ...], seed: int) -> list[Tensor]:
    """Run forward and backward from a random unit-variance gradient at the outputs; returns the outputs."""
    torch.manual_seed(seed)
    outputs = flat(model(*inputs))
    model.zero_grad()
    generator = torch.Generator().manual_seed(7)
    live = [out for out in outputs if out.requires_grad]
    if live:
        torch.autograd.backward(live, [torch.randn(out.shape, generator=generator) for out in live])
    return [out.detach() for out in outputs]


def energies(model: nn.Module) -> dict[str, float]:
    """log10 of the mean square of each parameter's gradient; -inf where it is exactly zero."""
    found = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            mean = float(p.grad.double().pow(2).mean()) if p.grad is not None else 0.0
            found[name] = math.log10(mean) if mean > 0 else -math.inf if mean == 0 else math.nan
    return found


def outputs_change(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Largest log10 ratio of second moments of the outputs, whole and between samples."""
    worst = 0.0
    for a, b in zip(before, after, strict=True):
        if not bool(torch.isfinite(b).all()):
            return math.inf
        pairs = [(a.double().pow(2).mean(), b.double().pow(2).mean())]
        if len(a) > 1:
            pairs.append((a.double().var(0).mean(), b.double().var(0).mean()))
        for x, y in pairs:
            # what is at the level of rounding, or started at zero, has no ratio
            if float(x) > 1e-12:
                worst = max(worst, abs(math.log10(float(y) / float(x))) if float(y) > 0 else math.inf)
    return worst


def gradients_change(before: dict[str, float], after: dict[str, float], touched: Sequence[str]) -> float:
    """Largest change of the energies of gradients of untouched layers, a common factor divided out.

    The other parameters of a touched layer are left out: where a norm follows they change and nothing else does.
    """
    layers = {name.rpartition(".")[0] for name in touched}
    top = max(before.values(), default=0.0)
    shared = [n for n in before if n in after and n.rpartition(".")[0] not in layers and before[n] > top - ROUNDING]
    changes = [after[n] - before[n] for n in shared if math.isfinite(after[n])]
    if len(changes) < 2:
        return 0.0
    ordered = sorted(changes)
    return max(ordered[-1] - ordered[len(ordered) // 2], ordered[len(ordered) // 2] - ordered[0])


def stuck(model: nn.Module, inputs: tuple[Any, ...]) -> set[str]:
    """Parameters whose gradient is still exactly zero, or whose units are still equal, after three small steps."""
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for step in range(3):
        backward(model, inputs, step)
        nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 1.0)
        optimiser.step()
    backward(model, inputs, 3)
    found = {name for name, energy in energies(model).items() if energy == -math.inf or math.isnan(energy)}
    for name, p in model.named_parameters():
        rows = p.detach().flatten(1) if p.dim() > 1 else None
        if rows is not None and len(rows) > 1 and rows.shape[1] > 1 and bool((rows == rows[:1]).all()):
            found.add(name)
    return found


def effect(
    case: Case, mutated: Callable[[], nn.Module], touched: Sequence[str], inputs: tuple[Any, ...], seed: int
) -> float:
    """The measured effect of a mutation, beyond what three draws of the correct model differ by."""
    plain, wrong = built(case.build, seed), built(mutated, seed)
    size = distance(plain, wrong, inputs, touched)
    chance = max(distance(plain, built(case.build, seed + k), inputs, touched) for k in (1, 2))
    if not math.isfinite(size) or stuck(wrong, inputs) - stuck(plain, inputs):
        return math.inf
    return max(size - chance, 0.0)


def built(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A model from one seed."""
    torch.manual_seed(seed)
    return build()


def distance(plain: nn.Module, wrong: nn.Module, inputs: tuple[Any, ...], touched: Sequence[str]) -> float:
    """The larger of the changes of outputs and of gradients."""
    size = outputs_change(backward(plain, inputs, 0), backward(wrong, inputs, 0))
    return max(size, gradients_change(energies(plain), energies(wrong), touched))


def trial(mutation: str, model: str, seed: int) -> Trial:
    """Mutate one model, measure, check."""
    case, apply = HEALTHY[model], MUTATIONS[mutation].apply

    def mutated() -> nn.Module:
        net = case.build()
        apply(net)
        return net

    torch.manual_seed(seed)
    inputs = case.inputs()
    touched = apply(case.build())
    size = effect(case, mutated, touched, inputs, seed)
    run = initlint.check(mutated, inputs=inputs, seed=seed, name=model)
    aliases = {n: {p.name, *p.aliases} for r in run.models for p in r.facts.parameters for n in (p.name, *p.aliases)}
    known = set().union(*(aliases.get(name, {name}) for name in touched))
    about = [f for f in run.findings if known.intersection(f.parameters)]
    loud = [f for f in run.findings if f.severity >= Severity.WARNING]
    severity = max((f.severity for f in about), default=None)
    elsewhere = any(f not in about for f in loud)
    return Trial(mutation, model, size, severity, elsewhere, tuple(sorted({f.code for f in about})))


def line(title: str, trials: Sequence[Trial]) -> str:
    """One row of the table."""
    strong = [t for t in trials if t.effect >= WORTH]
    weak = [t for t in trials if t.effect < WORTH]
    found = sum(t.found for t in trials)
    noted = sum(t.severity is not None for t in trials)
    share = f"{sum(t.found for t in strong)}/{len(strong)}" if strong else "-"
    return (
        f"{title:30s} {found:3d}/{len(trials):<3d} {noted:3d}   {share:>7s}   {sum(t.found for t in weak)}/{len(weak)}"
    )


def report(trials: Sequence[Trial]) -> None:
    """The table: by mutation, by family, in all."""
    print(f"\n{'':30s} found   noted  of >= 2x  of < 2x")
    for name in dict.fromkeys(t.mutation for t in trials):
        print(line(name, [t for t in trials if t.mutation == name]))
    print()
    for family in dict.fromkeys(m.family for m in MUTATIONS.values()):
        chosen = [t for t in trials if MUTATIONS[t.mutation].family == family]
        if chosen:
            print(line(f"family {family}", chosen))
    print(line("mistakes with evidence", [t for t in trials if MUTATIONS[t.mutation].evidence]))
    print(line("mere distance", [t for t in trials if not MUTATIONS[t.mutation].evidence]))
    print(line("all", trials))


def false_alarms(seed: int) -> None:
    """Warnings and errors on the models as they are."""
    count = 0
    for name, case in HEALTHY.items():
        torch.manual_seed(seed)
        run = initlint.check(case.build, inputs=case.inputs(), seed=seed, name=name)
        for finding in run.findings:
            if finding.severity >= Severity.WARNING:
                count += 1
                print(f"FALSE ALARM {name}: {finding.code} {finding.message}")
    print(f"false alarms on {len(HEALTHY)} models as they are: {count}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=4, help="models for each mutation")
    parser.add_argument("--only", default="", help="mutations whose name contains this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-alarms", action="store_true", help="leave the unmutated models out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chance, trials, started = random.Random(arguments.seed), [], time.perf_counter()
    builds = {name: case.build for name, case in HEALTHY.items()}
    for mutation in MUTATIONS:
        if arguments.only not in mutation:
            continue
        usable = applicable(mutation, builds)
        for model in chance.sample(usable, min(arguments.models, len(usable))):
            done = trial(mutation, model, arguments.seed)
            trials.append(done)
            label = done.severity.label if done.severity else "nothing"
            mark = "MISSED " if done.effect >= WORTH and not done.found else ""
            print(
                f"{mark}{mutation} / {model}: effect 1e{done.effect:.1f}, {label} {' '.join(done.codes)}"
                f"{' (elsewhere)' if done.elsewhere else ''}",
                flush=True,
            )
    report(trials)
    if not arguments.no_alarms:
        false_alarms(arguments.seed)
    print(f"{time.perf_counter() - started:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
