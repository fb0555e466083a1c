"""IL210: signals that the model's own number type cannot hold."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, good, site_of
from initlint.signal.diagnostics import number_range
from initlint.upstream import contributors, judged, writers


class OutsideDtypeRange(Rule):
    """Predicted activations overflow the model's dtype, or differences between inputs fall below its resolution.

    ## What it does
    Compares the predicted scale of the signal along the trunk, and of products of two signals (the logits of a
    hand-written attention), with the range and the resolution of the dtype in
    which the model is built (float16, bfloat16, float32).

    ## Why is this bad?
    float16 ends at 65504: five standard deviations of 13000 are infinite, and the first loss is NaN. bfloat16 keeps 8
    bits: where what inputs share is 500 times what tells them apart, all inputs give the same numbers.

    ## Example
    ```python
    model = Net().half()  # activations grow to std 1e5
    ```

    ## Use instead
    ```python
    nn.init.kaiming_normal_(w)  # keeps the scale, in any dtype
    ```

    ## Known problems
    Autocast is not seen: a model built in float32 is judged as float32.

    ## References
    - IEEE 754-2019, table 3.5
    - Micikevicius et al. 2018, Mixed Precision Training, arXiv:1710.03740
    """

    code = "IL210"
    name = "outside-dtype-range"
    family = "signal"
    severity = Severity.ERROR
    sources = ("IEEE 754-2019, table 3.5", "Micikevicius et al. 2018, arXiv:1710.03740")

    def check(self, context: Context) -> Iterator[Outcome]:
        facts, signal = context.facts, context.signal
        if not signal.profile or not judged(context):
            return
        found = number_range(signal, facts.dtype)
        if found.overflow:
            yield self._report(context, found.overflow[0], overflow=True)
        # in float32 and wider IL205 speaks long before differences are rounded away
        elif found.constant and facts.dtype in ("float16", "bfloat16"):
            yield self._report(context, found.constant[0], overflow=False)

    def _report(self, context: Context, index: int, *, overflow: bool) -> Outcome:
        facts = context.facts
        point = next((p for p in context.signal.profile if p.node == index), None)
        grown = contributors(context, lambda p: -p.q if overflow else p.dependent - p.q) if point is not None else []
        guilty = grown or writers(context, index, roles=("weight",)) or writers(context, index)
        label = f"`{facts.nodes[index].label if point is None else point.label}`"
        states = context.signal.sweeps[0].states if context.signal.sweeps is not None else ()
        std = point.forward_std if point is not None else math.sqrt(states[index].q)
        if overflow:
            message = f"activations of {label} have std {std:.2g}, outside the range of {facts.dtype}"
        else:
            message = f"at {label} what differs between inputs is below the resolution of {facts.dtype}"
        return self.finding(
            context,
            message,
            parameters=[p.name for p in guilty],
            severity=Severity.ERROR if overflow else Severity.WARNING,
            site=site_of(guilty[0]) if guilty else None,
            actual={
                "std": std,
                **({"input_dependent_share": point.share} if point is not None else {}),
                "dtype": facts.dtype,
            },
            effect="the first forward pass gives infinities" if overflow else "different inputs give equal outputs",
            fix="nn.init.kaiming_normal_(weight)  # or the scheme of the activation"
            if point is not None
            else "nn.init.xavier_normal_(weight)  # or divide the logits by more",
            topic="scale",
        )

    @bad
    def exploding_half() -> Any:
        import torch
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(6):
            linear = nn.Linear(64, 64)
            nn.init.normal_(linear.weight)
            layers += [linear, nn.ReLU()]
        return nn.Sequential(*layers).to(torch.float16)

    @bad
    def logits_in_half() -> Any:
        return _attention(6.0)

    @good
    def small_logits_in_half() -> Any:
        return _attention(0.0625)

    @good
    def steady_half() -> Any:
        import torch
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(6):
            linear = nn.Linear(64, 64)
            nn.init.kaiming_normal_(linear.weight)
            layers += [linear, nn.ReLU()]
        return nn.Sequential(*layers).to(torch.float16)


def _attention(std: float) -> Any:
    import torch
    from torch import nn

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.head = (nn.Linear(256, 256) for _ in range(4))
            for layer in (self.q, self.k):
                nn.init.normal_(layer.weight, std=std)
            self.half()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weights = torch.softmax(self.q(x) @ self.k(x).transpose(-2, -1) / 16, -1)
            return self.head((weights @ self.v(x)).mean(1))

    return Attention(), (torch.randn(4, 16, 256).half(),)
