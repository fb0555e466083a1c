"""IL107: packed projections are initialised as if they were one."""

from __future__ import annotations

from typing import Any

from initlint.diagnosis import Suspect
from initlint.findings import Severity
from initlint.rule import Context, bad, good
from initlint.signal import Effect
from initlint.suspect_rule import SuspectRule


class FusedProjectionFan(SuspectRule):
    """Packed projections are initialised as if they were one.

    ## What it does
    Finds packed weights (query, key and value, or gates, in one matrix) to which Xavier was applied as a whole:
    fan_out counts all projections together.

    ## Why is this bad?
    Three packed (E, E) projections look like one (3E, E) matrix: Xavier gives half of the variance that each of
    them would get alone.

    ## Example
    ```python
    nn.init.xavier_uniform_(self.in_proj_weight)
    ```

    ## Use instead
    ```python
    nn.init.xavier_uniform_(self.in_proj_weight, gain=math.sqrt(2))
    ```

    ## Known problems
    nn.MultiheadAttention does this itself, for compatibility; its own default is not reported.

    ## References
    - https://github.com/pytorch/pytorch/issues/166378
    """

    code = "IL107"
    name = "fused-projection-fan"
    family = "variance"
    severity = Severity.WARNING
    sources = ("https://github.com/pytorch/pytorch/issues/166378",)
    reason = "fused_fan"
    kind = "mistake"

    def level(self, context: Context, group: list[Suspect], effect: Effect) -> Severity:
        # on the gates of recurrent layers it is what most code does, and never more than a factor of four
        if all(s.layer.kind == "recurrent" for s in group):
            return Severity.NOTE
        return super().level(context, group, effect)

    @bad
    def packed_qkv() -> Any:
        import torch
        import torch.nn.functional as F
        from torch import nn

        class Attention(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.qkv = nn.Parameter(torch.empty(192, 64))
                self.out = nn.Linear(64, 64)
                nn.init.xavier_uniform_(self.qkv)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                q, k, v = F.linear(x, self.qkv).chunk(3, dim=-1)
                return self.out(F.scaled_dot_product_attention(q, k, v))

        return Attention()

    @good
    def packed_qkv_with_gain() -> Any:
        import torch
        import torch.nn.functional as F
        from torch import nn

        class Attention(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.qkv = nn.Parameter(torch.empty(192, 64))
                self.out = nn.Linear(64, 64)
                nn.init.xavier_uniform_(self.qkv, gain=2**0.5)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                q, k, v = F.linear(x, self.qkv).chunk(3, dim=-1)
                return self.out(F.scaled_dot_product_attention(q, k, v))

        return Attention()
