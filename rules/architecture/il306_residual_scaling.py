"""IL306: the depth-scaled std of residual writers went to other matrices."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from initlint.asked import nominal_second
from initlint.diagnosis import suspects
from initlint.facts import ParameterFacts
from initlint.findings import Related, Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.theory.record import stated
from initlint.theory.sampling import compatible
from initlint.theory.schemes import requested

# The two stds come from the same formula, so they agree with the factor to rounding; the record is exact.
_EXACT = 1e-4
_ROUND = 8
# The matrices whose product is the scores of an attention.
_ASKING = ("query", "key")
# Stds of a fan that was counted wrong differ with the shapes, and may happen to differ by the root of a depth.
_MISCOUNTED = ("fan_axis", "grouped_fan", "fused_fan")


class MisplacedResidualScaling(Rule):
    """The 1/sqrt(depth) scale meant for the weights that write into the residual stream went elsewhere.

    ## What it does
    In nets with several residual blocks of one kind, finds a group of weights whose std is the base std divided by
    sqrt(N) or sqrt(2N) of the N blocks. Reports where weights inside the branches have it while those at the end of a
    branch keep the base std, where only one of two kinds of writers has it, where queries and keys have it too, and
    where writers were multiplied by the factor instead. A division by N or 2N itself is a note.

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
    Only the factors sqrt(N) and sqrt(2N) are known, and sqrt(2(N + 1)) for queries and keys.

    ## References
    - Radford et al. 2019 (GPT-2), section 2.3
    - https://github.com/karpathy/llama2.c/issues/579
    - https://github.com/facebookresearch/lingua/issues/39 (queries and keys)
    """

    code = "IL306"
    name = "misplaced-residual-scaling"
    family = "architecture"
    severity = Severity.WARNING
    sources = ("Radford et al. 2019 (GPT-2), section 2.3", "https://github.com/karpathy/llama2.c/issues/579")

    def check(self, context: Context) -> Iterator[Outcome]:
        if context.facts.loaded:
            return
        pairs = [
            (layer, p)
            for layer in context.facts.layers
            if layer.kind in ("linear", "conv", "matmul", "attention") and (p := context.parameter(layer.weight))
        ]
        pairs = [(layer, p) for layer, p in pairs if p.writes and p.requires_grad and p.stats and p.stats.second > 0]
        writers = [p for layer, p in pairs if layer.branch]
        inner = [p for layer, p in pairs if not layer.branch and not layer.head]
        if len(writers) < 2:
            return
        asking = [p for layer, p in pairs if layer.consumer == "attention" and layer.role in _ASKING]
        yield from self._in_scores(context, writers, asking, [p for p in inner if p not in asking])
        levels = {_std(p) for p in writers}
        if len(levels) == 1:
            yield from self._one_level(context, writers, inner, levels.pop())
        elif len(levels) == 2:
            yield from self._two_levels(context, writers, inner, max(levels), min(levels))

    def _in_scores(
        self, context: Context, writers: list[ParameterFacts], asking: list[ParameterFacts], rest: list[ParameterFacts]
    ) -> Iterator[Outcome]:
        """Queries and keys have what all writers have. (Values with it are DeepNet's and T-Fixup's way.)"""
        small = _common(asking) if all(_written(p) for p in asking) else None
        width = _fans(context, asking)
        alike = [p for p in writers if small and _same(_std(p), small) and _fans(context, [p]) == width]
        if small is None or not alike or not (_common(writers) or _by_fan(context, writers)):
            return  # not all writers are scaled
        others = [p for p in rest if _written(p) and not _same(_std(p), small)]
        base = _most_common([p for p in others if _fans(context, [p]) == width])
        if not base:
            return
        depths = (len(writers), len(writers) // 2)  # one or two branches in a layer
        counts = sorted({count for n in depths for count in (n, 2 * n, 2 * (n + 1)) if count > 1})
        for count in counts:
            if not _same(base / small, math.sqrt(count)):
                continue
            yield self.finding(
                context,
                f"`{asking[0].name}` and {len(asking) - 1} more, queries and keys, have std {small:.4g}, scaled by"
                f" 1/{math.sqrt(count):.3g} for depth as `{alike[0].name}` is, but do not write into the stream",
                parameters=[p.name for p in asking],
                site=context.selected_at(site_of(asking[0])),
                expected={"std": base},
                actual={"std": small},
                effect=f"the scores of each attention are {count} times smaller than meant: it starts as an average",
                fix=f"nn.init.normal_(weight, std={base:.4g})  # queries, keys and values",
                topic="reach",
            )

    def _one_level(
        self, context: Context, writers: list[ParameterFacts], inner: list[ParameterFacts], std: float
    ) -> Iterator[Outcome]:
        """All writers have the same std."""
        before = _earlier(writers)
        rest = {_std(p) for p in inner}
        if before is not None and any(_same(std, other) for other in rest):
            # a general pass gave writers what all weights have, after they were scaled: what they lost is no base
            before = before if any(_same(before, other) for other in rest) else None
        for group in by_cause(inner).values():
            small = _common(group) if any(_written(p) for p in group) else None
            factor = _factor(std, small, len(writers)) if small else None
            if factor is None or small is None or _by_fan(context, [*group, *writers]):
                continue
            # which of the two is the base: the std that writers had before, or that other weights have
            others = {_std(p) for p in inner if p not in group}
            if (before is not None and _same(before, small)) or (before is None and std not in others and others):
                continue  # the writers were changed: told below
            yield self._misplaced(context, group, writers, std, factor)
        if before is not None and (factor := _factor(std, before, len(writers))) is not None:
            yield self._wrong_factor(context, writers, before, std, factor, Severity.WARNING)
            return
        base = before or _most_common(inner)
        count = base / std if base else 0.0
        # 2 to 8 are also the ratios of round numbers that people choose
        if base and any(_same(count, n) and n > _ROUND for n in (len(writers), len(writers) // 2, 2 * len(writers))):
            yield self._wrong_factor(context, writers, base, std, 1 / math.sqrt(count), Severity.NOTE)

    def _two_levels(
        self, context: Context, writers: list[ParameterFacts], inner: list[ParameterFacts], base: float, small: float
    ) -> Iterator[Outcome]:
        """Some writers are smaller than the others."""
        factor = _factor(base, small, len(writers))
        kept = [p for p in writers if _same(_std(p), base)]
        scaled = [p for p in writers if _same(_std(p), small)]
        # one kind of writer in every block, and as many or twice as many of the other
        uneven = len(kept) % len(scaled) and len(scaled) % len(kept)
        if factor is None or uneven or min(len(kept), len(scaled)) < 2:
            return
        miscounted = {s.parameter.name for s in suspects(context.facts) if s.reason in _MISCOUNTED}
        if _by_fan(context, writers) or any(p.name in miscounted for p in writers):
            return
        if not any(_written(p) for p in scaled):
            return  # PyTorch's default differs with the fan-in (d and 2 d: by 1.41), and nobody scaled anything
        for group in by_cause(inner).values():
            written = any(_written(p) for p in group)
            if written and (std := _common(group)) is not None and _same(std, small) and len(group) >= 2:
                yield self._misplaced(context, group, kept, base, factor)
                return
        if not any(_same(_std(p), base) for p in inner):
            return  # nothing else has the larger std: no base that these kept
        where = site_of(scaled[0])
        yield self.finding(
            context,
            f"`{kept[0].name}` and {len(kept) - 1} more write into the residual stream with the base std {base:.4g};"
            f" `{scaled[0].name}`, which writes into it too, is scaled by 1/{factor:.3g} for depth",
            parameters=[p.name for p in kept],
            site=context.selected_at(where),
            related=[Related(at.file, at.line, f"{kept[0].name} is initialised here")]
            if (at := site_of(kept[0])) is not None and at != where
            else [],
            expected={"std_of_writers": small},
            actual={"std_of_writers": base},
            effect=f"the branches left out grow the stream {factor:.3g} times faster than meant",
            fix=f"nn.init.normal_(weight, std={small:.4g})  # for the last matrix of every branch",
            topic="reach",
        )

    def _misplaced(
        self,
        context: Context,
        group: list[ParameterFacts],
        writers: list[ParameterFacts],
        std: float,
        factor: float,
    ) -> Outcome:
        first = writers[0]
        where = site_of(first)
        return self.finding(
            context,
            f"`{group[0].name}`"
            + (f" and {len(group) - 1} more" if len(group) > 1 else "")
            + f" have std {std / factor:.4g}, scaled by 1/{factor:.3g} for depth, but `{first.name}` writes into the"
            f" residual stream and keeps {std:.4g}",
            parameters=[*(p.name for p in group), *(p.name for p in writers)],
            site=context.selected_at(site_of(group[0])),
            related=[Related(where.file, where.line, f"{first.name} is initialised here")] if where else [],
            expected={"std_of_writers": std / factor},
            actual={"std_of_writers": std},
            effect=f"the residual stream grows {factor:.3g} times faster per block than meant",
            fix="apply the scaled std to the last matrix of each branch",
            topic="reach",
        )

    def _wrong_factor(
        self,
        context: Context,
        writers: list[ParameterFacts],
        base: float,
        std: float,
        factor: float,
        severity: Severity,
    ) -> Outcome:
        """``factor``: what the base was multiplied by, or the root of what it should have been divided by."""
        right = base / factor if factor > 1 else base * factor
        did = f"multiplied by {factor:.3g}" if factor > 1 else f"divided by {1 / factor**2:.3g}, not by its root,"
        return self.finding(
            context,
            f"`{writers[0].name}` and {len(writers) - 1} more write into the residual stream with std {std:.4g}:"
            f" the base std {base:.4g} {did} for depth",
            parameters=[p.name for p in writers],
            severity=severity,
            site=site_of(writers[0]),
            expected={"std_of_writers": right},
            actual={"std_of_writers": std},
            effect=f"each branch adds {std / right:.3g} times what is meant",
            fix=f"nn.init.normal_(weight, std={right:.4g})",
            topic="reach",
        )

    @bad
    def scaled_gate() -> Any:
        return _swiglu("gate")

    @good
    def scaled_writer() -> Any:
        return _swiglu("down")

    @good
    def defaults_of_two_fans() -> Any:
        return _two_fans(lambda weight: None)

    @good
    def lecun_of_two_fans() -> Any:
        """Four times the fan-in is half the std: the factor that four blocks would give, and no mistake."""
        from torch import nn

        return _two_fans(lambda weight: nn.init.normal_(weight, std=weight.shape[1] ** -0.5), factor=4, blocks=4)


def _std(parameter: ParameterFacts) -> float:
    """The std as the record states it (a draw, and what was multiplied into it), else that of the values."""
    asked = stated(parameter)
    settled = (
        asked is not None and asked.std > 0 and parameter.stats and compatible(parameter.stats, asked, parameter.dtype)
    )
    return round(asked.std if settled and asked is not None else math.sqrt(nominal_second(parameter)[0]), 9)


def _by_fan(context: Context, parameters: list[ParameterFacts]) -> bool:
    """Whether one gain over the fan-in, or its root, gives all these stds: they differ with the fan, not for depth."""
    fans = [(p, fan) for p in parameters for layer in context.layers_of(p.name)[:1] if (fan := layer.fan_in)]
    known = [[_std(p) * fan**power for p, fan in fans] for power in (0.5, 1.0)]
    return len(fans) == len(parameters) and any(all(_same(gain, gains[0]) for gain in gains) for gains in known)


def _fans(context: Context, parameters: list[ParameterFacts]) -> set[float | None]:
    return {layer.fan_in for p in parameters for layer in context.layers_of(p.name)[:1]}


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=_EXACT)


def _written(parameter: ParameterFacts) -> bool:
    """Whether user code gave the parameter its values; PyTorch's own reset scales nothing for depth."""
    return parameter.last is not None and parameter.last.origin != "torch"


def _common(group: list[ParameterFacts]) -> float | None:
    """The std that a group of at least two weights shares."""
    stds = {_std(p) for p in group}
    return stds.pop() if len(stds) == 1 and len(group) >= 2 else None


def _most_common(parameters: list[ParameterFacts]) -> float | None:
    counts = Counter(_std(p) for p in parameters)
    return counts.most_common(1)[0][0] if counts else None


def _earlier(writers: list[ParameterFacts]) -> float | None:
    """The std that the code gave all writers before their last write, if it gave them one."""
    found: set[float] = set()
    for parameter in writers:
        drawn = [w for w in parameter.writes[:-1] if w.origin != "torch" and w.share >= 1 and not w.region]
        asked = requested(drawn[-1], parameter.shape) if drawn else None
        if asked is None or not asked.std:
            return None
        found.add(round(asked.std, 9))
    return found.pop() if len(found) == 1 else None


def _factor(large: float, small: float, writers: int) -> float | None:
    """The depth factor by which one std is larger than the other, if it is one."""
    # N blocks of one or two branches each: the count of writers is N or 2N
    for count in (writers, 2 * writers, writers // 2):
        if small and count > 1 and _same(large / small, math.sqrt(count)):
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


def _two_fans(init: Callable[[Any], Any], *, factor: int = 2, blocks: int = 2) -> Any:
    """Residual blocks of a mixer and a feed-forward layer ``factor`` times as wide."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix, self.out = nn.Linear(32, 32), nn.Linear(32, 32)
            self.up, self.down = nn.Linear(32, 32 * factor), nn.Linear(32 * factor, 32)
            for linear in (self.mix, self.out, self.up, self.down):
                init(linear.weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.out(torch.tanh(self.mix(x)))
            return x + self.down(torch.relu(self.up(x)))

    return nn.Sequential(*(Block() for _ in range(blocks)), nn.LayerNorm(32), nn.Linear(32, 4))
