"""The graph as the rules of propagation see it: nodes, their shapes and the statistics of their parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from math import prod
from typing import NamedTuple

from initlint.facts import ModelFacts, Node, ParameterFacts, Plain, TensorStats
from initlint.records import dataclass
from initlint.signal.moments import Grad, Nominal, State


class Layout(NamedTuple):
    """How many samples, channels and positions a tensor has."""

    batch: int
    channels: int
    positions: int

    @property
    def elements(self) -> int:
        """Elements of one sample."""
        return self.channels * self.positions


#: Ops between a layer and a node of unknown shape that takes its channels from it.
_FAR = 32


#: Ops by which masks become other masks and counts.
COUNTS = frozenset({"mul", "add", "sub", "reduce", "cumsum", "pad", "select", "reshape", "identity", "scale", "shift"})


class Scene:
    """Read-only view of a traced model, with look-ups that rules need, each computed once."""

    def __init__(self, nodes: Sequence[Node], facts: ModelFacts, overruled: frozenset[int] | None = None) -> None:
        """``overruled``: nodes whose rule the measurement contradicted; None while that is being found out, on the
        graph that was measured. On a changed graph the measurement says nothing of the rule any more."""
        self.nodes = tuple(nodes)
        self.facts = facts
        self.overruled = overruled
        self._layouts: dict[int, Layout] = {}

    @cached_property
    def parameters(self) -> Mapping[str, ParameterFacts]:
        """Parameters and buffers by name and alias."""
        return {name: fact for fact in self.facts.parameters for name in (*fact.aliases, fact.name)}

    @cached_property
    def consumers(self) -> tuple[tuple[int, ...], ...]:
        """For each node the nodes that read it, once each."""
        found: list[list[int]] = [[] for _ in self.nodes]
        for node in self.nodes:
            for source in dict.fromkeys(node.inputs):
                found[source].append(node.index)
        return tuple(tuple(users) for users in found)

    def stats(self, name: str | None) -> TensorStats | None:
        """Statistics of a parameter, or ``None``."""
        fact = self.parameters.get(name) if name else None
        return fact.stats if fact else None

    @cached_property
    def readers(self) -> Mapping[str, tuple[int, ...]]:
        """For each tensor, by its proper name, the nodes that read it."""
        found: dict[str, list[int]] = {}
        for node in self.nodes:
            for name in node.parameters.values():
                found.setdefault(self.proper(name), []).append(node.index)
        return {name: tuple(dict.fromkeys(indices)) for name, indices in found.items()}

    @cached_property
    def generated(self) -> tuple[ParameterFacts, ...]:
        """Weights computed from other parameters."""
        return tuple(fact for fact in self.facts.parameters if fact.generated and fact.stats)

    @cached_property
    def fixed(self) -> frozenset[int]:
        """Nodes that are computed from parameters and constants alone: the same whatever comes in."""
        found: set[int] = set()
        for node in self.nodes:
            if node.op in ("parameter", "constant"):
                if not node.attrs.get("random"):
                    found.add(node.index)
            elif node.inputs and node.op not in ("dropout", "opaque") and found.issuperset(node.inputs):
                found.add(node.index)
        return frozenset(found)

    @cached_property
    def data(self) -> frozenset[int]:
        """Nodes that are computed from inputs, constants and buffers alone, before any weight."""
        found: set[int] = set()
        for node in self.nodes:
            if node.op == "parameter":
                if node.attrs.get("buffer"):
                    found.add(node.index)
            elif self._constant(node) and found.issuperset(node.inputs):
                found.add(node.index)
        return frozenset(found)

    def _constant(self, node: Node) -> bool:
        """Whether a node has no weights but buffers, such as the filters of a spectrogram."""
        return all(
            name in self.parameters and self.parameters[name].kind == "buffer" for name in node.parameters.values()
        )

    @cached_property
    def masks(self) -> frozenset[int]:
        """Nodes that are computed from masks alone: comparisons, places made one-hot, their sums and products."""
        found: set[int] = set()
        for node in self.nodes:
            if node.op == "stop":
                if node.attrs.get("mask"):
                    found.add(node.index)
            elif (
                node.op in COUNTS
                and found.intersection(node.inputs)
                and all(source in found or source in self.fixed for source in node.inputs)
            ):
                found.add(node.index)
        return frozenset(found)

    @cached_property
    def again(self) -> Mapping[str, tuple[float, ...]]:
        """By weight the gains of a depthwise kernel's powers, where it is applied more than once."""
        return {
            node.parameters["weight"]: node.operator.again
            for node in self.nodes
            if node.operator is not None and node.operator.again and "weight" in node.parameters
        }

    @cached_property
    def batch(self) -> int | None:
        """The number of samples that the model was run with."""
        for node in self.nodes:
            if node.op == "input" and node.shape:
                return self.layout(node.index).batch
        return None

    def proper(self, name: str) -> str:
        """The one name of a tensor that has several."""
        fact = self.parameters.get(name)
        return fact.name if fact else name

    def layout(self, index: int) -> Layout:
        """Samples, channels and positions of a node's output. Where its shape is unknown the channels are those of the
        layer that wrote it; (1, 1, 1) where there is none."""
        found = self._layouts.get(index)
        if found is None:
            node = self.nodes[index]
            source = next(iter(node.inputs), None)
            for _ in range(_FAR):
                if source is None or node.shape or node.operator is not None:
                    break
                node = self.nodes[source]
                source = next(iter(node.inputs), None)
            found = self._layouts[index] = layout(node)
        return found


def layout(node: Node) -> Layout:
    """See ``Scene.layout``. The last axis holds the channels where the node does not say."""
    shape = node.shape
    if not shape or any(size <= 0 for size in shape):
        width = node.operator.width_out if node.operator else 1
        return Layout(1, max(width, 1), 1)
    batch_axis = node.batch if node.batch is not None and node.batch < len(shape) else None
    batch = shape[batch_axis] if batch_axis is not None else 1
    axis = node.channel if node.channel is not None else len(shape) - 1
    axis = axis if -len(shape) <= axis < len(shape) else len(shape) - 1
    channels = 1 if axis % len(shape) == batch_axis else shape[axis]
    return Layout(batch, channels, max(prod(shape) // (batch * channels), 1))


Forward = Callable[[Node, tuple[State, ...], Scene], State]
Backward = Callable[[Node, tuple[State, ...], State, Grad, Scene], tuple[Grad, ...]]


@dataclass(frozen=True, slots=True)
class Op:
    """How one canonical op maps moments forward, and gradients back to each of its inputs."""

    forward: Forward
    backward: Backward
    clears: bool = False  # its output is known even where its input is not (norms, embeddings)


def number(node: Node, name: str, default: float = 0.0) -> float:
    """A numeric attribute, or the default where it is missing or not a number."""
    value = node.attrs.get(name)
    return float(value) if isinstance(value, (int, float)) else default


def text(node: Node, name: str, default: str = "") -> str:
    """A string attribute, or the default."""
    value = node.attrs.get(name)
    return value if isinstance(value, str) else default


def numbers(value: Plain) -> tuple[float, ...]:
    """A list attribute as floats; scalars become one-element tuples, what is no number is left out."""
    items = value if isinstance(value, list) else [value]
    return tuple(float(item) for item in items if isinstance(item, (int, float)))


def nominal_of(stats: TensorStats) -> Nominal:
    """The actual moments of a parameter in the form of a nominal one."""
    return Nominal(stats.mean, stats.var)
