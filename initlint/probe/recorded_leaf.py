"""Which modules are one node of the graph, and which are looked into."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

# Library layers whose own code is known to the op table.
_LAYER_PACKAGES = ("torch.nn.modules.", "torch.nn.quantized.", "torch.nn.qat.", "torch.ao.nn.")
# Redefining these does not change what a layer computes from its weights.
_HARMLESS = frozenset(
    {"reset_parameters", "_reset_parameters", "extra_repr", "train", "eval", "apply", "to", "device", "dtype"}
)
_WRAPPERS = ("OptimizedModule", "DistributedDataParallel", "DataParallel", "FullyShardedDataParallel")


def is_leaf(module: nn.Module) -> bool:
    """Whether the module is a single ``call_module`` node.

    True for layers of ``torch.nn`` without children, for ``MultiheadAttention`` and the recurrent
    layers, for subclasses of these that do not change the computation, and for scripted modules.
    """
    if isinstance(module, torch.jit.ScriptModule):
        return True
    base = next((c for c in type(module).__mro__ if c.__module__.startswith(_LAYER_PACKAGES)), None)
    if base is None or base is nn.Module or "forward" in vars(module):
        return False
    if not isinstance(module, (nn.MultiheadAttention, nn.RNNBase)) and any(True for _ in children(module)):
        return False
    return not _recomputes(type(module), base)


def children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Named children, leaving out the parametrizations of the module's own weights."""
    for name, child in module._modules.items():
        if child is not None and name != "parametrizations":
            yield name, child


def _recomputes(cls: type, base: type) -> bool:
    """Whether a subclass outside of torch redefines methods of the layer that its forward uses."""
    for c in cls.__mro__:
        if c is base:
            return False
        if c.__module__.startswith("torch."):
            continue
        for name, value in vars(c).items():
            dunder = name.startswith("__") and name != "__call__"
            if callable(value) and not dunder and name not in _HARMLESS and hasattr(base, name):
                return True
            if isinstance(value, property):
                return True
    return False


def unwrapped(module: nn.Module) -> nn.Module | None:
    """The module inside a ``torch.compile`` or data-parallel wrapper, ``None`` for others."""
    if type(module).__name__ not in _WRAPPERS or not type(module).__module__.startswith("torch."):
        return None
    return module._modules.get("_orig_mod") or module._modules.get("module")


def names_of(root: nn.Module) -> dict[int, str]:
    """First qualified name of every module, by ``id``."""
    return {id(module): name for name, module in root.named_modules()}
