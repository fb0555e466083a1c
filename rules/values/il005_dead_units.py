"""IL005: units, experts or table slices that start at exactly zero beside others that do not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from initlint.facts import Layer, ParameterFacts, TensorStats
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of

# THEORY 6.2, dead units: from 60 % of a layer's units training is harmed, from 5 % it is worth a word.
_DEAD_ERROR = 0.60
_DEAD_WARNING = 0.05
# Sums, products and functions of whole matrices, behind which a row of the parameter is no row of the weight.
_MIXED = re.compile(r" [-+@] |linalg_|matrix_exp|inverse|cholesky|solve|\bt\(|transpose\(")


class DeadUnits(Rule):
    """Part of a weight is exactly zero: some units, groups, experts or members output nothing.

    ## What it does
    Reports weights in which whole rows (output units) or whole slices of the leading axis (experts, members,
    relations) are exactly zero while the others are not. A padding row, biases and weights that are zero altogether
    are other matters.

    ## Why is this bad?
    A unit without weights outputs a constant. It was meant to be initialised like its neighbours: `dirac_`
    without `groups` fills only the first group, an index on the wrong axis zeroes a whole table.

    ## Example
    ```python
    nn.init.dirac_(self.mix.weight)  # grouped convolution: all groups but the first stay zero
    ```

    ## Use instead
    ```python
    nn.init.dirac_(self.mix.weight, groups=self.mix.groups)
    ```

    ## Known problems
    Pruned checkpoints have zero rows on purpose; with `--weights` the rule reports a note at most.

    ## References
    - https://github.com/pytorch/pytorch/pull/32825
    - https://github.com/S-Lab-System-Group/Hydro/issues/1
    """

    code = "IL005"
    name = "dead-units"
    family = "values"
    severity = Severity.ERROR
    sources = ("https://github.com/pytorch/pytorch/pull/32825", "https://github.com/S-Lab-System-Group/Hydro/issues/1")

    def check(self, context: Context) -> Iterator[Outcome]:
        suspects: dict[str, tuple[float, str]] = {}
        for parameter in context.facts.parameters:
            found = _dead_share(context, parameter)
            if found is not None:
                suspects[parameter.name] = found
        chosen = [p for p in context.facts.parameters if p.name in suspects]
        for group in by_cause(chosen).values():
            share, what = max(suspects[p.name] for p in group)
            severity = Severity.ERROR if share >= _DEAD_ERROR else Severity.WARNING
            if context.facts.loaded:
                severity = Severity.NOTE
            yield self.finding(
                context,
                f"{what} of `{group[0].name}` start at exactly zero while the others do not",
                parameters=[p.name for p in group],
                severity=severity,
                site=site_of(group[0]),
                expected={"zero_share": 0.0},
                actual={"zero_share": share},
                effect=f"{share:.0%} of what it computes is constant at the start",
                fix=_remedy(group[0], context.layers_of(group[0].name)),
                topic="value",
            )

    @bad
    def dirac_without_groups() -> Any:
        import torch
        from torch import nn

        class Mixer(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.mix = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
                nn.init.dirac_(self.mix.weight)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.mix(x)

        return Mixer()

    @good
    def generator_of_a_rotation() -> Any:
        import torch
        from torch import nn

        class Rotation(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                angles = torch.zeros(8, 8)
                angles[::2, 1::2] = torch.diag(torch.rand(4))
                self.angles = nn.Parameter(angles)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                upper = self.angles.triu(1)
                return x @ torch.linalg.matrix_exp(upper - upper.t())

        return Rotation()

    @good
    def dirac_with_groups() -> Any:
        import torch
        from torch import nn

        class Mixer(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.mix = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
                nn.init.dirac_(self.mix.weight, groups=8)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.mix(x)

        return Mixer()

    @good
    def triangles_of_one_matrix() -> Any:
        import torch
        from torch import nn

        class Invertible(nn.Module):
            mask: torch.Tensor

            def __init__(self) -> None:
                super().__init__()
                lower, upper = torch.randn(8, 8).tril(-1) * 0.3, torch.randn(8, 8).triu(1) * 0.3
                self.lower, self.upper = nn.Parameter(lower), nn.Parameter(upper)
                self.register_buffer("mask", torch.ones(8, 8).triu(1))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                one = torch.eye(8)
                weight = (self.lower * self.mask.T + one) @ (self.upper * self.mask + one)
                return torch.nn.functional.linear(x, weight)

        return Invertible()


def _dead_share(context: Context, parameter: ParameterFacts) -> tuple[float, str] | None:
    stats = parameter.stats
    if stats is None or parameter.kind != "parameter" or len(parameter.shape) < 2 or stats.zeros == stats.count:
        return None
    if _table(parameter):
        return None
    layers = context.layers_of(parameter.name)
    if len(parameter.shape) >= 3 and not _unit_axis_first(layers):
        return _dead_members(parameter, stats)
    return _dead_rows(context, parameter, stats, layers)


def _table(parameter: ParameterFacts) -> bool:
    """Whether all values were computed elsewhere and copied (a lookup table): rows of zeros are a part of it."""
    last = parameter.last
    computed = last is not None and last.op == "copy_" and last.args.get("function") == "derived"
    return last is not None and computed and not last.random and last.share >= 1


def _unit_axis_first(layers: tuple[Layer, ...]) -> bool:
    return any(layer.kind in ("conv", "conv_transpose") or layer.layout == "out_in" for layer in layers)


def _dead_members(parameter: ParameterFacts, stats: TensorStats) -> tuple[float, str] | None:
    """A stacked tensor of which whole members are zero: each such member is dead altogether."""
    if not stats.rows or not 0 < stats.rows.zeros < stats.rows.count:
        return None
    where = ", ".join(str(i) for i in stats.zero_slices)
    # a member (expert, relation, ensemble member) is a network of its own: all of its units are dead
    return 1.0, f"the whole of slice {where} ({stats.rows.zeros} of {stats.rows.count} members)"


def _dead_rows(
    context: Context, parameter: ParameterFacts, stats: TensorStats, layers: tuple[Layer, ...]
) -> tuple[float, str] | None:
    if any(layer.kind in ("embedding", "norm", "scale") for layer in layers) or not layers:
        return None  # rows of a table are items, not units; a padding row is IL304's
    if not stats.rows or not 0 < stats.rows.zeros < stats.rows.count:
        return None
    nodes = [context.facts.nodes[index] for layer in layers for index in layer.nodes]
    if any("weight_1" in node.parameters or _MIXED.search(str(node.attrs.get("expr"))) for node in nodes):
        return None  # one factor or term of several that make the matrix (the triangles of an LU): no row is a unit
    if any(write.op in ("eye_", "sparse_") for write in parameter.writes):
        return None  # rectangular identities and sparse schemes have zero rows by definition
    share = stats.rows.zeros / stats.rows.count
    if share < _DEAD_WARNING or any(layer.blocks for layer in layers) or _fills_blocks(parameter):
        return None
    return share, f"{stats.rows.zeros} of {stats.rows.count} output units"


def _fills_blocks(parameter: ParameterFacts) -> bool:
    """A deliberate write of zeros to a leading block (a packed projection's gate) names its region."""
    return any(write.region and not write.random and write.start is not None for write in parameter.writes)


def _remedy(parameter: ParameterFacts, layers: tuple[Layer, ...]) -> str:
    groups = max((layer.groups for layer in layers), default=1)
    if groups > 1 and any(write.op == "dirac_" for write in parameter.writes):
        return f"nn.init.dirac_(weight, groups={groups})"
    if len(parameter.shape) >= 3:
        return "index the axis that is meant: weight.data[:, index].zero_() reaches that row of every member"
    return "initialise the whole tensor"
