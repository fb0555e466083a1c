"""Further builds for ``--thorough``: the same seed twice, and the way large models are made (meta, then reset).

Large models are constructed on the meta device, given memory with ``to_empty``, and initialised by the
modules' own reset functions; what only the constructor wrote is lost on that way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from initlint.facts import ParameterFacts, Rebuild

#: Functions that modules and models have for initialising themselves again; those present are called.
_RESETS = ("reset_parameters", "_reset_parameters")
_WHOLE = ("init_weights", "initialize_weights", "_init_weights", "post_init", "reset_parameters")
#: A standard deviation that differs by more than this factor from the eager build's is another init. Two
#: draws of 1,000 values differ by 2 %; smaller tensors are compared for being constant only.
_FACTOR = 1.2
_ENOUGH = 1000


def rebuild(
    model: nn.Module, again: Callable[[bool], nn.Module], facts: tuple[ParameterFacts, ...]
) -> tuple[Rebuild, ...]:
    """Build again under the same seed, and on meta; ``again(meta)`` constructs. Failures become the reason."""
    return _same_seed(model, again), _meta(again, facts)


def _same_seed(model: nn.Module, again: Callable[[bool], nn.Module]) -> Rebuild:
    try:
        other = dict(_tensors(again(False)))
    except Exception as error:
        return Rebuild("same_seed", reason=_short(error))
    differing = [name for name, tensor in _tensors(model) if name not in other or not _equal(tensor, other[name])]
    return Rebuild("same_seed", differing=tuple(differing))


def _meta(again: Callable[[bool], nn.Module], facts: tuple[ParameterFacts, ...]) -> Rebuild:
    try:
        model = again(True)
        model.to_empty(device="cpu")
        with torch.no_grad():
            for _, tensor in _tensors(model):
                if tensor.is_floating_point():
                    tensor.fill_(float("nan"))
        called, own = _reset(model)
    except Exception as error:
        return Rebuild("meta", reason=_short(error))
    if not called:
        return Rebuild("meta", reason="the model has no reset functions")
    tensors = dict(_tensors(model))
    lost, changed, absent = [], [], torch.empty(0)
    for fact in facts:
        tensor = tensors.get(fact.name, absent)
        if tensor is absent or fact.stats is None or fact.stats.nans or not tensor.is_floating_point():
            continue
        if bool(torch.isnan(tensor).any()):
            lost.append(fact.name)
        elif _unlike(tensor, fact):
            changed.append(fact.name)
    return Rebuild("meta", lost=tuple(lost), changed=tuple(changed), own=own)


def _reset(model: nn.Module) -> tuple[int, bool]:
    """Call each module's reset function, then the model's own initialisation.

    Returns how many there were, and whether any of them is not torch's own.
    """
    called, own = 0, False
    for module in model.modules():
        for name in _RESETS:
            function = getattr(module, name, None)
            if callable(function) and _is_bound_without_arguments(function):
                function()
                called += 1
                own = own or not str(getattr(function, "__module__", "")).startswith("torch.")
                break
    for name in _WHOLE:
        function = getattr(model, name, None)
        if not callable(function) or name in _RESETS:
            continue
        if _is_bound_without_arguments(function):
            function()
        else:
            model.apply(function)
        called, own = called + 1, True
        break
    return called, own


def _is_bound_without_arguments(function: Any) -> bool:
    import inspect

    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    return all(p.default is not p.empty or p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters)


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.is_floating_point():  # uninitialised memory is another finding's
        return bool(torch.equal(torch.nan_to_num(a.detach()), torch.nan_to_num(b.detach())))
    return bool(torch.equal(a.detach(), b.detach()))


def _unlike(tensor: torch.Tensor, fact: ParameterFacts) -> bool:
    """Whether the statistics differ from the eager build's by more than chance."""
    assert fact.stats is not None
    values = tensor.detach().double()
    var = float(values.var(correction=0)) if values.numel() > 1 else 0.0
    if (var == 0) != (fact.stats.var == 0):
        return True
    if var == 0:
        return float(values.mean()) != fact.stats.mean
    if values.numel() < _ENOUGH:
        return False
    return not 1 / _FACTOR**2 < var / fact.stats.var < _FACTOR**2


def _short(error: BaseException) -> str:
    text = " ".join(str(getattr(error, "message", error)).split())[:200]
    return f"{type(error).__name__}: {text}"
