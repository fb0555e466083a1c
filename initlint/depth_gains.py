"""The weights of residual branches with their gains over Xavier's scheme, and the gains known for deep transformers."""

from __future__ import annotations

import math

from initlint.facts import Layer, ModelFacts, ParameterFacts
from initlint.records import dataclass
from initlint.rule import Context
from initlint.theory.record import stated
from initlint.wiring import reached, source, transparent

# The record holds numbers as Python computed them: only rounding separates a gain from its formula.
EXACT = 1e-4


@dataclass(frozen=True, slots=True)
class Part:
    """A weight of a branch."""

    parameter: ParameterFacts
    gain: float  # its std over Xavier's
    xavier: float  # the std of Xavier's scheme for its shape
    skip: float  # the constant that multiplies the stream where its branch is added; 1 where there is none
    attention: bool  # it writes what an attention gives

    @property
    def plain(self) -> bool:
        """Whether it has Xavier's std itself."""
        return math.isclose(self.gain, 1.0, rel_tol=EXACT)


@dataclass(frozen=True, slots=True)
class Branches:
    """The weights in a model's residual branches by what they do."""

    selectors: tuple[Part, ...]  # queries and keys: they choose, and write nothing
    values: tuple[Part, ...]
    writers: tuple[Part, ...]
    inner: tuple[Part, ...]
    count: int  # how many branches there are


def branches(context: Context) -> Branches | None:
    """The weights of the branches, where the record settles the scale of each; ``None`` where it does not."""
    facts, trunk = context.facts, set(context.signal.trunk)
    kinds: dict[str, list[Part]] = {"selectors": [], "values": [], "writers": [], "inner": []}
    pairs = [(layer, context.parameter(layer.weight)) for layer in facts.layers if layer.kind in ("linear", "matmul")]
    factor = 1.0
    for layer, parameter in reversed(pairs):  # a branch's writer comes behind its other weights
        if layer.branch:
            factor = _skip_factor(facts, layer)
        # of packed projections the parts are told by IL402 and IL107
        if layer.head or layer.blocks or (not layer.branch and not trunk.isdisjoint(layer.nodes)):
            continue
        part = _part(layer, parameter, factor) if parameter is not None else None
        if part is None:
            return None
        kind = "selectors" if layer.role in ("query", "key") else "values" if layer.role == "value" else "inner"
        kinds["writers" if layer.branch else kind].insert(0, part)
    if len(kinds["writers"]) < 2:
        return None
    return Branches(**{kind: tuple(parts) for kind, parts in kinds.items()}, count=len(kinds["writers"]))


def _part(layer: Layer, parameter: ParameterFacts, skip: float) -> Part | None:
    asked = stated(parameter)
    if asked is None or asked.std <= 0 or len(parameter.shape) != 2:
        return None
    xavier = math.sqrt(2.0 / sum(parameter.shape))
    return Part(parameter, asked.std / xavier, xavier, skip, layer.before == "attention")


def _skip_factor(facts: ModelFacts, layer: Layer) -> float:
    """The constant by which the stream is multiplied where the branch is added to it."""
    total = facts.nodes[layer.consumer_node] if layer.consumer_node is not None else None
    if total is None or total.op != "add" or len(total.inputs) != 2:
        return 1.0
    mine = {layer.nodes[-1], *(n.index for n in reached(facts, layer.nodes[-1], transparent))}
    stream = next((i for i in total.inputs if i not in mine), None)
    node = source(facts, stream) if stream is not None else None
    factor = node.attrs.get("factor") if node is not None and node.op == "scale" else None
    return float(factor) if isinstance(factor, (int, float)) and not isinstance(factor, bool) else 1.0


def known_gain(gain: float, writers: int) -> str | None:
    """The formula of which a gain is the value, for a model with so many residual branches."""
    if gain <= 0 or round_number(gain):
        return None
    # one, two (encoder) or three (decoder) branches to a layer, or an encoder and a decoder of equal depth
    for depth in (writers / 2, writers, writers / 3, writers / 5):
        if depth != int(depth) or depth < 2:
            continue
        formulas = {
            "(8 N)^-1/4 of DeepNorm": (8 * depth) ** -0.25,
            "(12 N)^-1/4 of DeepNorm's decoder": (12 * depth) ** -0.25,
            "0.87 (N^4 M)^-1/16 of DeepNorm's encoder": 0.87 * depth ** (-5 / 16),
            "0.67 N^-1/4 of T-Fixup": 0.67 * depth**-0.25,
            "(9 N)^-1/4 of T-Fixup's decoder": (9 * depth) ** -0.25,
        }
        for name, value in formulas.items():
            if math.isclose(gain, value, rel_tol=EXACT):
                return f"{name} for N = {depth:g}"
    return None


def round_number(value: float) -> bool:
    """Whether a number may have been chosen as it stands, or is a gain of another kind."""
    return float(f"{value:.2g}") == value or any(math.isclose(value, g, rel_tol=EXACT) for g in _USUAL)


#: Gains of calculate_gain, and of thirds.
_USUAL = (math.sqrt(2.0), 1 / math.sqrt(2.0), 5 / 3, 1 / 3, math.sqrt(2 / (1 + 0.01**2)), math.sqrt(2 / (1 + 0.2**2)))
