"""IL503: an untrained net that magnifies small changes of its input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, good, site_of
from initlint.signal.diagnostics import lipschitz
from initlint.signal.spread import sensitivity
from initlint.signal.verdict import thresholds
from initlint.upstream import contributors, judged

# log10 of the second moment: noise is magnified 300-fold in standard deviation, relative to the signal. The most
# sensitive of 18 usual image models measured 4.3 (batch norm without skips); SIREN, made to be sensitive, 1.8.
_NOTE = 5.0


class InputSensitivity(Rule):
    """Small changes of the input are magnified several hundredfold before training.

    ## What it does
    Predicts the squared Jacobian of outputs by inputs, relative to what the net does to the signal itself: 1 for a
    linear map. Reports where noise is magnified 300-fold; where gradients explode altogether IL204 reports instead.

    ## Why is this bad?
    Such a net looks up inputs instead of comparing them: it interpolates badly and its predictions change with noise
    that no one sees. Robustness at the start is the easiest to have.

    ## Example
    ```python
    nn.init.normal_(w, std=1.0)  # deep tanh net: the map folds at every layer
    ```

    ## Use instead
    ```python
    nn.init.xavier_normal_(w)
    ```

    ## Known problems
    An average over inputs and directions; the worst case is larger. The product of spectral norms, given where the
    net is a plain chain, bounds it from above.

    ## References
    - Sokolic et al. 2017, Robust Large Margin Deep Neural Networks, arXiv:1605.08254
    - Szegedy et al. 2014, section 4.3, arXiv:1312.6199
    """

    code = "IL503"
    name = "input-sensitivity"
    family = "responsible"
    severity = Severity.NOTE
    sources = ("Szegedy et al. 2014, section 4.3, arXiv:1312.6199", "Poole et al. 2016, arXiv:1606.05340")

    def check(self, context: Context) -> Iterator[Outcome]:
        if not judged(context):
            return
        found = _gain(context)
        if found is not None:
            # what comes back from other outputs is no doing of this one; it only adds, so this is asked last
            end = context.signal.profile[-1].node
            context = Context(replace(context.facts, outputs=(end,)), context.settings)
            found = _gain(context)
        if found is None:
            return
        signal = context.signal
        guilty = contributors(context, lambda point: (point.energy or 0.0) + point.dependent)
        if not guilty:
            return
        yield self.finding(
            context,
            f"untrained, the net magnifies noise on its input {10 ** (found / 2):.2g}-fold relative to the signal",
            parameters=[p.name for p in guilty],
            site=site_of(guilty[0]),
            expected={"noise_gain": 1.0},
            actual={"noise_gain": 10 ** (found / 2), "log10_lipschitz_bound": lipschitz(signal)},
            effect=f"the Jacobian's second moment is 1e{found:.1f} times that of a linear map of the same scale",
            fix="nn.init.xavier_normal_(weight)",
            topic="scale",
        )

    @bad
    def folding_tanh() -> Any:
        return _tanh(5.0)

    @good
    def steady_tanh() -> Any:
        return _tanh(1.0)


def _gain(context: Context) -> float | None:
    """log10 of how much noise on the input is magnified up to the end; ``None``: little, unknown, or IL204's."""
    signal = context.signal
    if len(signal.profile) < 2 or signal.scene is None or signal.sweeps is None:
        return None
    gradient = signal.spans["gradient"]
    if gradient.value >= thresholds(context.settings.optimizer)[0] or gradient.doubt:
        return None
    sweep = signal.sweeps[1]
    first, last = signal.profile[0], signal.profile[-1]
    found = sensitivity(signal.scene, sweep.states, sweep.grads, first.node, last.node)
    # where chance decides about more decades than are claimed (reciprocals of what hardly varies), nothing is known
    return None if found is None or found < max(_NOTE, first.noise_p) else found


def _tanh(gain: float) -> Any:
    from torch import nn

    layers: list[nn.Module] = []
    for _ in range(12):
        linear = nn.Linear(256, 256)
        nn.init.xavier_normal_(linear.weight, gain=gain)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(256, 10))
