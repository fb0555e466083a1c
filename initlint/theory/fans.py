"""Fans: how many inputs an output of a layer sums over, and how many outputs an input reaches.

With F = ``fan_in`` and B = ``fan_out`` of this module, q_out = F var(w) q_in and p_in = B var(w) p_out for
white signals and zero-mean weights, exactly, padding and stride included: F is C_in / groups times the mean
number of (input position, tap) pairs per output position, B is C_out / groups times the mean per input
position. PyTorch's ``_calculate_fan_in_and_fan_out`` sees only the tensor: it is wrong for groups, stride,
transposed convolution, stacked and transposed weights (see ``torch_fans``).

Axis orders: Linear (out, in); Conv (out, in / groups, *kernel); ConvTranspose (in, out / groups, *kernel);
Embedding (num, dim); Bilinear (out, in1, in2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import repeat

from initlint.errors import InitlintError
from initlint.records import dataclass

Padding = int | tuple[int, int]  # both sides, or (before, after)


class FanError(InitlintError):
    """Shapes or an equation from which no fans can be computed."""


@dataclass(frozen=True, slots=True)
class Fans:
    """Effective fans of a weight: ``fan_in`` per output, ``fan_out`` per input."""

    fan_in: float
    fan_out: float


@dataclass(frozen=True, slots=True)
class Pairs:
    """(input position, tap) pairs in bounds along one axis, and the positions there are."""

    count: int
    inputs: int
    outputs: int


def torch_fans(shape: Sequence[int]) -> tuple[int, int] | None:
    """(fan_in, fan_out) as ``nn.init`` computes them from a shape; ``None`` where it raises (fewer than 2 axes)."""
    if len(shape) < 2:
        return None
    receptive = math.prod(shape[2:])
    return shape[1] * receptive, shape[0] * receptive


def linear_fans(in_features: int, out_features: int) -> Fans:
    """Linear layer, whatever the layout of its weight."""
    return Fans(in_features, out_features)


def pairs_conv(size: int, kernel: int, stride: int = 1, padding: Padding = 0, dilation: int = 1) -> Pairs:
    """Pairs of a convolution along one axis: #{(o, t): 0 <= o s - p + t d < size}.

    Raises:
        FanError: the kernel does not fit.
    """
    before, after = _sides(padding)
    outputs = (size + before + after - dilation * (kernel - 1) - 1) // stride + 1
    if outputs < 1:
        raise FanError(f"a kernel of {kernel} (dilation {dilation}) does not fit into {size} positions")
    count = 0
    for tap in range(kernel):
        first = _ceil(before - tap * dilation, stride)
        last = (size - 1 + before - tap * dilation) // stride
        count += max(0, min(last, outputs - 1) - max(first, 0) + 1)
    return Pairs(count, size, outputs)


def pairs_conv_transpose(
    size: int, kernel: int, stride: int = 1, padding: Padding = 0, dilation: int = 1, output_padding: int = 0
) -> Pairs:
    """Pairs of a transposed convolution along one axis: #{(i, t): 0 <= i s - p + t d < outputs}."""
    before, after = _sides(padding)
    outputs = (size - 1) * stride - before - after + dilation * (kernel - 1) + output_padding + 1
    if outputs < 1:
        raise FanError(f"a transposed kernel of {kernel} on {size} positions leaves no output")
    count = 0
    for tap in range(kernel):
        first = _ceil(before - tap * dilation, stride)
        last = (outputs - 1 + before - tap * dilation) // stride
        count += max(0, min(last, size - 1) - max(first, 0) + 1)
    return Pairs(count, size, outputs)


def conv_fans(
    in_channels: int,
    out_channels: int,
    kernel: Sequence[int],
    size: Sequence[int] | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: str | Padding | Sequence[Padding] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
) -> Fans:
    """Convolution over any number of axes.

    Args:
        size: positions of the input along each axis; without it the fans of the interior are returned.
        padding: number(s), pairs (before, after), "same" or "valid".
        padding_mode: other modes than "zeros" put real values into the padding: every tap counts.
    """
    axes = len(kernel)
    strides, dilations = _each(stride, axes), _each(dilation, axes)
    per_in, per_out = in_channels / groups, out_channels / groups
    taps = math.prod(kernel)
    if size is None:
        return Fans(per_in * taps, per_out * taps / math.prod(strides))
    paddings = _paddings(padding, kernel, dilations)
    found = [pairs_conv(*axis) for axis in zip(size, kernel, strides, paddings, dilations, strict=True)]
    count = [p.count if padding_mode == "zeros" else p.outputs * k for p, k in zip(found, kernel, strict=True)]
    total = math.prod(count)
    return Fans(per_in * total / math.prod(p.outputs for p in found), per_out * total / math.prod(size))


def conv_transpose_fans(
    in_channels: int,
    out_channels: int,
    kernel: Sequence[int],
    size: Sequence[int] | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding | Sequence[Padding] = 0,
    dilation: int | Sequence[int] = 1,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
) -> Fans:
    """Transposed convolution over any number of axes; arguments as for ``conv_fans``."""
    axes = len(kernel)
    strides, dilations, extra = _each(stride, axes), _each(dilation, axes), _each(output_padding, axes)
    per_in, per_out = in_channels / groups, out_channels / groups
    taps = math.prod(kernel)
    if size is None:
        return Fans(per_in * taps / math.prod(strides), per_out * taps)
    paddings = _paddings(padding, kernel, dilations)
    found = [
        pairs_conv_transpose(*axis) for axis in zip(size, kernel, strides, paddings, dilations, extra, strict=True)
    ]
    total = math.prod(p.count for p in found)
    return Fans(per_in * total / math.prod(p.outputs for p in found), per_out * total / math.prod(size))


def embedding_fans(num: int, tokens: float = 1.0, mode: str | None = None) -> Fans:
    """Embedding lookup: one row per output. A bag of ``tokens`` rows adds (or averages) them.

    ``fan_out`` is the number of outputs that a row reaches per token looked up, on average.
    """
    share = tokens if mode == "sum" else 1.0 / tokens if mode == "mean" else 1.0
    return Fans(share, 1.0 / num)


def bilinear_fans(in1: int, in2: int, out: int) -> Fans:
    """Bilinear layer, fan_out to the first input: q_out = in1 in2 var q_1 q_2; p_1 = out in2 var q_2 p_out."""
    return Fans(in1 * in2, out * in2)


def einsum_fans(equation: str, shapes: Sequence[Sequence[int]], weight: int) -> Fans:
    """Fans of operand ``weight`` of an einsum, from the equation and the operands' shapes.

    Every index that is summed multiplies the fan-in; every index that the signal operands lack multiplies the
    fan-out. Indices shared by weight, signal and output (experts, heads) are a stack of weights and count in neither.

    Raises:
        FanError: equation and shapes do not agree.
    """
    terms, output, sizes = _parse(equation, shapes)
    if not 0 <= weight < len(terms):
        raise FanError(f"the einsum {equation!r} has no operand {weight}")
    signal = {letter for index, term in enumerate(terms) if index != weight for letter in term}
    if len(terms) == 1:
        signal = set()
    fan_in = math.prod(size for letter, size in sizes.items() if letter not in output)
    fan_out = math.prod(size for letter, size in sizes.items() if letter not in signal)
    return Fans(fan_in, fan_out)


def _parse(equation: str, shapes: Sequence[Sequence[int]]) -> tuple[list[str], str, Mapping[str, int]]:
    left, arrow, output = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(shapes):
        raise FanError(f"the einsum {equation!r} has {len(terms)} operands, {len(shapes)} shapes are given")
    sizes: dict[str, int] = {}
    plain: list[str] = []
    for term, shape in zip(terms, shapes, strict=True):
        named = term.replace("...", "")
        head, dots, tail = term.partition("...")
        spare = len(shape) - len(named)
        if spare < 0 or (spare and not dots):
            raise FanError(f"operand {term!r} of the einsum does not fit the shape {tuple(shape)}")
        dims = [*shape[: len(head)], *shape[len(head) + spare :]]
        for letter, size in zip(head + tail, dims, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))  # size 1 broadcasts
        plain.append(named)
    if not arrow:
        letters = "".join(plain)
        output = "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1))
    return plain, output.replace("...", ""), sizes


def _sides(padding: Padding) -> tuple[int, int]:
    return (padding, padding) if isinstance(padding, int) else padding


def _ceil(value: int, by: int) -> int:
    return -(-value // by)


def _each(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return tuple(repeat(value, axes))
    found = tuple(value)
    return found * axes if len(found) == 1 and axes > 1 else found


def _paddings(
    padding: str | Padding | Sequence[Padding], kernel: Sequence[int], dilations: Sequence[int]
) -> tuple[Padding, ...]:
    """One padding per axis. A plain sequence is one entry per axis, as in PyTorch."""
    if padding == "valid":
        return tuple(repeat(0, len(kernel)))
    if isinstance(padding, str):
        totals = [d * (k - 1) for k, d in zip(kernel, dilations, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)  # PyTorch pads more after
    if isinstance(padding, int):
        return tuple(repeat(padding, len(kernel)))
    found = tuple(padding)
    return found * len(kernel) if len(found) == 1 and len(kernel) > 1 else found
