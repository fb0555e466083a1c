"""What the init record says the weights are drawn from, where the values agree: verdicts must not hang on the draw."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from initlint.facts import ModelFacts, Node
from initlint.signal.moments import Nominal
from initlint.theory.record import stated
from initlint.theory.sampling import compatible

#: Independent draws about zero. Constants, identities and the like hold exactly, and their rows add up: left as found.
DRAWN = frozenset({"normal", "uniform", "truncated", "orthogonal"})
#: A mean below this share of the spread is none; others have effects of their own (IL109).
CENTRED = 1e-3
#: Standard errors within which a drawn input's moments count as those of N(0, 1): beyond are 6 in 100,000 draws.
CHANCE = 4.0
#: What these have to tell apart: of somebody's data a half of the second moment (from 129 elements); what initlint
#: draws itself is standard or else filled with ones (from 33).
KNOWN, OWN = 0.5, 1.0
#: A standard input, independent between samples and positions.
STANDARD = {"mean": 0.0, "second": 1.0, "correlation": 0.0, "positions": 0.0}


def confirmed(facts: ModelFacts) -> dict[str, Nominal]:
    """Nominal moments by parameter name, for all draws that the record states and the values confirm.

    Draws of a few parts (gates, a padding row) are left as they are: one number says nothing of where they lie.
    """
    if facts.loaded:
        return {}
    found: dict[str, Nominal] = {}
    for parameter in facts.parameters:
        stats = parameter.stats
        if stats is None or parameter.generated or any(w.share < 1.0 or w.region for w in parameter.writes):
            continue
        asked = stated(parameter)
        if asked is None or asked.family not in DRAWN or asked.std <= 0.0 or abs(asked.mean) > CENTRED * asked.std:
            continue
        if compatible(stats, asked, parameter.dtype):
            found[parameter.name] = Nominal(0.0, asked.var, asked.family == "orthogonal")
    return found | dict(_normalised(facts, found))


def _normalised(facts: ModelFacts, found: dict[str, Nominal]) -> Iterator[tuple[str, Nominal]]:
    """Weights that weight norm computes from a confirmed direction: applied after the draw it leaves them as drawn."""
    known = {parameter.name: parameter for parameter in facts.parameters}
    for parameter in facts.parameters:
        if not parameter.generated or parameter.stats is None or "weight_norm" not in parameter.origin:
            continue
        for source in parameter.sources:
            asked = stated(known[source]) if source in found else None
            same = known[source].shape == parameter.shape if asked is not None else False
            if asked is not None and same and compatible(parameter.stats, asked, parameter.dtype):
                yield parameter.name, found[source]


def standard_inputs(nodes: Sequence[Node], facts: ModelFacts) -> Mapping[int, Node]:
    """Inputs that were drawn from what has the moments of N(0, 1), with these moments in place of the draw's.

    Over n elements the standard error of the second moment is sqrt(2/n); those of the mean and of correlations, which
    are averages over pairs, are smaller.
    """
    own = all(not given.origin.startswith(("example_inputs", "call site")) for given in facts.inputs)
    own = own and bool(facts.inputs)
    known = OWN if own else KNOWN
    found: dict[int, Node] = {}
    for node in nodes:
        if node.op != "input" or node.attrs.get("kind") != "float" or not node.shape or "second" not in node.attrs:
            continue
        error = CHANCE * math.sqrt(2.0 / max(math.prod(node.shape), 1))
        given = {name: node.attrs.get(name) for name in STANDARD}
        apart = [abs(float(v) - STANDARD[name]) for name, v in given.items() if isinstance(v, (int, float))]
        if error < known and max(apart) <= error:
            found[node.index] = replace(node, attrs={**node.attrs, **STANDARD})
    return found
