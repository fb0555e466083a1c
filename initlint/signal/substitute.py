"""Nodes with other weights: the counterfactual's way to change a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from initlint.facts import Node, Operator, Plain
from initlint.signal.moments import Nominal
from initlint.signal.scene import Scene, nominal_of

Changes = Mapping[str, Nominal]


def resolved(changes: Changes, scene: Scene) -> dict[str, Nominal]:
    """Changes by the proper name of each tensor, those of sources carried over to the weights generated from them."""
    found: dict[str, Nominal] = {}
    for name, value in changes.items():
        found[scene.proper(name)] = value
    for fact in scene.generated:
        if fact.stats and fact.name not in found:
            factor = _generated_factor(fact.origin, fact.sources, found, scene)
            if factor != 1.0:
                found[fact.name] = Nominal(fact.stats.mean * factor**0.5, fact.stats.var * factor)
    return found


def _generated_factor(origin: str, sources: tuple[str, ...], changes: Changes, scene: Scene) -> float:
    """How the second moment of a generated weight follows that of its sources."""
    if "spectral" in origin or "orthogonal" in origin:
        return 1.0  # the scale of the source is divided out
    touched = [name for name in sources if name in changes]
    if "weight_norm" in origin:
        # weight = g v / |v|: only g counts, which has fewer elements than v
        sizes = {name: scene.parameters[name].stats for name in sources if name in scene.parameters}
        gains = sorted((s.count, name) for name, s in sizes.items() if s is not None)
        touched = [name for name in touched if gains and name == gains[0][1]]
    factor = 1.0
    for name in touched:
        stats = scene.stats(name)
        if stats is not None and stats.second > 0:
            factor *= changes[name].second / stats.second
    return factor


def substituted(changes: Changes, scene: Scene) -> dict[int, Node]:
    """The nodes that read a changed parameter, with the change worked in. Aliases of one tensor change together."""
    names = resolved(changes, scene)
    found: dict[int, Node] = {}
    for index in sorted({index for name in names for index in scene.readers.get(name, ())}):
        node = scene.nodes[index]
        touched = {
            role: names[proper] for role, name in node.parameters.items() if (proper := scene.proper(name)) in names
        }
        found[index] = changed(node, touched, scene)
    return found


def changed(node: Node, roles: Mapping[str, Nominal], scene: Scene) -> Node:
    """One node with other moments for these roles."""
    if node.operator is not None:
        return replace(node, operator=_operator(node.operator, node, roles, scene))
    attrs: dict[str, Plain] = dict(node.attrs)
    if node.op == "norm":
        for role in ("weight", "bias"):
            if role in roles:
                attrs[f"{role}_mean"], attrs[f"{role}_second"] = roles[role].mean, roles[role].second
    elif node.op == "mha":
        _attention(attrs, roles)
    elif node.op == "recurrent":
        _recurrent(attrs, roles)
    elif node.op == "activation":
        value = next(iter(roles.values()))
        attrs["negative_slope"] = value.mean
    else:  # embedding, parameter
        value = roles.get("weight") or roles.get("value") or next(iter(roles.values()))
        attrs["mean"], attrs["second"] = value.mean, value.second
        attrs.pop("alike", None)  # independent draws
    return replace(node, attrs=attrs)


def _operator(operator: Operator, node: Node, roles: Mapping[str, Nominal], scene: Scene) -> Operator:
    weight, bias = roles.get("weight"), roles.get("bias")
    operator = _factors(operator, node, roles, scene)
    if bias is not None:
        operator = replace(
            operator, bias_mean=bias.mean, bias_second=bias.second, total_bias=operator.total_mean * bias.mean
        )
    if weight is None:
        return operator
    stats = scene.stats(node.parameters.get("weight"))
    before = nominal_of(stats).second if stats else 0.0
    gain, back = operator.fan_in * weight.second, operator.fan_out * weight.second
    if before > 0 and operator.gain > 0:
        gain, back = operator.gain * weight.second / before, operator.back * weight.second / before
    # entries of fan_in rows: variances add, means add up
    total = operator.fan_in * weight.mean
    return replace(
        operator,
        gain=gain,
        back=back,
        total_mean=total,
        total_second=gain - operator.fan_in * weight.mean**2 + total * total,
        total_bias=total * operator.bias_mean,
        energy_spread=0.0,
        orthogonal=weight.orthogonal,
        columns=(),
        again=(),
    )


def _factors(operator: Operator, node: Node, roles: Mapping[str, Nominal], scene: Scene) -> Operator:
    """Further parameters that the weight is a product of: each scales its second moment."""
    factor = 1.0
    for role, value in roles.items():
        stats = scene.stats(node.parameters[role]) if role.startswith("weight_") else None
        before = nominal_of(stats).second if stats else 0.0
        factor *= value.second / before if before > 0 else 1.0
    if factor == 1.0:
        return operator
    root = factor**0.5
    return replace(
        operator,
        gain=operator.gain * factor,
        back=operator.back * factor,
        total_mean=operator.total_mean * root,
        total_second=operator.total_second * factor,
        total_bias=operator.total_bias * root,
    )


def _attention(attrs: dict[str, Plain], roles: Mapping[str, Nominal]) -> None:
    for role, value in roles.items():
        if role in ("in_proj", "weight"):
            attrs.update(dict.fromkeys(("second_q", "second_k", "second_v"), value.second))
        elif role in ("q_proj", "k_proj", "v_proj"):
            attrs[f"second_{role[0]}"] = value.second
        elif role == "out":
            attrs["second_out"] = value.second
        elif role == "out_bias":
            attrs["bias_second_out"] = value.second
        elif role == "in_bias":
            attrs.update(dict.fromkeys(("bias_second_q", "bias_second_k", "bias_second_v"), value.second))


def _recurrent(attrs: dict[str, Plain], roles: Mapping[str, Nominal]) -> None:
    """Roles are torch's names: weight_ih_l0, weight_hh_l0_reverse, bias_ih_l1 ..."""
    directions = 2 if attrs.get("bidirectional") else 1
    for role, value in roles.items():
        layer, reverse = _place(role)
        at = layer * directions + (1 if reverse else 0)
        kind = role.partition("_l")[0]  # "weight_ih", "bias_hh"
        weight = kind.startswith("weight")
        key = kind.replace("weight", "second") if weight else f"{kind}_gates"
        values = attrs.get(key)
        if isinstance(values, list) and at < len(values):
            old = values[at]
            gates = len(old) // 2 if isinstance(old, list) else 0
            new: Plain = value.second if weight else [value.mean, value.var] * gates
            attrs[key] = [*values[:at], new, *values[at + 1 :]]
        known = attrs.get("identity_hh")
        if kind == "weight_hh" and isinstance(known, list):
            attrs["identity_hh"] = [*known[:at], False, *known[at + 1 :]]


def _place(role: str) -> tuple[int, bool]:
    reverse = role.endswith("_reverse")
    tail = role.removesuffix("_reverse").rpartition("_l")[2]
    return (int(tail) if tail.isdigit() else 0), reverse
