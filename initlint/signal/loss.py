"""The cross-entropy that an untrained classifier starts with, from the spread of its logits."""

from __future__ import annotations

import math
from collections.abc import Sequence

from initlint.records import dataclass
from initlint.signal.moments import State
from initlint.signal.order import log_sum_exp
from initlint.signal.scene import Scene

#: Ops between the last layer and the output that leave logits what they are.
KEEPS = frozenset(
    {"reshape", "identity", "scale", "dropout", "select", "output", "softmax", "log_softmax", "shift", "loss"}
)
#: A single output, or more than this many, is no classifier's.
FEWEST, MOST = 2, 10_000_000
HEADS = frozenset({"linear", "conv", "matmul"})


@dataclass(frozen=True, slots=True)
class InitLoss:
    """Expected cross-entropy at initialisation if the output is read as logits: nats.

    ``uniform`` is ln C, the loss of a uniform guess; ``head`` the node that writes the logits.
    """

    predicted: float
    expected: float
    classes: int
    logit_std: float
    head: int


def head_of(scene: Scene, outputs: Sequence[int]) -> int | None:
    """The node that writes the logits: the last layer before the (first) output; None where something else does."""
    for index in outputs:
        node = scene.nodes[index]
        while node.op in KEEPS and node.inputs:
            node = scene.nodes[node.inputs[0]]
        if node.op in HEADS:
            return node.index
    return None


def _multiplied(scene: Scene, outputs: Sequence[int], head: int) -> float:
    """What the logits are multiplied by between the layer that writes them and softmax (a readout's 1 / width)."""
    for index in outputs:
        factor, node = 1.0, scene.nodes[index]
        while node.index != head and node.op in KEEPS and node.inputs:
            by = node.attrs.get("factor") if node.op == "scale" else None
            factor = 1.0 if "softmax" in node.op else factor * abs(by) if isinstance(by, (int, float)) else factor
            node = scene.nodes[node.inputs[0]]
        if node.index == head:
            return factor
    return 1.0


def init_loss(scene: Scene, outputs: Sequence[int], states: Sequence[State]) -> InitLoss | None:
    """The loss that the logits' spread between classes gives; None where the output is no vector of logits."""
    head = head_of(scene, outputs)
    if head is None or states[head].undetermined:
        return None
    classes = scene.layout(head).channels
    if not FEWEST <= classes <= MOST:
        return None
    x, factor = states[head], _multiplied(scene, outputs, head)
    spread = factor * math.sqrt(x.v)
    # the true class is one of them: its own logit is 0 on average relative to the mean
    return InitLoss(log_sum_exp(spread, classes), math.log(classes), classes, factor * math.sqrt(x.q), head)
