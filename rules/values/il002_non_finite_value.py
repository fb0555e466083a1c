"""IL002: a parameter that the code itself filled with NaN or infinity."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from initlint.duals import spelled
from initlint.facts import ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good

#: Ops of a forward that looks whether values are there, or puts them there.
_ASKED = re.compile(r"isnan|isfinite|nan_to_num|copy_|setitem")


class NonFiniteValue(Rule):
    """A trainable parameter starts with NaN or infinite values.

    ## What it does
    Reports parameters that contain NaN or infinity which the code wrote (memory that nobody wrote is IL001).
    Of buffers only NaN counts, and only where the traced forward computes with it: masks hold -inf on purpose, and a
    placeholder that is filled in the first forward is read by nothing but a test for NaN. A parameter with which no
    forward computes, because the first one sets it, is a note.

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
            if p.stats is not None
            and p.uninitialised == 0
            and (p.stats.nans + p.stats.infs > 0 if p.kind == "parameter" else p.stats.nans > 0 and _read(context, p))
        ]
        for group in by_cause(suspects).values():
            nans = sum(p.stats.nans for p in group if p.stats)
            infs = sum(p.stats.infs for p in group if p.stats)
            site = next((w.site for w in reversed(group[0].writes) if w.site), group[0].created)
            # a forward ran to its end and computed with other values: the first one sets them (trees, activation norms)
            unread = context.facts.trace.ran and not any(_read(context, p) for p in group)
            yield self.finding(
                context,
                f"`{group[0].name}` starts with {nans} NaN and {infs} infinite values",
                parameters=[p.name for p in group],
                severity=Severity.NOTE if unread else Severity.ERROR,
                site=site,
                expected={"non_finite": 0},
                actual={"nan": nans, "inf": infs},
                effect="the forward does not compute with these values: it sets others first, if it needs any"
                if unread
                else "the loss is NaN from the first step",
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

    @bad
    def mask_that_nobody_fills() -> Any:
        import torch
        from torch import nn

        class Masked(nn.Module):
            mask: torch.Tensor

            def __init__(self) -> None:
                super().__init__()
                self.fc = nn.Linear(8, 8, bias=False)
                self.bias = nn.Parameter(torch.zeros(8))
                self.register_buffer("mask", torch.full((8,), float("nan")))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.fc(x) + self.bias * self.mask

        return Masked()

    @good
    def parameter_set_by_the_first_forward() -> Any:
        import torch
        from torch import nn

        class Trees(nn.Module):
            """Thresholds from the first samples (Popov et al. 2019, NODE)."""

            def __init__(self) -> None:
                super().__init__()
                self.fc = nn.Linear(8, 6)
                self.thresholds = nn.Parameter(torch.full((6,), float("nan")))
                self.is_set = False

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                y = self.fc(x)
                if not self.is_set:
                    with torch.no_grad():
                        self.thresholds.copy_(y[0])
                    self.is_set = True
                return torch.sigmoid(y - self.thresholds)

        return Trees(), (torch.randn(16, 8),)

    @good
    def filled_by_the_first_forward() -> Any:
        import torch
        from torch import nn

        class Scaled(nn.Module):
            scale: torch.Tensor

            def __init__(self) -> None:
                super().__init__()
                self.fc = nn.Linear(8, 8)
                self.register_buffer("scale", torch.full((8,), float("nan")))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                if self.scale.isnan().any():
                    self.scale.copy_(x.detach().std(0))
                return self.fc(x / self.scale)

        return Scaled(), (torch.randn(16, 8),)

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


def _read(context: Context, buffer: ParameterFacts) -> bool:
    """Whether the traced forward computes with a buffer as it is: not where it is written first, or asked for NaN."""
    names = [spelled(name) for name in (buffer.name, *buffer.aliases)]
    found = False
    for node in context.facts.nodes:
        text = f"{node.label} {node.attrs.get('expr', '')}"
        own = node.module == buffer.module
        named = buffer.name in node.parameters.values() or any(name.search(text) for name in names)
        if (own or named) and _ASKED.search(text):
            return False
        operator = node.operator
        found |= named or (own and operator is not None and math.isnan(operator.gain + operator.bias_second))
    return found
