"""IL009: weights in a half type that underflow or fall below its normal range."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.facts import ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of

# One subnormal per ten weights: a normal draw of std 1e-3 leaves 5 % below 6.1e-5, the least in float16.
_SHARE = 0.10


class HalfUnderflow(Rule):
    """A float16 or bfloat16 tensor holds mostly subnormal numbers or zeros that a draw cannot give.

    ## What it does
    Counts subnormal values, and exact zeros in randomly drawn tensors, of parameters stored in half types.

    ## Why is this bad?
    Below 6.1e-5 float16 loses precision bit by bit and below 6e-8 everything is zero. Weights there
    carry little information and their gradients underflow.

    ## Example
    ```python
    nn.init.normal_(layer.half().weight, std=1e-6)
    ```

    ## Use instead
    ```python
    nn.init.normal_(layer.weight, std=1e-6)  # keep the master weights in float32
    ```

    ## Known problems
    None known.

    ## References
    - IEEE 754-2019, table 3.5 (binary16)
    - https://github.com/pytorch/torchtitan/issues/2269
    """

    code = "IL009"
    name = "half-underflow"
    family = "values"
    severity = Severity.WARNING
    sources = ("IEEE 754-2019, table 3.5 (binary16)", "https://github.com/pytorch/torchtitan/issues/2269")

    def check(self, context: Context) -> Iterator[Outcome]:
        suspects = [p for p in context.facts.parameters if p.kind == "parameter" and _share(p) > _SHARE]
        for group in by_cause(suspects).values():
            share = max(_share(p) for p in group)
            yield self.finding(
                context,
                f"{share:.0%} of `{group[0].name}` lies below the normal range of {group[0].dtype}",
                parameters=[p.name for p in group],
                site=site_of(group[0]),
                expected={"subnormal_share": 0.0},
                actual={"subnormal_share": share},
                effect="these weights have lost precision and their gradients underflow",
                fix="keep the weights in float32, or choose a scheme with a larger standard deviation",
                topic="range",
            )

    @bad
    def tiny_half() -> Any:
        import torch
        from torch import nn

        layer = nn.Linear(64, 64).to(torch.float16)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(64, 64) * 1e-6)
        return layer

    @good
    def usual_half() -> Any:
        import torch
        from torch import nn

        return nn.Linear(64, 64).to(torch.float16)


def _share(parameter: ParameterFacts) -> float:
    stats = parameter.stats
    if stats is None or not stats.count or parameter.dtype not in ("float16", "bfloat16") or stats.distinct == 1:
        return 0.0
    drawn = any(write.random for write in parameter.writes)
    return (stats.subnormals + (stats.zeros if drawn and stats.zeros < stats.count else 0)) / stats.count
