"""Small graphs as literal facts, for the tests of propagation."""

from __future__ import annotations

import math
from typing import Any

from initlint.facts import ModelFacts, Node, Operator, ParameterFacts, Plain, TensorStats


def stats(second: float, count: int, mean: float = 0.0, **more: Any) -> TensorStats:
    return TensorStats(count, mean, second, second - mean * mean, 3.0, -1.0, 1.0, **more)


def parameter(name: str, shape: tuple[int, ...], second: float, mean: float = 0.0, **more: Any) -> ParameterFacts:
    module, _, local = name.rpartition(".")
    return ParameterFacts(
        name, "parameter", shape, "float32", module, local, stats=stats(second, math.prod(shape), mean, **more)
    )


class Graph:
    """Builds a graph node by node; every method returns the index of the node that it adds."""

    def __init__(self, batch: int = 8) -> None:
        self.nodes: list[Node] = []
        self.parameters: list[ParameterFacts] = []
        self.batch = batch

    def add(self, op: str, *inputs: int, shape: tuple[int, ...], **attrs: Plain) -> int:
        channel = 1 if len(shape) in (2, 4) else len(shape) - 1
        node = Node(len(self.nodes), op, inputs, shape, attrs=attrs, label=f"{op}{len(self.nodes)}", channel=channel)
        self.nodes.append(node)
        return node.index

    def put(self, node: Node) -> int:
        self.nodes.append(node)
        return node.index

    def input(self, *sizes: int, **attrs: Plain) -> int:
        return self.add("input", shape=(self.batch, *sizes), **{"kind": "float", "second": 1.0, **attrs})

    def linear(self, source: int, out: int, gain: float = 1.0, bias: float = 0.0, name: str = "", **more: Any) -> int:
        """A dense layer with F Var[w] = gain and bias variance ``bias``."""
        index = len(self.nodes)
        name = name or f"l{index}"
        shape = self.nodes[source].shape
        assert shape is not None
        fan = shape[-1]
        second = gain / fan
        operator = Operator(
            fan, out, gain, out * second, 0.0, gain, 0.0, 0.0, bias, width_in=fan, width_out=out, **more
        )
        self.parameters.append(parameter(f"{name}.weight", (out, fan), second))
        names = {"weight": f"{name}.weight"}
        if bias:
            self.parameters.append(parameter(f"{name}.bias", (out,), bias))
            names["bias"] = f"{name}.bias"
        return self.put(
            Node(
                index,
                "linear",
                (source,),
                (*shape[:-1], out),
                parameters=names,
                operator=operator,
                module=name,
                label=name,
                channel=len(shape) - 1,
            )
        )

    def activation(self, source: int, fn: str, **attrs: Plain) -> int:
        shape = self.nodes[source].shape
        assert shape is not None
        return self.add("activation", source, shape=shape, fn=fn, **attrs)

    def sum(self, a: int, b: int) -> int:
        shape = self.nodes[a].shape
        assert shape is not None
        return self.add("add", a, b, shape=shape)

    def norm(self, source: int, kind: str = "layer", **attrs: Plain) -> int:
        shape = self.nodes[source].shape
        assert shape is not None
        given: dict[str, Plain] = {"kind": kind, "n": shape[-1], "eps": 1e-5, "training": True}
        return self.add("norm", source, shape=shape, **{**given, **attrs})

    def facts(self, *outputs: int) -> ModelFacts:
        ends = outputs or (len(self.nodes) - 1,)
        return ModelFacts(
            "M", "m.py::M", "m.py", parameters=tuple(self.parameters), nodes=tuple(self.nodes), outputs=ends
        )


def plain(depth: int, gain: float, fn: str = "relu", width: int = 256, bias: float = 0.0, **more: Any) -> Graph:
    """A plain net: ``depth`` layers of one width with one activation, and a head."""
    graph = Graph()
    x = graph.input(width)
    for layer in range(depth):
        x = graph.activation(graph.linear(x, width, gain, bias, f"layers.{layer}", **more), fn)
    graph.linear(x, 10, 1.0, name="head")
    return graph
