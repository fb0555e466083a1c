"""What all units of a layer share, where weights are drawn around a mean that is not zero.

Mean-field theory takes the units of a layer for independent (Poole et al. 2016, section 2). With weights of mean m and
variance v over a fan of F that holds for one layer: its outputs have the sum over the inputs, times m, in common. Let
c be the second moment of what all units share, r that of what each has for its own. Over independent weights and
linear units, exactly,

    c' = (F m)^2 c + F m^2 r
    r' = F v (c + r)

since the shared output is m times the sum of F inputs (F times what they share, plus a sum of F independent parts),
and each unit's own weights see the whole input. What mean-field theory expects is c' + r' = F (m^2 + v) (c + r). The
shared part grows by F |m| at each layer, the rest by sqrt(F v).
"""

from __future__ import annotations

import math

from initlint.records import dataclass


@dataclass(frozen=True, slots=True)
class Coherence:
    """A signal behind ``steps`` layers, relative to independent units at the first; second moments as log10."""

    share: float = 0.0  # of the second moment, that all units have in common
    whole: float = 0.0  # log10 of the second moment
    expected: float = 0.0  # the same by mean-field theory
    steps: int = 0
    gain: float = 0.0  # by what the last step multiplied the root mean square

    @property
    def beyond(self) -> float:
        """log10 of the second moment over what mean-field theory expects."""
        return self.whole - self.expected


def through(x: Coherence, fan: float, mean: float, var: float) -> Coherence:
    """The signal behind one more layer with weights of this mean and variance."""
    own = 1.0 - x.share
    shared = (fan * mean) ** 2 * x.share + fan * mean * mean * own
    total = shared + fan * var
    if total <= 0.0:
        return Coherence(steps=x.steps + 1)
    return Coherence(
        shared / total,
        x.whole + math.log10(total),
        x.expected + math.log10(fan * (mean * mean + var)),
        x.steps + 1,
        math.sqrt(total),
    )


def scaled(x: Coherence, factor: float) -> Coherence:
    """The signal times a number."""
    if factor == 0.0:
        return Coherence()
    by = 2.0 * math.log10(abs(factor))
    return Coherence(x.share, x.whole + by, x.expected + by, x.steps, x.gain * abs(factor))
