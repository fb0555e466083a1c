"""Layers with weights, each paired with what consumes its output. Needs no torch.

A layer is every distinct use of a weight: of a module, of a functional call, or of a bare
parameter in a product. From its output the graph is followed through whatever hands a signal on
(reshapes, dropout, pooling, concatenation, constants) to the first op that does something with it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from initlint.facts import Block, Layer, ModuleFacts, Node, ParameterFacts, Site
from initlint.probe.pair_blocks import attention_blocks, gate_blocks
from initlint.probe.pair_graph import Graph
from initlint.probe.pair_walk import Consumer, consumers, is_head, order
from initlint.records import dataclass

_SIMPLE = frozenset(("linear", "conv", "conv_transpose", "bilinear", "embedding"))


@dataclass(frozen=True, slots=True)
class Context:
    """What pairing reads besides the graph."""

    graph: Graph
    parameters: Mapping[str, ParameterFacts]
    modules: Mapping[str, ModuleFacts]


def pair(
    nodes: Sequence[Node], parameters: Sequence[ParameterFacts], modules: Sequence[ModuleFacts]
) -> tuple[Layer, ...]:
    """All layers with weights in order of first use, paired with their consumers."""
    by_name = {name: p for p in parameters for name in (p.name, *p.aliases)}
    by_module = {name: m for m in modules for name in (m.name, *m.shared_with)}
    context = Context(Graph(nodes), by_name, by_module)
    groups: dict[tuple[str, str], list[Node]] = {}
    for node in nodes:
        weight = node.parameters.get("weight")
        if node.op in _SIMPLE and weight and not node.attrs.get("fixed"):
            kind = "table" if node.op == "embedding" else "product"
            groups.setdefault((weight, kind), []).append(node)
        elif node.op == "norm" and weight:
            groups.setdefault((weight, "norm"), []).append(node)
        elif node.op in ("recurrent", "mha"):
            groups.setdefault((str(node.index), node.op), []).append(node)
        elif node.op == "mul":
            scale = _scale_operand(context.graph, node)
            known = by_name.get(scale or "")
            if scale is not None and (known is None or known.kind == "parameter"):
                groups.setdefault((scale, "scale"), []).append(node)
    found: list[Layer] = []
    for (key, kind), members in groups.items():
        if kind == "recurrent":
            found.extend(_recurrent(context, members[0]))
        elif kind == "mha":
            found.extend(_multihead(context, members[0]))
        elif kind == "scale":
            found.append(_scale(context, key, members))
        else:
            found.append(_layer(context, key, members))
    return tuple(_merged_calls(found))


def _merged_calls(layers: Sequence[Layer]) -> list[Layer]:
    """Whole recurrent and attention modules that are called several times become one layer each."""
    merged: dict[tuple[str, str], Layer] = {}
    for layer in layers:
        key = (layer.weight, layer.kind if layer.kind in ("embedding", "norm", "scale") else "")
        if key in merged:
            nodes = (*merged[key].nodes, *(n for n in layer.nodes if n not in merged[key].nodes))
            merged[key] = dataclasses.replace(merged[key], nodes=nodes)
        else:
            merged[key] = layer
    return list(merged.values())


def _scale_operand(graph: Graph, node: Node) -> str | None:
    """The trainable parameter that a product with one signal multiplies by."""
    if len(node.inputs) != 2:
        return None
    for mine, other in (node.inputs, node.inputs[::-1]):
        source = graph.held(mine)
        if source.op == "parameter" and not source.attrs.get("buffer") and not graph.fixed[other]:
            return next(iter(source.parameters.values()), None)
    return None


def _name(context: Context, weight: str, bias: str | None, caller: str = "") -> str:
    """The module's name when the weight (and bias) is all it holds, else the parameter's."""
    fact = context.parameters.get(weight)
    if fact is None:
        return weight.rpartition(".")[0] or weight
    if caller and caller != fact.module and context.parameters.get(f"{caller}.{fact.local}") is fact:
        return caller  # a tied weight, used by another module than the one that owns it
    module = context.modules.get(fact.module)
    mine = {weight, bias, *fact.sources}
    if not fact.module:
        return weight
    if module is None or all(p in mine for p in module.parameters) or fact.generated:
        return fact.module
    return fact.module if module.library == "torch" and fact.local == "weight" else weight


def _layer(context: Context, weight: str, members: Sequence[Node]) -> Layer:
    graph = context.graph
    members, chosen_from = _gathered(graph, members)
    node = members[0]
    fact = context.parameters.get(weight)
    bias = next((n.parameters["bias"] for n in members if "bias" in n.parameters), None)
    chosen, all_of = _consumer(graph, members)
    shape = fact.shape if fact is not None else ()
    kind = node.op
    if chosen_from:
        contraction = node.attrs.get("contraction")
        found = _layer_of_stack(context, weight, members, fact)
        return dataclasses.replace(found, fan_in=float(contraction) if isinstance(contraction, int) else None)
    if node.op == "linear" and (len(shape) != 2 or node.attrs.get("stack")):
        kind = "matmul"
    blocks = attention_blocks(graph, members) or gate_blocks(graph, members)
    operator = node.operator
    stack = node.attrs.get("stack", 1)
    groups = node.attrs.get("groups", 1)
    return Layer(
        name=_name(context, weight, bias, node.module),
        kind=kind,
        nodes=tuple(n.index for n in members),
        weight=weight,
        bias=bias,
        parameters=tuple(dict.fromkeys(p for n in members for p in n.parameters.values())),
        site=_site(context, fact),
        fan_in=operator.fan_in if operator is not None else (1.0 if kind == "embedding" else None),
        fan_out=operator.fan_out if operator is not None else None,
        torch_fans=torch_fans(shape),
        layout="table" if kind == "embedding" else str(node.attrs.get("layout") or _layout(kind)),
        stack=stack if isinstance(stack, int) else 1,
        groups=groups if isinstance(groups, int) and kind in ("conv", "conv_transpose") else 1,
        before=_before(graph, node),
        head=any(is_head(graph, n.index) for n in members),
        blocks=blocks,
        **{**_pairing(chosen, all_of), **({"role": ""} if blocks else {})},  # type: ignore[arg-type]
    )


def _gathered(graph: Graph, members: Sequence[Node]) -> tuple[Sequence[Node], bool]:
    """For weights chosen from a stack by an index: the products that they are used in."""
    found = []
    for node in members:
        for user in graph.users[node.index]:
            product = graph.nodes[user]
            if node.attrs.get("gathered") and product.op == "matmul" and "gathered" in product.attrs:
                found.append(product)
    return (found, True) if found else (members, False)


def _layer_of_stack(context: Context, weight: str, members: Sequence[Node], fact: ParameterFacts | None) -> Layer:
    """A layer whose weight is one of a stack, chosen for each position."""
    graph, node = context.graph, members[0]
    chosen, every = _consumer(graph, members)
    shape = fact.shape if fact is not None else ()
    place = node.attrs.get("gathered")
    return Layer(
        name=_name(context, weight, None),
        kind="matmul",
        nodes=tuple(n.index for n in members),
        weight=weight,
        parameters=(weight,),
        site=_site(context, fact),
        torch_fans=torch_fans(shape),
        layout=str(node.attrs.get("layout")),
        stack=shape[0] if shape else 1,
        fan_out=float(shape[-1] if node.attrs.get("layout") == "stacked_in_out" else shape[-2]) if shape else None,
        before=_before_input(graph, node.inputs[1 if place == 0 else 0]),
        head=any(is_head(graph, n.index) for n in members),
        **_pairing(chosen, every),  # type: ignore[arg-type]
    )


def _layout(kind: str) -> str:
    return {"conv_transpose": "other", "bilinear": "other", "norm": "other"}.get(kind, "out_in")


def _pairing(chosen: Consumer | None, every: Sequence[Consumer]) -> dict[str, object]:
    """The fields of a layer that say what consumes it."""
    if chosen is None:
        return {"undetermined": "nothing reads its output"}
    if chosen.kind == "none":
        return {"undetermined": chosen.why, "path": chosen.path, "consumer_node": chosen.node}
    return {
        "consumer": "residual" if chosen.kind == "trunk" else chosen.kind,
        "consumer_node": chosen.node,
        "activation": chosen.activation,
        "activation_args": dict(chosen.args),
        "path": chosen.path,
        "branch": chosen.kind == "residual",
        "pre_scale": chosen.factor,
        "role": chosen.role if len({c.role for c in every if c.kind == chosen.kind}) == 1 else "",
    }


def _consumer(graph: Graph, members: Sequence[Node]) -> tuple[Consumer | None, tuple[Consumer, ...]]:
    """The consumer that says most, over all calls of the layer."""
    every = [c for node in members for c in consumers(graph, node.index)]
    every.sort(key=order)
    return (every[0] if every else None), tuple(every)


def _before(graph: Graph, node: Node) -> str | None:
    """What produced the layer's input."""
    return _before_input(graph, node.inputs[0]) if node.inputs else None


def _before_input(graph: Graph, index: int) -> str | None:
    source = graph.nodes[list(graph.backwards(index))[-1]]
    if source.op == "activation":
        return str(source.attrs.get("fn"))
    names = {"conv": "linear", "conv_transpose": "linear", "bilinear": "linear", "mha": "attention", "mul": "gate",
             "add": "residual", "sub": "residual", "log_softmax": "softmax"}  # fmt: skip
    return names.get(source.op, source.op)


def _site(context: Context, fact: ParameterFacts | None) -> Site | None:
    """Where the layer was constructed: its module for torch layers, else its parameter."""
    if fact is None:
        return None
    module = context.modules.get(fact.module)
    if module is not None and module.created is not None and module.library == "torch":
        return module.created
    return fact.created or (module.created if module is not None else None)


def torch_fans(shape: Sequence[int]) -> tuple[int, int] | None:
    """What ``torch.nn.init`` takes for (fan_in, fan_out) of a tensor of this shape."""
    if len(shape) < 2:
        return None
    receptive = math.prod(shape[2:])
    return shape[1] * receptive, shape[0] * receptive


def _scale(context: Context, weight: str, members: Sequence[Node]) -> Layer:
    """A parameter that multiplies a signal channel by channel."""
    graph = context.graph
    chosen, every = _consumer(graph, members)
    fact = context.parameters.get(weight)
    return Layer(
        name=_name(context, weight, None),
        kind="scale",
        nodes=tuple(n.index for n in members),
        weight=weight,
        parameters=(weight,),
        site=_site(context, fact),
        torch_fans=torch_fans(fact.shape) if fact is not None else None,
        layout="other",
        before=_before(graph, members[0]),
        head=any(is_head(graph, n.index) for n in members),
        **_pairing(chosen, every),  # type: ignore[arg-type]
    )


_CELL_ACTIVATIONS = {"rnn_tanh": "tanh", "rnn_relu": "relu"}
_GATES = {"lstm": ("i", "f", "g", "o"), "gru": ("r", "z", "n")}


def _recurrent(context: Context, node: Node) -> list[Layer]:
    """One layer for each weight matrix of a recurrent module."""
    cell, hidden = str(node.attrs.get("cell")), node.attrs.get("hidden")
    found = []
    for local, name in node.parameters.items():
        if not local.startswith("weight_"):
            continue
        fact = context.parameters.get(name)
        suffix = local.removeprefix("weight_")
        bias = node.parameters.get(f"bias_{suffix}")
        blocks: tuple[Block, ...] = ()
        if isinstance(hidden, int) and cell in _GATES and not suffix.startswith("hr"):
            blocks = tuple(Block(g, i * hidden, (i + 1) * hidden) for i, g in enumerate(_GATES[cell]))
        shape = fact.shape if fact is not None else ()
        found.append(
            Layer(
                name=name,
                kind="recurrent",
                nodes=(node.index,),
                weight=name,
                bias=bias,
                parameters=tuple(p for p in (name, bias) if p),
                site=_site(context, fact),
                fan_in=float(shape[1]) if len(shape) == 2 else None,
                fan_out=float(shape[0]) if len(shape) == 2 else None,
                torch_fans=torch_fans(shape),
                activation=_CELL_ACTIVATIONS.get(cell),
                consumer="activation" if cell in _CELL_ACTIVATIONS else "gate",
                consumer_node=node.index,
                path=(node.label,),
                before=_before(context.graph, node) if suffix.startswith("ih_l0") else "recurrent",
                head=bool(is_head(context.graph, node.index)) and "hr" in suffix,
                blocks=blocks,
                role={"ih": "input", "hh": "hidden", "hr": "projection"}.get(suffix[:2], ""),
            )
        )
    return found


def _multihead(context: Context, node: Node) -> list[Layer]:
    """The projections of an ``nn.MultiheadAttention``."""
    graph = context.graph
    size = node.attrs.get("embed_dim")
    found = []
    for role in ("in_proj", "q_proj", "k_proj", "v_proj"):
        name = node.parameters.get(role)
        if name is None:
            continue
        fact = context.parameters.get(name)
        shape = fact.shape if fact is not None else ()
        packed = role == "in_proj" and isinstance(size, int)
        blocks = (
            tuple(Block(n, i * size, (i + 1) * size) for i, n in enumerate("qkv"))
            if packed and isinstance(size, int)
            else ()
        )
        bias = node.parameters.get("in_bias")
        found.append(
            Layer(
                name=name,
                kind="attention",
                nodes=(node.index,),
                weight=name,
                bias=bias if packed else None,
                parameters=tuple(p for p in (name, bias) if p),
                site=_site(context, fact),
                fan_in=float(shape[1]) if len(shape) == 2 else None,
                fan_out=float(size) if isinstance(size, int) else None,
                torch_fans=torch_fans(shape),
                consumer="attention",
                consumer_node=node.index,
                path=(node.label,),
                before=_before(graph, node),
                blocks=blocks,
                role={"q_proj": "query", "k_proj": "key", "v_proj": "value"}.get(role, ""),
            )
        )
    out = node.parameters.get("out")
    return [*found, _attention_output(context, node, out)] if out is not None else found


def _attention_output(context: Context, node: Node, out: str) -> Layer:
    """The output projection of an ``nn.MultiheadAttention``."""
    graph, size = context.graph, node.attrs.get("embed_dim")
    fact = context.parameters.get(out)
    chosen, every = _consumer(graph, [node])
    bias = node.parameters.get("out_bias")
    return Layer(
        name=_name(context, out, bias),
        kind="linear",
        nodes=(node.index,),
        weight=out,
        bias=bias,
        parameters=tuple(p for p in (out, bias) if p),
        site=_site(context, fact),
        fan_in=float(size) if isinstance(size, int) else None,
        fan_out=float(size) if isinstance(size, int) else None,
        torch_fans=torch_fans(fact.shape if fact is not None else ()),
        before="attention",
        head=is_head(graph, node.index),
        **_pairing(chosen, every),  # type: ignore[arg-type]
    )
