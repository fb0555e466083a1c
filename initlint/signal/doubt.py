"""How much of a span the rules' own errors could account for, by the forward that was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from initlint.signal.moments import State
from initlint.signal.profile import Span
from initlint.signal.scene import Scene

#: Differences, in log10 of second moments, that are the rules' accuracy (0.15 in std at the 95th percentile) and the
#: chance of one batch, beyond what finite width explains.
ACCURATE = 0.3
BAND = 2.5


#: Spans below this are no matter for a verdict, whatever is in doubt (THEORY 6.1: 1e3 is the least that costs).
MATTERS = 3.0


def doubted(
    scene: Scene, states: Sequence[State], spans: Mapping[str, Span], trunk: Sequence[int] = ()
) -> Mapping[str, Span]:
    """The spans less what is in doubt: all of it where they reach over a part of the trunk that is unknown."""
    found = {}
    for name, span in spans.items():
        missed = 0.0
        if span.value >= MATTERS:
            low, high = sorted((span.first, span.last))
            unknown = any(low < index < high and states[index].undetermined for index in trunk)
            missed = span.value if unknown else doubt(scene, states, span)
        found[name] = replace(span, value=max(span.value - missed, 0.0), doubt=missed) if missed else span
    return found


def doubt(scene: Scene, states: Sequence[State], span: Span) -> float:
    """Decades by which rules miss what was measured, summed over the worst path through the span.

    What a node adds: how far its output is from the measured one, beyond how far its inputs are. Steps too small to be
    told from chance add up as well, over a hundred products say: what they miss together is seen from end to end.
    Where the model did not run, nothing was measured and nothing is added.
    """
    low, high = sorted((max(span.first, 0), span.last))
    missed: dict[int, float] = {}
    total: dict[int, float] = {}
    for index in range(low, high + 1):
        node, x = scene.nodes[index], states[index]
        got = node.measured
        before = [total[source] for source in node.inputs if source in total]
        worst = max(before, default=0.0)
        inputs = [missed[source] for source in node.inputs if source in missed]
        known = got is not None and got.finite and got.second > 0 and x.q > 0 and x.kind not in ("index", "constant")
        if known and got is not None:
            missed[index] = math.log10(x.q / got.second)
            own = min((abs(missed[index] - other) for other in inputs), default=0.0)
            own = min(own, abs(missed[index]))  # a norm that takes out what its input misses is right
            chance = ACCURATE + by_chance(replace(x, noise=0.0))
            worst += own if own > chance else 0.0
        elif inputs:
            missed[index] = inputs[0]
        total[index] = worst
    return max(total.get(high, 0.0), _drift(states[high], missed, high))


def _drift(last: State, missed: Mapping[int, float], high: int) -> float:
    """Decades by which the end of a span is further from what was measured than its beginning, beyond all chance."""
    if high not in missed:
        return 0.0
    apart = abs(missed[high] - missed[min(missed)])
    return apart if apart > ACCURATE + by_chance(last) else 0.0


def by_chance(x: State) -> float:
    """Decades of the second moment that finite width explains."""
    return BAND * math.sqrt(x.noise + x.own) / math.log(10.0)
