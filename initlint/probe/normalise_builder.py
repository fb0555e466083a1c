"""The canonical nodes under construction, and what handlers of single ops need to make them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import Any

import torch
from torch import fx, nn

from initlint.facts import Node, Operator, Plain
from initlint.probe import normalise_axes as axes
from initlint.probe.normalise_algebra import degree
from initlint.probe.normalise_monomials import blocking
from initlint.probe.normalise_values import Items, Signal, Static, Unknown, Value, signals_in
from initlint.probe.submodules import submodule
from initlint.probe.traced import Meta, Traced
from initlint.records import dataclass

#: Additive masks hold -inf or a large negative number; no sum of signals of a sane net reaches this.
MASKED = -1e4
#: Constants up to this size are compared with each other.
SAME_LIMIT = 1 << 16
#: Ops that read a map (batch, channel, positions): their first input's axes are known from them.
MAPS = frozenset({"conv", "conv_transpose", "pool", "resize", "sample"})
#: The rows of a packed projection are followed through reshapes on index tensors up to this size.
ROWS_LIMIT = 1 << 21


@dataclass(frozen=True, slots=True)
class Call:
    """One fx node with its arguments as abstract values."""

    name: str  # canonical function name: "conv2d", "add"
    args: tuple[Value, ...]
    kwargs: Mapping[str, Value]
    meta: Meta
    node: fx.Node
    label: str = ""
    module: str = ""

    def value(self, position: int, name: str = "") -> Value | None:
        """An argument by position or keyword, ``None`` when not given."""
        if name and name in self.kwargs:
            return self.kwargs[name]
        return self.args[position] if 0 <= position < len(self.args) else None

    def plain(self, position: int, name: str, default: Any = None) -> Any:
        """The Python value of a static argument, else ``default``."""
        found = self.value(position, name)
        return found.value if isinstance(found, Static) else default

    def number(self, position: int, name: str, default: float) -> float:
        """A static number, else ``default``."""
        found = self.plain(position, name, default)
        if isinstance(found, torch.Tensor) and found.numel() == 1:
            return float(found)
        return float(found) if isinstance(found, (int, float)) else default


@dataclass(slots=True)
class Builder:
    """Collects nodes; ``names`` maps every name of a parameter to its canonical one."""

    traced: Traced
    names: Mapping[str, str] = field(default_factory=dict)
    generated: Mapping[frozenset[str], str] = field(default_factory=dict)
    buffers: frozenset[str] = frozenset()
    nodes: list[Node] = field(default_factory=list)
    roles: list[axes.Roles | None] = field(default_factory=list)
    rows: dict[int, torch.Tensor] = field(default_factory=dict)
    answers: dict[Any, tuple[Any, Any]] = field(default_factory=dict)  # of the oracle, by function and shape
    statics: dict[int, tuple[Static, int]] = field(default_factory=dict)
    convolved: dict[str, tuple[float, ...]] = field(default_factory=dict)  # depthwise kernels seen, and their powers
    filled: dict[int, float] = field(default_factory=dict)  # shares written so far, of memory that held nothing

    def emit(
        self,
        call: Call,
        op: str,
        inputs: Sequence[int] = (),
        *,
        attrs: Mapping[str, Any] | None = None,
        parameters: Mapping[str, str | None] | None = None,
        operator: Operator | None = None,
        roles: axes.Roles | None = None,
        meta: Meta | None = None,
        shape: tuple[int, ...] | None = None,
        label: str = "",
        table: Mapping[str, tuple[float, ...]] | None = None,
        inner: bool = False,
    ) -> Signal:
        """Append a node. ``inner`` marks a step before the fx node's own output (no measured values)."""
        meta = meta or call.meta
        if shape is None and not inner:
            shape = meta.shape
        if roles is None or (shape is not None and len(roles) != len(shape)):
            roles = self._default_roles(inputs, shape)
        if call.meta.untrained:
            attrs = {**(attrs or {}), "untrained": True}
        if op in MAPS and roles is not None and inputs:
            self._reads_map(inputs[0], roles)
        index = len(self.nodes)
        self.nodes.append(
            Node(
                index=index,
                op=op,
                inputs=tuple(inputs),
                shape=shape,
                dtype=meta.dtype or "float32",
                attrs={k: plain(v) for k, v in (attrs or {}).items() if v is not None},
                parameters={k: v for k, v in (parameters or {}).items() if v},
                operator=operator,
                module=call.module,
                label=label or call.label or op,
                site=meta.site or call.meta.site,
                response=None if inner else meta.response,
                table=table or {},
                measured=None if inner else meta.measured,
                channel=axes.channel_axis(roles),
                batch=axes.batch_axis(roles) if roles is not None else 0,
            )
        )
        self.roles.append(roles)
        return Signal(index)

    def _reads_map(self, source: int, roles: axes.Roles) -> None:
        """What reads a map knows its axes; those of a reshape that merged samples and channels are guesses."""
        node = self.nodes[source]
        if node.op != "reshape" or node.shape is None or len(node.shape) != len(roles) or self.roles[source] == roles:
            return
        self.roles[source] = roles
        self.nodes[source] = replace(node, channel=axes.channel_axis(roles), batch=axes.batch_axis(roles))

    def _default_roles(self, inputs: Sequence[int], shape: tuple[int, ...] | None) -> axes.Roles | None:
        if not inputs:
            return axes.guess(shape)
        rank = len(shape) if shape is not None else None
        roles = self.roles[inputs[0]]
        for other in inputs[1:]:
            roles = axes.broadcast(roles, self.roles[other], rank)
        if shape is None or (roles is not None and len(roles) == len(shape)):
            return roles
        return axes.guess(shape)

    def node(self, signal: Signal) -> Node:
        """The node behind a signal."""
        return self.nodes[signal.index]

    def shape(self, signal: Signal) -> tuple[int, ...] | None:
        """The shape of a signal."""
        return self.nodes[signal.index].shape

    def signal(self, value: Value | None, call: Call) -> int | None:
        """The node index of a value read as a signal; ``None`` for what holds no tensor."""
        if isinstance(value, Signal):
            return value.index
        if isinstance(value, Static):
            return self._static_signal(value, call)
        if isinstance(value, Unknown):
            return self.emit(call, "opaque", attrs={"name": call.name, "why": value.why}, inner=True).index
        if isinstance(value, Items):  # a tuple where one tensor is meant: the first tensor counts
            first = next(signals_in(value), None)
            return None if first is None else first.index
        return None

    def _static_signal(self, static: Static, call: Call) -> int | None:
        tensor = static.value
        if isinstance(tensor, bool) or not isinstance(tensor, (torch.Tensor, int, float)):
            return None
        if id(tensor) in self.statics and self.statics[id(tensor)][0].value is tensor:
            return self.statics[id(tensor)][1]
        if not isinstance(tensor, torch.Tensor):
            tensor = torch.tensor(float(tensor))
        known = self._same_constant(static, tensor)
        if known is not None:
            return known
        shape = tuple(tensor.shape)
        attrs: dict[str, Any] = value_moments(tensor) | alike(tensor) | leaves(tensor)
        if static.sources and not static.view:
            attrs |= {"expr": static.expr, "offset": offset_of(static)} | self.monomial_attrs(static)
        if not static.owners and "sign" in attrs:
            attrs |= inverse_moments(tensor)
        if static.random:
            attrs["random"] = True
        if static.sources and not static.owners:
            attrs["buffer"] = True
        roles = axes.constant(shape)
        meta = Meta(shape=shape, dtype=str(tensor.dtype).removeprefix("torch."), site=call.meta.site)
        op = "parameter" if static.sources else "constant"
        label = static.expr if static.sources else "constant"
        parameters = self.roles_of(static) if static.sources else {}
        signal = self.emit(
            call, op, attrs=attrs, parameters=parameters, roles=roles, meta=meta, shape=shape, label=label[:60]
        )
        self.statics[id(static.value)] = (static, signal.index)
        return signal.index

    def _same_constant(self, static: Static, tensor: torch.Tensor) -> int | None:
        """The node of a constant with the same values (a grid of places that is made twice)."""
        if static.sources or static.random or tensor.is_meta or not 1 < tensor.numel() <= SAME_LIMIT:
            return None
        for other, index in self.statics.values():
            value = other.value
            if other.sources or other.random or not isinstance(value, torch.Tensor) or value.is_meta:
                continue
            if value.shape == tensor.shape and value.dtype == tensor.dtype and torch.equal(value, tensor):
                return index
        return None

    def roles_of(self, static: Static, role: str = "value") -> dict[str, str]:
        """``parameters`` of a node that reads a static value: role -> name, the main source first."""
        names = [self.names.get(n, n) for n in (static.owners or static.sources)]
        generated = self.generated.get(frozenset(names))
        if generated:
            names = [generated]
        return {role if i == 0 else f"{role}_{i}": n for i, n in enumerate(dict.fromkeys(names))}

    def weight_attrs(self, static: Static, name: str) -> dict[str, Any]:
        """Attributes of an op whose weight is an expression: its text and the power of the parameter in it."""
        names = frozenset(self.names.get(n, n) for n in static.owners)
        if static.view or name not in static.sources or names in self.generated:
            return {}
        return {"expr": static.expr, "weight_degree": degree(static, name)} | self.monomial_attrs(static)

    def monomial_attrs(self, static: Static) -> dict[str, Any]:
        """Which parameters an expression multiplies, where zeros among them keep gradients from each other."""
        names = {n: self.names.get(n, n) for n in static.sources}
        if frozenset(names.values()) in self.generated:
            return {}
        found = [{names[n]: count for n, count in m.items()} for m in blocking(static)]
        return {"monomials": found} if found else {}

    def submodule(self, path: str) -> nn.Module:
        """The module of this name."""
        return submodule(self.traced.root, path)

    def parameter_name(self, path: str, local: str) -> str:
        """The canonical name of a module's parameter."""
        full = f"{path}.{local}" if path else local
        return self.names.get(full, full)


def offset_of(static: Static) -> float | None:
    """c when the expression is ``c + parameter`` (a gain stored as its distance from one)."""
    if static.history is None or str(getattr(static.history[0], "__name__", "")) not in ("add", "radd", "iadd"):
        return None
    args = [a for a in static.history[1] if isinstance(a, Static)]
    views = [a for a in args if a.view]
    numbers = [a.value for a in args if not a.sources]
    if len(views) != 1 or len(numbers) != 1:
        return None
    number = numbers[0].item() if isinstance(numbers[0], torch.Tensor) and numbers[0].numel() == 1 else numbers[0]
    return float(number) if isinstance(number, (int, float)) else None


def value_moments(tensor: torch.Tensor) -> dict[str, Any]:
    """``mean`` and ``second`` of the finite values, ``sign`` if all have one; ``masked``: share of -inf, or nearly."""
    if tensor.is_meta or not tensor.numel():
        return {}
    values = tensor.detach()
    if values.is_complex():
        values = torch.view_as_real(values.resolve_conj())
    values = values.double() if values.numel() <= 1 << 22 else values.float()
    attrs: dict[str, Any] = {}
    kept = torch.isfinite(values) & (values > MASKED)
    if not bool(kept.all()):
        share = float(((values <= MASKED) | torch.isneginf(values)).double().mean())
        if share:
            attrs["masked"] = share
        values = values[kept]
    if values.numel():
        attrs |= {"mean": float(values.mean()), "second": float(torch.mean(values * values))}
        sign = 1 if bool((values >= 0).all()) else -1 if bool((values <= 0).all()) else 0
        if sign and attrs["second"]:
            attrs["sign"] = sign
    return attrs


def inverse_moments(tensor: torch.Tensor) -> dict[str, float]:
    """``inverse_mean`` and ``inverse_second`` of values of one sign: what divides by them takes these."""
    if tensor.is_meta or not 1 < tensor.numel() <= 1 << 22 or tensor.is_complex():
        return {}
    values = tensor.detach().double()
    low, high = (float(v) for v in torch.aminmax(values))
    if not (math.isfinite(low) and math.isfinite(high)) or low <= 0.0 <= high:
        return {}
    inverse = 1.0 / values
    return {"inverse_mean": float(inverse.mean()), "inverse_second": float(torch.mean(inverse * inverse))}


def alike(tensor: torch.Tensor) -> dict[str, float]:
    """``alike``: covariance between positions (all axes but the last), channel by channel, over the second moment.

    Sinusoids of low frequency hardly change from one position to another; entries drawn independently share nothing.
    """
    if tensor.is_meta or tensor.ndim < 2 or tensor.numel() > 1 << 22 or not tensor.is_floating_point():
        return {}
    rows = tensor.detach().double().flatten(0, -2)
    second = float(torch.mean(rows * rows)) if rows.numel() else 0.0
    if min(rows.shape) < 2 or not 0.0 < second < MASKED * MASKED:
        return {}
    count = rows.shape[0]
    shared = float(torch.mean(rows.mean(0) ** 2))
    return {"alike": (shared - (second - shared) / (count - 1)) / second}


def leaves(tensor: torch.Tensor) -> dict[str, float]:
    """``leaves``: the share of the keys among which a softmax would choose by a bias alone, where all have one sign and
    count against a key.

    1 / sum a_j^2 of n keys. Biases that fall with the distance (ALiBi) are no draws of a Gaussian, but masks with soft
    borders.
    """
    if tensor.is_meta or tensor.ndim < 2 or tensor.numel() > 1 << 22 or not tensor.is_floating_point():
        return {}
    rows = tensor.detach().double().flatten(0, -2)
    kept = rows[rows > MASKED]
    low, high = (float(kept.min()), float(kept.max())) if kept.numel() else (0.0, 0.0)
    if min(rows.shape) < 2 or low == high or low < 0.0 < high:
        return {}
    energy = float(torch.softmax(-rows if high > 0.0 else rows, 1).square().sum(1).mean())
    return {"leaves": 1.0 / (energy * rows.shape[1])} if 0.0 < energy <= 1.0 else {}


def plain(value: Any) -> Plain:
    """A value that facts can hold; anything else becomes its text."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, torch.Tensor):
        return plain(value.item()) if value.numel() == 1 else str(tuple(value.shape))
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    return str(value)


def elements(shape: Sequence[int] | None) -> int | None:
    """Number of elements of a shape."""
    return None if shape is None else math.prod(shape)


def share(after: Sequence[int] | None, before: Sequence[int] | None) -> float | None:
    """Elements after over elements before."""
    if after is None or before is None or not math.prod(before):
        return None
    return math.prod(after) / math.prod(before)
