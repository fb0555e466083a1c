"""IL002: a parameter that the code itself filled with NaN or infinity."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good


class NonFiniteValue(Rule):
    """A trainable parameter starts with NaN or infinite values.

    ## What it does
    Reports parameters that contain NaN or infinity which the code wrote (memory that nobody wrote is IL001).
    Buffers are exempt: masks hold -inf on purpose.

    ## Why is this bad?
    One NaN in a weight makes the loss NaN in the first step, and no later step can undo it.

    ## Example
    ```python
    self.log_scale = nn.Parameter(torch.log(torch.zeros(dim)))  # -inf
    ```

    ## Use instead
    ```python
    self.log_scale = nn.Parameter(torch.zeros(dim))  # exp(0) = 1
    ```

    ## Known problems
    None known.

    ## References
    - https://github.com/huggingface/transformers/pull/41261 (a request for exactly this check)
    """

    code = "IL002"
    name = "non-finite-value"
    family = "values"
    severity = Severity.ERROR
    sources = ("https://github.com/huggingface/transformers/pull/41261",)

    def check(self, context: Context) -> Iterator[Outcome]:
        suspects = [
            p
            for p in context.facts.parameters
            if p.kind == "parameter"
            and p.stats is not None
            and p.uninitialised == 0
            and p.stats.nans + p.stats.infs > 0
        ]
        for group in by_cause(suspects).values():
            nans = sum(p.stats.nans for p in group if p.stats)
            infs = sum(p.stats.infs for p in group if p.stats)
            site = next((w.site for w in reversed(group[0].writes) if w.site), group[0].created)
            yield self.finding(
                context,
                f"`{group[0].name}` starts with {nans} NaN and {infs} infinite values",
                parameters=[p.name for p in group],
                site=site,
                expected={"non_finite": 0},
                actual={"nan": nans, "inf": infs},
                effect="the loss is NaN from the first step",
                topic="value",
            )

    @bad
    def log_of_zero() -> Any:
        import torch
        from torch import nn

        class Scaled(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.fc = nn.Linear(8, 8)
                self.log_scale = nn.Parameter(torch.log(torch.zeros(8)))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.fc(x) * self.log_scale.exp()

        return Scaled()

    @good
    def mask_buffer() -> Any:
        import torch
        from torch import nn

        class Masked(nn.Module):
            mask: torch.Tensor

            def __init__(self) -> None:
                super().__init__()
                self.fc = nn.Linear(8, 8)
                self.register_buffer("mask", torch.triu(torch.full((8, 8), float("-inf")), 1))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.softmax(self.fc(x) + self.mask[0], -1)

        return Masked()
