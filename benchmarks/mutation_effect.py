"""What a mutation really does to a model, measured by running it: the change against the correct model.

The effect is the largest, in log10 of second moments, of

- the outputs' scale,
- their input-dependent part (the variance between samples),
- the gradients of untouched parameters relative to one another (a factor common to all is divided out),

less what four draws of the correct model differ by among themselves in the same measures. It is infinite where numbers are not finite,
and where after three small steps gradients are still exactly zero or units still exactly equal that were not before.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from healthy_models import Case
from torch import Tensor, nn

#: Gradients this many decades below the largest are left out: rounding (a bias before a norm) or a branch that is closed.
ROUNDING = 6.0
#: Second moments below are rounding, or start at zero: no ratio is taken of them.
NOTHING = 1e-12


@dataclass(frozen=True, slots=True)
class Measured:
    """One run, forward and backward: outputs and the log10 energies of the parameters' gradients."""

    outputs: tuple[Tensor, ...]
    energies: dict[str, float]


@dataclass(frozen=True, slots=True)
class Effect:
    """log10 ratios of second moments, beyond chance; ``log10`` is the largest."""

    forward: float = 0.0
    dependent: float = 0.0
    gradient: float = 0.0
    stuck: int = 0  # parameters whose gradients stay zero, or whose units stay equal, that were free before

    @property
    def log10(self) -> float:
        return math.inf if self.stuck else max(self.forward, self.dependent, self.gradient)


class Reference:
    """The correct model, measured once for all its mutations."""

    def __init__(self, case: Case, seed: int) -> None:
        self.case, self.seed = case, seed
        torch.manual_seed(seed)
        self.inputs = case.inputs()
        self.draws = [measured(built(case.build, seed + k), self.inputs) for k in range(4)]
        self.stuck = stuck(built(case.build, seed), self.inputs)

    def effect(self, mutated: Callable[[], nn.Module], touched: Sequence[str]) -> Effect:
        """The effect of a mutation of these parameters."""
        wrong = measured(built(mutated, self.seed), self.inputs)
        change = _change(self.draws[0], wrong, touched)
        chance = [_change(a, b, touched) for a, b in itertools.combinations(self.draws, 2)]
        beyond = [max(value - max(c[i] for c in chance), 0.0) for i, value in enumerate(change)]
        more = stuck(built(mutated, self.seed), self.inputs) - self.stuck
        return Effect(*beyond, stuck=len(more))


def built(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A model from one seed."""
    torch.manual_seed(seed)
    return build()


def measured(model: nn.Module, inputs: tuple[Any, ...], seed: int = 0) -> Measured:
    """Run forward and backward from a random unit-variance gradient at the outputs."""
    torch.manual_seed(seed)
    outputs = _flat(model(*inputs))
    model.zero_grad()
    generator = torch.Generator().manual_seed(7)
    live = [out for out in outputs if out.requires_grad]
    if live:
        torch.autograd.backward(live, [torch.randn(out.shape, generator=generator) for out in live])
    return Measured(tuple(out.detach() for out in outputs), _energies(model))


def stuck(model: nn.Module, inputs: tuple[Any, ...]) -> set[str]:
    """Parameters whose gradient is still exactly zero, or whose units are still equal, after three small steps."""
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for step in range(3):
        measured(model, inputs, step)
        nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 1.0)
        optimiser.step()
    energies = measured(model, inputs, 3).energies
    found = {name for name, energy in energies.items() if energy == -math.inf or math.isnan(energy)}
    for name, p in model.named_parameters():
        rows = p.detach().flatten(1) if p.dim() > 1 else None
        if rows is not None and len(rows) > 1 and rows.shape[1] > 1 and bool((rows == rows[:1]).all()):
            found.add(name)
    return found


def _flat(value: Any) -> list[Tensor]:
    """All float tensors in an output."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    values = value.values() if isinstance(value, dict) else value
    return [t for item in values for t in _flat(item)]


def _energies(model: nn.Module) -> dict[str, float]:
    """log10 of the mean square of each parameter's gradient; -inf where it is exactly zero."""
    found = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            mean = float(p.grad.double().pow(2).mean()) if p.grad is not None else 0.0
            found[name] = math.log10(mean) if mean > 0 else -math.inf if mean == 0 else math.nan
    return found


def _change(before: Measured, after: Measured, touched: Sequence[str]) -> tuple[float, float, float]:
    """The changes of the outputs' scale, of their input-dependent part, and of gradients."""
    whole = between = 0.0
    for a, b in zip(before.outputs, after.outputs, strict=True):
        if not bool(torch.isfinite(b).all()):
            return math.inf, math.inf, math.inf
        whole = max(whole, _ratio(a.double().pow(2).mean(), b.double().pow(2).mean()))
        if len(a) > 1:
            between = max(between, _ratio(a.double().var(0).mean(), b.double().var(0).mean()))
    return whole, between, _gradients(before.energies, after.energies, touched)


def _ratio(before: Tensor, after: Tensor) -> float:
    if float(before) <= NOTHING:
        return 0.0
    return abs(math.log10(float(after) / float(before))) if float(after) > 0 else math.inf


def _gradients(before: dict[str, float], after: dict[str, float], touched: Sequence[str]) -> float:
    """Largest change of the energies of gradients of untouched layers, a common factor divided out.

    The other parameters of a touched layer are left out: where a norm follows they change and nothing else does.
    """
    layers = {name.rpartition(".")[0] for name in touched}
    top = max(before.values(), default=0.0)
    shared = [n for n in before if n in after and n.rpartition(".")[0] not in layers and before[n] > top - ROUNDING]
    changes = sorted(after[n] - before[n] for n in shared if math.isfinite(after[n]))
    if len(changes) < 2:
        return 0.0
    middle = changes[len(changes) // 2]
    return max(changes[-1] - middle, middle - changes[0])
