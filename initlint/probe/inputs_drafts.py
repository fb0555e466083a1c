"""Calls that a library's conventions suggest and that failed: as guesses, so that they can be mended like others."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from initlint.probe.inputs_arguments import Argument, needed, optional
from initlint.probe.inputs_failed import Assignment, Failed
from initlint.probe.inputs_wants import Guess

#: Tensors that stand for a guess as long as it is left as it is: grids and token ids cannot be made from their sizes.
Given = dict[tuple[str, Guess], torch.Tensor]

# Kinds of floating-point tensors by their number of axes; two or three hold positions on axis 1.
_KINDS = {2: "tokens", 3: "tokens", 4: "image"}
#: Failed calls that are mended: those that got furthest.
_DRAFTS = 3


def noted(kwargs: Mapping[str, Any], given: Given) -> Assignment:
    """A call as guesses; its tensors are kept in ``given``."""
    found: Assignment = {}
    for name, value in kwargs.items():
        if isinstance(value, torch.Tensor):
            found[name] = noted_tensor(name, value, given)
        elif value is None or isinstance(value, bool):
            found[name] = Guess("scalar", (), fill=str(value))
    return found


def noted_tensor(name: str, value: torch.Tensor, given: Given) -> Guess:
    """A tensor as a guess that stands for it."""
    shape = tuple(value.shape)
    if value.dtype.is_floating_point:
        guess = Guess(_KINDS.get(len(shape), "other"), shape, value.dtype)
    elif value.dtype == torch.bool or "mask" in name:
        guess = Guess("mask", shape, value.dtype, fill="ones")
    else:
        guess = Guess("ids" if len(shape) == 2 else "other", shape, value.dtype, int(value.max()) + 1)
    given[name, guess] = value
    return guess


def takes(model: nn.Module, kwargs: Mapping[str, Any]) -> bool:
    """Whether a forward has arguments of these names, and not only room for any."""
    return kwargs.keys() <= inspect.signature(model.forward).parameters.keys()


def furthest(failed: Iterable[Failed]) -> list[Failed]:
    """The failed calls that reached most."""
    return sorted(failed, key=lambda f: -len(f.graph.nodes))[:_DRAFTS]


def all_arguments(model: nn.Module, drafts: Sequence[Failed], others: Iterable[str] = ()) -> list[Argument]:
    """Arguments that a call may have: those that are needed, in order, then those with a default."""
    found = needed(model)
    names = {a.name for a in found}
    found += [a for a in optional(model) if a.name not in names]
    names.update(a.name for a in found)
    rest = dict.fromkeys(n for n in (*(n for failed in drafts for n in failed.guesses), *others) if n not in names)
    return [*found, *(Argument(name, True, "") for name in rest)]
