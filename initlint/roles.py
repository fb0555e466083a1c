"""The roles of parameters, and the numbers that policies may use, from the structure of the model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from math import prod

from initlint.facts import Layer, ModelFacts, ParameterFacts
from initlint.policies import MODEL
from initlint.rule import Context

_NUMBERED = re.compile(r"(.*?)\.?(\d+)$")


def roles(context: Context, parameter: ParameterFacts) -> frozenset[str]:
    """What the parameter is in the model; see ``policies.ROLES``."""
    layers = context.layers_of(parameter.name)
    names = {parameter.name, *parameter.aliases}
    found: set[str] = set()
    if any(layer.kind == "embedding" for layer in layers):
        # a table read with indices that no other input gives, added to another table, holds positions
        found |= {"embedding"} if not _positions(context, parameter) else {"position"}
    elif _added(context, names):
        found.add("position")
    if any(layer.kind == "norm" for layer in layers):
        found.add("bias" if _is_bias(layers, names) else "gain")
    elif len(parameter.shape) > 1 and any(layer.weight in names for layer in layers) and "position" not in found:
        found.add("weight")
    elif _is_bias(layers, names):
        found.add("bias")
    if len({layer.kind for layer in layers}) > 1 or len(parameter.aliases) > 0:
        found.add("tied")
    for layer in layers:
        found |= {"residual-writer"} if layer.branch else set()
        found |= {"head"} if layer.head else set()
        found |= {"first"} if layer.before == "input" or (layer.before is None and layer is _first(context)) else set()
        found |= {layer.role} if layer.role else set()
    return frozenset(found)


def numbers(context: Context, parameter: ParameterFacts) -> dict[str, float]:
    """Values of the names in policies' expressions for this parameter; unknown ones are left out."""
    facts, layers = context.facts, context.layers_of(parameter.name)
    found = {
        "n_layer": float(blocks(facts)),
        "dims": float(len(parameter.shape)),
        "numel": float(prod(parameter.shape)),
    }
    if parameter.shape:
        found["rows"], found["columns"] = float(parameter.shape[0]), float(parameter.shape[-1])
    width = stream(context)
    if width:
        found["width"] = width
    dims = [n.attrs["head_dim"] for n in facts.nodes if "head_dim" in n.attrs]
    dims += [e / h for n in facts.nodes if (e := _float(n.attrs, "embed_dim")) and (h := _float(n.attrs, "heads"))]
    if dims and isinstance(dims[0], (int, float)):
        found["head_dim"] = float(dims[0])
    root = next((module for module in facts.modules if not module.name), None)
    for name, value in (root.attrs if root is not None else {}).items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            found[f"{MODEL}{name}"] = float(value)
    for layer in layers:
        if layer.fan_in and layer.fan_out:
            found |= {"fan_in": layer.fan_in, "fan_out": layer.fan_out, "omega": layer.pre_scale or 1.0}
        if layer.torch_fans:
            found |= {"torch_fan_in": float(layer.torch_fans[0]), "torch_fan_out": float(layer.torch_fans[1])}
    return found


def blocks(facts: ModelFacts) -> int:
    """How often the largest block is repeated: numbered siblings of one class, those with the most parameters."""
    sizes = {p.name: prod(p.shape) for p in facts.parameters if p.kind == "parameter"}
    groups: dict[tuple[str, str], set[str]] = {}
    for module in facts.modules:
        numbered = _NUMBERED.match(module.name)
        if numbered and any(other.name.startswith(module.name + ".") for other in facts.modules):
            groups.setdefault((numbered[1], module.cls), set()).add(module.name)
    weighed = []
    for (parent, _), members in groups.items():
        held = sum(
            size
            for name, size in sizes.items()
            if any(name.startswith(member + ".") for member in members if name.startswith(parent))
        )
        weighed.append((held, len(members)))
    return max(weighed, default=(0, 1))[1]


def stream(context: Context) -> float | None:
    """The width of the residual stream; without one, of the tables; without any, the commonest fan-in."""
    layers = context.facts.layers
    for chosen in ([x for x in layers if x.branch], [x for x in layers if x.kind == "embedding"]):
        widths = Counter(w for layer in chosen if (w := _width_out(context, layer)))
        if widths:
            return float(widths.most_common(1)[0][0])
    fans = Counter(layer.fan_in for layer in layers if layer.fan_in)
    return float(fans.most_common(1)[0][0]) if fans else None


def _width_out(context: Context, layer: Layer) -> int:
    node = context.facts.nodes[layer.nodes[-1]] if layer.nodes else None
    if node is None:
        return 0
    return node.operator.width_out if node.operator else node.shape[-1] if node.shape else 0


def _is_bias(layers: tuple[Layer, ...], names: set[str]) -> bool:
    return any(layer.bias in names for layer in layers)


def _first(context: Context) -> Layer | None:
    return min((x for x in context.facts.layers if x.nodes), key=lambda layer: layer.nodes[0], default=None)


def _added(context: Context, names: set[str]) -> bool:
    """Whether a bare parameter of two or more dimensions is added to a signal."""
    nodes = context.facts.nodes
    sources = {n.index for n in nodes if n.op == "parameter" and n.parameters.get("value") in names}
    grown = set(sources)
    for node in nodes:
        if node.op in ("reshape", "select", "identity") and grown.intersection(node.inputs):
            grown.add(node.index)
        if node.op == "add" and grown.intersection(node.inputs) and node.index not in grown:
            return any(len(context.facts.nodes[i].shape or ()) >= 2 for i in sources)
    return False


def _positions(context: Context, parameter: ParameterFacts) -> bool:
    """Whether a table is looked up with indices that do not come from an input: 0, 1, 2, ..."""
    nodes = context.facts.nodes
    reads = [
        n for n in nodes if n.op == "embedding" and n.parameters.get("weight") in (parameter.name, *parameter.aliases)
    ]
    return bool(reads) and all(not _from_input(context, n.inputs) for n in reads)


def _from_input(context: Context, inputs: tuple[int, ...]) -> bool:
    nodes, stack, seen = context.facts.nodes, list(inputs), set(inputs)
    while stack:
        node = nodes[stack.pop()]
        if node.op == "input":
            return True
        stack += [i for i in node.inputs if i not in seen]
        seen.update(node.inputs)
    return False


def _float(attrs: Mapping[str, object], name: str) -> float:
    value = attrs.get(name)
    return float(value) if isinstance(value, (int, float)) else 0.0
