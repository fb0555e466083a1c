"""IL008: values far outside of the distribution that the code asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.facts import ParameterFacts, Write
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.theory.schemes import requested

# A normal variable passes 8 standard deviations with probability 1.2e-15: not once in 1e12 weights.
_SIGMAS = 8.0
# bfloat16 rounds to 2^-9 relative and uniform bounds are hit to within rounding (THEORY 3.3, dtype).
_ROUNDING = 1.01
# Outliers are few, and lie beyond four times the extent of everything else: the largest of a million normal values is
# five standard deviations, and no law of weights has an empty space from there to twenty.
_FEW, _APART = 0.01, 4.0
# With fewer values a histogram of 24 bins has empty bins by chance.
_MANY = 2000
# Share of a tensor that counts as single entries; a row of a small matrix is more.
_SINGLE = 0.002


class OutlierValues(Rule):
    """A tensor holds values that its own init call cannot have drawn.

    ## What it does
    Compares the largest absolute value with the distribution that the last recorded init call declares: its bounds
    for a uniform or truncated one, eight standard deviations for a normal one. Where the record does not say it, a few
    values far beyond all others with nothing in between are reported.

    ## Why is this bad?
    A few weights of size 2 among weights of size 0.02 dominate their units. Truncated sampling in
    half precision has produced such values in several releases of PyTorch.

    ## Example
    ```python
    nn.init.trunc_normal_(w.bfloat16(), std=0.02)  # old releases: some values at exactly +-2
    ```

    ## Use instead
    ```python
    w.copy_(nn.init.trunc_normal_(torch.empty(w.shape), std=0.02))
    ```

    ## Known problems
    Values changed after the init call by further recorded operations are not judged.

    ## References
    - https://github.com/pytorch/pytorch/issues/155588
    - https://github.com/pytorch/torchtitan/issues/3334
    """

    code = "IL008"
    name = "outlier-values"
    family = "values"
    severity = Severity.WARNING
    sources = ("https://github.com/pytorch/pytorch/issues/155588", "https://github.com/pytorch/torchtitan/issues/3334")

    def check(self, context: Context) -> Iterator[Outcome]:
        limits = {p.name: limit for p in context.facts.parameters if (limit := _limit(p)) is not None}
        suspects = [
            p
            for p in context.facts.parameters
            if p.name in limits and _largest(p) > limits[p.name] and _beyond_its_own_spread(p)
        ]
        for group in by_cause(suspects).values():
            worst = max(group, key=lambda p: _largest(p) / limits[p.name])
            yield self.finding(
                context,
                f"`{worst.name}` holds a value of size {_largest(worst):.4g}, beyond {limits[worst.name]:.4g},"
                " which its init call cannot draw",
                parameters=[p.name for p in group],
                site=site_of(worst),
                expected={"max_abs": limits[worst.name]},
                actual={"max_abs": _largest(worst)},
                effect="single weights dominate their units",
                fix="draw in float32 and copy, or clamp to the bounds",
                topic="value",
            )
        yield from self._apart(context)

    def _apart(self, context: Context) -> Iterator[Outcome]:
        """Tensors of which the record does not say the distribution: bulk and outliers with nothing between."""
        bulks = {p.name: bulk for p in context.facts.parameters if (bulk := _bulk(p)) is not None}
        for group in by_cause(p for p in context.facts.parameters if p.name in bulks).values():
            worst = max(group, key=lambda p: _largest(p) / bulks[p.name])
            yield self.finding(
                context,
                f"`{worst.name}` holds values of size {_largest(worst):.4g} while all others are below"
                f" {bulks[worst.name]:.4g}, with nothing in between: they are no part of the distribution",
                parameters=[p.name for p in group],
                site=site_of(worst),
                expected={"max_abs": bulks[worst.name]},
                actual={"max_abs": _largest(worst)},
                effect="single weights dominate their units",
                fix="draw in float32 within the bounds, and copy: no clamp then meets an infinite value",
                topic="value",
            )

    @bad
    def clamped_infinities() -> Any:
        import torch
        from torch import nn

        table = nn.Embedding(2000, 16)
        uniform = (2 * torch.rand(2000, 16) - 1).bfloat16().float()
        table.weight.data.copy_((torch.erfinv(uniform) * 0.03).clamp(-2, 2))
        return table, (torch.randint(0, 2000, (4, 8)),)

    @good
    def drawn_within_bounds() -> Any:
        import torch
        from torch import nn

        table = nn.Embedding(2000, 16)
        uniform = (2 * torch.rand(2000, 16) - 1) * 0.95
        table.weight.data.copy_((torch.erfinv(uniform) * 0.03).clamp(-2, 2))
        return table, (torch.randint(0, 2000, (4, 8)),)

    @bad
    def planted_outlier() -> Any:
        import ctypes

        from torch import nn

        layer = nn.Linear(64, 64)
        nn.init.normal_(layer.weight, std=0.02)
        # written past every hook, as a faulty kernel would
        ctypes.cast(layer.weight.data_ptr(), ctypes.POINTER(ctypes.c_float))[5] = 2.0
        return layer

    @bad
    def single_entry() -> Any:
        import torch
        from torch import nn

        layer = nn.Linear(64, 64)
        nn.init.normal_(layer.weight, std=0.02)
        with torch.no_grad():
            layer.weight[0, 0] = 50.0
        return layer

    @good
    def rewritten_unseen() -> Any:
        import numpy as np
        from torch import nn

        layer = nn.Linear(64, 64)
        # the whole tensor is another distribution, from where no hook sees: nothing is an outlier of it
        layer.weight.detach().numpy()[:] = np.random.default_rng(0).standard_normal((64, 64))
        return layer

    @good
    def plain_normal() -> Any:
        from torch import nn

        layer = nn.Linear(64, 64)
        nn.init.normal_(layer.weight, std=0.02)
        return layer


def _drawn(parameter: ParameterFacts) -> Write | None:
    """The random write that filled the tensor, if at most single entries were set after it."""
    # a copy of the whole module keeps the values of what was drawn
    writes = [w for w in parameter.writes if w.op != "deepcopy"]
    write = next((w for w in reversed(writes) if w.share >= 1 and not w.region), None)
    if write is None or not write.random or parameter.generated:
        return None
    later = [w for w in writes if w.order > write.order]
    # so few entries are no row or diagonal that somebody meant, but in very large tensors
    single = all(w.region and w.share < _SINGLE for w in later) and len(parameter.shape) > 1
    return write if single or not later else None


def _limit(parameter: ParameterFacts) -> float | None:
    write = _drawn(parameter)
    if write is None:
        return None
    asked = requested(write, parameter.shape)
    if asked is None or asked.std is None or asked.std <= 0:
        return None
    if asked.family in ("uniform", "truncated") and asked.bound_low is not None and asked.bound_high is not None:
        # absolute truncation bounds far outside of the distribution bound nothing (trunc_normal_'s default is +-2)
        bound = max(abs(asked.bound_low), abs(asked.bound_high)) * _ROUNDING
        return min(bound, abs(asked.mean or 0.0) + _SIGMAS * asked.std) if asked.family == "truncated" else bound
    if asked.family == "normal":
        return abs(asked.mean or 0.0) + _SIGMAS * asked.std
    return None


def _bulk(parameter: ParameterFacts) -> float | None:
    """The largest size of the bulk, where a few drawn values lie far outside of it and the space between is empty."""
    write, stats = _drawn(parameter), parameter.stats
    if write is None or stats is None or stats.histogram is None or stats.count < _MANY or len(parameter.shape) < 2:
        return None
    if parameter.kind != "parameter" or requested(write, parameter.shape) is not None:
        return None
    edges, counts = stats.histogram.edges, stats.histogram.counts
    total, middle = sum(counts), next((i for i, e in enumerate(edges[1:]) if e > 0), 0)
    # the run of filled bins around zero
    low = high = min(middle, len(counts) - 1)
    while low > 0 and counts[low - 1]:
        low -= 1
    while high < len(counts) - 1 and counts[high + 1]:
        high += 1
    inside = sum(counts[low : high + 1])
    bulk = max(abs(edges[low]), abs(edges[high + 1]))
    few = total and inside / total >= 1 - _FEW
    return bulk if few and _largest(parameter) > _APART * bulk else None


def _beyond_its_own_spread(parameter: ParameterFacts) -> bool:
    """Whether the largest value stands out from what the tensor holds, not only from what was asked for.

    A tensor rewritten as a whole past every hook has a wider spread, and no outliers. A single entry of size m among n
    makes the standard deviation m / sqrt(n) at most, so that it stands out by sqrt(n).
    """
    stats = parameter.stats
    return stats is not None and _largest(parameter) > abs(stats.mean) + _SIGMAS * stats.var**0.5


def _largest(parameter: ParameterFacts) -> float:
    stats = parameter.stats
    return max(abs(stats.minimum), abs(stats.maximum)) if stats and stats.count else 0.0
