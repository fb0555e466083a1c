"""What a weight follows: from the record of its init calls, checked against its values, or from the values alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from initlint.facts import ParameterFacts, Plain, TensorStats, Write
from initlint.records import dataclass
from initlint.theory import sampling
from initlint.theory.conventions import default_scheme, truncated
from initlint.theory.formulas import (
    LINEAR_LIKE,
    RELU_LIKE,
    SIGMOID_LIKE,
    TANH_LIKE,
    LayerSpec,
    Scheme,
    fixed_normal,
    he,
    lecun,
    unique,
    xavier,
)
from initlint.theory.record import segments, stated
from initlint.theory.sampling import Requested, compatible
from initlint.theory.suitable import acceptable
from initlint.theory.torch_init import SQRT5, calculate_gain, kaiming_gain, requested

#: A requested std within this of a formula is that formula: arguments are rounded to a few digits.
EQUAL = 0.01
SELU_ONLY = frozenset({"selu"})


@dataclass(frozen=True, slots=True)
class Recognised:
    """What a weight follows.

    ``status``: "confirmed" (the record says it and the values agree), "contradicted" (they do not),
    "inferred" (no record, one scheme fits), "ambiguous" (several fit), "unknown".
    """

    scheme: Scheme | None
    text: str
    status: str
    asked: Requested | None = None
    default: bool = False  # PyTorch's own default, never re-initialised


def recognise(parameter: ParameterFacts, spec: LayerSpec | None) -> Recognised:
    """Name the scheme of a parameter. Pure; uses the record first and the statistics to check it."""
    stats, write = parameter.stats, base_write(parameter)
    asked = stated(parameter)
    if parameter.provenance == "loaded":
        return Recognised(None, "loaded from a checkpoint", "unknown")
    if asked is not None and write is not None:
        text = describe(write, parameter, asked)
        default = write.origin == "torch"
        scheme = _named(asked, spec)
        if stats is None:
            return Recognised(scheme, text, "unknown", asked, default)
        if compatible(stats, asked, parameter.dtype):
            return Recognised(scheme, text, "confirmed", asked, default)
        there = f"values have mean {stats.mean:.3g}, std {math.sqrt(stats.var):.3g}"
        return Recognised(scheme, f"{text}, but the {there}", "contradicted", asked, default)
    if stats is None:
        return Recognised(None, describe(write, parameter, None) if write else "", "unknown")
    return _inferred(stats, spec, parameter.dtype)


def base_write(parameter: ParameterFacts) -> Write | None:
    """The write that the values come from: the last draw of the whole tensor or of all its blocks, else the last."""
    parts = segments(parameter)
    if len(parts) > 1 and all(part.write is not None and part.write.share < 1.0 for part in parts):
        return parts[-1].write  # every row was written as part of a block: the whole-tensor draw is gone
    for write in reversed(parameter.writes):
        if write.share >= 1.0 and not write.region and requested(write, parameter.shape) is not None:
            return write
    return parameter.last


def describe(write: Write, parameter: ParameterFacts, asked: Requested | None) -> str:
    """The init call as a reader would write it, and whose it is."""
    text = _call(write, asked)
    if write.share < 1.0:
        calls = list(dict.fromkeys(_call(s.write, None) for s in segments(parameter) if s.write is not None))
        return f"{', '.join(calls[:3])} on parts"
    later = [w for w in parameter.writes if w.order > write.order]
    if any(w.share >= 1.0 for w in later) and asked is not None:
        text += f" rescaled to std {asked.std:.3g}"
    parts = [w for w in later if w.share < 1.0]
    if parts:
        text += f", {sum(w.share for w in parts):.2g} of it overwritten by {parts[-1].op}"
    if write.origin == "torch":
        text += ", PyTorch's default, never re-initialised"
    elif write.origin == "library":
        text += ", by a library"
    return text


def meant_for(write: Write, shape: Sequence[int], spec: LayerSpec | None = None) -> frozenset[str]:
    """Activations for which the called scheme is derived; empty for none in particular.

    ``kaiming_*`` says it by its nonlinearity, ``xavier_*`` and ``orthogonal_`` by their gain, and a plain
    ``normal_`` or ``uniform_`` by a variance that equals a formula of the layer's fans. PyTorch's default
    (kaiming with a = sqrt(5)) is for none.
    """
    op, args = write.op, write.args
    if op.startswith("kaiming"):
        return _kaiming_meant(args)
    if op.startswith("xavier") or op == "orthogonal_":
        value = args.get("gain", 1.0)
        return gain_meant(float(value) if isinstance(value, (int, float)) else 1.0)
    asked = requested(write, shape)
    if asked is None or asked.std == 0.0 or asked.mean != 0.0 or spec is None:
        return frozenset()
    found: frozenset[str] = frozenset()
    for scheme in (*he(spec, "relu", {}), *lecun(spec), *xavier(spec)):
        if abs(asked.std / scheme.std - 1.0) < EQUAL:
            found |= scheme.suits
    return found


def gain_meant(gain: float) -> frozenset[str]:
    """Activations that a gain is meant for."""
    for value, meant in (
        (1.0, LINEAR_LIKE | TANH_LIKE | SIGMOID_LIKE | SELU_ONLY),
        (math.sqrt(2.0), RELU_LIKE),
        (5.0 / 3.0, TANH_LIKE),
        (0.75, SELU_ONLY),
        (4.0, SIGMOID_LIKE),
    ):
        if abs(gain / value - 1.0) < EQUAL:
            return meant
    # leaky gains: slope 0.01 to 0.3
    return RELU_LIKE if 1.35 < gain < math.sqrt(2.0) else frozenset()


def _kaiming_meant(args: Mapping[str, Plain]) -> frozenset[str]:
    nonlinearity = str(args.get("nonlinearity") or "leaky_relu")
    slope = args.get("a", 0.0)
    if nonlinearity in ("relu", "leaky_relu"):
        steep = nonlinearity == "leaky_relu" and isinstance(slope, (int, float)) and abs(slope - SQRT5) < 1e-6
        return frozenset() if steep else RELU_LIKE
    if nonlinearity == "tanh":
        return TANH_LIKE
    if nonlinearity == "selu":
        return SELU_ONLY
    if nonlinearity == "sigmoid":
        return SIGMOID_LIKE | LINEAR_LIKE | TANH_LIKE
    if calculate_gain(nonlinearity) == 1.0:
        return LINEAR_LIKE | TANH_LIKE | SELU_ONLY
    return frozenset()


def catalogue(spec: LayerSpec) -> tuple[Scheme, ...]:
    """Every named scheme with its moments for this weight, suitable or not: what values are compared with."""
    fixed = tuple(fixed_normal(std, "common constant") for std in (0.02, 0.01, 0.001, 1.0))
    if not spec.fan_in or not spec.fan_out:
        return (*acceptable(spec, zeros=True), *fixed)
    if spec.interior is not None:
        spec = spec.interior
    found = [*acceptable(spec, zeros=True), default_scheme(spec), *he(spec, "relu", {}), *lecun(spec), *xavier(spec)]
    return unique((*found, *fixed, truncated(0.02)))


def _named(asked: Requested, spec: LayerSpec | None) -> Scheme | None:
    """The scheme of the catalogue that is what the record asks for."""
    if spec is None:
        return None
    for scheme in catalogue(spec):
        same_family = scheme.family == asked.family or {scheme.family, asked.family} <= {"normal", "truncated"}
        constant = asked.std == 0.0 and scheme.var == 0.0
        if constant and scheme.mean == asked.mean:
            return scheme
        drawn = not constant and same_family and scheme.std > 0 and scheme.mean == asked.mean
        if drawn and abs(asked.std / scheme.std - 1.0) < EQUAL:
            return scheme
    return None


def _inferred(stats: TensorStats, spec: LayerSpec | None, dtype: str) -> Recognised:
    """Name values without a record: never more certain than their number allows."""
    std = math.sqrt(stats.var)
    if stats.nans or stats.infs:
        return Recognised(None, "holds NaN or infinite values", "unknown")
    if stats.count and sampling.is_constant(stats):
        return Recognised(None, "zeros" if stats.mean == 0 else f"constant {stats.mean:.4g}", "inferred")
    if spec is None:
        return Recognised(None, f"std {std:.3g}", "unknown")
    fitting = [scheme for scheme in catalogue(spec) if _fits(stats, scheme, dtype)]
    names = list(dict.fromkeys(scheme.name for scheme in fitting))
    if len(names) == 1:
        return Recognised(fitting[0], f"{names[0]} (from its values)", "inferred")
    if names:
        shown = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
        return Recognised(None, f"ambiguous between {shown}", "ambiguous")
    shape = "orthogonal" if sampling.looks_orthogonal(stats, dtype) else _family(stats)
    return Recognised(None, f"{shape}, std {std:.3g}, no scheme known to initlint", "unknown")


def _family(stats: TensorStats) -> str:
    uniform = sampling.looks_uniform(stats)
    return "unrecognised family" if uniform is None else "uniform" if uniform else "not uniform"


def _fits(stats: TensorStats, scheme: Scheme, dtype: str) -> bool:
    orthogonal = sampling.looks_orthogonal(stats, dtype)
    if scheme.family == "orthogonal":
        return orthogonal and compatible(stats, Requested(0.0, scheme.std, None, None, "orthogonal", 3.0, True), dtype)
    if orthogonal or scheme.var == 0.0:
        return False
    if scheme.family == "uniform":
        bound = scheme.bound if scheme.bound is not None else math.sqrt(3.0 * scheme.var)
        return compatible(stats, Requested(scheme.mean, scheme.std, -bound, bound, "uniform", 1.8), dtype)
    if sampling.looks_uniform(stats):
        return False
    return compatible(stats, Requested(scheme.mean, scheme.std, None, None, "normal"), dtype)


def _call(write: Write, asked: Requested | None) -> str:
    op, args = write.op, write.args
    if op.startswith("kaiming"):
        slope, nonlinearity = args.get("a", 0.0), str(args.get("nonlinearity") or "leaky_relu")
        mode = args.get("mode") or "fan_in"
        if isinstance(slope, (int, float)) and abs(slope - SQRT5) < 1e-6:
            return f"{op}(a=sqrt(5))" if mode == "fan_in" else f"{op}(a=sqrt(5), {mode})"
        leak = f", a={slope:.4g}" if nonlinearity == "leaky_relu" and isinstance(slope, (int, float)) and slope else ""
        gain = kaiming_gain(args)
        name = "relu" if nonlinearity == "leaky_relu" and not leak and gain else nonlinearity
        return f"{op}({mode}, {name}{leak})"
    if op in ("create", "copy_", "setitem", "data"):
        function = str(args.get("function", "a tensor"))
        if asked is not None and asked.std > 0:
            return f"torch.{function} with std {asked.std:.3g}"
        return f"torch.{function}" if op == "create" else f"copied from {function}"
    shown = [f"{k}={v:.4g}" for k, v in args.items() if isinstance(v, (int, float)) and not isinstance(v, bool)]
    return f"{op}({', '.join(shown[:4])})"
