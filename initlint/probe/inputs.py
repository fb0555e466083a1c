"""Inputs to run a model with: given, specified, or inferred."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from initlint.errors import ProbeError
from initlint.facts import InputFacts


@dataclass(frozen=True, slots=True)
class Inputs:
    """Arguments of a forward: what to call it with and where the values come from."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    facts: tuple[InputFacts, ...] = ()
    batch: int | None = None  # size of axis 0 that all inputs share: the number of samples
    notes: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to run the model with."""
        return not self.args and not self.kwargs


def no_inputs(*notes: str) -> Inputs:
    """Inputs of a model that cannot be run."""
    return Inputs(notes=notes)


def find(
    model: nn.Module,
    namespace: Mapping[str, Any] | None = None,
    specs: Sequence[str] = (),
    *,
    seed: int = 0,
    budget: float = 5.0,
) -> Inputs:
    example = (namespace or {}).get("example_inputs")
    if callable(example):
        from initlint.probe.recorded_state import seeded
        with seeded(seed):
            given = example()
        import torch
        if isinstance(given, torch.Tensor):
            given = (given,)
        if len(given) == 2 and isinstance(given[0], tuple) and isinstance(given[1], dict):
            args, kwargs = given
        else:
            args, kwargs = given, {}
        from initlint.probe.traced import tensors_in
        sizes = {t.shape[0] for t in tensors_in((tuple(args), dict(kwargs))) if t.dim()}
        return Inputs(tuple(args), kwargs, batch=sizes.pop() if len(sizes) == 1 else None)
    raise ProbeError("no example_inputs")
