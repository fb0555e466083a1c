"""Hand-written forms of one op, recognised by structure, after all nodes are known."""

from __future__ import annotations

import dataclasses
import math

from initlint.facts import Node, Operator, Plain
from initlint.probe.normalise_composite import Composites
from initlint.probe.normalise_edit import Editor
from initlint.probe.normalise_norms import fuse_norms

#: More heads than any published model has.
MOST_HEADS = 128
#: What logits pass on their way to a softmax.
_TO_SOFTMAX = frozenset(
    ("scale", "shift", "where", "add", "sub", "mul", "div", "dropout", "reshape", "select", "identity", "activation",
     "norm", "cat")
)  # fmt: skip
#: What attention weights pass on their way to the values.
_TO_VALUES = frozenset(("dropout", "reshape", "identity", "where", "scale", "select", "mul", "norm", "div", "cat"))


def fuse(nodes: tuple[Node, ...], outputs: tuple[int, ...]) -> tuple[tuple[Node, ...], tuple[int, ...]]:
    """Nodes and outputs with hand-written biases, activations, norms, softmax and gated units as one op each."""
    editor = Editor(nodes, outputs)
    for node in nodes:
        _fold_bias(editor, node.index)
    fuse_norms(editor)
    Composites(editor).run()
    for node in list(editor.nodes):
        _fuse_gated(editor, editor.nodes[node.index])
    for node in list(editor.nodes):
        if node.op == "matmul":
            _classify(editor, node.index)
    return editor.compact()


def _fold_bias(editor: Editor, index: int) -> None:
    """A parameter added to the output of a map without bias is its bias."""
    node = editor.nodes[index]
    if node.op not in ("linear", "conv", "conv_transpose") or "bias" in node.parameters or node.operator is None:
        return
    user = editor.sole_user(index)
    if user is None or user.op != "add" or len(user.inputs) != 2 or user.shape != node.shape or user.attrs.get("alpha"):
        return
    other = editor.nodes[user.inputs[0] if user.inputs[1] == index else user.inputs[1]]
    value = editor.nodes[editor.through(other.index)]
    if value.op != "parameter" or "expr" in value.attrs or not _on_channels(node, other):
        return
    mean, second = value.attrs.get("mean", 0.0), value.attrs.get("second", 0.0)
    if not isinstance(mean, (int, float)) or not isinstance(second, (int, float)):
        return
    operator = _with_bias(node.operator, float(mean), float(second))
    parameters = {**node.parameters, "bias": next(iter(value.parameters.values()))}
    editor.replace(
        user.index, node.op, node.inputs, node.attrs, parameters=parameters, operator=operator, label=node.label,
        module=node.module, site=node.site, channel=node.channel,
    )  # fmt: skip
    editor.take_in(index)


def _on_channels(node: Node, operand: Node) -> bool:
    """Whether an operand has one value for each channel of the node's output."""
    if node.shape is None or operand.shape is None or node.channel is None or node.operator is None:
        return False
    from_end = len(node.shape) - node.channel
    if math.prod(operand.shape) != node.shape[node.channel] or len(operand.shape) < from_end:
        return False
    return operand.shape[len(operand.shape) - from_end] == node.shape[node.channel]


def _with_bias(operator: Operator, mean: float, second: float) -> Operator:
    """The operator with a bias of these moments, taken as independent of the row sums."""
    return dataclasses.replace(operator, bias_mean=mean, bias_second=second, total_bias=operator.total_mean * mean)


def _fuse_gated(editor: Editor, node: Node) -> None:
    """value * fn(gate) with both halves cut from one signal."""
    if node.op != "mul" or len(node.inputs) != 2:
        return
    halves = [editor.nodes[editor.through(i)] for i in node.inputs]
    gates = [i for i, h in enumerate(halves) if h.op == "activation"]
    fn, table = "identity", {}
    if len(gates) == 1:
        gate = halves[gates[0]]
        fn, table = str(gate.attrs.get("fn")), dict(gate.table)
        if len(gate.attrs) > 1 and not table:
            return  # arguments that a gated unit does not carry
        halves[gates[0]] = editor.nodes[editor.through(gate.inputs[0])]
    elif gates:
        return
    first, second = halves
    if first.op != "select" or second.op != "select" or first.index == second.index:
        return
    if first.inputs != second.inputs or first.attrs.get("dim") != second.attrs.get("dim"):
        return
    if first.attrs.get("share") != 0.5 or second.attrs.get("share") != 0.5 or not _complementary(first, second):
        return
    gate_index = gates[0] if gates else 1
    gate_half = (first, second)[gate_index]
    attrs: dict[str, Plain] = {"fn": fn, "dim": first.attrs.get("dim"), "gate_rows": gate_half.attrs.get("rows")}
    editor.replace(node.index, "glu", first.inputs, attrs, table=table, label="glu")


def _complementary(first: Node, second: Node) -> bool:
    a, b = (first.attrs.get("start"), first.attrs.get("stop")), (second.attrs.get("start"), second.attrs.get("stop"))
    if None in a or None in b:
        return first.attrs.get("of") is not None and first.attrs.get("of") != second.attrs.get("of")
    return a != b


def _classify(editor: Editor, index: int) -> None:
    """Products of queries and keys, and of attention weights and values."""
    node = editor.nodes[index]
    place = next((i for i, source in enumerate(node.inputs) if _from_softmax(editor, source)), None)
    if place is not None:
        _set_kind(editor, index, {"kind": "values", "weights": place})
    elif _reaches_values(editor, index):
        _set_kind(editor, index, {"kind": "logits"})


def _mixes_heads(node: Node) -> bool:
    """Talking heads: a small square map over the heads, before or after the softmax."""
    square = node.operator is not None and node.operator.width_in == node.operator.width_out <= MOST_HEADS
    return node.op in ("linear", "conv") and square and node.shape is not None and len(node.shape) == 4


def _set_kind(editor: Editor, index: int, attrs: dict[str, Plain]) -> None:
    node = editor.nodes[index]
    editor.nodes[index] = dataclasses.replace(node, attrs={**node.attrs, **attrs})


def _from_softmax(editor: Editor, index: int) -> bool:
    for _ in range(12):
        node = editor.nodes[index]
        if node.op == "softmax":
            return True
        live = [i for i in node.inputs if editor.nodes[i].op not in ("parameter", "constant")]
        if node.op == "add" and len(live) == 2:  # a mixture of two rows of weights
            return all(_from_softmax(editor, i) for i in live)
        if not (node.op in _TO_VALUES or _mixes_heads(node)) or not live:
            return False
        index = live[0]
    return False


def _reaches_values(editor: Editor, index: int) -> bool:
    """Whether the product goes into a softmax whose output weighs values."""
    stack, seen = [index], {index}
    while stack:
        for user in editor.users[stack.pop()]:
            node = editor.nodes[user]
            if user in seen:
                continue
            seen.add(user)
            if node.op == "softmax" and _weighs(editor, user):
                return True
            if (node.op in _TO_SOFTMAX or _mixes_heads(node)) and len(seen) < 48:
                stack.append(user)
    return False


def _weighs(editor: Editor, index: int) -> bool:
    stack, seen = [index], {index}
    while stack:
        for user in editor.users[stack.pop()]:
            node = editor.nodes[user]
            if node.op == "matmul":
                return True
            mixture = node.op == "add" and _from_softmax(editor, user)
            if user not in seen and (node.op in _TO_VALUES or mixture or _mixes_heads(node)) and len(seen) < 32:
                seen.add(user)
                stack.append(user)
    return False
