"""From a layer's output forward to what consumes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace

from initlint.facts import Node, Plain
from initlint.probe.pair_graph import TRANSPARENT, Graph
from initlint.records import dataclass

#: Gate of a gated unit -> the name of the unit (the table of gated activations).
GATED = {
    "sigmoid": "glu", "relu": "reglu", "gelu": "geglu", "gelu_tanh": "geglu_tanh", "silu": "swiglu",
    "identity": "bilinear_glu", "tanh": "tanh_glu",
}  # fmt: skip
#: Which consumer says most about a layer, when its output has several.
PRIORITY = (
    "trunk",
    "activation",
    "gate",
    "softmax",
    "attention",
    "norm",
    "residual",
    "linear",
    "loss",
    "output",
    "none",
)
#: Bounded functions whose output, multiplied with a signal, is a gate and not a hidden unit.
GATES = frozenset(("sigmoid", "hardsigmoid", "tanh", "softmax", "hardtanh"))
#: Relative difference of the second moment from the squared mean below which all values are one (float32 sums).
_ONE_VALUE = 1e-5
#: A walk that branches more often than this is cut; real models stay far below.
STEPS = 2000


@dataclass(frozen=True, slots=True)
class Consumer:
    """What consumes a layer's output, on one path."""

    kind: str  # as Layer.consumer, or "trunk" (residual, as the trunk) or "none"
    node: int
    path: tuple[str, ...] = ()
    factor: float = 1.0
    activation: str | None = None
    args: Mapping[str, Plain] = field(default_factory=dict)
    why: str = ""
    role: str = ""  # "query" "key" "value" "gate"


def order(consumer: Consumer) -> tuple[int, int, int]:
    """What says most first; then the shortest path."""
    return PRIORITY.index(consumer.kind), len(consumer.path), consumer.node


def consumers(graph: Graph, start: int) -> tuple[Consumer, ...]:
    """Every consumer of the output of node ``start``, in execution order."""
    found: list[Consumer] = []
    seen: set[int] = set()
    stack: list[tuple[int, tuple[str, ...], float, float]] = [(start, (), 1.0, 1.0)]
    steps = 0
    while stack and steps < STEPS:
        index, path, factor, learned = stack.pop()
        for user in graph.users[index]:
            steps += 1
            node = graph.nodes[user]
            verdict = _consume(graph, start, index, node, path, factor)
            if verdict is not None:
                found.append(replace(verdict, factor=factor * learned) if verdict.activation else verdict)
            elif user not in seen:
                seen.add(user)
                times = node.attrs.get("factor", 1.0) if node.op == "scale" else 1.0
                if times == 0:
                    continue  # ``x * 0 + scale``: a shape is taken from it, no signal goes on
                more = factor * times if isinstance(times, (int, float)) else factor
                stack.append((user, (*path, node.label), more, learned * _learned(graph, index, node)))
    return tuple(sorted(found, key=order))


def _learned(graph: Graph, source: int, node: Node) -> float:
    """The one value of the parameter or buffer that a signal is multiplied by (a frequency that is learned), or 1.

    A gate that starts at zero, or one of many values, is no factor that a weight could be divided by.
    """
    if node.op not in ("mul", "div"):
        return 1.0
    for index in graph.others(node, source):
        other = graph.held(index)
        mean, second = other.attrs.get("mean"), other.attrs.get("second")
        if other.op != "parameter" or not isinstance(mean, float) or not isinstance(second, float) or not mean:
            continue
        if abs(second - mean * mean) <= _ONE_VALUE * second:
            return mean if node.op == "mul" else 1 / mean
    return 1.0


def _consume(
    graph: Graph, start: int, source: int, node: Node, path: tuple[str, ...], factor: float
) -> Consumer | None:
    """The consumer that ``node`` is, or ``None`` when it hands the signal on."""

    def made(kind: str, **more: object) -> Consumer:
        return Consumer(kind, node.index, (*path, node.label), factor, **more)  # type: ignore[arg-type]

    op = node.op
    if op == "activation":
        return _activation(graph, node, path, factor)
    if op == "glu":
        fn = str(node.attrs.get("fn", "sigmoid"))
        return made("activation", activation=GATED.get(fn, "glu"))
    if op in ("add", "sub"):
        return _sum(graph, start, source, node, path, factor)
    if op in ("mul", "div"):
        others = graph.others(node, source)
        if all(graph.fixed[i] for i in others):
            return None
        return made("gate", activation=_gated_by(graph, start, others), role="value")
    if op in TRANSPARENT:
        return None
    if op == "matmul":
        if node.attrs.get("kind") in ("logits", "values"):
            return made("attention", role=attention_role(node, source))
        if all(_is_data(graph, i) for i in graph.others(node, source)):
            return None  # aggregation over neighbours given as an input
        return made("gate")
    if op in ("attention", "mha"):
        return made("attention", role=attention_role(node, source))
    if op == "stop":
        return made("none", why="its output goes on without a gradient")
    if op == "opaque":
        return made("none", why=f"{node.attrs.get('name', node.label)} is not modelled")
    return made(_KINDS.get(op, "linear"))


_KINDS = {"norm": "norm", "softmax": "softmax", "log_softmax": "softmax", "output": "output", "loss": "loss"}


def attention_role(node: Node, source: int) -> str:
    """Which operand of an attention a signal is."""
    place = node.inputs.index(source) if source in node.inputs else -1
    if node.op == "matmul":
        values = node.attrs.get("kind") == "values"
        weights = node.attrs.get("weights", 0)  # which operand holds the softmax
        if values:
            return "" if place == weights else "value"
        return ("query", "key")[place] if place in (0, 1) else ""
    return ("query", "key", "value")[place] if 0 <= place < 3 else ""


def _activation(graph: Graph, node: Node, path: tuple[str, ...], factor: float) -> Consumer:
    fn = str(node.attrs.get("fn", "callable"))
    args = {k: v for k, v in node.attrs.items() if k not in ("fn", "expr")}
    kind, role = "activation", ""
    if fn in GATES:
        target = _multiplied(graph, node.index)
        if target:
            kind, role = "gate", "gate"
    return Consumer(kind, node.index, (*path, node.label), factor, fn, args, role=role)


def _multiplied(graph: Graph, index: int) -> bool:
    """Whether a value does nothing but scale another signal."""
    for _ in range(8):
        users = graph.users[index]
        if len(users) != 1:
            return False
        node = graph.nodes[users[0]]
        if node.op == "mul":
            return any(not graph.fixed[i] for i in graph.others(node, index))
        if node.op not in TRANSPARENT or node.op in ("cat", "stack"):
            return False
        index = node.index
    return False


def _gated_by(graph: Graph, start: int, others: list[int]) -> str | None:
    """The gated unit that a product with these operands forms; none when the gate is made from the value."""
    for other in others:
        if graph.ancestors[other] >> start & 1:
            continue
        for index in graph.backwards(other):
            node = graph.nodes[index]
            if node.op == "activation":
                return GATED.get(str(node.attrs.get("fn")))
    return None


def _sum(graph: Graph, start: int, source: int, node: Node, path: tuple[str, ...], factor: float) -> Consumer | None:
    """A sum is residual when one operand skips what the other goes through; else it hands on."""
    for other in graph.others(node, source):
        verdict = merge(graph, start, source, other)
        if verdict is not None:
            kind = "residual" if verdict else "trunk"
            return Consumer(kind, node.index, (*path, node.label), factor)
    return None


def merge(graph: Graph, start: int, source: int, other: int) -> bool | None:
    """Whether ``start``, arriving by ``source``, is the branch (True) or the trunk (False) of a residual sum.

    ``None`` when the sum is none: a parameter added, or layers of equal rank summed up.
    """
    if graph.fixed[other]:
        return None
    ancestors = graph.ancestors
    if ancestors[other] >> start & 1 or other == start:
        if _linear_in(graph, start, source) and _linear_in(graph, start, other) and start not in (source, other):
            return None  # a rotation or mixture of the layer's own outputs (rotary embeddings)
        return bool(ancestors[source] >> start & 1) and _deeper(graph, start, source, other)
    if _carries(graph, other, ancestors[start]):
        return True
    mine, theirs = ancestors[source] | 1 << source, ancestors[other] | 1 << other
    common = mine & theirs
    if not common & ~_sources(graph):
        return None
    mine, theirs = mine & ~common, theirs & ~common
    weights = (mine & graph.weighted).bit_count(), (theirs & graph.weighted).bit_count()
    bends = (mine & graph.nonlinear).bit_count(), (theirs & graph.nonlinear).bit_count()
    if weights[1] == 0 and bends[1] == 0:
        return True
    if weights[0] == 0 and bends[0] == 0:
        return False
    if _repeats(graph, start, theirs):
        return None  # the state of a recurrence: W x_t + U h
    if weights[0] == weights[1]:  # two maps of equal depth added up: W x + U h, base plus spline
        return None
    heavier = weights[0] > weights[1]
    if bends == (0, 0):  # a low-rank correction beside a linear layer: the layer itself is no shortcut
        return True if heavier else None
    if bends[1 if heavier else 0]:  # both sides are nonlinear: parallel branches
        return None
    return heavier


def _carries(graph: Graph, index: int, wanted: int, depth: int = 8) -> bool:
    """Whether an operand is one of these nodes, or a sum that has one as a term: (x + f(x)) beside g(x)."""
    root = graph.stripped(index)
    if wanted >> root & 1:
        return True
    node = graph.nodes[root]
    if node.op not in ("add", "sub") or depth == 0:
        return False
    return any(_carries(graph, i, wanted, depth - 1) for i in node.inputs if not graph.fixed[i])


def _linear_in(graph: Graph, start: int, index: int) -> bool:
    """Whether nothing with weights or a bend lies between the layer and ``index``."""
    after = ~(graph.ancestors[start] | 1 << start)
    between = (graph.ancestors[index] | 1 << index) & after
    return not between & (graph.weighted | graph.nonlinear)


def _repeats(graph: Graph, start: int, others: int) -> bool:
    """Whether the layer of ``start`` is called again among ``others``."""
    weight = graph.nodes[start].parameters.get("weight")
    same = sum(1 << n.index for n in graph.nodes if n.parameters.get("weight") == weight) if weight else 0
    return bool(same & others & ~(1 << start))


def _is_data(graph: Graph, index: int) -> bool:
    """Whether an operand comes from inputs and constants alone, with no layer in between."""
    return not (graph.ancestors[index] | 1 << index) & graph.weighted


def _deeper(graph: Graph, start: int, source: int, other: int) -> bool:
    """Both operands come from the layer: whether this path has the weights and the other has none."""
    after = ~(graph.ancestors[start] | 1 << start)
    mine = (graph.ancestors[source] | 1 << source) & after & graph.weighted
    theirs = (graph.ancestors[other] | 1 << other) & after & graph.weighted
    return bool(mine) and not theirs


def _sources(graph: Graph) -> int:
    """Bit set of parameters, constants and what depends on nothing else."""
    return sum(1 << i for i, fixed in enumerate(graph.fixed) if fixed)


def _skipped(graph: Graph, start: int, node: Node) -> bool:
    """Whether an operand of a sum goes past the layer ``start``."""
    live = [graph.stripped(i) for i in node.inputs if not graph.fixed[i]]
    return any(graph.ancestors[start] >> i & 1 for i in live)


def is_head(graph: Graph, start: int) -> bool:
    """Whether the output of a node leaves the model through transparent and final ops only."""
    stack, seen = [start], set()
    reached = False
    while stack:
        for user in graph.users[stack.pop()]:
            node = graph.nodes[user]
            if user in seen:
                continue
            seen.add(user)
            if node.op in ("output", "loss"):
                reached = True
            elif (
                node.op in TRANSPARENT
                or node.op in ("softmax", "log_softmax", "stop")
                or node.op == "activation"
                or (node.op in ("mul", "div") and sum(not graph.fixed[i] for i in node.inputs) == 1)
                or (node.op in ("add", "sub") and not _skipped(graph, start, node))
            ):
                stack.append(user)
    return reached
