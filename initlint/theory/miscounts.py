"""Fans that a call or a formula counts otherwise than the layer uses its weight.

Two kinds of evidence: a call of ``kaiming_*`` or ``xavier_*``, whose count PyTorch takes from the shape alone, and a
recorded std that equals a usual gain over a wrong count to rounding.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from initlint.facts import Layer, Write
from initlint.records import dataclass
from initlint.theory.fans import torch_fans

#: Relative agreement that a recorded std must have with a formula to count as that formula. The record holds the number
#: as Python computed it, so only rounding separates them; chance agreement of 60 candidates is then below 1e-4.
EXACT = 1e-5
#: A mistake in the fan that changes the variance by less than this is no mistake worth a word (padding, near-square).
MIN_FACTOR = 1.3
#: Counts up to this give stds (1, 0.7, 0.58, 0.5) that code writes for other reasons.
SMALL = 4
#: Squared gains that code multiplies into 1 / fan.
GAINS = (1.0, 2.0, 1 / 3, 25 / 9, 2 / (1 + 0.01**2), 2 / (1 + 0.1**2), 2 / (1 + 0.2**2))
#: PyTorch's own default, U(+-1 / sqrt(fan_in)): a convention of the inputs. He's and LeCun's have a backward mode.
_THIRD = 1 / 3
#: A weight that acts this often is unrolled time: cells take 1 / sqrt(hidden) for all their matrices (torch.nn.LSTM).
_UNROLLED = 3
#: The same for the mean of fan_in and fan_out: Xavier with the gains of linear, ReLU, tanh and leaky ReLU.
MEAN_GAINS = (1.0, 2.0, 25 / 9, 2 / (1 + 0.01**2), 2 / (1 + 0.2**2))


@dataclass(frozen=True, slots=True)
class Miscount:
    """A wrong count of a fan: ``used`` where ``right`` was meant."""

    reason: str  # "grouped_fan" | "fan_axis" | "fused_fan"
    used: float
    right: float
    clause: str


def of_call(layer: Layer, shape: Sequence[int], write: Write) -> Miscount | None:
    """What a ``kaiming_*`` or ``xavier_*`` call on this weight miscounts; ``None`` where PyTorch is right."""
    written = written_shape(write, shape)
    fans = torch_fans(written) if written is not None else None
    if written is None or fans is None:
        return None
    mode = "both" if write.op.startswith("xavier") else str(write.args.get("mode", "fan_in"))
    if mode not in ("fan_in", "fan_out", "both"):
        return None
    used = {"fan_in": fans[0], "fan_out": fans[1], "both": fans[0] + fans[1]}[mode]
    for found in _of_call(layer, tuple(written), mode, used, fans):
        if found.right > 0 and factor(used / found.right):
            return found
    return None


def _of_call(layer: Layer, shape: tuple[int, ...], mode: str, used: float, fans: tuple[int, int]) -> Iterator[Miscount]:
    fan_in, fan_out = layer.fan_in or 1.0, layer.fan_out or 1.0
    if layer.kind == "conv" and layer.groups > 1 and mode != "fan_in":
        out = fans[1] / layer.groups
        right = out if mode == "fan_out" else fans[0] + out
        clause = f"counts all {layer.groups} groups: fan_out {fans[1]} instead of {out:g}"
        yield Miscount("grouped_fan", used, right, clause)
    if layer.kind == "conv_transpose" and mode == "fan_in":
        clause = (
            f"reads fan_in {fans[0]} from the output channels of a transposed convolution;"
            f" each output sums {fan_in:.4g} inputs"
        )
        yield Miscount("fan_axis", used, fan_in, clause)
    if layer.kind not in ("linear", "matmul"):
        return
    if layer.blocks and mode == "both" and len(shape) == 2 and layer.layout in ("out_in", "in_out"):
        inside, outside = fans if layer.layout == "out_in" else fans[::-1]
        rows = layer.blocks[0].stop - layer.blocks[0].start
        if 0 < rows < outside:
            names = ", ".join(block.name for block in layer.blocks)
            clause = f"takes the packed projections {names} for one: fan_out {outside} instead of {rows}"
            yield Miscount("fused_fan", used, float(inside + rows), clause)
        return
    if layer.layout == "kernels":
        clause = f"counts what makes a whole kernel for its inputs: {used:g} instead of {fan_in:g}"
        yield Miscount("fan_axis", used, fan_in, clause)
        return
    own = outputs(layer, shape)
    right = {"fan_in": fan_in, "fan_out": own, "both": fan_in + own}[mode]
    # the other axis by whoever knows the layout, or all that an input reaches where matrices share it: right as well
    known = {"fan_in": (), "fan_out": (fan_in, fan_out), "both": (fan_in + fan_out,)}[mode]
    if len(shape) == 2 and mode != "fan_in":
        return
    if not any(not factor(used / count) for count in known if count > 0):
        yield Miscount("fan_axis", used, right, _layout_clause(layer, shape, fans, fan_in, own))


def _layout_clause(layer: Layer, shape: tuple[int, ...], fans: tuple[int, int], fan_in: float, own: float) -> str:
    if len(shape) == 2:
        return f"takes a weight stored (in, out) for (out, in): {fans[0]} instead of {fan_in:g}"
    what = "the stacked weight" if layer.layout.startswith("stacked") else "the weight"
    outer = fan_in and own and abs(math.log(fans[1] / own)) > abs(math.log(fans[0] / fan_in))
    count = f"fan_out {fans[1]} instead of {own:g}" if outer else f"fan_in {fans[0]} instead of {fan_in:g}"
    return f"takes {what} {shape} for one convolution: {count}"


def outputs(layer: Layer, shape: Sequence[int]) -> float:
    """Outputs of one matrix: of a stack that shares its input, those of a single member."""
    if layer.layout == "stacked_in_out" and len(shape) >= 3:
        return float(shape[-1])
    if layer.layout == "stacked_out_in" and len(shape) >= 3:
        return float(shape[-2])
    return layer.fan_out or 1.0


def written_shape(write: Write, shape: Sequence[int]) -> tuple[int, ...] | None:
    """The shape that a call saw: the tensor's own, or that of one slice of its leading axis."""
    if write.share >= 1 and not write.region:
        return tuple(shape)
    single = write.start is not None and write.stop == write.start + 1 and len(shape) > 2
    return tuple(shape[1:]) if single and math.isclose(write.share * shape[0], 1.0) else None


def by_hand(layer: Layer, shape: Sequence[int], second: float, alike: Sequence[Sequence[int]] = ()) -> Miscount | None:
    """The wrong count that this second moment is a usual gain over, if it is none over a right one.

    ``alike``: the shapes to which the same line gives the same std.
    """
    fan_in, fan_out = layer.fan_in or 1.0, layer.fan_out or 1.0
    own = outputs(layer, shape)
    single, paired, backward = [fan_in], [fan_in + fan_out, fan_in + own], list[float]()
    if layer.layout != "in_out":
        backward += [fan_out, own]
    if layer.kind == "conv" and layer.torch_fans:
        # without stride and padding, as everybody writes it
        inside, outside = float(layer.torch_fans[0]), layer.torch_fans[1] / layer.groups
        single.append(inside)
        backward.append(outside)
        paired.append(inside + outside)
    if layer.kind == "conv_transpose" and layer.torch_fans:
        backward.append(float(layer.torch_fans[0]))  # He's backward mode, without the padding
    gains = [gain for gain in GAINS if gain != _THIRD or not _by_inputs(layer, shape, alike)]
    sound = (
        any(formula(second, n, gains) for n in backward)
        or any(formula(second, n) for n in single)
        or any(formula(second, n / 2, MEAN_GAINS) for n in paired)
    )
    if sound and layer.layout != "table":
        return None
    for found in _by_hand(layer, tuple(shape)):
        wrong = found.used > SMALL and found.right > 0 and factor(found.used / found.right)
        if wrong and formula(second, found.used) and all(counts(other, found.used) for other in alike):
            return found if not formula(second, found.right) else None
    added = next(_axes_added(layer, tuple(shape), second), None)
    if added is not None and factor(added.used / added.right) and all(counts(other, added.used) for other in alike):
        return added
    return None


def _by_inputs(layer: Layer, shape: Sequence[int], alike: Sequence[Sequence[int]]) -> bool:
    """Whether 1 / sqrt(n) can only mean the layer's inputs: no cell's hidden size, no size that others read."""
    if layer.kind not in ("linear", "conv") or layer.layout != "out_in" or len(layer.nodes) >= _UNROLLED:
        return False
    if layer.head:  # EfficientNet's classifier: variance scaling by a third of the outputs (Tan and Le 2019)
        return False
    inputs = {math.prod(other[1:]) for other in alike if len(other) > 1}
    # one number for all matrices of a part is its hidden size, which some of them read and others write
    return layer.role not in ("input", "hidden") and not layer.blocks and shape[0] not in inputs


def _by_hand(layer: Layer, shape: tuple[int, ...]) -> Iterator[Miscount]:
    """Each way in which this layer's fan is commonly miscounted."""
    fan_in = layer.fan_in or 1.0
    torch_in, torch_out = layer.torch_fans or (0, 0)
    if layer.layout == "out_in" and layer.kind == "linear" and len(shape) == 2:
        clause = f"counts the {shape[0]} outputs: 1 / sqrt(n) is PyTorch's bound for the {fan_in:g} inputs"
        yield Miscount("fan_axis", shape[0], fan_in, clause)
    if layer.kind == "conv":
        yield from _conv(layer, shape, torch_in, torch_out)
    if layer.kind == "conv_transpose" and len(shape) > 2:
        taps = math.prod(shape[2:])
        # the outputs' count, torch_in, is He's backward mode; what no mode gives is the inputs without the stride
        clause = f"counts {shape[0]} x {taps} inputs without the stride; each output sums {fan_in:.4g}"
        yield Miscount("fan_axis", shape[0] * taps / layer.groups, fan_in, clause)
        if layer.groups > 1:
            clause = f"counts the outputs of all {layer.groups} groups"
            yield Miscount("grouped_fan", torch_in * layer.groups, torch_in, clause)
    if layer.layout == "in_out" and len(shape) == 2 and shape[0] != shape[-1]:
        clause = f"takes a weight stored (in, out) for (out, in): fan_in {torch_in} instead of {fan_in:g}"
        yield Miscount("fan_axis", torch_in, fan_in, clause)
    if len(shape) >= 3 and layer.kind in ("linear", "matmul"):
        yield from _stacked(layer, shape)
    if layer.layout == "table" and len(shape) == 2:
        clause = f"scales with the number of entries ({shape[0]}) instead of their dimension ({shape[1]})"
        yield Miscount("fan_axis", shape[0], shape[1], clause)


def _conv(layer: Layer, shape: tuple[int, ...], torch_in: int, torch_out: int) -> Iterator[Miscount]:
    taps = math.prod(shape[2:])
    if layer.groups > 1:
        right = torch_out / layer.groups
        clause = f"counts the outputs of all {layer.groups} groups: fan_out {torch_out} instead of {right:g}"
        yield Miscount("grouped_fan", torch_out, right, clause)
        clause = (
            f"counts the inputs of all {layer.groups} groups: fan_in {torch_in * layer.groups} instead of {torch_in}"
        )
        yield Miscount("grouped_fan", torch_in * layer.groups, torch_in, clause)
        both = torch_in * layer.groups + torch_out
        yield Miscount("grouped_fan", both / 2, (torch_in + right) / 2, f"counts all {layer.groups} groups")
    if taps > 1:
        for channels, right, name in ((shape[1], torch_in, "input"), (shape[0], torch_out / layer.groups, "output")):
            if channels > 1:
                clause = f"counts {channels} {name} channels without the {taps} taps of the kernel"
                yield Miscount("fan_axis", channels, right, clause)
            for axes, part in _parts_of(shape[2:]):
                clause = (
                    f"counts {axes} of the {' x '.join(map(str, shape[2:]))} taps, times {channels} {name} channels"
                )
                yield Miscount("fan_axis", channels * part, right, clause)
        if layer.groups == 1:
            clause = f"counts the {torch_out} outputs: 1 / sqrt(n) is PyTorch's bound for the {torch_in} inputs"
            yield Miscount("fan_axis", torch_out, torch_in, clause)


def _axes_added(layer: Layer, shape: tuple[int, ...], second: float) -> Iterator[Miscount]:
    """All axes added where those of the kernel multiply: right for a matrix, which has no kernel.

    Sums of sizes that are powers of two are sizes again: one that a product of axes gives as well tells nothing.
    """
    if len(shape) < 3 or not formula(second, sum(shape) / 2, MEAN_GAINS):
        return
    if any(formula(second, product) for product in _products(shape)):
        return
    both = (layer.fan_in or 1.0) + outputs(layer, shape)
    if layer.kind in ("conv", "conv_transpose"):
        both = (shape[0] / layer.groups + shape[1]) * math.prod(shape[2:])
    clause = f"adds all axes of {shape}, {sum(shape)}, for fan_in + fan_out {both:g}"
    yield Miscount("fan_axis", sum(shape) / 2, both / 2, clause)


def _parts_of(kernel: tuple[int, ...]) -> Iterator[tuple[str, int]]:
    """Products of all axes of a kernel but one, as formulas for images give them for clips.

    A factor of 3 in two dimensions is a bound taken for a std, sqrt(6 / n), rather than an axis of 3 left out.
    """
    if len(kernel) < 2:
        return
    for left_out in range(len(kernel)):
        rest = [size for i, size in enumerate(kernel) if i != left_out]
        if kernel[left_out] > 1 and not (len(kernel) == 2 and kernel[left_out] == 3):
            yield " x ".join(map(str, rest)), math.prod(rest)


def _stacked(layer: Layer, shape: tuple[int, ...]) -> Iterator[Miscount]:
    """Products of some axes, and sums of two, for a weight whose axes are stacks, inputs and outputs."""
    fan_in, own = layer.fan_in or 1.0, outputs(layer, shape)
    axes = range(len(shape))
    for size in range(1, len(shape) + 1):
        for chosen in itertools.combinations(axes, size):
            count = math.prod(shape[i] for i in chosen)
            if count > 1:
                clause = f"counts {' x '.join(str(shape[i]) for i in chosen)} = {count} of {shape} as inputs"
                yield Miscount("fan_axis", count, fan_in, f"{clause} instead of {fan_in:g}")
    # as Keras and JAX read a tensor of several axes where nobody says otherwise
    around = math.prod(shape[:-2])
    clause = f"reads {shape} as a kernel of {around} taps from {shape[-2]} to {shape[-1]} channels"
    yield Miscount("fan_axis", (shape[-2] + shape[-1]) * around / 2, (fan_in + own) / 2, clause)
    for first, second in itertools.combinations(axes, 2):
        count = shape[first] + shape[second]
        clause = f"adds the axes {shape[first]} and {shape[second]} of {shape} for fan_in + fan_out {fan_in + own:g}"
        yield Miscount("fan_axis", count / 2, (fan_in + own) / 2, clause)


def counts(shape: Sequence[int], count: float) -> bool:
    """Whether a count can be made of the axes of a shape: a product of some, the sum (or its half) of two such or of
    all axes."""
    if count in (sum(shape), sum(shape) / 2):
        return True
    products = _products(shape)
    return count in products or any(count in (a + b, (a + b) / 2) for a in products for b in products)


def _products(shape: Sequence[int]) -> set[float]:
    """All that axes of a shape multiply to."""
    axes = range(len(shape))
    chosen = [c for size in range(1, len(shape) + 1) for c in itertools.combinations(axes, size)]
    return {float(math.prod(shape[i] for i in c)) for c in chosen}


def formula(second: float, fan: float, gains: Sequence[float] = GAINS) -> bool:
    """Whether a second moment is one of the usual gains over this fan, to rounding."""
    return any(abs(second * fan / gain - 1) < 2 * EXACT for gain in gains)


def factor(ratio: float) -> bool:
    """Whether a ratio of counts matters."""
    return not 1 / MIN_FACTOR < ratio < MIN_FACTOR
