"""IL208: ReLU units that a negative shift keeps silent for every input."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from initlint.facts import ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, good, site_of
from initlint.signal import Nominal
from initlint.signal.diagnostics import dead, dead_units
from initlint.signal.moments import State
from initlint.upstream import by_site, judged

# THEORY 6.2 (Lu et al. 2019): 5 %, 25 % and 60 % of a layer's units.
_NOTE, _WARNING, _ERROR = 0.05, 0.25, 0.60
# A shift smaller than this, in units of the spread, kills nobody: it is the chance of a finite draw.
_SHIFT = 0.25


class DeadRectifiers(Rule):
    """ReLU units start silent for every input, because their inputs are shifted below zero.

    ## What it does
    Predicts for each ReLU the share of units that are negative for a whole batch of 256 inputs. Only what a
    shift below zero adds is counted (a negative bias, a negative mean of the weights behind positive inputs, a norm's
    negative bias): without one, as many units are always on as are dead, and that layer collapses inputs (IL205).

    ## Why is this bad?
    A unit that is off for every input gets no gradient and never comes back. A layer without live units cuts the
    network in two.

    ## Example
    ```python
    nn.init.constant_(linear.bias, -3.0)  # before ReLU
    ```

    ## Use instead
    ```python
    nn.init.zeros_(linear.bias)
    ```

    ## Known problems
    Sparse codes that want few active units are reported when fewer than three in four are alive.

    ## References
    - Lu et al. 2019, Dying ReLU and Initialization, arXiv:1903.06733
    """

    code = "IL208"
    name = "dead-rectifiers"
    family = "signal"
    severity = Severity.ERROR
    sources = ("Lu et al. 2019, arXiv:1903.06733",)

    def check(self, context: Context) -> Iterator[Outcome]:
        signal = context.signal
        if not judged(context) or signal.scene is None or signal.sweeps is None:
            return
        states, chosen = signal.sweeps[0].states, list[tuple[int, float]]()
        for index, share in dead_units(signal.scene, states).items():
            x = states[signal.scene.nodes[index].inputs[0]]
            if (
                share >= _NOTE
                and _shifted(x, signal.scene.layout(index).channels)
                and share - dead(_centred(x)) >= _NOTE
            ):
                chosen.append((index, share))
        for parameters, share, index in by_site(context, chosen):
            x = states[signal.scene.nodes[index].inputs[0]]
            guilty = _guilty(parameters)
            severity = Severity.ERROR if share > _ERROR else Severity.WARNING if share > _WARNING else Severity.NOTE
            yield self.finding(
                context,
                f"{share:.0%} of the units of `{context.facts.nodes[index].label or 'relu'}` are off for every input:"
                f" their inputs have mean {x.m:.3g} and std {math.sqrt(x.v):.3g}",
                parameters=[p.name for p in guilty],
                severity=severity,
                site=site_of(guilty[0]),
                expected={"dead_share": 0.0, "mean": 0.0},
                actual={"dead_share": share, "mean": x.m, "std": math.sqrt(x.v)},
                effect=context.effect({p.name: _centre(p) for p in guilty}),
                fix="nn.init.zeros_(bias)" if len(guilty[0].shape) == 1 else "nn.init.kaiming_normal_(weight)",
                topic="bias" if len(guilty[0].shape) == 1 else "scale",
                why="A ReLU that is off for every input has a zero gradient and cannot recover.",
            )

    @bad
    def negative_bias() -> Any:
        from torch import nn

        first = nn.Linear(64, 128)
        nn.init.kaiming_normal_(first.weight)
        nn.init.constant_(first.bias, -5.0)
        return nn.Sequential(first, nn.ReLU(), nn.Linear(128, 10))

    @good
    def zero_bias() -> Any:
        from torch import nn

        first = nn.Linear(64, 128)
        nn.init.kaiming_normal_(first.weight)
        nn.init.zeros_(first.bias)
        return nn.Sequential(first, nn.ReLU(), nn.Linear(128, 10))


def _shifted(x: State, units: int) -> bool:
    """Whether the mean is below zero by more than the draw of a few units explains (three standard errors)."""
    chance = 3.0 * math.sqrt(max(x.v - x.d, 0.0) / max(units, 1))
    return x.q > 0 and -x.m > max(_SHIFT * math.sqrt(x.v), chance)


def _centred(x: State) -> State:
    return replace(x, q=x.v, m=0.0)


def _guilty(parameters: list[ParameterFacts]) -> list[ParameterFacts]:
    """Biases with a negative mean; else the weights."""
    biases = [p for p in parameters if len(p.shape) == 1 and p.stats and p.stats.mean < 0]
    return biases or [p for p in parameters if len(p.shape) > 1] or parameters


def _centre(parameter: ParameterFacts) -> Nominal:
    return Nominal(0.0, parameter.stats.var if parameter.stats else 0.0)
