"""IL506: whether this net trains is decided by the draw of its weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, good, site_of
from initlint.signal import Span
from initlint.signal.verdict import thresholds
from initlint.upstream import judged

# Variance of the natural logarithm of the gradient's second moment between draws, the sum of k / n over layers (k = 5
# for ReLU): THEORY 6.2 after Hanin and Rolnick 2018 warns from 2, a factor 4 either way at one standard deviation.
_CHANCE = 2.0
# An estimate this many standard deviations of chance around the threshold leaves the verdict open.
_OPEN = 1.0
# Predictions are good to some hundredths of a decade (docs/accuracy.md), and the moments of the inputs are those of a
# sample: what would pass the threshold in the next hundredth is past it. Decimals of a decade.
_GOOD_TO = 1
# A band of so many decades is no estimate any more: the expansion in 1 / width that it comes from has broken down.
_MOST = 3.0


class VerdictDependsOnSeed(Rule):
    """Another seed would give another verdict: the net is so narrow for its depth that chance decides.

    ## What it does
    Compares the predicted ratio of signals and gradients over the depth with its spread between draws, which follows
    from depth and widths. Reports where the estimate is past a threshold but within chance of it, and where the
    spread alone is a factor of 4 or more.

    ## Why is this bad?
    A net that trains with one seed in two is not reproducible, and comparisons of methods on it measure luck.
    Results need several seeds, and a wider or shallower net.

    ## Example
    ```python
    nn.Sequential(*[m for _ in range(40) for m in (nn.Linear(16, 16), nn.ReLU())])
    ```

    ## Use instead
    ```python
    nn.Sequential(*[m for _ in range(40) for m in (nn.Linear(256, 256), nn.ReLU())])  # or orthogonal weights
    ```

    ## Known problems
    None known.

    ## References
    - Hanin and Rolnick 2018, How to Start Training, arXiv:1803.01719
    """

    code = "IL506"
    name = "verdict-depends-on-seed"
    family = "responsible"
    severity = Severity.NOTE
    sources = ("Hanin and Rolnick 2018, arXiv:1803.01719",)

    def check(self, context: Context) -> Iterator[Outcome]:
        if not judged(context):
            return
        threshold = thresholds(context.settings.optimizer)[0]
        spans = context.signal.spans
        wide = max(spans.items(), key=lambda item: item[1].noise, default=None)
        near = [(k, s) for k, s in spans.items() if s.value < threshold <= _upper(s) and s.noise > 0]
        # a span past its threshold beyond chance has its own rule, whatever the spread
        settled = any(span.value >= threshold or span.doubt for span in spans.values())
        if settled or wide is None or wide[1].noise > _MOST:
            return
        what, span = near[0] if near else wide
        variance = (span.noise * math.log(10)) ** 2
        if not near and variance <= _CHANCE:
            return
        inside = sorted((span.first, span.last))
        weights = [
            p
            for layer in context.facts.layers
            if any(inside[0] <= n <= inside[1] for n in layer.nodes) and (p := context.parameter(layer.weight))
        ]
        low, high = 10 ** (span.raw - 2 * span.noise), 10 ** (span.raw + 2 * span.noise)
        yield self.finding(
            context,
            f"from seed to seed the second moment of the {_WORDS[what]} changes between {low:.1g}- and {high:.1g}-fold"
            " over the depth: chance decides",
            parameters=[p.name for p in weights],
            site=site_of(weights[0]) if weights else None,
            expected={"threshold": threshold, "log_variance": 0.0},
            actual={"log10_ratio": span.raw, "band": span.noise, "log_variance": variance},
            effect=f"one standard deviation between seeds is a factor {10**span.noise:.2g}",
            fix="wider layers, fewer of them, or nn.init.orthogonal_(weight)",
            topic="convention",
        )

    @bad
    def narrow_and_deep() -> Any:
        return _chain(8)

    @good
    def wide_enough() -> Any:
        return _chain(256)


def _upper(span: Span) -> float:
    return round(span.raw + _OPEN * span.noise, _GOOD_TO)


_WORDS = {"forward": "signal", "dependent": "input-dependent signal", "gradient": "gradient"}


def _chain(width: int) -> Any:
    from torch import nn

    layers: list[nn.Module] = []
    for _ in range(20):
        linear = nn.Linear(width, width)
        nn.init.kaiming_normal_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10))
