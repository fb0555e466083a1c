"""How much the residual branches of a net without norms put on its stream."""

from __future__ import annotations

import math
from collections.abc import Iterator

from initlint.records import dataclass
from initlint.signal.propagate import Signal
from initlint.signal.scene import Scene
from initlint.signal.trunk import WEIGHTED

#: Ops that a stream may pass and still be the stream.
CARRIES = frozenset({"scale", "identity", "reshape", "dropout", "activation"})


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch that is summed into the trunk at node ``sum``.

    ``ratio``: its second moment over the stream's; of a branch that a zero weight closes, with that weight at
    1 / fan_in.
    """

    sum: int
    ratio: float
    closed: bool
    layers: tuple[int, ...]


def branches(signal: Signal) -> tuple[Branch, ...]:
    """Branches along the trunk; none where anything is normalised, which sets the scales anew."""
    scene = signal.scene
    if scene is None or signal.sweeps is None or any(node.op == "norm" for node in scene.nodes):
        return ()
    return tuple(_found(signal, scene))


def growth(found: tuple[Branch, ...]) -> float:
    """log10 of what the branches together make of the stream's second moment."""
    return sum(math.log10(1.0 + branch.ratio) for branch in found)


def _found(signal: Signal, scene: Scene) -> Iterator[Branch]:
    assert signal.sweeps is not None
    built, opened = signal.sweeps
    trunk = set(signal.trunk)
    for index in signal.trunk:
        node = scene.nodes[index]
        if node.op != "add" or len(set(node.inputs)) != 2:
            continue
        stream = [source for source in node.inputs if _carried(scene, source, trunk)]
        if len(stream) != 1:
            continue
        branch = next(source for source in node.inputs if source != stream[0])
        layers = _layers(scene, branch, trunk)
        q, x = opened.states[stream[0]], opened.states[branch]
        writer = layers[-1] if layers else -1
        if not layers or q.undetermined or x.undetermined or q.q <= 0 or x.q <= 0:
            continue
        closed = built.states[branch].q == 0.0
        gain = 1.0
        if closed:
            now, then = scene.nodes[writer].operator, scene.facts.nodes[writer].operator
            if now is None or then is None or then.gain > 0 or now.gain <= 0:
                continue  # closed by a learned scalar: nobody says how far it opens
            gain = now.gain
        yield Branch(index, x.q / q.q / gain, closed, layers)


def _carried(scene: Scene, index: int, trunk: set[int]) -> bool:
    while index not in trunk:
        node = scene.nodes[index]
        if node.op not in CARRIES or len(node.inputs) != 1:
            return False
        index = node.inputs[0]
    return True


def _layers(scene: Scene, index: int, trunk: set[int]) -> tuple[int, ...]:
    """The weighted nodes of a branch, in order."""
    seen, stack = {index}, [index]
    while stack:
        for source in scene.nodes[stack.pop()].inputs:
            if source not in trunk and source not in seen:
                seen.add(source)
                stack.append(source)
    return tuple(i for i in sorted(seen) if scene.nodes[i].op in WEIGHTED)
