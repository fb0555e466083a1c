"""From a traced fx graph to the canonical nodes of ``initlint.facts`` (vocabulary: docs/ops.md).

The graph is run once on abstract values. What depends on no input (parameters, their expressions,
shapes, constants) is computed for real; every other node becomes one or a few canonical nodes by
a handler found by the name of its function. What no handler knows becomes ``opaque``: unknown is
never taken for the identity.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import fx, nn

from initlint.facts import Node, ParameterFacts
from initlint.probe import normalise_axes as axes
from initlint.probe import normalise_modules as modules
from initlint.probe.normalise_builder import Builder, Call
from initlint.probe.normalise_dispatch import HANDLERS, LAYERS, canonical
from initlint.probe.normalise_fuse import fuse
from initlint.probe.normalise_opaque import opaque
from initlint.probe.normalise_tables import INTEGER, LOSSES, QUERIES, RESHAPES, SELECTS
from initlint.probe.normalise_values import (
    Fields,
    Items,
    Signal,
    Static,
    Unknown,
    Value,
    evaluate,
    literal,
    signals_in,
    statics_in,
    wrap,
)
from initlint.probe.traced import Meta, Traced, meta_of

#: Handlers that keep integers what they are (indices on their way to a table).
_INTEGER_SAFE = RESHAPES | SELECTS | {"cat", "stack", "where", "masked_fill", "embedding", "pad"} | LOSSES


#: Named fields of what torch's reductions return.
_FIELDS = {"values": 0, "indices": 1, "output": 0, "U": 0, "S": 1, "Vh": 2, "Q": 0, "R": 1}


class Recorded(Protocol):
    """What is needed of an init record."""

    @property
    def parameters(self) -> Sequence[ParameterFacts]:
        """Parameters and buffers with their names, aliases and, for generated weights, sources."""


def normalise(traced: Traced, record: Recorded | None = None) -> tuple[tuple[Node, ...], tuple[int, ...]]:
    """Canonical nodes in execution order, and the indices of those that the forward returns."""
    names, generated, buffers = _names(traced.root, record)
    builder = Builder(traced, names, generated, buffers)
    run = _Run(builder)
    with torch.no_grad():
        for node in traced.graph.nodes:
            run.step(node)
    return fuse(tuple(builder.nodes), tuple(run.outputs))


def _names(
    root: nn.Module, record: Recorded | None
) -> tuple[dict[str, str], dict[frozenset[str], str], frozenset[str]]:
    """Every name -> canonical name; sources -> generated weight; names of buffers."""
    names: dict[str, str] = {}
    seen: dict[int, str] = {}
    buffers = {name for name, _ in root.named_buffers(remove_duplicate=False)}
    for name, tensor in (*root.named_parameters(remove_duplicate=False), *root.named_buffers(remove_duplicate=False)):
        names[name] = seen.setdefault(id(tensor), name)
    generated: dict[frozenset[str], str] = {}
    for fact in record.parameters if record is not None else ():
        for name in (fact.name, *fact.aliases):
            names[name] = fact.name
        if fact.generated and fact.sources:
            generated[frozenset(fact.sources)] = fact.name
    return names, generated, frozenset(buffers)


class _Run:
    """The abstract run: the value of each fx node."""

    def __init__(self, builder: Builder) -> None:
        self.b = builder
        self.env: dict[fx.Node, Value] = {}
        self.left: dict[fx.Node, int] = {}
        self.outputs: list[int] = []

    def step(self, node: fx.Node) -> None:
        """Compute the value of one node, and forget those nobody needs any more."""
        meta = meta_of(node)
        value: Value
        if node.op == "placeholder":
            value = self._input(node, meta)
        elif node.op == "get_attr":
            value = self._attribute(node)
        elif node.op == "output":
            self._output(node, meta)
            return
        elif meta.error:
            value = Unknown("the call raised")
        else:
            value = self._known_or_opaque(node, meta)
        self.env[node] = value
        self.left[node] = len(node.users)
        for used in node.all_input_nodes:
            self.left[used] -= 1
            if not self.left[used]:
                self.env.pop(used, None)  # an expression of parameters may be large

    def _known_or_opaque(self, node: fx.Node, meta: Meta) -> Value:
        """The value of a call. Arguments in a form that its handler did not foresee cost that op, not the graph."""
        try:
            return self._call(node, meta)
        except Exception as error:
            return self._unread(node, dataclasses.replace(meta, unknown=f"{type(error).__name__}: {error}"))

    def _unread(self, node: fx.Node, meta: Meta) -> Value:
        args = tuple(self._resolve(a) for a in node.args)
        kwargs = {k: self._resolve(v) for k, v in node.kwargs.items()}
        if node.op == "call_module":
            return self._module(node, meta, args, kwargs)
        name, _ = canonical(node.target, node.op == "call_method")
        return opaque(self.b, Call(name, args, kwargs, meta, node, name, meta.module))

    def _resolve(self, arg: Any) -> Value:
        if isinstance(arg, fx.Node):
            return self.env.get(arg, Unknown("no value"))
        if isinstance(arg, (tuple, list)):
            return wrap([self._resolve(item) for item in arg], tuple if isinstance(arg, tuple) else list)
        if isinstance(arg, slice):
            parts = [self._resolve(item) for item in (arg.start, arg.stop, arg.step)]
            if all(isinstance(p, Static) for p in parts):
                return Static(slice(*(p.value for p in parts if isinstance(p, Static))), expr=":")
            return Unknown("slice with unknown ends")
        if isinstance(arg, dict):
            values = {key: self._resolve(item) for key, item in arg.items()}
            if all(isinstance(v, Static) for v in values.values()):
                return Static({k: v.value for k, v in values.items() if isinstance(v, Static)}, expr="{...}")
            return Fields(values)
        return literal(arg)

    def _input(self, node: fx.Node, meta: Meta) -> Value:
        if meta.value_kind == "tuple":
            call = self._bare(node, meta, str(node.target))
            return Items(tuple(self._one_input(node, m, call) for m in meta.elements))
        if meta.value_kind == "other" or (meta.shape is None and node.args):
            return literal(node.args[0]) if node.args else Unknown("an input that is no tensor")
        return self._one_input(node, meta, self._bare(node, meta, str(node.target)))

    def _one_input(self, node: fx.Node, meta: Meta, call: Call) -> Signal:
        kind = "float"
        if meta.dtype in INTEGER:
            kind = "mask" if meta.dtype == "bool" else "index"
        attrs: dict[str, Any] = {"name": str(node.target), "kind": kind}
        if meta.measured is not None and kind == "float":
            m = meta.measured
            attrs |= {"mean": m.mean, "second": m.second, "correlation": m.correlation, "positions": m.positions}
        roles = axes.given(meta.shape, meta.batch, meta.channel)
        return self.b.emit(call, "input", attrs=attrs, meta=meta, roles=roles)

    def _attribute(self, node: fx.Node) -> Value:
        target = str(node.target)
        try:
            value = self.b.traced.attribute(target)
        except AttributeError:
            return Unknown(f"no attribute {target}")
        if not isinstance(value, torch.Tensor):
            return Static(value, expr=target)
        name = self.b.names.get(target)
        if name is None:
            return Static(value.detach(), expr=target if "." in target or len(target) < 40 else "constant")
        owners = (name,) if isinstance(value, nn.Parameter) else ()
        return Static(value.detach(), (name,), name, view=True, owners=owners)

    def _bare(self, node: fx.Node, meta: Meta, name: str) -> Call:
        return Call(name, (), {}, meta, node, name, meta.module)

    def _call(self, node: fx.Node, meta: Meta) -> Value:
        args = tuple(self._resolve(a) for a in node.args)
        kwargs = {k: self._resolve(v) for k, v in node.kwargs.items()}
        if node.op == "call_module":
            return self._module(node, meta, args, kwargs)
        name, known = canonical(node.target, node.op == "call_method")
        if name == "getattr":
            return self._getattr(node, meta, args)
        call = Call(name, args, kwargs, meta, node, name, meta.module)
        if not known:
            if self._static(call) and not any(s.owners for v in (*args, *kwargs.values()) for s in statics_in(v)):
                return self._evaluate(call)
            return opaque(self.b, call)
        return self._function(call)

    def _static(self, call: Call) -> bool:
        values = (*call.args, *call.kwargs.values())
        return all(isinstance(v, Static) for v in values)

    def _function(self, call: Call) -> Value:
        """A function or method whose name says what it does."""
        if self._static(call) and not self._layer(call):
            return self._evaluate(call)
        if call.name in QUERIES:
            return self._query(call)
        handler = HANDLERS.get(call.name)
        integer = call.meta.value_kind == "tensor" and call.meta.dtype in INTEGER
        if integer and call.name not in _INTEGER_SAFE:
            handler = HANDLERS["eq"]
        if call.name in ("max", "min") and len(call.args) == 2 and _tensor(call.args[1]):
            call = dataclasses.replace(call, name=call.name + "imum")
            handler = HANDLERS[call.name]
        blind = self._has_unknown(call) or not any(True for v in call.args for _ in signals_in(v))
        if call.meta.value_kind == "other" and handler is not None and call.name != "getitem" and blind:
            return Unknown(f"result of {call.name}")
        if handler is None or (call.meta.unknown and call.name not in ("unknown_source",)):
            return opaque(self.b, call)
        return handler(self.b, call)

    @staticmethod
    def _has_unknown(call: Call) -> bool:
        return any(isinstance(v, Unknown) for v in call.args)

    @staticmethod
    def _layer(call: Call) -> bool:
        """Static operands of a layer with trainable weights: the parameter is the layer's signal."""
        if call.name not in LAYERS:
            return False
        return any(isinstance(v, Static) and v.owners for v in (*call.args[1:], *call.kwargs.values()))

    def _evaluate(self, call: Call) -> Value:
        raw = call.node.target
        if call.node.op == "call_method":
            method = str(raw)
            result = evaluate(method, lambda self_, *a, **k: getattr(self_, method)(*a, **k), call.args, call.kwargs)
        else:
            name = str(getattr(raw, "__name__", call.name))
            result = evaluate(call.name if name == "__get__" else name, raw, call.args, call.kwargs)  # type: ignore[arg-type]
        if isinstance(result, Unknown) and call.meta.value_kind == "tensor" and call.meta.shape is not None:
            return opaque(self.b, call)
        return result

    def _getattr(self, node: fx.Node, meta: Meta, args: tuple[Value, ...]) -> Value:
        """``x.shape``, ``x.T`` and the like in symbolic graphs."""
        name = args[1].value if len(args) > 1 and isinstance(args[1], Static) else ""
        target = args[0]
        if isinstance(target, Static):
            return evaluate(str(name), lambda value: getattr(value, name), (target,), {})
        if isinstance(target, Fields) and name in target.values:
            return target.values[name]
        if isinstance(target, Items) and name in _FIELDS and _FIELDS[name] < len(target.values):
            return target.values[_FIELDS[name]]
        call = Call(str(name), (target,), {}, meta, node, str(name), meta.module)
        if name in QUERIES:
            return self._query(call)
        handler = HANDLERS.get(str(name))
        return handler(self.b, call) if handler is not None else opaque(self.b, call)

    def _query(self, call: Call) -> Value:
        """Answers about shapes and types, from a stand-in that has the signal's shape and no memory."""
        args = tuple(self._stand_in(v) for v in call.args)
        kwargs = {k: self._stand_in(v) for k, v in call.kwargs.items()}
        if not all(isinstance(v, Static) for v in (*args, *kwargs.values())):
            return Unknown(f"{call.name} of a tensor of unknown shape")
        name = call.name
        if call.node.op == "call_method":
            method = str(call.node.target)
            return evaluate(name, lambda s, *a, **k: getattr(s, method)(*a, **k), args, kwargs)
        target = call.node.target
        if str(getattr(target, "__name__", "")) == "getattr":
            found = evaluate(name, lambda s: getattr(s, name), args, kwargs)
        else:
            found = evaluate(name, target, args, kwargs)  # type: ignore[arg-type]
        return found

    def _stand_in(self, value: Value) -> Value:
        if isinstance(value, Items):
            return Static(tuple(None for _ in value.values), expr="...")
        if not isinstance(value, Signal):
            return value
        node = self.b.node(value)
        if node.shape is None:
            return Unknown("shape")
        dtype = getattr(torch, node.dtype, torch.float32)
        return Static(torch.zeros((), dtype=dtype).expand(node.shape), expr="x")

    def _module(self, node: fx.Node, meta: Meta, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Value:
        path = str(node.target)
        module = self.b.traced.module(node)
        call = Call(type(module).__name__, args, kwargs, meta, node, path, meta.module or path)
        if meta.unknown:
            return modules.unknown(self.b, call, module, path)
        if not args and kwargs:  # forward(input=x)
            call = dataclasses.replace(call, args=(next(iter(kwargs.values())),))
        handler = modules.handler_of(module)
        if handler is not None:
            return handler(self.b, call, module, path)
        plain = modules.stateless(module)
        if plain is None:
            return modules.unknown(self.b, call, module, path)
        name, extra = plain
        if name == "dropout" or name.endswith(("dropout", "dropout1d", "dropout2d", "dropout3d")):
            extra = (extra[0], literal(bool(module.training)))
        more = () if len(call.args) > 1 else extra
        call = dataclasses.replace(call, name=name, args=(*call.args, *more), kwargs={})
        if self._static(call) and not self._layer(call) and name in HANDLERS and name not in ("dropout",):
            index = self.b.signal(call.args[0], call)
            if index is not None:
                call = dataclasses.replace(call, args=(Signal(index), *call.args[1:]))
        found = HANDLERS.get(name)
        return found(self.b, call) if found is not None else modules.unknown(self.b, call, module, path)

    def _output(self, node: fx.Node, meta: Meta) -> None:
        value = self._resolve(node.args[0]) if node.args else Unknown("nothing returned")
        call = self._bare(node, meta, "output")
        found = [s.index for s in signals_in(value)]
        if not found:
            index = self.b.signal(value, call)
            found = [] if index is None else [index]
        self.outputs.extend(dict.fromkeys(found))
        self.b.emit(call, "output", self.outputs, label="output", shape=None, roles=())


def _tensor(value: Value) -> bool:
    """Whether it is a tensor, of a signal or not."""
    return isinstance(value, Signal) or (isinstance(value, Static) and value.is_tensor)
