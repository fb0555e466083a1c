"""Inputs to run a model with: the file's ``example_inputs()``, specified, or inferred by trying."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from initlint.errors import ProbeError
from initlint.facts import InputFacts
from initlint.probe.inputs_spec import build, parse
from initlint.probe.recorded_state import seeded
from initlint.probe.traced import argument_names, batch_of, dtype_name, tensors_in
from initlint.records import dataclass

if TYPE_CHECKING:
    from initlint.probe.inputs_calls import Calls


@dataclass(frozen=True, slots=True)
class Inputs:
    """Arguments of a forward: what to call it with and where the values come from."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    facts: tuple[InputFacts, ...] = ()
    batch: int | None = None  # size of axis 0 that all inputs share: the number of samples
    notes: tuple[str, ...] = ()
    recording: Any = None  # the ``Recorder`` of the attempt that passed (under ``seed``), when inferred
    training: bool = True  # mode of that attempt
    estimating: bool = True  # whether its norms took statistics of the batch (see ``set_mode``)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to run the model with."""
        return not self.args and not self.kwargs


def no_inputs(*notes: str) -> Inputs:
    """Inputs of a model that cannot be run; the notes say why."""
    return Inputs(notes=notes)


def find(
    model: nn.Module,
    namespace: Mapping[str, Any] | None = None,
    specs: Sequence[str] = (),
    *,
    seed: int = 0,
    budget: float = 5.0,
    origin: str = "--input",
    calls: Calls | None = None,
) -> Inputs:
    """Find inputs for a model: ``specs`` first, then the file's ``example_inputs()``, then by trying.

    Values are standard normal for floats and mostly distinct random indices for integers. The
    model's buffers, modes and the random state are as before afterwards.

    Args:
        namespace: globals of the file that defines the model.
        specs: texts such as ``"x: float32[1,3,32,32]"`` or ``"ids: int64[1,16]<50257"``.
        seed: of the values.
        budget: seconds for trying.
        origin: where ``specs`` come from, for the report: "--input" | "configuration".
        calls: where the repository itself calls the model: tried first, with few samples.

    Raises:
        ProbeError: ``example_inputs()`` fails, a spec is malformed, or no candidate gets anywhere;
            the hint says what to give. When the best candidate reaches some layers before it
            fails, it is returned with a note.
    """
    if specs:
        return _specified(model, specs, seed, origin)
    example = (namespace or {}).get("example_inputs")
    if callable(example):
        return _example(model, example, seed)
    from initlint.probe.inputs_infer import infer  # the search is needed only here

    found = infer(model, seed=seed, budget=budget, calls=calls)
    given = describe(model, found.args, found.kwargs, found.origin)
    return replace(
        given, notes=found.notes, recording=found.recording, training=found.training, estimating=found.estimating
    )


def _specified(model: nn.Module, specs: Sequence[str], seed: int, origin: str) -> Inputs:
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    with seeded(seed):
        for spec in parse(specs):
            value = build(spec, model)
            if spec.name:
                kwargs[spec.name] = value
            else:
                args.append(value)
    return describe(model, tuple(args), kwargs, origin)


def _example(model: nn.Module, example: Any, seed: int) -> Inputs:
    try:
        with seeded(seed):
            given = example()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ProbeError(f"example_inputs() fails: {reason}", "make it return a tuple of tensors") from error
    if isinstance(given, Mapping):
        return describe(model, (), dict(given), "example_inputs")
    if not isinstance(given, (tuple, list)):
        return describe(model, (given,), {}, "example_inputs")
    if len(given) == 2 and isinstance(given[0], (tuple, list)) and isinstance(given[1], Mapping):
        return describe(model, tuple(given[0]), dict(given[1]), "example_inputs")
    return describe(model, tuple(given), {}, "example_inputs")


def describe(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], origin: str) -> Inputs:
    """Inputs with their facts; the number of samples is the size of axis 0 when all tensors share it."""
    names = argument_names(model, args, kwargs)
    tensors = list(tensors_in((args, kwargs)))
    facts = tuple(_fact(n, t, origin) for n, t in zip(names, tensors, strict=True))
    return Inputs(args, kwargs, facts, batch_of(tensors))


def _fact(name: str, tensor: torch.Tensor, origin: str) -> InputFacts:
    high = None
    if not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype != torch.bool and tensor.numel():
        high = int(tensor.max()) + 1 if tensor.device.type != "meta" else None
    return InputFacts(name, dtype_name(tensor.dtype), tuple(tensor.shape), origin, high)
