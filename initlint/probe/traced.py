"""What tracing hands on: an fx graph with a :class:`Meta` on every node, and the values behind it.

Conventions for graphs made here (both ways of tracing):

- a torch layer without children, ``MultiheadAttention`` and the recurrent layers are one
  ``call_module`` node; so are modules that could not be looked into (``Meta.unknown`` says why);
- parameters, buffers and constant tensors are ``get_attr`` nodes (see :meth:`Traced.attribute`);
- non-tensor values (sizes, numbers, flags) are plain arguments where they are known;
- data flow is explicit: whoever reads a tensor after an in-place write reads the writing node.
  ``operator.setitem(x, index, y)`` stands for *x after the write* and has x's shape; the part
  written is ``Meta.share`` of it.
"""

from __future__ import annotations

import inspect
import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from types import SimpleNamespace
from typing import Any

import torch
from torch import fx, nn

from initlint.facts import Measured, Response, Site
from initlint.probe.submodules import submodule
from initlint.records import dataclass

KEY = "initlint"  # key of our Meta in ``fx.Node.meta``
CONSTANT = "_initlint_constant_"  # prefix of get_attr targets that are no attribute of the model


def unknown_source(*args: Any) -> Any:
    """Marks a tensor whose producer no torch function showed (scripted code, NumPy, another thread)."""
    raise NotImplementedError("a marker in graphs, never executed")


def view_again(base: Any) -> Any:
    """Marks the same view as before of a tensor that was written in place meanwhile."""
    raise NotImplementedError("a marker in graphs, never executed")


def merge_view(base: Any, part: Any) -> Any:
    """Marks a tensor after a view of it was written in place: mostly ``base``, ``Meta.share`` of it ``part``."""
    raise NotImplementedError("a marker in graphs, never executed")


def custom_backward(value: Any) -> Any:
    """Marks the output of a custom ``autograd.Function``: its forward was seen, its backward is unknown."""
    raise NotImplementedError("a marker in graphs, never executed")


MARKERS = (unknown_source, view_again, merge_view, custom_backward)


@dataclass(slots=True)
class Meta:
    """What is known about the output of an fx node."""

    shape: tuple[int, ...] | None = None
    dtype: str | None = None  # "float32", as in facts
    module: str = ""  # qualified name of the innermost module that runs it
    site: Site | None = None  # user line in forward
    measured: Measured | None = None
    value_kind: str = "tensor"  # "tensor" | "tuple" (also lists, dicts) | "other"
    elements: tuple[Meta, ...] = ()  # of a tuple
    response: Response | None = None
    channel: int | None = None  # axis of the channels, a guess from the layers around
    batch: int | None = 0  # axis of the samples; None when the tensor has none
    positions: Mapping[int, float] = field(default_factory=dict)  # c_s for each axis that could be the channels'
    share: float | None = None  # of the elements that a setitem or merge_view wrote
    unknown: str = ""  # why nothing is known about how it was made
    error: bool = False  # the node itself raised: its output never existed
    untrained: bool = False  # ran under ``no_grad`` in a forward that records gradients


def meta_of(node: fx.Node) -> Meta:
    """The :class:`Meta` of a node (a fresh one is stored where there is none)."""
    meta = node.meta.get(KEY)
    if not isinstance(meta, Meta):
        meta = node.meta[KEY] = Meta()
    return meta


def dtype_name(dtype: torch.dtype) -> str:
    """``torch.float32`` -> ``float32``."""
    return str(dtype).removeprefix("torch.")


@dataclass(slots=True)
class Traced:
    """A traced forward.

    ``values`` keeps the tensors that nodes produced (with their version at that time), for the
    oracle; ``gradients`` of parameters are there after ``measure=True``: name -> second moment
    relative to a unit-variance gradient at the outputs.
    """

    graph: fx.Graph
    root: nn.Module
    method: str  # "symbolic" | "recorded" | "mixed" | "none"
    coverage: float = 0.0
    notes: tuple[str, ...] = ()
    ran: bool = False  # a real forward completed
    failure: str = ""  # else how the first run of the forward ended
    training: bool = True
    estimating: frozenset[int] | None = None  # ids of the norms that took statistics of the batch; None: by their mode
    seconds: float = 0.0
    not_reached: tuple[str, ...] = ()  # parameters that the forward did not read
    constants: Mapping[str, torch.Tensor] = field(default_factory=dict)
    attributes: Mapping[str, torch.Tensor] = field(default_factory=dict)  # parameters and buffers by name
    values: dict[fx.Node, tuple[Any, Any]] = field(default_factory=dict)
    gradients: Mapping[str, float] = field(default_factory=dict)
    outputs: tuple[fx.Node, ...] = ()  # the tensors that forward returns, in order
    batch_size: int | None = None

    def attribute(self, target: str) -> Any:
        """The tensor behind a ``get_attr`` node; raises ``AttributeError`` when there is none."""
        if target in self.constants:
            return self.constants[target]
        if target in self.attributes:
            return self.attributes[target]
        value: Any = self.root
        for name in target.split("."):
            value = getattr(value, name)
        return value

    def module(self, node: fx.Node) -> nn.Module:
        """The module that a ``call_module`` node calls."""
        return submodule(self.root, str(node.target))

    def value(self, node: fx.Node) -> Any:
        """What the node produced in the run, or ``None`` when unknown or overwritten since."""
        kept = self.values.get(node)
        if kept is None:
            return None
        value, version = kept
        return value if version_of(value) == version else None


def version_of(value: Any) -> int:
    """Version counter of a tensor; 0 for anything that has none (inference tensors, other values)."""
    if not isinstance(value, torch.Tensor):
        return 0
    try:
        return int(value._version)
    except RuntimeError:  # inference tensors do not track it
        return 0


def tensors_in(value: Any, depth: int = 6) -> Iterator[torch.Tensor]:
    """All tensors inside nested tuples, lists, dicts and slices, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif depth == 0:
        return
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item, depth - 1)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item, depth - 1)
    elif type(value) is SimpleNamespace:
        yield from tensors_in(vars(value), depth - 1)
    elif isinstance(value, slice):
        for item in (value.start, value.stop, value.step):
            yield from tensors_in(item, depth - 1)


def argument_names(root: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[str]:
    """A name for each tensor in ``(args, kwargs)``, in order: ``x``, ``images_0``, ``batch_mask``."""
    try:
        parameters = [p for p in inspect.signature(root.forward).parameters.values() if p.kind in _POSITIONAL]
    except (TypeError, ValueError):
        parameters = []
    names: list[str] = []
    for index, value in enumerate(args):
        several = index >= len(parameters) or parameters[index].kind is inspect.Parameter.VAR_POSITIONAL
        last = parameters[-1].name if parameters else "input"
        _name_tensors(
            f"{last}_{index}" if several and len(args) > 1 else last if several else parameters[index].name,
            value,
            names,
        )
    for name, value in kwargs.items():
        _name_tensors(name, value, names)
    return names


_POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)


def _name_tensors(name: str, value: Any, names: list[str]) -> None:
    if isinstance(value, torch.Tensor):
        names.append("".join(c if c.isalnum() or c == "_" else "_" for c in name))
    elif isinstance(value, (tuple, list)):
        for index, item in enumerate(value):
            _name_tensors(f"{name}_{index}" if len(value) > 1 else name, item, names)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _name_tensors(f"{name}_{key}", item, names)
    elif type(value) is SimpleNamespace:
        _name_tensors(name, vars(value), names)


def batch_of(tensors: Sequence[torch.Tensor]) -> int | None:
    """Size of axis 0 of all tensors that have axes, ``None`` when they differ."""
    sizes = Counter(int(t.shape[0]) for t in tensors if t.dim() > 0)
    return next(iter(sizes)) if len(sizes) == 1 else None


def to_device(value: Any, device: str | None) -> Any:
    """Nested arguments with their tensors on a device (``None``: as they are)."""
    if isinstance(value, torch.Tensor):
        return value if device is None else value.detach().to(device)
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        return type(value)(to_device(v, device) for v in value)
    if type(value) is dict:
        return {k: to_device(v, device) for k, v in value.items()}
    if type(value) is SimpleNamespace:
        return SimpleNamespace(**to_device(vars(value), device))
    return value


#: Python's reflected operators as torch sees them -> the plain operator with swapped operands.
REFLECTED: Mapping[str, Callable[..., Any]] = {
    "__radd__": operator.add,
    "__rsub__": operator.sub,
    "__rmul__": operator.mul,
    "__rdiv__": operator.truediv,
    "__rtruediv__": operator.truediv,
    "__rfloordiv__": operator.floordiv,
    "__rmod__": operator.mod,
    "__rpow__": operator.pow,
    "__rmatmul__": operator.matmul,
    "__rand__": operator.and_,
    "__ror__": operator.or_,
    "__rxor__": operator.xor,
}

#: Methods that Python's operators call -> the operator.
OPERATORS: Mapping[str, Callable[..., Any]] = {
    "__getitem__": operator.getitem,
    "__setitem__": operator.setitem,
    "__and__": operator.and_,
    "__or__": operator.or_,
    "__xor__": operator.xor,
    "__invert__": operator.invert,
    "__floordiv__": operator.floordiv,
    "__mod__": operator.mod,
    "__matmul__": operator.matmul,
    "__neg__": operator.neg,
    "__abs__": operator.abs,
    "__add__": operator.add,
    "__sub__": operator.sub,
    "__mul__": operator.mul,
    "__truediv__": operator.truediv,
    "__pow__": operator.pow,
    "__lshift__": operator.lshift,
    "__rshift__": operator.rshift,
}
