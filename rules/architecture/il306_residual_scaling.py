"""IL306: the depth-scaled std of residual writers went to other matrices."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.diagnosis import nominal_second
from initlint.facts import Layer, ParameterFacts
from initlint.findings import Related, Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of

# The two stds come from the same formula, so they agree with the factor to rounding; the record is exact.
_EXACT = 1e-4


class MisplacedResidualScaling(Rule):
    """Weights that do not write into the residual stream got the 1/sqrt(depth) scale meant for those that do.

    ## What it does
    In nets with several residual blocks of one kind, finds a group of weights whose std is the base std divided by
    sqrt(N) or sqrt(2N) of the N blocks. If these are not the last weights of their branches while the last ones
    keep the base std, the scaling went to the wrong matrices.

    ## Why is this bad?
    GPT-2 divides the std of the matrices that write into the residual stream by sqrt(2N), so that the stream does not
    grow with depth. On the gate or the input projection it does nothing for the stream and shrinks the branch's
    inside.

    ## Example
    ```python
    if name.endswith("w3.weight"):  # the gate; w2 writes into the stream
        nn.init.normal_(p, std=0.02 / math.sqrt(2 * n_layers))
    ```

    ## Use instead
    ```python
    if name.endswith("w2.weight"):
        nn.init.normal_(p, std=0.02 / math.sqrt(2 * n_layers))
    ```

    ## Known problems
    Only the factors sqrt(N) and sqrt(2N) are known.

    ## References
    - Radford et al. 2019 (GPT-2), section 2.3
    - https://github.com/karpathy/llama2.c/issues/579
    """

    code = "IL306"
    name = "misplaced-residual-scaling"
    family = "architecture"
    severity = Severity.WARNING
    sources = ("Radford et al. 2019 (GPT-2), section 2.3", "https://github.com/karpathy/llama2.c/issues/579")

    def check(self, context: Context) -> Iterator[Outcome]:
        pairs = [
            (layer, p)
            for layer in context.facts.layers
            if layer.kind in ("linear", "conv", "matmul") and (p := context.parameter(layer.weight)) and p.writes
        ]
        writers = [(layer, p) for layer, p in pairs if layer.branch]
        inner = [p for layer, p in pairs if not layer.branch and not layer.head]
        if len(writers) < 2:
            return
        base = {round(math.sqrt(nominal_second(p)[0]), 9) for _, p in writers}
        if len(base) != 1:
            return  # the writers are scaled among themselves: somebody took care of them
        std = base.pop()
        for group in by_cause(inner).values():
            factor = _factor(group, std, len(writers))
            if factor is None or not std:
                continue
            yield self._report(context, group, writers, std, factor)

    def _report(
        self,
        context: Context,
        group: list[ParameterFacts],
        writers: list[tuple[Layer, ParameterFacts]],
        std: float,
        factor: float,
    ) -> Outcome:
        first = writers[0][1]
        where = site_of(first)
        return self.finding(
            context,
            f"`{group[0].name}`"
            + (f" and {len(group) - 1} more" if len(group) > 1 else "")
            + f" have std {std / factor:.4g}, scaled by 1/{factor:.3g} for depth, but `{first.name}` writes into the"
            f" residual stream and keeps {std:.4g}",
            parameters=[*(p.name for p in group), *(p.name for _, p in writers)],
            site=context.selected_at(site_of(group[0])),
            related=[Related(where.file, where.line, f"{first.name} is initialised here")] if where else [],
            expected={"std_of_writers": std / factor},
            actual={"std_of_writers": std},
            effect=f"the residual stream grows {factor:.3g} times faster per block than meant",
            fix="apply the scaled std to the last matrix of each branch",
            topic="reach",
        )

    @bad
    def scaled_gate() -> Any:
        return _swiglu("gate")

    @good
    def scaled_writer() -> Any:
        return _swiglu("down")


def _factor(group: list[ParameterFacts], std: float, writers: int) -> float | None:
    """The depth factor by which the whole group is smaller than the writers, if it is one."""
    stds = {round(math.sqrt(nominal_second(p)[0]), 9) for p in group}
    if len(stds) != 1 or len(group) < 2:
        return None
    small = stds.pop()
    # N blocks of one or two branches each: the count of writers is N or 2N
    for count in (writers, 2 * writers):
        if small and abs(std / small / math.sqrt(count) - 1) < _EXACT:
            return math.sqrt(count)
    return None


def _swiglu(scaled: str) -> Any:
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(32)
            self.gate, self.up, self.down = nn.Linear(32, 64), nn.Linear(32, 64), nn.Linear(64, 32)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.norm(x)
            return x + self.down(F.silu(self.gate(h)) * self.up(h))

    model = nn.Sequential(*[Block() for _ in range(4)], nn.Linear(32, 8))
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and "norm" not in name:
            nn.init.normal_(parameter, std=0.02)
    for name, parameter in model.named_parameters():
        if name.endswith(f"{scaled}.weight"):
            nn.init.normal_(parameter, std=0.02 / 8**0.5)
    return model
