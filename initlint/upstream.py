"""Who is responsible for a signal: the nearest parameters upstream of a node. Shared by rules on the signal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from initlint.facts import Layer, ParameterFacts
from initlint.rule import Context, site_of
from initlint.signal import Nominal, Point, Signal, confirmed, propagate
from initlint.signal.profile import sections
from initlint.wiring import TRANSPARENT

#: Steps from a node to the layers that write it: norms and layers stop the walk, so that it is short in any net.
FAR = 32
#: The layers named are the fewest that together explain this share of what all layers contribute.
EXPLAINED = 0.9
#: Ops whose output is as large as their largest input, up to a factor that does not depend on it.
_HOMOGENEOUS = TRANSPARENT | {"add", "sub", "scale", "cat", "stack"}
#: A factor 2 of a second moment at each product, the first that counts (DESIGN, severity).
_AMPLIFIES = 2.0


def writers(context: Context, index: int, roles: Sequence[str] = ()) -> list[ParameterFacts]:
    """Parameters of the nearest nodes with parameters at or upstream of node ``index``, nearest first.

    Args:
        context: the model.
        index: the node at which the walk starts.
        roles: keep only these roles of a node's parameters ("weight", "bias", ...); empty: all.
    """
    nodes, found = context.facts.nodes, list[ParameterFacts]()
    seen, front = {index}, [index]
    for _ in range(FAR):
        following: list[int] = []
        for at in front:
            names = [n for role, n in nodes[at].parameters.items() if not roles or role in roles]
            known = [p for name in names if (p := context.parameter(name)) is not None]
            found += [p for p in known if p not in found]
            if not nodes[at].parameters:
                following += [source for source in nodes[at].inputs if source not in seen]
                seen.update(nodes[at].inputs)
        front = following
    return found


def by_site(
    context: Context, shares: Iterable[tuple[int, float]], roles: Sequence[str] = ()
) -> list[tuple[list[ParameterFacts], float, int]]:
    """Nodes grouped by the line that is to be mended: (parameters, largest share, its node), the worst first."""
    groups: dict[tuple[str, int], tuple[list[ParameterFacts], float, int]] = {}
    for index, share in shares:
        parameters = writers(context, index, roles)
        if not parameters:
            continue
        site = site_of(parameters[0])
        key = (site.file, site.line) if site else ("", 0)
        known, worst, at = groups.get(key, ([], -1.0, index))
        known += [p for p in parameters if p not in known]
        groups[key] = (known, max(worst, share), index if share > worst else at)
    return sorted(groups.values(), key=lambda group: -group[1])


def contributors(context: Context, measure: Callable[[Point], float]) -> list[ParameterFacts]:
    """Weights by how much ``measure`` falls over the stretch of the trunk that they write, largest first.

    The fewest that explain ``EXPLAINED`` of the whole fall; the layers of a residual block share alike.
    """
    if context.signal.scene is None:
        return []
    nodes = context.facts.nodes
    falls: list[tuple[float, int]] = []
    for before, end, layers in sections(context.signal.scene, context.signal.profile):
        fall = (measure(before) - measure(end)) / len(layers)
        falls += [(fall, index) for index in layers if "weight" in nodes[index].parameters]
    falls = sorted((f for f in falls if f[0] > 0), key=lambda f: -f[0])
    whole, so_far, chosen = sum(f for f, _ in falls), 0.0, dict[str, ParameterFacts]()
    for fall, index in falls:
        if so_far >= EXPLAINED * whole:
            break
        so_far += fall
        parameter = context.parameter(nodes[index].parameters["weight"])
        if parameter is not None:
            chosen.setdefault(parameter.name, parameter)
    return list(chosen.values())


def loudest(context: Context, index: int) -> tuple[ParameterFacts, int] | None:
    """The table or weight that sets the scale of the signal at a node, and the node that reads it.

    Of a sum it is the largest term. ``None`` behind what sets a scale of its own (norms, bounded functions, softmax).
    """
    if context.signal.sweeps is None:
        return None
    nodes, states = context.facts.nodes, context.signal.sweeps[0].states
    for _ in range(FAR):
        node = nodes[index]
        name = node.parameters.get("value" if node.op == "parameter" else "weight", "")
        if name:
            parameter = context.parameter(name)
            scaled = node.op in ("embedding", "linear", "conv", "parameter") and "expr" not in node.attrs
            return (parameter, index) if parameter is not None and scaled else None
        if node.op not in _HOMOGENEOUS or not node.inputs:
            return None
        index = max(node.inputs, key=lambda i: states[i].q)
    return None


def with_moments(context: Context, changes: Mapping[str, Nominal]) -> Signal:
    """The signal of the whole net with other moments of some parameters."""
    return propagate(context.facts, {**confirmed(context.facts), **changes}, context.actual)


def scale_of(context: Context, layer: Layer) -> list[ParameterFacts]:
    """The parameters that set the scale of a layer's weight: its own, or the matrices of what generates it.

    Of a weight made by a hypernetwork from an embedding the embedding is the least to blame: what multiplies it are
    matrices, and those that amplify whichever axis is their input are too large for a generator.
    """
    own = context.parameter(layer.weight)
    node = context.facts.nodes[layer.nodes[0]] if layer.nodes else None
    if node is not None and "expr" in node.attrs and own is not None and len(own.shape) < 2:
        roles = [name for role, name in node.parameters.items() if role.startswith("weight")]
        made = [p for name in roles if (p := context.parameter(name)) is not None and len(p.shape) == 2]
        loud = [p for p in made if p.stats is not None and min(p.shape) * p.stats.second > _AMPLIFIES]
        if loud:
            return loud
    return [own] if own is not None else []


def judged(context: Context) -> bool:
    """Whether a verdict on this model's signal means anything: a traced model, its own init, and no garbage in it.

    Where memory was never written or values are not finite, the rules on values say so, and what follows from
    garbage is no finding of its own. Infinities in buffers are no garbage: masks and bounds hold them.
    """
    facts = context.facts
    if facts.loaded or not facts.nodes or context.signal.scene is None or context.signal.sweeps is None:
        return False
    return not any(map(_garbage, facts.parameters))


def _garbage(parameter: ParameterFacts) -> bool:
    stats = parameter.stats
    if parameter.uninitialised or stats is None:
        return parameter.uninitialised > 0
    return stats.nans > 0 or (stats.infs > 0 and parameter.kind == "parameter")
