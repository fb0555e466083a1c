"""Statistics of weights that hold no values: the recorded init is drawn again on a sample, tensor by tensor.

What a parameter's record asks for (``theory.record``: formulas of the true shape, followed through scalar
arithmetic and writes to parts) is drawn for evenly chosen rows, up to ``SAMPLE`` elements, and measured like any
tensor. Equal requests for equal shapes are drawn once, so that a decoder of 100 equal blocks costs one block.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import field, replace

import torch
from torch import nn

from initlint.facts import Chunk, ParameterFacts, TensorStats, Units
from initlint.probe import measure as measuring
from initlint.probe import measure_exact
from initlint.records import dataclass
from initlint.theory.record import Segment, segments, stated
from initlint.theory.sampling import Requested
from initlint.theory.torch_init import truncated

#: Elements drawn: a wrong variance of 2.5 % is beyond 1e-6 by chance (normal: 4.9 * sqrt(2 / 2^18) = 1.4 %).
SAMPLE = 1 << 18
#: Rounds of the fixed point for the normal behind a truncated one; each gains about a digit.
_ROUNDS = 30
#: Half-width in standard deviations beyond which truncation changes no moment that a sample could show.
_WIDE = 6.0


@dataclass(slots=True)
class Replay:
    """Draws samples; remembers those it has drawn."""

    seed: int = 0
    known: dict[object, TensorStats | None] = field(default_factory=dict)

    def stats(self, fact: ParameterFacts, groups: int = 1) -> tuple[TensorStats | None, str]:
        """Statistics of what the record says the tensor holds, or the reason why they are not known."""
        if fact.provenance != "recorded" or fact.uninitialised or not fact.writes:
            return None, "nothing is recorded that fills it" if not fact.uninitialised else "it is uninitialised"
        if stated(fact) is None:
            return None, f"the record of {fact.writes[-1].op} does not say what the values are"
        parts = segments(fact)
        keyed = tuple((s.start, s.stop, s.asked) for s in parts)
        key = (keyed, fact.shape, fact.dtype, groups)
        if key not in self.known:
            seed = (self.seed << 32) ^ zlib.crc32(repr(key).encode())
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                self.known[key] = _drawn(fact, parts, groups)
        return self.known[key], ""


def reasons(missing: Mapping[str, str]) -> tuple[str, ...]:
    """Notes about parameters without statistics, one for each reason."""
    grouped: dict[str, list[str]] = {}
    for name, reason in missing.items():
        grouped.setdefault(reason, []).append(name)
    return tuple(
        f"no statistics for {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {reason}"
        for reason, names in grouped.items()
    )


def _drawn(fact: ParameterFacts, parts: Sequence[Segment], groups: int) -> TensorStats | None:
    dtype = getattr(torch, fact.dtype, torch.float32)
    asked = [part.asked for part in parts]
    first = asked[0]
    if first is None or any(a is None for a in asked):
        return None
    if all(a is not None and a.std == 0.0 and a.mean == first.mean for a in asked):
        return _constant(fact, first.mean, dtype, groups)
    if len(parts) == 1 and first.structured:
        return _structured(fact, first, parts[0], dtype, groups)
    rows = fact.shape[0] if fact.shape else 1
    length = math.prod(fact.shape[1:]) if fact.shape else 1
    if rows * length <= SAMPLE:
        values = torch.cat([_draw(a, (s.stop - s.start, length)) for a, s in zip(asked, parts, strict=True) if a])
        found = measuring.measure(values.reshape(fact.shape).to(dtype), groups)
        return None if found is None else _marked(found)
    return _sampled(fact, parts, rows, length, dtype, groups)


def _marked(stats: TensorStats, **changes: object) -> TensorStats:
    """Not from every element, and equal to no other tensor: another draw of the same law is no copy."""
    return dataclasses.replace(stats, sampled=True, digest="", **changes)  # type: ignore[arg-type]


def _constant(fact: ParameterFacts, value: float, dtype: torch.dtype, groups: int) -> TensorStats:
    """Exact: only the shape is needed."""
    rounded = float(torch.tensor(value, dtype=dtype)) if dtype.is_floating_point else float(value)
    found = measure_exact.constant(torch.empty(fact.shape, dtype=dtype, device="meta"), rounded, groups)
    return dataclasses.replace(found, sampled=True)


def _structured(
    fact: ParameterFacts, asked: Requested, part: Segment, dtype: torch.dtype, groups: int
) -> TensorStats | None:
    """Orthogonal, identity, sparse: called again where that is cheap, else the moments that they have exactly."""
    count = math.prod(fact.shape)
    write = part.write
    function = getattr(nn.init, write.op, None) if write is not None else None
    if count <= SAMPLE and function is not None and write is not None:
        values = torch.empty(fact.shape)
        options = {k: v for k, v in write.args.items() if k in ("gain", "groups", "sparsity", "std")}
        with torch.no_grad():
            function(values, **options)
            actual = math.sqrt(float(torch.mean(values.double().square())))
            if actual > 0:  # what later arithmetic made of it
                values *= math.sqrt(asked.second) / actual
        found = measuring.measure(values.to(dtype), groups)
        return None if found is None else _marked(found)
    reach = 4.0 * asked.std
    low = asked.bound_low if asked.bound_low is not None else asked.mean - reach
    high = asked.bound_high if asked.bound_high is not None else asked.mean + reach
    orthogonal = asked.family == "orthogonal"
    return TensorStats(
        count=count,
        mean=asked.mean,
        second=asked.second,
        var=asked.var,
        kurtosis=asked.kurtosis,
        minimum=low,
        maximum=high,
        gram_residual=0.0 if orthogonal else None,
        sampled=True,
    )


def _sampled(
    fact: ParameterFacts, parts: Sequence[Segment], rows: int, length: int, dtype: torch.dtype, groups: int
) -> TensorStats | None:
    """Rows of a large tensor, each segment by its share; a segment of a few rows shows in the counts of zeros only."""
    width = min(length, SAMPLE)
    height = max(1, SAMPLE // width)
    drawn: list[torch.Tensor] = []
    for part in parts:
        taken = min(part.stop - part.start, round(height * (part.stop - part.start) / rows))
        if part.asked is not None and taken:
            drawn.append(_draw(part.asked, (taken, width)))
    values = torch.cat(drawn).to(dtype) if drawn else torch.zeros(0, width)
    stats = measuring.measure(values)
    if stats is None:
        return None
    whole = width == length and len(fact.shape) >= 2
    zero = [(s.start, s.stop) for s in parts if s.asked is not None and s.asked.std == 0.0 and s.asked.mean == 0.0]
    changes: dict[str, object] = {
        "rows": _rows(stats.rows, rows, zero) if whole and stats.rows is not None else None,
        "columns": None,
        "gram_residual": stats.gram_residual if whole and rows <= length else None,
        "diagonal": None,
        "spectral_norm": None,
        "singular_min": None,
        "chunks": _chunks(stats, parts, fact.shape, groups),
        "zero_slices": tuple(i for start, stop in zero for i in range(start, min(stop, start + 8)))[:8],
    }
    return _marked(stats, **changes)


def _rows(units: Units, rows: int, zero: Sequence[tuple[int, int]]) -> Units:
    """The sampled rows' statistics for all rows."""
    return replace(units, count=rows, duplicates=0, zeros=sum(stop - start for start, stop in zero))


def _chunks(
    stats: TensorStats, parts: Sequence[Segment], shape: Sequence[int], groups: int
) -> dict[str, tuple[Chunk, ...]]:
    """Moments of n equal parts of axis 0, from the segments that they overlap."""
    found = {}
    for n in measure_exact.parts_of(tuple(shape), groups):
        step = shape[0] // n
        found[str(n)] = tuple(_chunk(stats, parts, i * step, (i + 1) * step) for i in range(n))
    return found


def _chunk(stats: TensorStats, parts: Sequence[Segment], start: int, stop: int) -> Chunk:
    if len(parts) == 1:
        return Chunk(stats.mean, stats.second, stats.minimum, stats.maximum)
    mean = second = 0.0
    low, high = math.inf, -math.inf
    for part in parts:
        share = max(0, min(stop, part.stop) - max(start, part.start)) / (stop - start)
        if part.asked is None or not share:
            continue
        mean += share * part.asked.mean
        second += share * part.asked.second
        reach = 4.0 * part.asked.std
        low = min(low, part.asked.bound_low if part.asked.bound_low is not None else part.asked.mean - reach)
        high = max(high, part.asked.bound_high if part.asked.bound_high is not None else part.asked.mean + reach)
    return Chunk(mean, second, low, high)


def _draw(asked: Requested, size: tuple[int, int]) -> torch.Tensor:
    """A float32 sample of the distribution; of one known by its moments alone, a normal one."""
    if asked.std == 0.0:
        return torch.full(size, asked.mean)
    low, high = asked.bound_low, asked.bound_high
    values = torch.empty(size)
    with torch.no_grad():
        if low is None or high is None:
            return values.normal_(asked.mean, asked.std)
        if asked.family == "uniform":
            return values.uniform_(low, high)
        mean, std = _behind(asked, low, high)
        if min(mean - low, high - mean) > _WIDE * std:
            return values.normal_(mean, std)
        return nn.init.trunc_normal_(values, mean, std, low, high)


def _behind(asked: Requested, low: float, high: float) -> tuple[float, float]:
    """Mean and standard deviation, before truncation, of the normal whose truncated moments are asked for."""
    mean, std = asked.mean, asked.std
    for _ in range(_ROUNDS):
        got = truncated(mean, std, low, high)
        if got.std <= 0 or math.isclose(got.std, asked.std, rel_tol=1e-6):
            break
        mean, std = mean + asked.mean - got.mean, std * asked.std / got.std
    return mean, std
