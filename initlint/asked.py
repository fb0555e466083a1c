"""What the record asks of a weight: its second moment by the init call, and which weights one line draws alike."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from initlint.facts import CONVERSIONS, ModelFacts, ParameterFacts, Write
from initlint.theory.schemes import Requested, base_write, requested, stated

#: Numbers as they stand in source.
_NUMBER = re.compile(r"(?<![\w.])\d+\.?\d*(?:[eE][+-]?\d+)?|(?<![\w.])\.\d+(?:[eE][+-]?\d+)?")


def full_write(parameter: ParameterFacts) -> Write | None:
    """The last write that set the whole tensor (``None`` when it was built up in parts or rescaled later)."""
    for write in reversed(parameter.writes):
        if write.share >= 1 and not write.region and write.op not in CONVERSIONS:
            return write
    return None


def drawn_by(parameter: ParameterFacts) -> Write | None:
    """The last write, or of a whole copy (``copy.deepcopy`` of a module) the write that it copied."""
    last = parameter.last
    if last is None or last.op != "deepcopy" or last.share < 1:
        return last
    earlier = [write for write in parameter.writes if write.op != "deepcopy" and write.op not in CONVERSIONS]
    return earlier[-1] if earlier else last


def nominal_second(parameter: ParameterFacts) -> tuple[float, Requested | None]:
    """E[w^2] by the init call where the record settles it, else of the actual values; and what was asked for."""
    stats = parameter.stats
    actual = stats.second if stats else 0.0
    write = parameter.last
    if write is None:
        return actual, None
    asked = requested(write, parameter.shape) if write is full_write(parameter) else None
    if asked is None:
        # drawn matrix by matrix, or rescaled later: one distribution if all parts agree
        asked = stated(parameter)
        asked = asked if asked is not None and asked.family in ("normal", "uniform", "truncated") else None
    if asked is None or asked.std is None:
        return actual, None
    second = asked.std**2 + (asked.mean or 0.0) ** 2
    # a later unrecorded change shows as values that the call cannot give: trust the values then. The band covers
    # sampling error of small tensors (5 SE of the log second moment at kurtosis 3).
    band = 1 + 5 * math.sqrt(2 / max(1, stats.count)) if stats else 2.0
    return (second, asked) if second > 0 and 1 / band < actual / second < band else (actual, asked)


def named(write: Write | None) -> bool:
    """Whether a write is a call that counts fans itself."""
    return write is not None and write.op.startswith(("kaiming", "xavier"))


def drawn_alike(facts: ModelFacts) -> Mapping[str, tuple[tuple[int, ...], ...]]:
    """For each weight whose std may come from a formula: the shapes that the same line gives the same std.

    Left out are stds that are numbers of their own: written as a literal at the call, or of two digits (0.02), which
    a formula gives by chance alone, while no weight of another shape confirms the formula.
    """
    drawn: dict[tuple[str, int], list[tuple[ParameterFacts, float]]] = {}
    found: dict[str, tuple[tuple[int, ...], ...]] = {}
    for parameter in facts.parameters:
        site = parameter.last.site if parameter.last else None
        # a draw by hand: PyTorch's default and Kaiming's call, rescaled later, hold formulas of their own
        base = base_write(parameter)
        by_code = base is not None and base.origin != "torch" and not named(base)
        asked = stated(parameter) if len(parameter.shape) > 1 and by_code else None
        if asked is not None and asked.std > 0 and (site is None or not _literal(asked, site.text)):
            place = (site.file, site.line) if site is not None else (parameter.name, 0)
            drawn.setdefault(place, []).append((parameter, asked.std))
    for members in drawn.values():
        for parameter, std in members:
            alike = [p.shape for p, other in members if math.isclose(other, std, rel_tol=1e-9)]
            if float(f"{std:.2g}") != std or len(alike) < len(members):
                found[parameter.name] = tuple(dict.fromkeys(alike))
    return found


def _literal(asked: Requested, text: str) -> bool:
    """Whether the std or the bound stands in the line."""
    values = [v for v in (asked.std, asked.bound_high) if v]
    return any(math.isclose(float(n), v, rel_tol=1e-9) for n in _NUMBER.findall(text) for v in values)
