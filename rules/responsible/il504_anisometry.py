"""IL504: a weight that maps nearly everything onto one direction."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.facts import ParameterFacts, TensorStats
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.upstream import judged

# A matrix of independent entries has a largest singular value of sigma (sqrt(m) + sqrt(n)), exceeded by 5 % once in
# millions (Marchenko and Pastur 1967; Tracy and Widom 1996). Sparse and orthogonal schemes stay within a factor 2.
_EDGE = 3.0
_LEAST = 16  # smaller matrices fluctuate and hold little


class Anisometry(Rule):
    """One singular value of a weight holds most of its energy: almost everything is mapped onto one direction.

    ## What it does
    Compares the largest singular value of a weight matrix with what independent entries of the same size give. Reports
    three times that, a matrix that is nearly of rank one.

    ## Why is this bad?
    Different inputs come out alike, gradients differ from direction to direction by the square of the
    ratio, and what the representation says of its input is one number. Isometry is what lets very deep nets train (Saxe
    et al. 2014, Pennington et al. 2017).

    ## Example
    ```python
    self.weight = nn.Parameter(torch.rand(256, 256) * 0.05)  # all positive: the mean is the largest direction
    ```

    ## Use instead
    ```python
    nn.init.orthogonal_(self.weight)
    ```

    ## Known problems
    A matrix of more than 64 rows or columns is measured by power iteration, and only where a few of its rows have more
    in common than by chance: beyond 1,000 rows and columns a ratio of three may be missed. Of one with more than four
    million entries only the direction of the mean is looked at.

    ## References
    - Saxe et al. 2014, arXiv:1312.6120
    - Pennington et al. 2017, arXiv:1711.04735
    """

    code = "IL504"
    name = "anisometry"
    family = "responsible"
    severity = Severity.NOTE
    sources = ("Saxe et al. 2014, arXiv:1312.6120", "Pennington et al. 2017, arXiv:1711.04735")

    def check(self, context: Context) -> Iterator[Outcome]:
        if context.facts.nodes and not judged(context):
            return
        found = {p.name: ratio for p in context.facts.parameters if (ratio := _excess(context, p)) >= _EDGE}
        for group in by_cause(p for p in context.facts.parameters if p.name in found).values():
            ratio = max(found[p.name] for p in group)
            worst = max(group, key=lambda p: found[p.name])
            yield self.finding(
                context,
                f"the largest singular value of `{worst.name}` is {ratio:.3g} times that of independent entries of its"
                " size: it maps nearly everything onto one direction",
                parameters=[p.name for p in group],
                site=site_of(worst),
                expected={"singular_ratio": 1.0},
                actual={"singular_ratio": ratio},
                effect="different inputs come out alike",
                fix="nn.init.orthogonal_(weight)",
                topic="scale",
            )

    @bad
    def positive_entries() -> Any:
        import torch
        from torch import nn

        first = nn.Linear(128, 128)
        with torch.no_grad():
            first.weight.copy_(torch.rand(128, 128) * 0.01)
        return nn.Sequential(first, nn.Tanh(), nn.Linear(128, 4))

    @good
    def centred_entries() -> Any:
        from torch import nn

        first = nn.Linear(128, 128)
        nn.init.uniform_(first.weight, -0.1, 0.1)
        return nn.Sequential(first, nn.Tanh(), nn.Linear(128, 4))


def _norm(stats: TensorStats, rows: int, columns: int) -> float:
    """The largest singular value, or where it was not measured a bound from below: the image of (1, ..., 1)."""
    along = math.sqrt(rows * stats.rows.total_second / columns) if stats.rows else 0.0
    return max(stats.spectral_norm or 0.0, along)


def _excess(context: Context, parameter: ParameterFacts) -> float:
    """Largest singular value over that of independent entries with the same second moment; 0 where it is unknown."""
    stats = parameter.stats
    if stats is None or not parameter.requires_grad or parameter.generated:
        return 0.0
    layers = [layer for layer in context.layers_of(parameter.name) if layer.kind in ("linear", "matmul", "conv")]
    rows = parameter.shape[0] if parameter.shape else 0
    columns = math.prod(parameter.shape[1:])  # not stats.count, which may be that of a sample
    if not layers or min(rows, columns) < _LEAST or stats.distinct is not None or stats.second <= 0:
        return 0.0
    return _norm(stats, rows, columns) / (math.sqrt(stats.second) * (math.sqrt(rows) + math.sqrt(columns)))
