"""The trunk of a graph: the nodes that every path from the main input to the main output crosses.

In a topological order a node is on every path exactly if no edge between nodes that lie on some path jumps over it,
which takes one pass over the edges. Depth verdicts are taken here: branches, gates and auxiliary heads off the trunk
have spans that say nothing of trainability.
"""

from __future__ import annotations

from collections.abc import Sequence

from initlint.facts import Node
from initlint.signal.scene import Scene, text

#: Ops that hold weights through which a signal passes.
WEIGHTED = frozenset({"linear", "conv", "conv_transpose", "bilinear", "embedding", "mha", "recurrent"})
#: Inputs considered as the main one; further ones are conditions or masks.
MOST_INPUTS = 6
#: An adapter or a block by itself, x + f(x), has up to so many layers; nets that predict a residual have ten and more.
ADAPTER = 4
#: Ops at most between a loss and the number that a model makes of it: means, weights, regularisers.
OBJECTIVE = 16
#: Ops after which a norm still cancels the scale of what came before: homogeneous of degree one.
HOMOGENEOUS = frozenset({"reshape", "identity", "scale", "dropout", "pad", "pool", "resize", "select", "cat", "stack"})
RECTIFIERS = frozenset({"relu", "leaky_relu", "prelu", "rrelu", "abs", "identity"})


def returned(scene: Scene, outputs: Sequence[int]) -> tuple[int, ...]:
    """The nodes whose signal the model returns: inputs of ``output`` nodes stand in for them."""
    found: list[int] = []
    for index in outputs:
        node = scene.nodes[index]
        found += node.inputs if node.op == "output" else (index,)
    return tuple(dict.fromkeys(found))


def trunk(scene: Scene, outputs: Sequence[int]) -> tuple[int, ...]:
    """Indices of the trunk's nodes, in order; the input with the most weights on its trunk is the main one."""
    ends = tuple(_prediction(scene, index) for index in returned(scene, outputs))
    if not ends:
        return ()
    # the first of equals: auxiliary outputs come after. What no gradient leaves (a sampled action, the greatest class)
    # is learned through none of its weights, and stands for the model only where nothing else does
    end = max(ends, key=lambda index: (_depth(scene, index, learned=True), _depth(scene, index)))
    starts = [
        n.index for n in scene.nodes if n.op == "input" and text(n, "kind") != "mask" and scene.consumers[n.index]
    ]
    best: tuple[int, ...] = ()
    score = (-1, -1)
    for start in starts[:MOST_INPUTS]:
        found = between(scene, start, end)
        mark = (sum(scene.nodes[i].op in WEIGHTED for i in found), len(found))
        if mark > score:
            best, score = found, mark
    return best if score[0] > 0 else _beside_skip(scene, best)


def _beside_skip(scene: Scene, skipped: tuple[int, ...]) -> tuple[int, ...]:
    """The trunk of a net that a residual stream without a weight leads past: of the sum at its end the deepest operand.

    Nets that predict a residual of their input (Kim et al. 2016, VDSR; Zhang et al. 2017, DnCNN) are that operand.
    """
    joins = (i for i in reversed(skipped) if scene.nodes[i].op in ("add", "sub") and len(scene.nodes[i].inputs) > 1)
    join = next(joins, None)
    beside = [i for i in scene.nodes[join].inputs if i not in skipped] if join is not None else []
    if join is None or not beside:
        return skipped
    inner = between(scene, skipped[0], max(beside, key=lambda i: _depth(scene, i)))
    weighted = sum(scene.nodes[i].op in WEIGHTED for i in inner)
    return (*inner, *(i for i in skipped if i >= join)) if weighted > ADAPTER else skipped


def _prediction(scene: Scene, index: int) -> int:
    """What a loss judges, for a loss: one number for all samples has no differences between them.

    Between the two lie means, weights of samples or of terms, and sums of terms (the deepest counts). A number that is
    no loss is followed back to what it was reduced from.
    """
    node, several = scene.nodes[index], index
    if node.shape != ():
        return index
    for _ in range(OBJECTIVE):
        if node.op == "loss" or node.op in WEIGHTED or not node.inputs:
            break
        node = scene.nodes[max(node.inputs, key=lambda source: _depth(scene, source))]
        several = several if scene.nodes[several].shape != () else node.index
    if node.op == "loss" and node.inputs:
        return max(node.inputs, key=lambda source: _depth(scene, source))
    return several


def _depth(scene: Scene, end: int, *, learned: bool = False) -> int:
    """How many weighted nodes feed an output; ``learned``: those alone to which its gradient comes."""
    seen, stack, count = {end}, [end], 0
    while stack:
        node = scene.nodes[stack.pop()]
        if learned and node.op == "stop":
            continue
        count += node.op in WEIGHTED
        for source in node.inputs:
            if source not in seen:
                seen.add(source)
                stack.append(source)
    return count


def between(scene: Scene, start: int, end: int) -> tuple[int, ...]:
    """Nodes on every path from ``start`` to ``end``; empty where there is no path."""
    relevant = reaching(scene, start, end)
    found, reach = [], start
    for index in range(start, end + 1):
        if index not in relevant:
            continue
        # ``reach``: the farthest node that an edge from before this one leads to
        if reach <= index:
            found.append(index)
        users = [user for user in scene.consumers[index] if user in relevant]
        reach = max([reach, *users])
    return tuple(found)


def reaching(scene: Scene, start: int, end: int) -> set[int]:
    """Nodes on some path from ``start`` to ``end``, with both; empty where there is no path."""
    nodes = scene.nodes
    forward = reached(nodes, start, end)
    if end not in forward:
        return set()
    relevant = {end}
    for index in range(end, start - 1, -1):
        if index in relevant:
            relevant.update(source for source in nodes[index].inputs if source in forward)
    return relevant


def reached(nodes: Sequence[Node], start: int, end: int) -> set[int]:
    """Nodes up to ``end`` to which a path leads from ``start``."""
    found = {start}
    for index in range(start + 1, end + 1):
        if any(source in found for source in nodes[index].inputs):
            found.add(index)
    return found


def guarded(scene: Scene) -> tuple[bool, ...]:
    """For each node whether all that reads it is a norm, through ops that only scale along: its scale is cancelled."""
    found = [False] * len(scene.nodes)
    for node in reversed(scene.nodes):
        users = scene.consumers[node.index]
        found[node.index] = bool(users) and all(_cancels(scene.nodes[user], found) for user in users)
    return tuple(found)


def _cancels(node: Node, known: Sequence[bool]) -> bool:
    if node.op == "norm":
        trained = text(node, "kind") != "batch" or bool(node.attrs.get("training", True))
        return trained and text(node, "kind") != "local_response"
    passes = node.op in HOMOGENEOUS or (node.op == "activation" and node.attrs.get("fn") in RECTIFIERS)
    return passes and known[node.index]
