"""IL114: one of several like layers starts at another scale than all the others."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.asked import nominal_second
from initlint.facts import Layer, ParameterFacts
from initlint.findings import Related, Severity
from initlint.rule import Context, Outcome, Rule, bad, good, site_of
from initlint.signal import Nominal
from initlint.signal.verdict import MISTAKE
from initlint.suspect_rule import normalised_away

# Two that agree may do so by chance of what the model is made of; three make a kind of which the fourth is none.
_KIN = 3
# Kin agree when their variances do to within this factor: more than five standard errors of a variance of 1000 weights.
_ALIKE = 1.25
# Where several models write two kinds of the same shape (queries and keys), each has a part of the layers. Those that
# are unlike their kin are few.
_FEW = 0.25


class UnlikeItsKin(Rule):
    """One of several like layers starts at another scale than all the others.

    ## What it does
    Groups trainable weights of one shape that play the same part: the same kind of layer, read by the same kind of op,
    in the same role. Where all of a group but one, or a few, have one variance, those whose variance is twice as large
    or half as large, or more, are reported, as a note. Scales that a norm behind takes out again are left alone.

    ## Why is this bad?
    Layers that repeat are initialised by one loop. One that differs was reached by another statement, by none, or
    twice. If it is meant, it is worth a comment in the code.

    ## Example
    ```python
    for block in self.blocks[:-1]:  # the last one keeps PyTorch's default
        nn.init.normal_(block.up.weight, std=0.02)
    ```

    ## Use instead
    ```python
    for block in self.blocks:
        nn.init.normal_(block.up.weight, std=0.02)
    ```

    ## Known problems
    The first and the last layer of a chain are sometimes of another scale on purpose.

    ## References
    - https://github.com/huggingface/nanoVLM/issues/158
    - He et al. 2015, section 2.2: one factor in one layer scales the whole signal
    """

    code = "IL114"
    name = "unlike-its-kin"
    family = "variance"
    severity = Severity.NOTE
    sources = ("https://github.com/huggingface/nanoVLM/issues/158", "He et al. 2015, section 2.2, arXiv:1502.01852")
    generic = True

    def check(self, context: Context) -> Iterator[Outcome]:
        if context.facts.loaded:
            return
        for members in _kinds(context).values():
            common = _common(members)
            odd = [p for p, second in members if common and abs(math.log10(second / common)) >= MISTAKE]
            if not odd or common is None or all(normalised_away(context, p.name) for p in odd):
                continue
            yield self._report(context, odd, {p.name: second for p, second in members}, common)

    def _report(self, context: Context, odd: list[ParameterFacts], seconds: dict[str, float], common: float) -> Outcome:
        first = odd[0]
        ratio = math.sqrt(seconds[first.name] / common)
        like = len(seconds) - len(odd)
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        kin = next(p for name in seconds if (p := context.parameter(name)) is not None and p not in odd)
        at, elsewhere = site_of(first), site_of(kin)
        return self.finding(
            context,
            f"`{first.name}`{more}: std {math.sqrt(seconds[first.name]):.3g}, {ratio:.3g} times that of the {like}"
            f" other layers of its kind and shape",
            parameters=[p.name for p in odd],
            site=at,
            related=[Related(elsewhere.file, elsewhere.line, f"{kin.name} is set here")]
            if elsewhere is not None and elsewhere != at
            else [],
            expected={"std": math.sqrt(common)},
            actual={"std": math.sqrt(seconds[first.name]), "ratio": ratio},
            effect=context.effect({p.name: Nominal(0.0, common) for p in odd}),
            fix=f"nn.init.normal_(weight, std={math.sqrt(common):.4g})  # as its kin",
            topic="scale",
        )

    @bad
    def one_block_left_out() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for at in range(6):
            linear = nn.Linear(64, 64)
            if at != 3:
                nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            layers += [linear, nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(64, 4))

    @good
    def falling_with_depth() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for at in range(6):
            linear = nn.Linear(64, 64)
            nn.init.normal_(linear.weight, std=(2 / 64) ** 0.5 / (at + 1) ** 0.5)
            layers += [linear, nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(64, 4))


def _kinds(context: Context) -> dict[tuple[object, ...], list[tuple[ParameterFacts, float]]]:
    """Trainable weights with their second moments, by what they are and do."""
    found: dict[tuple[object, ...], dict[str, tuple[ParameterFacts, float]]] = {}
    for layer in context.facts.layers:
        weight = context.parameter(layer.weight)
        if weight is not None and _compared(layer, weight):
            before = "input" if layer.before == "input" else ""
            key = (layer.kind, weight.shape, layer.consumer, layer.activation, layer.role, layer.branch, before)
            found.setdefault(key, {})[weight.name] = (weight, nominal_second(weight)[0])
    return {key: list(members.values()) for key, members in found.items()}


def _compared(layer: Layer, weight: ParameterFacts) -> bool:
    stats = weight.stats
    return (
        layer.kind in ("linear", "conv", "conv_transpose", "matmul")
        and not layer.head  # of an output's own size
        and weight.kind == "parameter"
        and weight.requires_grad
        and not weight.generated
        and weight.uninitialised == 0
        and stats is not None
        and stats.distinct is None  # zeros and constants are matters of other rules
        and not stats.nans
        and stats.second > 0
    )


def _common(members: list[tuple[ParameterFacts, float]]) -> float | None:
    """The variance of all members but a few; ``None`` where there is no such one."""
    ordered = sorted(second for _, second in members)
    middle = ordered[len(ordered) // 2]
    like = [second for second in ordered if 1 / _ALIKE < second / middle < _ALIKE]
    unlike = len(ordered) - len(like)
    few = unlike <= max(1, math.floor(_FEW * len(ordered)))
    return middle if len(like) >= _KIN and unlike and few else None
