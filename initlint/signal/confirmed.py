"""What the init record says the weights are drawn from, where the values agree: verdicts must not hang on the draw."""

from __future__ import annotations

from collections.abc import Iterator

from initlint.facts import ModelFacts
from initlint.signal.moments import Nominal
from initlint.theory.record import stated
from initlint.theory.sampling import compatible

#: Independent draws about zero. Constants, identities and the like hold exactly, and their rows add up: left as found.
DRAWN = frozenset({"normal", "uniform", "truncated", "orthogonal"})
#: A mean below this share of the spread is none; others have effects of their own (IL109).
CENTRED = 1e-3


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
