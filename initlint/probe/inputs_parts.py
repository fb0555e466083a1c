"""A model that cannot be called as a whole is called part by part: each child with inputs of its own."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from initlint.errors import ProbeError
from initlint.probe.entrance import has_forward
from initlint.probe.inputs import Inputs, describe
from initlint.probe.inputs_infer import infer
from initlint.records import dataclass

# Seconds of this process for all parts together, and for one of them.
_BUDGET = 10.0
_PART = 3.0
# A part that cannot be called either is taken apart itself: encoders in a list of a container are three levels down.
_DEEP = 3
# Samples for all parts alike: what two or more outputs have in common has to be told from chance.
_SAMPLES = 4


@dataclass(frozen=True, slots=True)
class Part:
    """A child that can be called, or a method of the model: its path, the names of its positional arguments, values."""

    path: str
    call: Callable[..., Any]
    positional: tuple[str, ...]
    values: Mapping[str, Any]


def parts_of(model: nn.Module, seed: int, unseen: Collection[str] | None = None) -> list[Part]:
    """The children for which inputs were found, each with these; of others their own children.

    Args:
        unseen: names of parameters; only children that hold no others are called.
    """
    until = time.process_time() + _BUDGET
    wanted = {id(p) for name, p in model.named_parameters() if unseen is None or name in unseen}
    return list(_parts(model, "", seed, until, _DEEP, wanted))


def _parts(model: nn.Module, path: str, seed: int, until: float, deep: int, wanted: set[int]) -> Iterator[Part]:
    for name, child in model.named_children():
        if time.process_time() > until:
            return
        held = {id(p) for p in child.parameters()}
        if not held & wanted:
            continue
        here = f"{path}.{name}" if path else name
        part = _part(child, here, seed) if has_forward(child) and held <= wanted else None
        if part is not None:
            yield part
        elif deep > 1:
            yield from _parts(child, here, seed, until, deep - 1, wanted)


def method(name: str, call: Callable[..., Any], given: Inputs) -> Part:
    """A method of the model as its part, with the inputs that were found for it."""
    return Part(name, call, *_values(call, given.args, given.kwargs))


def _part(module: nn.Module, path: str, seed: int) -> Part | None:
    try:
        found = infer(module, seed=seed, budget=_PART, samples=_SAMPLES)
    except ProbeError:
        return None
    if found.notes or not found.training:
        return None  # it did not run to its end, or not in train mode, in which all parts are run
    return Part(path, module, *_values(module.forward, found.args, found.kwargs))


def _values(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[tuple[str, ...], Mapping[str, Any]]:
    """Names of the positional arguments, and all arguments by name."""
    names = [f"{index}" for index in range(len(args))]
    for index, parameter in enumerate(inspect.signature(function).parameters.values()):
        if index < len(names) and parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
            names[index] = parameter.name
    return tuple(names), {**dict(zip(names, args, strict=True)), **kwargs}


@contextmanager
def through_parts(model: nn.Module, parts: list[Part]) -> Iterator[Inputs]:
    """While active, calling the model calls its parts one by one, with the inputs that are handed out here."""
    before = vars(model).get("forward")
    vars(model)["forward"] = _forward(parts)
    try:
        yield describe(model, (), {part.path: dict(part.values) for part in parts}, "inferred")
    finally:
        vars(model).pop("forward")
        if before is not None:
            vars(model)["forward"] = before


def _forward(parts: list[Part]) -> Callable[..., tuple[Any, ...]]:
    def forward(**given: Any) -> tuple[Any, ...]:
        outputs = []
        for part in parts:
            values = dict(given[part.path])
            args = [values.pop(name) for name in part.positional]
            outputs.append(part.call(*args, **values))
        return tuple(outputs)

    return forward
