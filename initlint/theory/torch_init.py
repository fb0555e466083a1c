"""What a recorded init call asks for: PyTorch's own formulas, applied to the recorded arguments.

``requested`` reads one call, ``after`` follows in-place arithmetic; ``record.py`` reads whole records.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from initlint.facts import CONVERSIONS, Plain, Write
from initlint.theory.fans import torch_fans
from initlint.theory.functions import normal_cdf, normal_pdf
from initlint.theory.sampling import Requested

SQRT5 = math.sqrt(5.0)
#: Bounds this many sigma away leave a normal as it is.
UNTRUNCATED = 8.0
#: Names of positional or differently spelled arguments, most telling first.
_LOW, _HIGH = ("a", "from", "low", "0"), ("b", "to", "high", "1")
_VALUE = ("val", "value", "fill_value", "other", "0", "1")
_OPERAND = ("other", "value", "val", "divisor", "0")
#: Writes whose arguments describe the values written: a factory's, or those of an expression.
_VALUED = frozenset({"create", "copy_", "setitem", "data"})


def calculate_gain(nonlinearity: str, param: float | None = None) -> float | None:
    """``torch.nn.init.calculate_gain``; ``None`` where it raises (2.13)."""
    if nonlinearity in ("linear", "sigmoid", "identity") or nonlinearity.startswith("conv"):
        return 1.0
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        return math.sqrt(2.0 / (1.0 + slope * slope))
    return {"tanh": 5.0 / 3.0, "relu": math.sqrt(2.0), "selu": 0.75}.get(nonlinearity)


def normal(mean: float, std: float) -> Requested:
    """N(mean, std^2); a constant where std is 0."""
    if std == 0.0:
        return constant(mean)
    return Requested(mean, abs(std), None, None, "normal")


def uniform(low: float, high: float) -> Requested:
    """U(low, high)."""
    if high == low:
        return constant(low)
    return Requested(0.5 * (low + high), (high - low) / math.sqrt(12.0), low, high, "uniform", 1.8)


def constant(value: float) -> Requested:
    """All values equal."""
    return Requested(value, 0.0, value, value, "constant", 1.0)


def truncated(mean: float, std: float, low: float, high: float) -> Requested:
    """N(mean, std^2) cut at absolute bounds; moments are those after truncation."""
    if std <= 0:
        return constant(min(max(mean, low), high))
    alpha, beta = (low - mean) / std, (high - mean) / std
    if alpha < -UNTRUNCATED and beta > UNTRUNCATED:
        return Requested(mean, std, low, high, "truncated", 3.0)
    mass = normal_cdf(beta) - normal_cdf(alpha)
    if mass < 1e-12:
        return constant(low if alpha > 0 else high)
    first = (normal_pdf(alpha) - normal_pdf(beta)) / mass
    spread = 1.0 + (alpha * normal_pdf(alpha) - beta * normal_pdf(beta)) / mass - first * first
    return Requested(mean + std * first, std * math.sqrt(max(spread, 0.0)), low, high, "truncated", 3.0)


def requested(write: Write, shape: Sequence[int]) -> Requested | None:
    """The distribution that one recorded call asks for; ``None`` where the record does not say.

    Args:
        shape: of the whole parameter; a contiguous leading region of the write shortens axis 0.
    """
    part = _part(write, shape)
    args = write.args
    op = write.op
    if op == "setitem" and (held := _maybe(args, ("val",))) is not None:
        return constant(held)
    if op in _VALUED:
        return _created(args)
    if op.startswith(("kaiming", "xavier")):
        return _scaled(op, args, part)
    match op:
        case "normal_":
            return normal(_number(args, ("mean", "0"), 0.0), _number(args, ("std", "1"), 1.0))
        case "uniform_":
            return uniform(_number(args, _LOW, 0.0), _number(args, _HIGH, 1.0))
        case "trunc_normal_":
            mean, std = _number(args, ("mean",), 0.0), _number(args, ("std",), 1.0)
            return truncated(mean, std, _number(args, ("a",), -2.0), _number(args, ("b",), 2.0))
        case "zeros_" | "zero_":
            return constant(0.0)
        case "ones_":
            return constant(1.0)
        case "constant_" | "fill_":
            value = _maybe(args, _VALUE)
            return None if value is None else constant(value)
        case "orthogonal_" | "eye_" | "dirac_" | "sparse_":
            return _structured(op, args, part)
    return None


_ARITHMETIC = frozenset(
    {"mul_", "div_", "true_divide_", "add_", "sub_", "neg_", "clamp_", "clip_", "clamp_min_", "clamp_max_", "erfinv_"}
)


def is_arithmetic(write: Write) -> bool:
    """Whether the write changes the values that are there instead of replacing them."""
    return write.op in _ARITHMETIC


def after(state: Requested | None, write: Write, shape: Sequence[int]) -> Requested | None:
    """The distribution after one more write to the whole of what ``state`` describes."""
    if write.op in CONVERSIONS:
        return state
    if not is_arithmetic(write):
        return requested(write, shape)
    if state is None:
        return None
    if write.op == "neg_":
        return _affine(state, -1.0, 0.0)
    if write.op == "erfinv_":
        return _erfinv(state)
    if write.op.startswith(("clamp", "clip")):
        low, high = _maybe(write.args, ("min", "0")), _maybe(write.args, ("max", "1"))
        return _clamped(state, -math.inf if low is None else low, math.inf if high is None else high)
    value = _maybe(write.args, _OPERAND)
    if value is None or (value == 0.0 and write.op in ("div_", "true_divide_")):
        return None
    if write.op in ("add_", "sub_"):
        step = value * _number(write.args, ("alpha",), 1.0)
        return _affine(state, 1.0, step if write.op == "add_" else -step)
    return _affine(state, value if write.op == "mul_" else 1.0 / value, 0.0)


def _affine(state: Requested, factor: float, shift: float) -> Requested:
    bounds = [None if b is None else factor * b + shift for b in (state.bound_low, state.bound_high)]
    if factor < 0:
        bounds.reverse()
    mean, std = factor * state.mean + shift, abs(factor) * state.std
    if std == 0.0:
        return constant(mean)
    structured = state.structured and shift == 0.0
    family = state.family if structured or not state.structured else "mixture"
    return replace(
        state, mean=mean, std=std, bound_low=bounds[0], bound_high=bounds[1], structured=structured, family=family
    )


def _erfinv(state: Requested) -> Requested | None:
    """erfinv of U(2 Phi(a) - 1, 2 Phi(b) - 1) is a standard normal cut to [a, b], over sqrt(2)."""
    if state.family != "uniform" or state.bound_low is None or state.bound_high is None:
        return None
    low, high = _normal_quantile(0.5 * (1 + state.bound_low)), _normal_quantile(0.5 * (1 + state.bound_high))
    root = math.sqrt(2.0)
    return truncated(0.0, 1.0 / root, low / root, high / root)


def _normal_quantile(share: float) -> float:
    if share <= 0.0:
        return -40.0
    if share >= 1.0:
        return 40.0
    low, high = -40.0, 40.0
    for _ in range(80):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if normal_cdf(middle) < share else (low, middle)
    return 0.5 * (low + high)


def _clamped(state: Requested, low: float, high: float) -> Requested | None:
    inside_low = state.bound_low is not None and state.bound_low >= low - 1e-6 * abs(low)
    inside_high = state.bound_high is not None and state.bound_high <= high + 1e-6 * abs(high)
    if inside_low and inside_high:
        return state
    distance = min(state.mean - low, high - state.mean)
    if state.family in ("normal", "truncated") and distance > UNTRUNCATED * state.std:
        return state
    return None


def _created(args: Mapping[str, Plain]) -> Requested | None:
    """A factory or an expression of one, whose moments the recorder has followed where it could."""
    name = str(args.get("function", "")).removesuffix("_like").removeprefix("new_").rstrip("_")
    mean, std = _maybe(args, ("mean",)), _maybe(args, ("std",))
    low, high = _maybe(args, ("low",)), _maybe(args, ("high",))
    if mean is not None and std is not None:
        if low is not None and high is not None:
            return uniform(low, high)
        if std == 0.0 or name in ("randn", "normal"):
            return normal(mean, std)
        if name == "trunc_normal" and not args.get("derived"):
            return truncated(mean, std, _number(args, ("a",), -2.0), _number(args, ("b",), 2.0))
        return None
    match name:
        case "randn":
            return None if args.get("derived") else normal(0.0, 1.0)
        case "rand":
            return None if args.get("derived") else uniform(0.0, 1.0)
        case "zeros" | "ones" if not args.get("derived"):
            return constant(0.0 if name == "zeros" else 1.0)
        case "full" if not args.get("derived"):
            value = _maybe(args, _VALUE)
            return None if value is None else constant(value)
    return None


def _scaled(op: str, args: Mapping[str, Plain], shape: Sequence[int] | None) -> Requested | None:
    """Kaiming and Xavier with PyTorch's fans."""
    fans = torch_fans(shape) if shape is not None else None
    if fans is None or 0 in fans:
        return None
    if op.startswith("xavier"):
        std = _number(args, ("gain",), 1.0) * math.sqrt(2.0 / (fans[0] + fans[1]))
    else:
        gain = kaiming_gain(args)
        if gain is None:
            return None
        std = gain / math.sqrt(fans[1] if args.get("mode") == "fan_out" else fans[0])
    bound = math.sqrt(3.0) * std
    return normal(0.0, std) if "normal" in op else uniform(-bound, bound)


def kaiming_gain(args: Mapping[str, Plain]) -> float | None:
    """The gain that a ``kaiming_*`` call with these arguments uses."""
    return calculate_gain(str(args.get("nonlinearity") or "leaky_relu"), _number(args, ("a",), 0.0))


def _structured(op: str, args: Mapping[str, Plain], shape: Sequence[int] | None) -> Requested | None:
    if shape is None or len(shape) < 2 or 0 in shape:
        return None
    count, rows = math.prod(shape), shape[0]
    columns = count // rows
    if op == "sparse_":
        zeros = math.ceil(_number(args, ("sparsity", "0"), 0.0) * rows) / rows
        std = _number(args, ("std",), 0.01) * math.sqrt(max(0.0, 1.0 - zeros))
        return Requested(0.0, std, None, None, "sparse", 3.0 / max(1.0 - zeros, 1e-6))
    if op == "orthogonal_":
        std = abs(_number(args, ("gain",), 1.0)) / math.sqrt(max(rows, columns))
        return Requested(0.0, std, None, None, "orthogonal", 3.0, structured=True)
    groups = max(1, int(_number(args, ("groups",), 1.0)))
    ones = min(rows, columns) if op == "eye_" else groups * min(rows // groups, shape[1])
    mean = ones / count
    std = math.sqrt(mean - mean * mean)
    return Requested(mean, std, 0.0, 1.0, "identity" if op == "eye_" else "dirac", 3.0, structured=True)


def _part(write: Write, shape: Sequence[int]) -> tuple[int, ...] | None:
    if write.share >= 1.0 and not write.region:
        return tuple(shape)
    if write.start is not None and write.stop is not None and shape:
        return (write.stop - write.start, *shape[1:])
    return None


def _maybe(args: Mapping[str, Plain], names: Sequence[str]) -> float | None:
    for name in names:
        value = args.get(name)
        if isinstance(value, (bool, int, float)):
            return float(value)
    return None


def _number(args: Mapping[str, Plain], names: Sequence[str], default: float) -> float:
    value = _maybe(args, names)
    return default if value is None else value
