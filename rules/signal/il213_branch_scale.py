"""IL213: residual branches of a net without norms that add far too much, or next to nothing, to their stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.facts import ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, good, site_of
from initlint.signal.branches import Branch, branches, growth
from initlint.signal.verdict import thresholds
from initlint.upstream import judged

# Branches that zero weights close: L of them should add 1 in all once these open to 1 / fan_in (Zhang et al. 2019,
# section 3: L^(-1 / (2m - 2)) on each of the m - 1 other layers); a factor 10 in q is harmless (THEORY 6.1).
_CLOSED = (0.1, 10.0)
# Open branches: a stream that grows 1e3-fold costs SGD points (THEORY 6.1). The smallest that is recommended anywhere
# is 1 / L in std, 1 / L in all in q: 0.01 for the 100 blocks up to which it is used.
_GROWS = 3.0
_ADDS = 0.01
_FEWEST = 3


class BranchScale(Rule):
    """The residual branches of a net without normalisation are far out of scale.

    ## What it does
    In nets without any norm, compares what each residual branch adds with the stream that it is added to. Branches
    whose last weight is zero are judged as they will be once it opens to 1 / fan_in: L of them should then add about as
    much as the stream. Reports a total beyond 10 or below a tenth of that; of open branches, a growth beyond 1e3 or a
    total below a hundredth. Branches closed by a learned scalar (SkipInit, ReZero) are left alone. Growth past the
    threshold of IL202 is reported there.

    ## Why is this bad?
    Zero last layers make a net without norms start as the identity, but not stay near it: with He's scale inside, each
    step moves the output by a multiple of the number of blocks, so that learning rates have to shrink with depth.
    Branches that add next to nothing leave the net shallow for a long time.

    ## Example
    ```python
    nn.init.kaiming_normal_(block.fc1.weight)  # 32 blocks, no norm
    nn.init.zeros_(block.fc2.weight)
    ```

    ## Use instead
    ```python
    nn.init.kaiming_normal_(block.fc1.weight)
    block.fc1.weight.data.mul_(num_blocks ** -0.5)
    nn.init.zeros_(block.fc2.weight)
    ```

    ## Known problems
    Sums in which nothing carries the stream unchanged (projected shortcuts) are not counted.

    ## References
    - Zhang et al. 2019, Fixup Initialization, section 3, arXiv:1901.09321
    - Brock et al. 2021, arXiv:2101.08692
    """

    code = "IL213"
    name = "branch-scale"
    family = "signal"
    severity = Severity.NOTE
    generic = True
    sources = ("Zhang et al. 2019, section 3, arXiv:1901.09321", "Brock et al. 2021, arXiv:2101.08692")

    def check(self, context: Context) -> Iterator[Outcome]:
        if not judged(context):
            return
        forward = context.signal.spans["forward"]
        if forward.value >= thresholds(context.settings.optimizer)[0] and not forward.shrinks:
            return
        found = branches(context.signal)
        for closed in (True, False):
            group = tuple(branch for branch in found if branch.closed is closed)
            if len(group) >= _FEWEST:
                yield from self._judge(context, group, closed)

    def _judge(self, context: Context, group: tuple[Branch, ...], closed: bool) -> Iterator[Outcome]:
        total, grows = sum(branch.ratio for branch in group), growth(group)
        low, high = _CLOSED if closed else (_ADDS, float("inf"))
        if low <= total <= high and (closed or grows <= _GROWS):
            return
        guilty = _weights(context, group, closed)
        if not guilty:
            return
        once = "will, once their zero weights open to 1 / fan_in," if closed else "together"
        yield self.finding(
            context,
            f"{len(group)} residual branches without norms {once} add {total:.3g} times the stream's second moment",
            parameters=[p.name for p in guilty],
            site=site_of(guilty[0]),
            expected={"total": 1.0},
            actual={"total": total, "branches": len(group), "log10_growth": grows},
            effect=f"the stream's second moment grows 1e{grows:.1f}-fold"
            if total > 1
            else "the net starts as if it had no branches",
            fix=f"scale the first layers of the branches by {len(group)} ** -0.5 on He's std" if closed else None,
            topic="scale",
        )

    @bad
    def he_inside() -> Any:
        return _closed(24, 1.0)

    @good
    def fixup() -> Any:
        return _closed(24, 24**-0.5)


def _weights(context: Context, group: tuple[Branch, ...], closed: bool) -> list[ParameterFacts]:
    """The weights inside the branches; the zero ones are right."""
    nodes = context.signal.scene.nodes if context.signal.scene else ()
    names = [nodes[i].parameters.get("weight") for b in group for i in (b.layers[:-1] if closed else b.layers)]
    return [p for name in dict.fromkeys(names) if name and (p := context.parameter(name)) is not None]


def _closed(blocks: int, scale: float) -> Any:
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(64, 64), nn.Linear(64, 64)
            nn.init.kaiming_normal_(self.fc1.weight)
            with torch.no_grad():
                self.fc1.weight.mul_(scale)
            nn.init.zeros_(self.fc1.bias)
            nn.init.zeros_(self.fc2.weight)
            nn.init.zeros_(self.fc2.bias)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.fc2(torch.relu(self.fc1(x)))

    return nn.Sequential(*[Block() for _ in range(blocks)], nn.Linear(64, 10))
