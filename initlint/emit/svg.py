"""Small charts as inline SVG: pure functions from numbers to markup.

Colours come from the page's style sheet through classes, so that one picture serves light, dark and print.
All text that models control is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from initlint.emit.common import clean, number, shorten

#: Points of a curve that get a mark and a tooltip of their own; more would run together.
MOST_MARKS = 64
#: Points of a curve drawn at all: about one for each pixel of width in a narrow column.
MOST_POINTS = 320
#: Bins of a histogram drawn; finer ones are merged.
MOST_BINS = 40
#: Decades that a ratio bar shows to each side: 0.1× to 10×, wide enough to see Xavier from He (0.71×).
REACH = 1.0


@dataclass(frozen=True, slots=True)
class Curve:
    """Standard deviations along the depth of a network; ``None`` where unknown.

    ``band`` is one standard deviation of log10 of the value by chance; ``measured`` what a real run gave.
    """

    labels: Sequence[str]
    values: Sequence[float | None]
    band: Sequence[float | None] = ()
    measured: Sequence[float | None] = ()
    flagged: Sequence[bool] = ()  # points whose layer a finding names


def _n(value: float) -> str:
    """A coordinate: one decimal, no trailing zero."""
    return f"{value:.1f}".removesuffix(".0")


def _superscript(value: int) -> str:
    return str(value).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def decade(exponent: int) -> str:
    """A power of ten for an axis: ``0.01``, ``1``, ``10⁻⁴``."""
    return f"{10.0**exponent:g}" if -2 <= exponent <= 2 else f"10{_superscript(exponent)}"


def _known(values: Iterable[float | None]) -> list[float]:
    return [v for v in values if v is not None and math.isfinite(v) and v > 0]


@dataclass(frozen=True, slots=True)
class _Frame:
    """The plot area and its scales: x counts points, y is log10."""

    count: int
    low: float
    high: float
    left: float = 44
    right: float = 548
    top: float = 10
    bottom: float = 178

    def x(self, index: float) -> float:
        if self.count <= 1:
            return (self.left + self.right) / 2
        return self.left + 8 + (self.right - self.left - 16) * index / (self.count - 1)

    def y(self, value: float) -> float:
        """The height of a value; zero and what lies outside is drawn on the edge."""
        level = math.log10(value) if value > 0 else self.low
        share = (min(max(level, self.low), self.high) - self.low) / (self.high - self.low)
        return self.bottom - (self.bottom - self.top) * share


def curve(data: Curve, kind: str, title: str) -> str:
    """A curve over depth on a log axis, with the band of chance, measured points and flagged layers.

    Args:
        kind: class of the colours (``forward``, ``gradient``, ``dependent``).
        title: text for readers of the page's structure.
    """
    data = _thinned(data)
    known = _known([*data.values, *data.measured])
    if len(known) < 2:
        return ""
    low, high = min(0.0, math.log10(min(known))), max(0.0, math.log10(max(known)))
    pad = 0.08 * max(high - low, 1)
    frame = _Frame(len(data.values), min(low - pad, -0.5), max(high + pad, 0.5))
    parts = [
        f'<svg class="curve {kind}" viewBox="0 0 560 214" role="img" aria-label="{escape(clean(title))}">',
        *_grid(frame),
        _flags(frame, data),
        _band(frame, data),
        _line(frame, data.values),
        *_marks(frame, data),
        *_measured(frame, data),
        *_axis(frame, data),
        "</svg>",
    ]
    return "".join(parts)


def _thinned(data: Curve) -> Curve:
    count = len(data.values)
    if count <= MOST_POINTS:
        return data
    kept = sorted({round(i * (count - 1) / (MOST_POINTS - 1)) for i in range(MOST_POINTS)})

    def pick(values: Sequence[float | None]) -> list[float | None]:
        return [values[i] for i in kept] if len(values) == count else []

    flagged = [data.flagged[i] for i in kept] if len(data.flagged) == count else []
    return Curve([data.labels[i] for i in kept], pick(data.values), pick(data.band), pick(data.measured), flagged)


def _grid(frame: _Frame) -> list[str]:
    first, last = math.ceil(frame.low), math.floor(frame.high)
    step = max(1, math.ceil((last - first + 1) / 6))
    # multiples of the step, so that 1, where signals should stay, is always among them
    levels = [level for level in range(first, last + 1) if level % step == 0]
    parts = []
    for level in levels:
        y = _n(frame.y(10.0**level))
        one = ' class="one"' if level == 0 else ""
        parts.append(f'<path{one} d="M{_n(frame.left)} {y}H{_n(frame.right)}"/>')
        parts.append(f'<text class="tick" x="{_n(frame.left - 6)}" y="{y}" dy="4">{decade(level)}</text>')
    return ['<g class="grid">', *parts, "</g>"]


def _segments(frame: _Frame, values: Sequence[float | None]) -> list[list[tuple[float, float]]]:
    found: list[list[tuple[float, float]]] = [[]]
    for index, value in enumerate(values):
        if value is None or not math.isfinite(value) or value < 0:
            found.append([])
        else:
            found[-1].append((frame.x(index), frame.y(value)))
    return [segment for segment in found if segment]


def _line(frame: _Frame, values: Sequence[float | None]) -> str:
    d = "".join("M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in part) for part in _segments(frame, values))
    return f'<path class="line" d="{d}"/>'


def _band(frame: _Frame, data: Curve) -> str:
    """Two standard deviations by chance to each side."""
    if len(data.band) != len(data.values):
        return ""
    upper, lower = [], []
    for index, (value, band) in enumerate(zip(data.values, data.band, strict=True)):
        if value and band and math.isfinite(value) and math.isfinite(band) and value > 0:
            reach = 10.0 ** min(2 * band, 300)
            x = _n(frame.x(index))
            upper.append(f"{x} {_n(frame.y(min(value * reach, 1e300)))}")
            lower.append(f"{x} {_n(frame.y(value / reach))}")
    return f'<path class="band" d="M{"L".join(upper + lower[::-1])}Z"/>' if len(upper) > 1 else ""


def _flags(frame: _Frame, data: Curve) -> str:
    marks = [index for index, flag in enumerate(data.flagged) if flag]
    if not marks:
        return ""
    d = "".join(f"M{_n(frame.x(i))} {_n(frame.bottom)}v6" for i in marks)
    return f'<path class="flag" d="{d}"/>'


def _marks(frame: _Frame, data: Curve) -> list[str]:
    if len(data.values) > MOST_MARKS:
        return []
    found = []
    for index, value in enumerate(data.values):
        if value is None or not math.isfinite(value) or value < 0:
            continue
        measured = data.measured[index] if index < len(data.measured) else None
        more = f", measured {number(measured)}" if measured is not None else ""
        tip = escape(f"{clean(data.labels[index])}: {number(value)}{more}")
        found.append(f'<circle cx="{_n(frame.x(index))}" cy="{_n(frame.y(value))}" r="3"><title>{tip}</title></circle>')
    return found


def _measured(frame: _Frame, data: Curve) -> list[str]:
    d = "".join(
        f"M{_n(frame.x(i) - 3.5)} {_n(frame.y(v))}h7m-3.5-3.5v7"
        for i, v in enumerate(data.measured)
        if v is not None and math.isfinite(v) and v > 0
    )
    return [f'<path class="measured" d="{d}"/>'] if d else []


def _axis(frame: _Frame, data: Curve) -> list[str]:
    count = len(data.labels)
    places = [(0, "start")] + ([(count - 1, "end")] if count > 1 else [])
    if count > 4:
        places.insert(1, (count // 2, "middle"))
    parts = [f'<path class="axis" d="M{_n(frame.left)} {_n(frame.bottom)}H{_n(frame.right)}"/>']
    for index, anchor in places:
        text = escape(shorten(clean(data.labels[index]), 24))
        x = {"start": frame.left, "middle": frame.x(index), "end": frame.right}[anchor]
        parts.append(f'<text class="{anchor}" x="{_n(x)}" y="{_n(frame.bottom + 20)}">{text}</text>')
    return parts


def histogram(
    edges: Sequence[float], counts: Sequence[int], expected_std: float | None, *, uniform: bool = False
) -> str:
    """A tensor's values as filled steps, and the density expected of them drawn over as a line.

    The expected density has the family of the actual one (normal, or uniform) at the expected standard deviation.
    """
    total = sum(counts)
    if total <= 0 or len(edges) != len(counts) + 1 or not all(map(math.isfinite, edges)):
        return ""
    edges, counts = _merged(edges, counts)
    reach = max(abs(edges[0]), abs(edges[-1]))
    if reach <= 0 or edges[-1] <= edges[0]:
        return ""
    wanted = (math.sqrt(3) if uniform else 3) * (expected_std or 0.0)
    # wide enough to see that more was expected, not so wide that the actual values become a needle
    reach = max(reach, min(1.05 * wanted, 3 * reach))
    heights = [c / total / (b - a) if b > a else 0.0 for c, a, b in zip(counts, edges, edges[1:], strict=False)]
    peak = max(heights)
    density = _density(expected_std, uniform, reach) if expected_std else []
    # a far narrower expectation may leave the picture at the top, the actual values must not become a line
    top = max(peak, min(max((h for _, h in density), default=0.0), 2.5 * peak)) * 1.06
    width, height = 132.0, 40.0

    def x(value: float) -> float:
        return width * (value + reach) / (2 * reach)

    def y(value: float) -> float:
        return height * (1 - min(value / top, 1.0))

    steps = "".join(f"V{_n(y(h))}H{_n(x(b))}" for h, b in zip(heights, edges[1:], strict=False))
    line = "L".join(f"{_n(x(v))} {_n(y(h))}" for v, h in density)
    overlay = f'<path class="want" d="M{line}"/>' if line else ""
    return (
        f'<svg class="hist" viewBox="0 0 132 41" aria-hidden="true">'
        f'<path class="bars" d="M{_n(x(edges[0]))} 40{steps}V40Z"/>{overlay}<path class="axis" d="M0 40.5H132"/></svg>'
    )


def _merged(edges: Sequence[float], counts: Sequence[int]) -> tuple[Sequence[float], Sequence[int]]:
    size = math.ceil(len(counts) / MOST_BINS)
    if size <= 1:
        return edges, counts
    starts = range(0, len(counts), size)
    return [*(edges[i] for i in starts), edges[-1]], [sum(counts[i : i + size]) for i in starts]


def _density(std: float, uniform: bool, reach: float) -> list[tuple[float, float]]:
    if uniform:
        bound = math.sqrt(3) * std
        height = 1 / (2 * bound)
        return [
            (-min(bound, reach), 0.0),
            (-min(bound, reach), height),
            (min(bound, reach), height),
            (min(bound, reach), 0),
        ]
    points = [reach * (i / 20 - 1) for i in range(41)]
    if std < reach / 8:  # the bell needs points of its own where it is narrow
        points = sorted({*points, *(std * (i / 5 - 3) for i in range(31))})
    return [(v, math.exp(-0.5 * (v / std) ** 2) / (std * math.sqrt(2 * math.pi))) for v in points]


def ratio_bar(ratio: float | None) -> str:
    """How far a standard deviation is from the expected one: a bar from 1× on a log axis, cut at 0.1× and 10×.

    The scale has ticks at 0.5× and 2×.
    """
    if ratio is None or not math.isfinite(ratio) or ratio < 0:
        return ""
    level = math.log10(ratio) if ratio > 0 else -math.inf
    end = 60 + 54 * max(-REACH, min(REACH, level)) / REACH
    beyond = abs(level) > REACH
    tip = ""
    if beyond:
        tip = f"M{_n(end)} 4l{'4' if level > 0 else '-4'} 4l{'-4' if level > 0 else '4'} 4Z"
    shape = f'<path class="tip" d="{tip}"/>' if beyond else f'<circle cx="{_n(end)}" cy="8" r="3"/>'
    return (
        '<svg class="ratio" viewBox="0 0 120 16" aria-hidden="true"><use href="#scale"/>'
        f'<path class="bar" d="M60 8H{_n(end)}"/>{shape}</svg>'
    )


#: The scale that all ratio bars share; the page defines it once.
SCALE = (
    '<svg width="0" height="0" aria-hidden="true" style="position:absolute"><g id="scale">'
    '<path class="scale" d="M6 8H114M43.7 5.5v5M76.3 5.5v5"/><path class="one" d="M60 2v12"/></g></svg>'
)
