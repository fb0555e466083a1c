"""Formulas of the field in the wrong place: a variance or a bound as std, a std as bound, a root too many or too few.

The record holds the number as Python computed it, so a std or bound that equals one of these formulas to rounding is
that formula.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from initlint.facts import Layer
from initlint.records import dataclass
from initlint.theory.miscounts import EXACT, outputs
from initlint.theory.sampling import Requested

#: Fans up to this are left alone: the numbers of a formula and of its square are near one another there.
_SMALL = 4
#: Gains of calculate_gain that are no plain standard deviation.
GAINS = (math.sqrt(2.0), 5.0 / 3.0, math.sqrt(2.0 / (1 + 0.01**2)), math.sqrt(2.0 / (1 + 0.2**2)))
#: The same in front of a formula, in words; 1 for none.
_IN_FRONT = (
    (1.0, ""),
    (GAINS[0], "2 ** 0.5 * "),
    (GAINS[1], "5 / 3 * "),
    *((gain, f"{gain:.6g} * ") for gain in GAINS[2:]),
)


@dataclass(frozen=True, slots=True)
class Misapplied:
    """A formula in the wrong place: the variance that was meant, and what was done."""

    reason: str  # "variance_as_std" | "misapplied_formula" | "other_activation"
    variance: float
    clause: str
    line: str
    count: float  # the fan, or the sum of both, of the formula; 0 where there is none
    third: bool = False  # it is told by a factor 3 alone, which an axis of a kernel may be as well
    roots: int | None = None  # how many roots the code takes, where that is what is wrong


@dataclass(frozen=True, slots=True)
class _Formula:
    """A variance of the field for a layer, and how it is written; the gain stands in front of its root."""

    variance: float
    text: str
    count: float
    gain: float = 1.0
    front: str = ""


def misapplied(layer: Layer, shape: tuple[int, ...], asked: Requested) -> Misapplied | None:
    """What formula a recorded draw takes for another, or ``None``."""
    if asked.mean or asked.std <= 0:
        return None
    sine = _of_sine(layer, asked)
    if sine is not None or _in_place(layer, shape, asked):
        return sine
    unbracketed = next(_unbracketed(layer, shape, asked), None)
    if unbracketed is not None:
        return unbracketed
    if asked.family in ("normal", "truncated"):
        return next(_of_std(layer, shape, asked.std), None)
    if asked.family == "uniform" and asked.bound_high and asked.bound_low == -asked.bound_high:
        return next(_of_bound(layer, shape, asked.bound_high), None)
    return None


def _formulas(layer: Layer, shape: tuple[int, ...]) -> Iterator[_Formula]:
    """Variances of the field: Glorot, He, LeCun with the layer's fans, and as they are written for convolutions."""
    for inputs, reached in _pairs(layer, shape):
        if inputs + reached > 2 * _SMALL:
            yield _Formula(2 / (inputs + reached), "2 / (fan_in + fan_out)", inputs + reached)
        for fan, name in ((inputs, "fan_in"), (reached, "fan_out")):
            if fan > _SMALL:
                yield _Formula(2 / fan, f"2 / {name}", fan)
                yield _Formula(1 / fan, f"1 / {name}", fan)


def _with_gains(formulas: list[_Formula]) -> list[_Formula]:
    """The formulas, and those of Glorot and LeCun behind a gain; He's holds its own.

    The root of two times a power of two is the root of another one, and all the widths of a model may be such: there
    the number does not tell that gain.
    """
    return formulas + [
        replace(found, gain=gain, front=front)
        for found in formulas
        for gain, front in _IN_FRONT[1:]
        if not found.text.startswith("2 / fan")
        and not (gain == _IN_FRONT[1][0] and math.log2(found.count).is_integer())
    ]


def _pairs(layer: Layer, shape: tuple[int, ...]) -> list[tuple[float, float]]:
    """Inputs and outputs as the layer uses them, and of a convolution as they are written, without stride and edges."""
    pairs = [(layer.fan_in or 1.0, outputs(layer, shape))]
    if layer.kind == "conv" and layer.torch_fans:
        pairs.append((float(layer.torch_fans[0]), layer.torch_fans[1] / layer.groups))
    return pairs


def _in_place(layer: Layer, shape: tuple[int, ...], asked: Requested) -> bool:
    """Whether the draw is a scheme of the field itself: (2 / fan_in) is 6 / (fan_in + fan_out) where out = 2 in."""
    formulas = list(_formulas(layer, shape))
    if any(_same(asked.std, gain * math.sqrt(found.variance)) for found in formulas for gain, _ in _IN_FRONT):
        return True
    # 1 / fan_in is the bound of a SIREN's first layer and of word vectors, and 1 / sqrt(fan_in) PyTorch's default
    plain = [found.variance for found in formulas if found.text == "1 / fan_in"]
    bound = asked.bound_high if asked.family == "uniform" else None
    return bound is not None and any(_same(bound, v) or _same(bound, math.sqrt(v)) for v in plain)


def _of_std(layer: Layer, shape: tuple[int, ...], std: float) -> Iterator[Misapplied]:
    formulas = list(_formulas(layer, shape))
    every = _with_gains(formulas)
    for found in every:
        if _same(std, found.gain * found.variance):
            clause = (
                f"the std {std:.4g} is {found.front}{found.text}, a variance: its root {_root(found):.4g} was meant"
            )
            if found.front:
                clause = (
                    f"the std {std:.4g} is {found.front}({found.text}) without the root: {_root(found):.4g} was meant"
                )
            yield Misapplied("variance_as_std", _square(found), clause, _normal(found), found.count)
    for found in every:
        if _same(std, found.gain * found.variance**0.25):
            clause = f"the std {std:.4g} is the root of the root of {found.text}: {_root(found):.4g} was meant"
            if found.front:
                clause = f"the std {std:.4g} is {found.front}({found.text}) ** 0.25: {_root(found):.4g} was meant"
            yield Misapplied("misapplied_formula", _square(found), clause, _normal(found), found.count, roots=2)
        if _same(std, found.gain * math.sqrt(3 * found.variance)):
            clause = (
                f"the std {std:.4g} is {found.front}(3 * {found.text}) ** 0.5, the bound of a uniform distribution;"
                f" its std is {_root(found):.4g}"
            )
            yield Misapplied("misapplied_formula", _square(found), clause, _normal(found), found.count, third=True)
    if formulas and any(_same(std, gain) for gain in GAINS):
        best = next((f for f in formulas if f.text == "2 / fan_in"), formulas[0])
        clause = f"the std {std:.4g} is a gain that is not divided by the root of a fan"
        yield Misapplied("misapplied_formula", best.variance, clause, _normal(best), 0.0, roots=0)


def _of_sine(layer: Layer, asked: Requested) -> Misapplied | None:
    """A SIREN's bound sqrt(6 / fan_in) / omega for another omega than the sine is given (Sitzmann et al. 2020, 3.2).

    Published frequencies are whole numbers (30, 25, 10): a bound that is the root divided by one says which was meant.
    """
    fan, bound, omega = layer.fan_in or 0.0, asked.bound_high, abs(layer.pre_scale)
    if (
        layer.activation != "sin"
        or fan <= _SMALL
        or asked.family != "uniform"
        or not bound
        or asked.bound_low != -bound
    ):
        return None
    meant = round(math.sqrt(6 / fan) / bound)
    if meant < 2 or not _same(meant * bound, math.sqrt(6 / fan)) or _same(meant, omega) or not omega:
        return None
    clause = (
        f"the bound {bound:.4g} is (6 / fan_in) ** 0.5 / {meant}, for sin({meant} x); here sin({omega:g} x) follows"
    )
    right = _Formula(2 / (fan * omega**2), f"2 / (fan_in * {omega:g}**2)" if omega != 1 else "2 / fan_in", fan)
    return Misapplied("other_activation", right.variance, clause, _uniform(right), 0.0)


def _unbracketed(layer: Layer, shape: tuple[int, ...], asked: Requested) -> Iterator[Misapplied]:
    """A formula without its brackets: Glorot's sum, sqrt(2 / fan_in + fan_out), and the product of a kernel's axes."""
    bound = asked.family == "uniform"
    value, tops, write = (asked.bound_high, (6.0, 3.0), _uniform) if bound else (asked.std, (2.0, 1.0), _normal)
    for gain, front in _IN_FRONT if value else ():
        for inputs, reached in _pairs(layer, shape):
            for first, second, text in ((inputs, reached, "fan_in + fan_out"), (reached, inputs, "fan_out + fan_in")):
                if value and min(first, second) > _SMALL and _same(value, gain * math.sqrt(tops[0] / first + second)):
                    right = _Formula(2 / (first + second), "2 / (fan_in + fan_out)", first + second, gain, front)
                    meant = gain * math.sqrt(tops[0] / (first + second))
                    clause = (
                        f"{value:.4g} is {front}({tops[0]:g} / {text}) ** 0.5:"
                        f" with the sum in brackets {meant:.4g} was meant"
                    )
                    yield Misapplied("misapplied_formula", _square(right), clause, write(right), right.count)
    taps = math.prod(shape[2:])
    alone = layer.kind == "conv" and layer.groups == 1 and taps > 1
    for channels, name in ((shape[1], "fan_in"), (shape[0], "fan_out")) if alone else ():
        for top in tops:
            for first in {float(channels), *map(float, shape[2:])}:
                if value and min(channels, taps) > _SMALL and _same(value, math.sqrt(top * channels * taps / first**2)):
                    fan = channels * taps
                    variance = top / (3 if bound else 1) / fan
                    right = _Formula(variance, f"{variance * fan:g} / {name}", fan)
                    clause = (
                        f"{value:.4g} is ({top:g} / {first:g} * {fan / first:g}) ** 0.5:"
                        f" with the product {fan:g} in brackets {math.sqrt(top / fan):.4g} was meant"
                    )
                    yield Misapplied("misapplied_formula", _square(right), clause, write(right), right.count)


def _of_bound(layer: Layer, shape: tuple[int, ...], bound: float) -> Iterator[Misapplied]:
    for found in _with_gains(list(_formulas(layer, shape))):
        gain, front, right = found.gain, found.front, math.sqrt(3 * _square(found))
        if _same(bound, gain * 3 * found.variance):
            what = f"{front}3 * {found.text}"
            clause = f"the bound {bound:.4g} is {what}: its root {right:.4g} was meant"
            if front:
                clause = f"the bound {bound:.4g} is {what} without the root: {right:.4g} was meant"
            yield Misapplied("variance_as_std", _square(found), clause, _uniform(found), found.count)
        plain = found.text.startswith("1 /") and not front  # bounds of a SIREN's first layer, and PyTorch's own
        if not plain and _same(bound, gain * found.variance):
            clause = f"the bound {bound:.4g} is {front}{found.text}, a variance: the bound for it is {right:.4g}"
            yield Misapplied("variance_as_std", _square(found), clause, _uniform(found), found.count)
        if not plain and _same(bound, _root(found)):
            clause = (
                f"the bound {bound:.4g} is {front}({found.text}) ** 0.5, a standard deviation;"
                f" the bound for that is sqrt(3) times as large"
            )
            yield Misapplied("misapplied_formula", _square(found), clause, _uniform(found), found.count, third=True)
        if _same(bound, gain * (3 * found.variance) ** 0.25):
            clause = f"the bound {bound:.4g} is the root of the root of 3 * {found.text}: {right:.4g} was meant"
            yield Misapplied("misapplied_formula", _square(found), clause, _uniform(found), found.count, roots=2)


def _root(found: _Formula) -> float:
    return found.gain * math.sqrt(found.variance)


def _square(found: _Formula) -> float:
    return found.gain**2 * found.variance


def _normal(found: _Formula) -> str:
    return f"nn.init.normal_(weight, std={found.front}({found.text}) ** 0.5)  # {_root(found):.4g}"


def _uniform(found: _Formula) -> str:
    bound = f"{found.front}(3 * {found.text}) ** 0.5"
    return f"nn.init.uniform_(weight, -{bound}, {bound})  # {math.sqrt(3 * _square(found)):.4g}"


def _same(value: float, formula: float) -> bool:
    return abs(value / formula - 1.0) < EXACT
