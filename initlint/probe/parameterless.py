"""Models without parameters: what has none by nature (a loss), and what has none as it was built."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import chain
from types import CodeType, FunctionType
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

# What a constructor calls to give a module a parameter of its own (class weights of a loss are a buffer).
_MAKERS = frozenset(("Parameter", "UninitializedParameter", "register_parameter"))
# A wrapper of a wrapper of a layer: losses and blocks are not nested deeper before a layer of torch comes.
_DEEP = 3


def has_tensors(model: nn.Module) -> bool:
    """Whether there is any parameter or buffer."""
    return next(chain(model.parameters(), model.buffers()), None) is not None


def hollow(model: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    """Parameters without an element, and their shapes: layers of no width, made of a number that is zero."""
    tensors = ((name, p) for name, p in model.named_parameters() if not is_lazy(p))
    return [(name, tuple(p.shape)) for name, p in tensors if not p.numel()]


def makes_parameters(cls: type, deep: int = _DEEP) -> bool:
    """Whether the methods of a module class mention what makes parameters, on some path through them."""
    for function in _methods(cls):
        for name in _names(function.__code__):
            if name in _MAKERS:
                return True
            found = function.__globals__.get(name, getattr(nn, name, None))
            if not deep or not inspect.isclass(found) or found is cls or not issubclass(found, nn.Module):
                continue
            if found is not nn.Module and makes_parameters(found, deep - 1):
                return True
    return False


def _methods(cls: type) -> Iterator[FunctionType]:
    """All methods but forward, which runs what is there, up to ``nn.Module``."""
    for base in cls.__mro__:
        if base is nn.Module:
            return
        yield from (f for name, f in vars(base).items() if isinstance(f, FunctionType) and name != "forward")


def _names(code: CodeType) -> Iterator[Any]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
