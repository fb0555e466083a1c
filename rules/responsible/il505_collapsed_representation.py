"""IL505: the representation before the head is nearly the same for every input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from initlint.facts import ParameterFacts
from initlint.findings import Severity
from initlint.heads import biases_with
from initlint.rule import Context, Outcome, Rule, bad, good, site_of
from initlint.signal import Nominal, Point
from initlint.signal.verdict import thresholds
from initlint.upstream import contributors, judged, with_moments

# log10 of the share of the second moment that depends on the input. Schoenholz et al. 2017: beyond six correlation
# lengths (e^-6, 2.5e-3) nets of tanh did not train.
_NOTE = -2.6


class CollapsedRepresentation(Rule):
    """Before training, the representation is nearly the same vector for every input.

    ## What it does
    Predicts which share of the representation that the head reads depends on the input at all. Where the depth profile
    loses the input-dependent signal itself, IL205 reports; this one finds a signal buried under a constant.

    ## Why is this bad?
    Features, similarities and saliency maps taken from such a net say nothing of the input, and the head sees a
    constant with a ripple: gradients of different samples are nearly parallel.

    ## Example
    ```python
    nn.init.constant_(linear.bias, 10.0)  # ten layers of it
    ```

    ## Use instead
    ```python
    nn.init.zeros_(linear.bias)
    ```

    ## Known problems
    Means over positions are not counted, as white noise averages out and images do not.

    ## References
    - Schoenholz et al. 2017, Deep Information Propagation, arXiv:1611.01232
    """

    code = "IL505"
    name = "collapsed-representation"
    family = "responsible"
    severity = Severity.NOTE
    sources = ("Schoenholz et al. 2017, arXiv:1611.01232",)

    def check(self, context: Context) -> Iterator[Outcome]:
        signal = context.signal
        if not judged(context) or signal.built is not signal.opened:
            return
        if signal.dependent_span >= thresholds(context.settings.optimizer)[0]:
            return  # IL205
        last = _representation(context)
        if last is None or last.share <= 0 or _depends(last) > _NOTE:  # of no differences the size is not known: IL205
            return
        guilty = contributors(context, _depends)
        if not guilty:
            return
        share = 10 ** _depends(last)
        yield self.finding(
            context,
            f"of the representation at `{last.label}` only {share:.2g} of the second moment depends on the input",
            parameters=[p.name for p in guilty],
            site=site_of(guilty[0]),
            expected={"input_dependent_share": 1.0},
            actual={"input_dependent_share": share},
            effect=f"different inputs differ by {share**0.5:.2g} of the representation's length",
            fix=_remedy(context, guilty, last),
            topic="scale",
        )

    @bad
    def buried_under_biases() -> Any:
        return _chain(10.0)

    @good
    def no_biases() -> Any:
        return _chain(0.0)


def _depends(point: Point) -> float:
    return min(point.dependent - point.q, 0.0)


def _remedy(context: Context, guilty: Sequence[ParameterFacts], last: Point) -> str:
    """Zeros for biases where that mends it; where they are zero already, or the mean of an activation is what inputs
    share, what takes away just that."""
    biases = biases_with(context, guilty)
    if biases:
        mended = with_moments(context, {p.name: Nominal(0.0, 0.0) for p in biases})
        point = next((p for p in mended.profile if p.node == last.node), None)
        if point is not None and point.share > 0 and _depends(point) > _NOTE:
            return "nn.init.zeros_(bias)  # or a BatchNorm between the layers"
    return "a BatchNorm between the layers: it takes away what all inputs share"


def _representation(context: Context) -> Point | None:
    """The last point of the trunk before the head; ``None`` where no head reads a representation (generators)."""
    loss, points = context.signal.init_loss, context.signal.profile
    return next((p for p in reversed(points) if loss is not None and p.node < loss.head), None)


def _chain(bias: float) -> Any:
    from torch import nn

    layers: list[nn.Module] = []
    for _ in range(10):
        linear = nn.Linear(64, 64)
        nn.init.kaiming_normal_(linear.weight)
        nn.init.constant_(linear.bias, bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(64, 10))
