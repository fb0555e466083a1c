"""Ops without a rule: asked on the live op where possible, opaque otherwise; never taken for the identity."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from initlint.facts import Response
from initlint.probe import oracle
from initlint.probe.normalise_builder import Builder, Call
from initlint.probe.normalise_composite import recognise
from initlint.probe.normalise_values import Fields, Items, Signal, Static, Unknown, Value
from initlint.probe.traced import Meta
from initlint.theory import activations as theory

#: Live ops asked for one model; an answer takes milliseconds, and a model repeats few kinds of ops.
ASKED = 24

Table = dict[str, tuple[float, ...]]


def opaque(b: Builder, c: Call) -> Value:
    """An op without a rule: an activation when it is elementwise, else opaque with its response."""
    if c.meta.value_kind == "other":
        return Unknown(f"result of {c.name}")
    inputs = operands(b, c)
    attrs: dict[str, Any] = {"name": c.name, "why": c.meta.unknown or "no rule for this function"}
    return emit_unknown(b, c, inputs, attrs, {})


def operands(b: Builder, c: Call) -> list[int]:
    """Node indices of all tensors among the arguments, in order."""
    found = (b.signal(v, c) for v in _flat((*c.args, *c.kwargs.values())))
    return list(dict.fromkeys(i for i in found if i is not None))


def _flat(values: Iterable[Value]) -> Iterator[Value]:
    for value in values:
        if isinstance(value, Items):
            yield from _flat(value.values)
        elif isinstance(value, Fields):
            yield from _flat(value.values.values())
        elif isinstance(value, Signal) or (isinstance(value, Static) and value.is_tensor):
            yield value


def emit_unknown(
    b: Builder, c: Call, inputs: list[int], attrs: dict[str, Any], parameters: dict[str, str | None]
) -> Value:
    """The node (one for each tensor returned) of an op that nothing is known about."""
    metas: tuple[Meta, ...] = c.meta.elements if c.meta.value_kind == "tuple" else (c.meta,)
    table, response = _ask(b, c) if not c.meta.unknown and inputs else (None, None)
    if table is not None and len(metas) == 1:
        return _elementwise(b, c, inputs, table, parameters)
    outputs: list[Value] = []
    for i, meta in enumerate(metas):
        if meta.response is None and response is not None and i == 0:
            meta = dataclasses.replace(meta, response=response)
        more = attrs | ({"of": i} if c.meta.value_kind == "tuple" else {})
        outputs.append(b.emit(c, "opaque", inputs, attrs=more, parameters=parameters, meta=meta))
    if c.meta.value_kind == "tuple":
        return Items(tuple(outputs))
    return outputs[0]


def _ask(b: Builder, c: Call) -> tuple[Table | None, Response | None]:
    """Table or response of the live op; remembered by function and shape."""
    if c.meta.response is not None or not b.traced.ran:
        return None, c.meta.response
    key = (str(c.node.target) if c.node.op == "call_module" else c.node.target, c.meta.shape)
    if key not in b.answers:
        if len(b.answers) >= ASKED:
            return None, None
        b.answers[key] = _answer(b, c)
    return b.answers[key]


def _answer(b: Builder, c: Call) -> tuple[Table | None, Response | None]:
    try:
        table = oracle.table_of(b.traced, c.node)
        return (table, None) if table is not None else (None, oracle.response_of(b.traced, c.node))
    except Exception:  # the op runs user code, which may raise anything; then nothing is known
        return None, None


def _elementwise(b: Builder, c: Call, inputs: list[int], table: Table, parameters: dict[str, str | None]) -> Value:
    """A callable that works element by element, under the name of the known function it equals."""
    signal = next((i for i in inputs if b.nodes[i].shape == c.meta.shape), inputs[0])
    bound = theory.table(table["x"], table["y"], table["dy"])
    known = recognise(lambda x: (bound.value(x), bound.slope(x)))
    if known is not None and known[0] in ("scale", "shift"):
        return b.emit(c, known[0], (signal,), attrs=known[1], parameters=parameters)
    if known is not None:
        return b.emit(c, "activation", (signal,), attrs={"fn": known[0], **known[1]}, parameters=parameters)
    attrs = {"fn": "callable", "expr": c.name}
    return b.emit(c, "activation", (signal,), attrs=attrs, table=table, parameters=parameters)
