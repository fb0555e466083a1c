"""What a parameter's whole record of writes says about its values: draws, arithmetic on them, and parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from initlint.facts import ParameterFacts, Write
from initlint.records import dataclass
from initlint.theory.sampling import Requested
from initlint.theory.torch_init import after, is_arithmetic, requested

#: A tensor built up from more writes than this (row by row) is judged by its values.
MAX_WRITES = 512


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows [start, stop) of axis 0, what they are drawn from, and the write that drew them."""

    start: int
    stop: int
    asked: Requested | None
    write: Write | None = None
    mixed: bool = False  # a later write changed an unknown part of it


def stated(parameter: ParameterFacts) -> Requested | None:
    """What the record of a parameter says its values are drawn from, taking all writes in order.

    Follows a draw through scalar arithmetic (``mul_``, ``div_``, ``add_``, ``clamp_``, ``erfinv_`` as home-made
    truncated normals use) and combines later writes to parts of the tensor (gates, rows). ``None`` when the
    record does not determine it.
    """
    if parameter.provenance != "recorded" or len(parameter.writes) > MAX_WRITES:
        return None
    return combined(segments(parameter))


def segments(parameter: ParameterFacts) -> tuple[Segment, ...]:
    """The parts of axis 0 with what each is drawn from; a write without known region is mixed into all."""
    rows = parameter.shape[0] if parameter.shape else 1
    found: list[Segment] = [Segment(0, rows, None)]
    for write in parameter.writes[-MAX_WRITES:]:
        if write.share >= 1.0 and not write.region:
            found = [Segment(0, rows, after(combined(found), write, parameter.shape), write)]
        elif write.start is not None and write.stop is not None and _all_of_rows(write, rows):
            found = _overwritten(found, write, parameter.shape)
        else:
            part = None if is_arithmetic(write) else requested(write, parameter.shape)
            found = [replace(s, asked=_mixed(s.asked, part, write.share), mixed=True) for s in found]
    return tuple(found)


def combined(found: Sequence[Segment]) -> Requested | None:
    """One distribution for all segments: theirs if they agree, else the mixture's moments."""
    first = found[0].asked
    if first is None or any(s.asked is None for s in found):
        return None
    if len(found) == 1:
        return first
    total = sum(s.stop - s.start for s in found) or 1
    weighted = [((s.stop - s.start) / total, s.asked) for s in found if s.asked is not None]
    alike = all(a.mean == first.mean and math.isclose(a.std, first.std, rel_tol=1e-9) for _, a in weighted)
    if alike and len({a.family for _, a in weighted}) == 1:
        return replace(first, family="blocks") if first.structured else first
    mean = sum(share * a.mean for share, a in weighted)
    std = math.sqrt(max(0.0, sum(share * a.second for share, a in weighted) - mean * mean))
    # E x^4 of the mixture is the mean of the parts' fourth moments about zero; K s^4 bounds those with a small mean
    fourth = sum(share * a.kurtosis * a.second**2 for share, a in weighted)
    second = sum(share * a.second for share, a in weighted)
    kurtosis = max(3.0, fourth / second**2) if second > 0 else 3.0
    fixed = all(a.structured or a.std == 0.0 for _, a in weighted)
    return Requested(mean, std, None, None, "mixture", kurtosis, structured=fixed and std > 0)


def _all_of_rows(write: Write, rows: int) -> bool:
    """Whether the region is those rows with all their columns."""
    count = (write.stop or 0) - (write.start or 0)
    return rows > 0 and math.isclose(write.share, count / rows, rel_tol=1e-6)


def _overwritten(found: Sequence[Segment], write: Write, shape: Sequence[int]) -> list[Segment]:
    start, stop = write.start or 0, write.stop or 0
    kept: list[Segment] = []
    inside: list[Segment] = []
    for s in found:
        if s.start < start:
            kept.append(replace(s, stop=min(s.stop, start)))
        if s.start < stop and s.stop > start:
            inside.append(s)
        if s.stop > stop:
            kept.append(replace(s, start=max(s.start, stop)))
    state = combined(inside) if inside and is_arithmetic(write) else None
    asked = after(state, write, shape)
    return sorted([*kept, Segment(start, stop, asked, write)], key=lambda s: s.start)


def _mixed(state: Requested | None, part: Requested | None, share: float) -> Requested | None:
    """A share of the tensor was overwritten by another draw."""
    if state is None or part is None:
        return None
    mean = (1 - share) * state.mean + share * part.mean
    second = (1 - share) * state.second + share * part.second
    std = math.sqrt(max(0.0, second - mean * mean))
    if state.std == 0.0 and part.std == 0.0 and state.mean == part.mean:
        return state
    # the heavier of the two tails, diluted: E x^4 / (E x^2)^2 of a mixture is at most K / smallest share
    kurtosis = max(state.kurtosis, part.kurtosis) / max(1e-3, 1.0 - share if share < 0.5 else share)
    return Requested(mean, std, None, None, "mixture", kurtosis, share=state.share * (1 - share))
