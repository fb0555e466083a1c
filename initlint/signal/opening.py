"""Branch writers that start at zero, or so small on purpose that they cut the profile, opened by epsilon.

A zero last layer of a residual branch (zero-gamma, zero convolution, adaLN-zero, LoRA's B, ReZero), a LayerScale of
1e-5 and a zero head all train well: the first steps open them. Depth verdicts are taken on a graph in which they pass a
little. What a writer is follows from structure: its output meets another signal in a sum, or is the model's output.
"""

from __future__ import annotations

from dataclasses import replace

from initlint.facts import Node
from initlint.signal.scene import Scene, number, text
from initlint.signal.trunk import returned

#: Second moment that an opened writer passes, and its limit when there are many: a stack of n opened branches then
#: grows by e at most, so that opening never makes a net explode.
EPSILON = 1e-2
#: Decades that a signal falls from which it is asked whether it does for the opening alone: the least that costs
#: accuracy (THEORY 6.1).
FALLS = 3.0
#: A token of zeros is opened to what tokens are drawn from, N(0, .02) (ViT, BERT): more would drown what it is told.
TOKEN = 4e-4
#: How far the walk from a writer to its sum goes.
FAR = 24
PASSES = frozenset(
    {"reshape", "identity", "scale", "dropout", "select", "mul", "norm", "pad", "activation", "cat", "stack", "pool"}
)
WRITERS = frozenset({"linear", "conv", "conv_transpose", "bilinear"})


def opened(scene: Scene, most: float = EPSILON) -> dict[int, Node]:
    """Replacements for the nodes of zero and tiny branch writers; empty where there are none.

    ``most``: the second moment that each passes, unless there are many.
    """
    ends = frozenset(returned(scene, scene.facts.outputs))
    found = [node for node in scene.nodes if _closed(node, scene) and _writes(node, scene, ends)]
    if not found:
        return {}
    energy = min(most, 1.0 / len(found))
    tokens = {node.index for node in found if node.op == "parameter" and _token(node, scene)}
    return {node.index: _drawn(node) if node.index in tokens else _open(node, energy) for node in found}


def _drawn(node: Node) -> Node:
    return replace(node, attrs={**node.attrs, "second": TOKEN, "mean": 0.0})


def _closed(node: Node, scene: Scene) -> bool:
    if node.op in WRITERS:
        return node.operator is not None and node.operator.gain == 0.0
    if node.op == "mha":
        return number(node, "second_out", 1.0) == 0.0
    if node.op == "norm":
        stats = scene.stats(node.parameters.get("weight"))
        second = number(node, "weight_second", 1.0)
        if node.attrs.get("unit_offset"):
            return False
        return second == 0.0 or (stats is not None and stats.distinct == 1 and second < EPSILON)
    if node.op == "parameter":
        stats = scene.stats(node.parameters.get("value"))
        if stats is None or (stats.distinct not in (0, 1) and stats.count != 1):
            return False
        if "expr" in node.attrs and number(node, "second", 0.0) >= EPSILON:
            return False  # of zeros, exp makes ones
        if stats.second == 0.0 and _token(node, scene):
            return True
        users = [scene.nodes[user] for user in scene.consumers[node.index]]
        return stats.second < EPSILON and any(user.op in ("mul", "activation", "reshape", "scale") for user in users)
    return False


def _token(node: Node, scene: Scene) -> bool:
    """Whether a parameter is put beside a signal as further positions: a class token, a prompt.

    Of zeros, a norm behind it divides by its epsilon, and its gradient alone is 1e12 times that of all else; the first
    step takes it away from there.
    """
    stack = [node.index]
    while stack:
        for user in scene.consumers[stack.pop()]:
            other = scene.nodes[user]
            if other.op == "cat" and text(other, "axis") == "position" and len(set(other.inputs)) > 1:
                return True
            if other.op in ("reshape", "identity"):
                stack.append(user)
    return False


def _writes(node: Node, scene: Scene, ends: frozenset[int]) -> bool:
    """Whether what the node writes reaches a sum with another signal, or the output, by ops that keep it as it is."""
    seen, stack = {node.index}, [(node.index, 0)]
    while stack:
        index, steps = stack.pop()
        if index in ends:
            return True
        for user in scene.consumers[index]:
            other = scene.nodes[user]
            if other.op in ("add", "sub", "shift", "where") and (other.op == "shift" or len(set(other.inputs)) > 1):
                return True
            if other.op in PASSES and user not in seen and steps < FAR:
                seen.add(user)
                stack.append((user, steps + 1))
    return False


def _open(node: Node, energy: float) -> Node:
    if node.operator is not None:
        operator = node.operator
        ratio = operator.fan_out / operator.fan_in if operator.fan_in > 0 else 1.0
        made = replace(operator, gain=energy, back=energy * ratio, total_second=energy, energy_spread=0.0)
        return replace(node, operator=made)
    if node.op == "mha":
        return replace(node, attrs={**node.attrs, "second_out": energy / max(number(node, "embed_dim", 1.0), 1.0)})
    if node.op == "norm":
        return replace(node, attrs={**node.attrs, "weight_second": energy, "weight_mean": energy**0.5})
    return replace(node, attrs={**node.attrs, "second": energy, "mean": energy**0.5})
