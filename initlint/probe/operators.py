"""``Operator`` of a layer from its live weights: fans by counting pairs, and moments of its rows.

Everything is computed from the effective weight, the tensor that the forward multiplies with
(after weight_norm, spectral_norm or a parametrization). Sources: THEORY of the design, section 1
(row form) and section 2 (pair counting): F = C_in/g * N_pairs/N_out, B = C_out/g * N_pairs/N_in.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from initlint.facts import Operator
from initlint.probe.measure_matrix import block_gram_residual
from initlint.records import dataclass

#: Elements of a block when rows are summed; fits the second-level cache.
BLOCK = 1 << 17
#: Elements up to which sums over taps are taken in float64: small tensors cost nothing; float32 sums of more are
#: pairwise and good to 1e-6, far below the chance of one draw.
_DOUBLE = 1 << 15
#: Float32 rounding leaves about 1e-6, bfloat16 about 1e-2; a random matrix has residuals of order 1.
ORTHOGONAL = 2e-2
#: Input channels so few that by chance their weights' energies differ by far more than those of wide layers.
FEW = 8
#: How often one depthwise kernel is followed; beyond, its greatest gain has taken over.
AGAIN = 12


@dataclass(frozen=True, slots=True)
class Geometry:
    """The geometry of a convolution; all tuples have one entry for each spatial axis."""

    size: tuple[int, ...] | None  # of the input; None when no forward ran
    size_out: tuple[int, ...] | None
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]  # before each axis
    dilation: tuple[int, ...]
    groups: int = 1
    zeros: bool = True  # False: circular, reflect, replicate (every tap reads a real value)


_P = ParamSpec("_P")
_R = TypeVar("_R")


def _unseen(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """What is computed here concerns no mode that watches torch functions; passing through one takes microseconds."""

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with torch._C.DisableTorchFunction():
            return function(*args, **kwargs)

    return call


def row_sums(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum and sum of squares of each row, float64, whatever the memory layout, in one pass."""
    rows, columns = matrix.shape
    flipped = rows > 1 and columns > 1 and matrix.stride(0) < matrix.stride(1)
    source = matrix.t() if flipped else matrix
    blocks = torch.split(source, max(1, BLOCK // max(1, source.shape[1])))
    if flipped or not rows:
        totals = torch.zeros(rows, dtype=torch.float64)
        energies = torch.zeros(rows, dtype=torch.float64)
        for block in blocks:
            exact = _exact(block)
            totals += torch.sum(exact, 0)
            energies += torch.sum(exact * exact, 0)
        return totals, energies
    sums, norms, ones = [], [], _exact(source[:1]).new_ones(columns)
    for block in blocks:
        exact = _exact(block)
        sums.append(torch.mv(exact, ones))  # reads memory faster than a sum does, see measure_scan.Scan
        norms.append(torch.linalg.vector_norm(exact, dim=1))
    return torch.cat(sums).double(), torch.cat(norms).double().square_()


def _exact(block: torch.Tensor) -> torch.Tensor:
    """Halves have no fast reductions on the CPU, and too few digits for sums."""
    return block if block.dtype in (torch.float32, torch.float64) else block.float()


@_unseen
def linear_operator(weight: torch.Tensor, bias: torch.Tensor | None) -> Operator:
    """Of ``y = W x + b`` with W (out, in), any strides."""
    out, inner = weight.shape
    totals, energies = row_sums(weight)
    return _assemble(
        fans=(float(inner), float(out)),
        gain=float(energies.mean()) if out else 0.0,
        back=float(energies.sum()) / inner if inner else 0.0,
        totals=totals,
        energies=energies,
        bias=bias,
        widths=(inner, out),
        orthogonal=_is_orthogonal(weight, energies),
        columns=_columns(weight) if inner <= FEW else (),
    )


@_unseen
def stacked_operator(weight: torch.Tensor, bias: torch.Tensor | None) -> Operator:
    """Of a batch of maps W (stack, out, in), each applied to its own part of the signal."""
    stack, out, inner = weight.shape
    pairs = [row_sums(part) for part in weight]
    totals, energies = torch.cat([p[0] for p in pairs]), torch.cat([p[1] for p in pairs])
    return _assemble(
        fans=(float(inner), float(out)),
        gain=float(energies.mean()) if energies.numel() else 0.0,
        back=float(energies.sum()) / (inner * stack) if inner * stack else 0.0,
        totals=totals,
        energies=energies,
        bias=bias,
        widths=(inner, out),
        orthogonal=all(_is_orthogonal(part, p[1]) for part, p in zip(weight, pairs, strict=True)),
    )


def summed_operator(weight: torch.Tensor, bias: torch.Tensor | None) -> Operator:
    """Of maps W (stack, out, in) whose inputs are the stack's parts and whose outputs are added up."""
    stack, out, inner = weight.shape
    return linear_operator(weight.permute(1, 0, 2).reshape(out, stack * inner), bias)


def _is_orthogonal(weight: torch.Tensor, energies: torch.Tensor) -> bool:
    if min(weight.shape) < 2 or not bool((energies > 0).any()):
        return False
    known = energies if weight.shape[0] <= weight.shape[1] else None
    residual = block_gram_residual(weight, known)
    return residual is not None and residual <= ORTHOGONAL


def _columns(weight: torch.Tensor, share: torch.Tensor | float = 1.0) -> tuple[float, ...]:
    """Energy of each input channel of W (out, in, *kernel), relative to their mean."""
    energies = torch.sum((weight.detach().double() ** 2 * share).transpose(0, 1).flatten(1), 1)
    mean = float(energies.mean()) if energies.numel() else 0.0
    return tuple((energies / mean).tolist()) if mean > 0.0 else ()


def _assemble(
    fans: tuple[float, float],
    gain: float,
    back: float,
    totals: torch.Tensor,
    energies: torch.Tensor,
    bias: torch.Tensor | None,
    widths: tuple[int, int],
    orthogonal: bool = False,
    total_second: float | None = None,
    total_mean: float | None = None,
    positions: float = 1.0,
    columns: tuple[float, ...] = (),
    uneven: tuple[float, float] = (0.0, 0.0),
) -> Operator:
    """Moments of the bias, alone and with the row sums, and the spread of the rows' energies."""
    bias_mean = bias_second = cross = 0.0
    if bias is not None and bias.numel():
        b = bias.detach().double().reshape(-1)
        bias_mean, bias_second = float(b.mean()), float(torch.mean(b * b))
        if totals.numel() and (b.numel() == totals.numel() or totals.numel() % b.numel() == 0):
            cross = float(torch.mean(totals.reshape(-1, b.numel()) * b))
    mean_energy = float(energies.mean()) if energies.numel() else 0.0
    spread = float(energies.var(correction=0)) / mean_energy**2 if mean_energy > 0 else 0.0
    return Operator(
        fan_in=fans[0],
        fan_out=fans[1],
        gain=gain,
        back=back,
        total_mean=total_mean if total_mean is not None else (float(totals.mean()) if totals.numel() else 0.0),
        total_second=total_second
        if total_second is not None
        else (float(torch.mean(totals * totals)) if totals.numel() else 0.0),
        total_uneven=uneven[0],
        uneven=uneven[1],
        total_bias=cross,
        bias_mean=bias_mean,
        bias_second=bias_second,
        width_in=widths[0],
        width_out=widths[1],
        positions=positions,
        energy_spread=spread,
        orthogonal=orthogonal,
        columns=columns,
    )


def valid_taps(size: int, size_out: int, kernel: int, stride: int, padding: int, dilation: int) -> torch.Tensor:
    """0/1 matrix (kernel, size_out): whether tap t of output o reads inside the input."""
    taps = torch.arange(kernel)[:, None] * dilation + torch.arange(size_out)[None, :] * stride - padding
    return ((taps >= 0) & (taps < size)).double()


@_unseen
def conv_operator(weight: torch.Tensor, bias: torch.Tensor | None, geometry: Geometry) -> Operator:
    """Of a convolution with W (out, in/g, *kernel); exact also at the borders."""
    axes = _conv_axes(geometry)
    ratio = 1.0 / math.prod(geometry.stride)
    if geometry.size is not None and geometry.size_out is not None:
        ratio = math.prod(geometry.size_out) / max(1, math.prod(geometry.size))
    groups = geometry.groups
    out, inner = weight.shape[0], weight.shape[1] * groups
    return _conv(weight.detach(), bias, axes, ratio, inner // groups, out // groups, (inner, out))


@_unseen
def repeated_gains(weight: torch.Tensor, geometry: Geometry) -> tuple[float, ...]:
    """E |(1 + W)^k x|^2 / E |x|^2 for a depthwise W, k = 1 .. AGAIN: powers of one kernel do not add up by chance.

    The trace of (1 + W)^k (1 + W^T)^k at the size of the map, borders included, by one vector of random signs for each
    channel (Hutchinson 1990); the transposed kernel has the same.
    """
    sizes, kernel = geometry.size, weight.detach().float()
    if sizes is None or sizes != geometry.size_out or not geometry.zeros or not 1 <= len(sizes) <= 3:
        return ()
    if geometry.groups != weight.shape[0] or weight.shape[1] != 1 or math.prod(geometry.stride) != 1:
        return ()
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 2, (1, weight.shape[0], *sizes), generator=generator).float() * 2.0 - 1.0
    convolve = (F.conv1d, F.conv2d, F.conv3d)[len(sizes) - 1]
    found = []
    for _ in range(AGAIN):
        x = x + convolve(x, kernel, None, 1, geometry.padding, geometry.dilation, geometry.groups)
        found.append(float(torch.mean(x * x)))
    return tuple(found) if all(map(math.isfinite, found)) else ()


@_unseen
def conv_transpose_operator(weight: torch.Tensor, bias: torch.Tensor | None, geometry: Geometry) -> Operator:
    """Of a transposed convolution with W (in, out/g, *kernel): the adjoint of a convolution.

    Each output sums over the taps that reach it, k/s of them for each axis in the interior.
    """
    w, groups = weight.detach(), geometry.groups
    inner, per_group = w.shape[0], w.shape[1]
    # (in, out/g, k) -> (out, in/g, k)
    w = w.reshape(groups, inner // groups, per_group, *w.shape[2:]).transpose(1, 2)
    w = w.reshape(groups * per_group, inner // groups, *weight.shape[2:])
    axes = [_shares(_reaching_taps(geometry, axis)) for axis in range(len(geometry.kernel))]
    ratio = float(math.prod(geometry.stride))
    if geometry.size is not None and geometry.size_out is not None:
        ratio = math.prod(geometry.size_out) / max(1, math.prod(geometry.size))
    return _conv(w, bias, axes, ratio, inner // groups, per_group, (inner, groups * per_group))


def _reaching_taps(geometry: Geometry, axis: int) -> torch.Tensor:
    """0/1 matrix (kernel, outputs): whether tap t of a transposed convolution reaches output o.

    Without sizes the outputs are the phases of the stride, which all interior positions repeat.
    """
    kernel, stride, dilation = geometry.kernel[axis], geometry.stride[axis], geometry.dilation[axis]
    known = geometry.size is not None and geometry.size_out is not None
    count = geometry.size_out[axis] if known and geometry.size_out is not None else stride
    offset = geometry.padding[axis] if known else kernel * dilation * stride
    reach = torch.arange(count)[None, :] + offset - torch.arange(kernel)[:, None] * dilation
    source = torch.div(reach, stride, rounding_mode="floor")
    inside = reach % stride == 0
    if known and geometry.size is not None:
        inside &= (source >= 0) & (source < geometry.size[axis])
    return inside.double()


@dataclass(frozen=True, slots=True)
class _Axis:
    """Along one spatial axis: the share of output positions at which each tap is inside, and at which two are."""

    single: torch.Tensor  # (kernel,), float64
    joint: torch.Tensor  # (kernel, kernel), float64


def _shares(mask: torch.Tensor) -> _Axis:
    return _Axis(mask.mean(1), (mask @ mask.t()) / mask.shape[1])


@functools.lru_cache(256)  # all layers of a stage of a network have one geometry
def _inside(size: int, size_out: int, kernel: int, stride: int, padding: int, dilation: int) -> _Axis:
    return _shares(valid_taps(size, size_out, kernel, stride, padding, dilation))


@functools.lru_cache(64)
def _everywhere(kernel: int) -> _Axis:
    return _shares(torch.ones(kernel, 1, dtype=torch.float64))


def _conv_axes(geometry: Geometry) -> list[_Axis]:
    """The shares of ``valid_taps`` for each spatial axis; all ones without sizes or zero padding."""
    axes = []
    for axis, kernel in enumerate(geometry.kernel):
        if geometry.size is None or geometry.size_out is None or not geometry.zeros:
            axes.append(_everywhere(kernel))
            continue
        arguments = geometry.stride[axis], geometry.padding[axis], geometry.dilation[axis]
        axes.append(_inside(geometry.size[axis], geometry.size_out[axis], kernel, *arguments))
    return axes


def _conv(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    axes: list[_Axis],
    ratio: float,
    per_in: int,
    per_out: int,
    widths: tuple[int, int],
) -> Operator:
    """Shared by both kinds; ``ratio`` is output positions over input positions."""
    taps, squares = _tap_sums(weight)
    share = _tap_shares(axes)  # of the positions at which each tap is inside
    pairs = float(share.sum())
    energies = (squares * share).flatten(1).sum(1)
    gain, back = float(energies.mean()), float(energies.sum()) / widths[0] * ratio
    first, second, totals = _tap_totals(taps, axes)
    # taps of random signs are inside or not by themselves: J_tt - s_t^2 of each
    varying = float((squares * share * (1.0 - share)).flatten(1).sum(1).mean())
    total_varying = max(second - float(torch.mean(totals * totals)), 0.0)
    return _assemble(
        fans=(per_in * pairs, per_out * pairs * ratio),
        gain=gain,
        back=back,
        totals=totals,
        energies=energies,
        bias=bias,
        widths=widths,
        orthogonal=share.numel() == 1 and per_in == widths[0] and _is_orthogonal(weight.flatten(1), energies),
        total_second=second,
        total_mean=first,
        positions=pairs,
        columns=_columns(weight, share) if per_in == widths[0] <= FEW else (),
        uneven=(total_varying / second if second > 0.0 else 0.0, varying / gain if gain > 0.0 else 0.0),
    )


def _tap_sums(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum and sum of squares over the input channels, for each output and tap: (out, *kernel), float64."""
    shape = (weight.shape[0], *weight.shape[2:])
    if math.prod(shape[1:]) == 1:
        sums, squares = row_sums(weight.flatten(1))
        return sums.reshape(shape), squares.reshape(shape)
    exact = weight.double() if weight.numel() <= _DOUBLE else _exact(weight)
    exact = exact.flatten(2)  # one axis of taps: torch reduces over the middle of three axes with its fast kernel
    sums, squares = torch.sum(exact, 1), torch.sum(exact * exact, 1)
    return sums.double().reshape(shape), squares.double().reshape(shape)


def _tap_shares(axes: list[_Axis]) -> torch.Tensor:
    """Outer product over the axes of the share of positions at which a tap lies inside."""
    share = torch.ones((), dtype=torch.float64)
    for axis in axes:
        share = share[..., None] * axis.single
    return share


def _tap_totals(taps: torch.Tensor, axes: list[_Axis]) -> tuple[float, float, torch.Tensor]:
    """Mean and second moment, over outputs and positions, of the sum of the weights that reach them.

    ``taps`` is (out, *kernel), summed over input channels. The second moment needs the share of
    positions at which two taps are inside together.
    """
    mean = taps
    for axis in reversed(axes):
        mean = mean @ axis.single
    square = taps
    for index, axis in enumerate(axes):
        square = torch.tensordot(square, axis.joint, dims=([1 + index], [0])).movedim(-1, 1 + index)
    second = float(torch.sum(square * taps) / taps.shape[0])
    return float(mean.mean()), second, mean


def bilinear_operator(weight: torch.Tensor, bias: torch.Tensor | None) -> Operator:
    """Of ``nn.Bilinear`` with W (out, in1, in2): fans over pairs of inputs."""
    out, first, second = weight.shape
    operator = linear_operator(weight.reshape(out, first * second), bias)
    return Operator(
        fan_in=float(first * second),
        fan_out=float(out * second),
        gain=operator.gain,
        back=operator.gain * out / first,
        total_mean=operator.total_mean,
        total_second=operator.total_second,
        total_bias=operator.total_bias,
        bias_mean=operator.bias_mean,
        bias_second=operator.bias_second,
        width_in=first,
        width_out=out,
        energy_spread=operator.energy_spread,
    )


def nominal_operator(operator: Operator, second: float, mean: float = 0.0) -> Operator:
    """The operator of weights that have no values (meta), from the moments they are meant to have."""
    fan_in, fan_out = operator.fan_in, operator.fan_out
    return Operator(
        fan_in=fan_in,
        fan_out=fan_out,
        gain=fan_in * second,
        back=fan_out * second,
        total_mean=fan_in * mean,
        total_second=fan_in * (second - mean * mean) + (fan_in * mean) ** 2,
        width_in=operator.width_in,
        width_out=operator.width_out,
        positions=operator.positions,
    )


def meta_operator(fan_in: float, fan_out: float, widths: tuple[int, int], positions: float = 1.0) -> Operator:
    """Fans alone, for weights without values; gains are those of unit-variance weights over the fan."""
    return Operator(
        fan_in,
        fan_out,
        1.0,
        fan_out / fan_in if fan_in else 0.0,
        width_in=widths[0],
        width_out=widths[1],
        positions=positions,
    )


def effective(module: nn.Module, name: str) -> torch.Tensor | None:
    """The tensor that the module's forward multiplies with, computed without changing the module.

    Covers ``torch.nn.utils.parametrize`` (including the new weight_norm and spectral_norm, whose
    training mode would update their power iteration) and the older hook-based ones, whose
    attribute is stale until the next forward.
    """
    with torch.no_grad():
        for hook in module._forward_pre_hooks.values():
            if getattr(hook, "name", None) == name and hasattr(hook, "compute_weight"):
                return _from_hook(hook, module)
        lists = getattr(module, "parametrizations", None)
        if isinstance(lists, nn.ModuleDict) and name in lists:
            modes = [(m, m.training) for m in lists[name].modules()]
            try:
                lists[name].eval()
                value = lists[name]()
            finally:
                for child, mode in modes:
                    child.training = mode
            return value.detach() if isinstance(value, torch.Tensor) else None
        value = getattr(module, name, None)
    return value.detach() if isinstance(value, torch.Tensor) else None


class _Apart:
    """The attributes of a module, its buffers copied: what a hook writes to them is not the module's."""

    def __init__(self, module: nn.Module) -> None:
        self.__dict__.update({name: buffer.clone() for name, buffer in module.named_buffers(recurse=False)})
        self.__dict__["_module"] = module

    def __getattr__(self, name: str) -> object:
        return getattr(self._module, name)


def _from_hook(hook: object, module: nn.Module) -> torch.Tensor | None:
    compute = hook.compute_weight  # type: ignore[attr-defined]
    try:
        # a forward in training iterates before it divides: u and v are random until then, and sigma far too small
        iterated = hasattr(hook, "n_power_iterations")
        value = compute(_Apart(module), module.training) if iterated else compute(module)
    except Exception:  # a foreign hook of the same shape: what the attribute holds is all we know
        value = getattr(module, getattr(hook, "name", ""), None)
    return value.detach() if isinstance(value, torch.Tensor) else None


def torch_fans(shape: Sequence[int]) -> tuple[int, int] | None:
    """What ``torch.nn.init`` takes for (fan_in, fan_out) of a tensor of this shape."""
    if len(shape) < 2:
        return None
    receptive = math.prod(shape[2:])
    return shape[1] * receptive, shape[0] * receptive
