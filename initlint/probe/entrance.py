"""Through what a model is called: its forward, or, where it has none, its training step or busiest method."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

from torch import nn

NO_FORWARD = "it has no forward"


def has_forward(model: nn.Module) -> bool:
    """Whether calling the model runs code of its own."""
    return "forward" in vars(model) or type(model).forward is not nn.Module.forward


@contextmanager
def through_training_step(model: nn.Module) -> Iterator[None]:
    """While active, a model without a forward is called through its training step (Lightning's), or else through
    the method of its own that uses most of its parts (agents: ``get_action_and_value``).
    """
    found = None if has_forward(model) else entrance(model)
    if found is None:
        yield
        return
    vars(model)["forward"] = found[1]
    try:
        yield
    finally:
        vars(model).pop("forward", None)


def entrance(model: nn.Module) -> tuple[str, Callable[..., Any]] | None:
    """Name and function through which a model without a forward is called."""
    step = getattr(model, "training_step", None)
    if inspect.ismethod(step):
        return "training_step", _whole_batch(step)
    busiest = _busiest(model)
    return None if busiest is None else (busiest.__name__, busiest)


def _whole_batch(step: Callable[..., Any]) -> Callable[[Any], Any]:
    """A training step as a function of its batch alone."""
    others = {p.name: 0 for p in list(inspect.signature(step).parameters.values())[1:] if p.default is p.empty}

    def forward(batch: Any) -> Any:
        return step(batch, **others)

    return forward


def _busiest(model: nn.Module) -> Callable[..., Any] | None:
    """The public method of the class that takes arguments and mentions most sub-modules; the first of equals."""
    parts = {name for name, _ in model.named_children()}
    best: tuple[int, Callable[..., Any] | None] = (0, None)
    for name, function in vars(type(model)).items():
        if name.startswith("_") or not inspect.isfunction(function) or not _takes_inputs(function):
            continue
        mentioned = len(parts & set(function.__code__.co_names))
        if mentioned > best[0]:
            best = (mentioned, getattr(model, name))
    return best[1]


def _takes_inputs(function: FunctionType) -> bool:
    return any(p.default is p.empty for p in list(inspect.signature(function).parameters.values())[1:])
