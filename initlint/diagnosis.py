"""Why a layer's variance is what it is: one reason for each layer, from the record and the shapes.

The variance rules (IL1xx) share this: a layer has at most one reason, so one cause gives one finding. Reasons with
evidence come first; a deviation that nothing explains is the last resort. Pure functions of facts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from initlint.facts import CONVERSIONS, Layer, ModelFacts, ParameterFacts, Write
from initlint.records import dataclass
from initlint.runtime_scale import as_used, run_time_factor
from initlint.theory.schemes import Requested, Scheme, acceptable, requested, textbook

#: Reasons, in the order in which they are tried.
REASONS = (
    "default",  # PyTorch's own default, never re-initialised
    "gain_as_slope",  # kaiming's `a` is the negative slope; something else was passed
    "grouped_fan",  # fan_out counted over all groups
    "fan_axis",  # the fan was taken from the wrong axis: transposed, (in, out), stacked, table
    "fused_fan",  # several projections packed in one matrix counted as one
    "variance_as_std",  # a variance formula handed to a standard deviation
    "nonzero_mean",  # the mean of a weight is not zero: arguments swapped or shifted
    "other_activation",  # a scheme chosen by the code for another activation
    "stacked_orthogonal",  # orthogonal over several stacked matrices at once
    "unexplained",
)

#: Relative agreement that a recorded std must have with a formula to count as that formula. The record holds the number
#: as Python computed it, so only rounding separates them; chance agreement of 60 candidates is then below 1e-4.
_EXACT = 1e-5
#: A mistake in the fan that changes the variance by less than this is no mistake worth a word (padding, near-square).
_MIN_FACTOR = 1.3
#: THEORY 3.3: allowed band of F var E[phi^2] around 1 rather than naming the scheme.
_BAND = 2.0
#: Squared gains that code multiplies into 1 / fan.
_GAINS = (1.0, 2.0, 1 / 3, 3.0, 6.0, 25 / 9, 0.5, 2 / (1 + 0.01**2), 2 / (1 + 0.1**2), 2 / (1 + 0.2**2))
#: Gains of calculate_gain, as they turn up in the place of a slope.
_CALCULATED = (
    math.sqrt(2),
    5 / 3,
    0.75,
    math.sqrt(2 / (1 + 0.01**2)),
    math.sqrt(2 / (1 + 0.2**2)),
    math.sqrt(2 / 1.01),
)
#: Rectifiers and the functions that behave like one at the scale of a unit Gaussian.
RECTIFIERS = frozenset(
    {
        *("relu", "leaky_relu", "prelu", "rrelu", "relu6", "elu", "celu", "gelu", "gelu_tanh", "quick_gelu", "silu"),
        *("mish", "hardswish", "softplus", "threshold"),
    }
)
RELU_FAMILY = ("relu", "leaky_relu")
#: Bounded odd functions, which Glorot derived his scheme for, and their shifted kin.
SQUASHERS = frozenset(
    ("tanh", "sigmoid", "softsign", "hardtanh", "hardsigmoid", "erf", "arctan", "logsigmoid", "tanhshrink")
)


@dataclass(frozen=True, slots=True)
class Suspect:
    """A layer whose weight is not what suits it, with the reason.

    ``actual`` and ``expected`` are variances of the weight (second moments for a non-zero mean).
    """

    layer: Layer
    parameter: ParameterFacts
    reason: str
    actual: float
    expected: float
    scheme: Scheme | None  # the acceptable scheme nearest to the actual variance
    evidence: str  # a clause: "kaiming_normal_ counts 64 groups as one: fan_out 576 instead of 9"
    remedy: str  # the line to write instead
    wrote: Write | None = None


#: The facts that were asked about last, and the answer: every rule that reports suspects asks about the same ones.
_last: tuple[ModelFacts, tuple[Suspect, ...]] | None = None


def suspects(facts: ModelFacts) -> tuple[Suspect, ...]:
    """All layers whose weight deviates, each with one reason. Frozen, loaded and generated weights are exempt."""
    global _last
    known = _last
    if known is None or known[0] is not facts:
        known = _last = (facts, () if facts.loaded else _suspects(facts))
    return known[1]


def _suspects(facts: ModelFacts) -> tuple[Suspect, ...]:
    found = []
    by_name = {name: p for p in facts.parameters for name in (p.name, *p.aliases)}
    seen: set[str] = set()
    tables = {p.name for layer in facts.layers if layer.kind == "embedding" and (p := by_name.get(layer.weight))}
    for layer in facts.layers:
        parameter = by_name.get(layer.weight)
        if parameter is None or parameter.name in seen or not _judged(layer, parameter):
            continue
        seen.add(parameter.name)
        # a matrix that is also looked up is a table: its rows are items, its columns the dimension
        read = replace(layer, layout="table") if parameter.name in tables else layer
        if _scaled_instead_of_logits(facts, layer, parameter):
            continue
        factor = run_time_factor(facts, layer, parameter)
        suspect = _suspect(read, parameter, factor) if factor is not None else None
        if suspect is not None:
            # the reader compares with what the parameter holds, not with what the forward makes of it
            by = factor or 1.0
            found.append(replace(suspect, actual=suspect.actual / by, expected=suspect.expected / by))
    return tuple(found)


def _scaled_instead_of_logits(facts: ModelFacts, layer: Layer, parameter: ParameterFacts) -> bool:
    """A query whose variance holds the 1 / head_dim that its attention leaves out (Raffel et al. 2020, T5)."""
    at = layer.consumer_node
    attrs = facts.nodes[at].attrs if layer.role == "query" and at is not None and at < len(facts.nodes) else {}
    scale, dim = attrs.get("scale"), attrs.get("head_dim")
    if not isinstance(scale, (int, float)) or not isinstance(dim, (int, float)) or dim <= 1 or not layer.fan_in:
        return False
    second = nominal_second(parameter)[0] * layer.fan_in * scale * scale
    return scale * scale * dim > _BAND and 1 / _BAND < second * dim < _BAND


def full_write(parameter: ParameterFacts) -> Write | None:
    """The last write that set the whole tensor (``None`` when it was built up in parts or rescaled later)."""
    for write in reversed(parameter.writes):
        if write.share >= 1 and not write.region and write.op not in CONVERSIONS:
            return write
    return None


def nominal_second(parameter: ParameterFacts) -> tuple[float, Requested | None]:
    """E[w^2] by the init call where the record settles it, else of the actual values; and what was asked for."""
    stats = parameter.stats
    actual = stats.second if stats else 0.0
    write = parameter.last
    if write is None or write is not full_write(parameter):
        return actual, None
    asked = requested(write, parameter.shape)
    if asked is None or asked.std is None:
        return actual, None
    second = asked.std**2 + (asked.mean or 0.0) ** 2
    # a later unrecorded change shows as values that the call cannot give: trust the values then. The band covers
    # sampling error of small tensors (5 SE of the log second moment at kurtosis 3).
    band = 1 + 5 * math.sqrt(2 / max(1, stats.count)) if stats else 2.0
    return (second, asked) if second > 0 and 1 / band < actual / second < band else (actual, asked)


def _judged(layer: Layer, parameter: ParameterFacts) -> bool:
    stats = parameter.stats
    return (
        layer.kind in ("linear", "conv", "conv_transpose", "matmul", "bilinear", "embedding")
        and parameter.kind == "parameter"
        and parameter.requires_grad
        and not parameter.generated
        and parameter.uninitialised == 0
        and stats is not None
        and stats.count > 1
        and not stats.nans
        and stats.distinct is None  # constants and zeros are matters of symmetry and of zero products
        and bool(layer.fan_in)
    )


def _suspect(layer: Layer, parameter: ParameterFacts, factor: float) -> Suspect | None:
    second, asked = nominal_second(parameter)
    second, asked = second * factor, as_used(asked, factor)
    write = parameter.last
    stats = parameter.stats
    assert stats is not None
    fan_in = layer.fan_in or 1.0
    schemes = acceptable(layer)
    nearest = _nearest(textbook(layer) or schemes, second)
    suits = _fits(layer, second, _BAND)
    expected = nearest.var if nearest else 1.0 / fan_in

    def build(reason: str, evidence: str, remedy: str = "", target: float = 0.0) -> Suspect:
        line = remedy or (nearest.call if nearest else "")
        return Suspect(layer, parameter, reason, second, target or expected, nearest, evidence, line, write)

    if write is not None and write.origin == "torch" and layer.kind != "embedding":
        if not suits:
            return build("default", "PyTorch's default, never re-initialised")
        return None
    for check in (_slope, _fan, _variance_as_std, _mean):
        found = check(layer, parameter, write, asked, second)
        if found is not None:
            reason, evidence, remedy, target = found
            return build(reason, evidence, remedy, target)
    if layer.kind == "embedding":
        # tables follow many conventions, all of a variance of at most one: only what is beyond all of them is odd
        if nearest is not None and second > _BAND**2 * max(scheme.var for scheme in schemes):
            return build("unexplained", f"variance {second:.3g} where {nearest.name} gives {nearest.var:.3g}")
        return None
    chosen = _other_activation(layer, write, second)
    if chosen:
        return build("other_activation", chosen)
    if nearest is not None and not _fits(layer, second, _BAND**2):
        return build("unexplained", f"variance {second:.3g} where {nearest.name} gives {nearest.var:.3g}")
    return None


_Found = tuple[str, str, str, float]


def _slope(
    layer: Layer, parameter: ParameterFacts, write: Write | None, asked: Requested | None, second: float
) -> _Found | None:
    if write is None or not write.op.startswith("kaiming") or write.origin == "torch":
        return None
    a = write.args.get("a", 0.0)
    nonlinearity = write.args.get("nonlinearity", "leaky_relu")
    if nonlinearity != "leaky_relu" or not isinstance(a, (int, float)) or abs(a - math.sqrt(5)) < 1e-9:
        return None
    slope = layer.activation_args.get("negative_slope", 0.0) if layer.activation == "leaky_relu" else 0.0
    gain = next((g for g in _CALCULATED if abs(a - g) < 1e-6 * g), None)
    # a slope above 1 is no leaky ReLU: it says that negative inputs are amplified
    if gain is None and abs(a) <= 1:
        return None
    if isinstance(slope, (int, float)) and abs(a - slope) < 1e-6:
        return None
    known = float(slope) if isinstance(slope, (int, float)) else 0.0
    right = 2 / (1 + known**2)
    expected = second * (1 + a * a) / 2 * right
    what = f"a gain ({a:.4g})" if gain else f"{a:.4g}"
    return (
        "gain_as_slope",
        f"{write.op} takes the negative slope as `a`, and was given {what}: the variance is divided by {1 + a * a:.3g}",
        f'nn.init.{write.op}(weight, a={known:g}, nonlinearity="leaky_relu")',
        expected,
    )


def wrong_fans(layer: Layer, parameter: ParameterFacts) -> Iterator[tuple[str, float, float, str]]:
    """(reason, wrong fan, right fan, clause) for each way in which this layer's fan is commonly miscounted."""
    shape = parameter.shape
    fan_in = layer.fan_in or 1.0
    torch_in, torch_out = layer.torch_fans or (0, 0)
    if layer.kind == "conv" and layer.groups > 1:
        right = torch_out / layer.groups
        yield (
            "grouped_fan",
            torch_out,
            right,
            f"counts the outputs of all {layer.groups} groups: fan_out {torch_out} instead of {right:g}",
        )
        yield "grouped_fan", torch_in * layer.groups, torch_in, f"counts the inputs of all {layer.groups} groups"
    if layer.kind == "conv_transpose":
        yield (
            "fan_axis",
            torch_in,
            fan_in,
            (
                f"reads fan_in {torch_in} from the output channels of a transposed convolution and ignores its stride;"
                f" each output sums {fan_in:.4g} inputs"
            ),
        )
    if layer.layout == "in_out" and shape and shape[0] != shape[-1]:
        yield (
            "fan_axis",
            torch_in,
            fan_in,
            f"takes a weight stored (in, out) for (out, in): fan_in {torch_in} instead of {fan_in:g}",
        )
    if layer.layout.startswith("stacked") and len(shape) >= 3:
        yield (
            "fan_axis",
            torch_in,
            fan_in,
            (f"takes the stacked weight {shape} for one convolution: fan_in {torch_in} instead of {fan_in:g}"),
        )
    if layer.layout == "table" and len(shape) == 2:
        yield (
            "fan_axis",
            shape[0],
            shape[1],
            (f"scales with the number of entries ({shape[0]}) instead of their dimension ({shape[1]})"),
        )


def _fan(
    layer: Layer, parameter: ParameterFacts, write: Write | None, asked: Requested | None, second: float
) -> _Found | None:
    if write is None or write.origin == "torch" or asked is None:
        return None
    named = write.op.startswith(("kaiming", "xavier"))
    if named:
        return _named_fan(layer, parameter, write, second)
    for reason, wrong, right, clause in wrong_fans(layer, parameter):
        if wrong <= 0 or right <= 0 or not _factor(wrong / right):
            continue
        if _formula(second, wrong) and not _formula(second, right):
            return (
                reason,
                f"the std {math.sqrt(second):.4g} {clause}",
                f"nn.init.normal_(weight, std={math.sqrt(second * wrong / right):.4g})",
                (second * wrong / right),
            )
    return None


def _named_fan(layer: Layer, parameter: ParameterFacts, write: Write, second: float) -> _Found | None:
    torch_in, torch_out = layer.torch_fans or (0, 0)
    if not torch_in:
        return None
    xavier = write.op.startswith("xavier")
    mode = "both" if xavier else str(write.args.get("mode", "fan_in"))
    used = {"fan_in": torch_in, "fan_out": torch_out, "both": torch_in + torch_out}[mode]
    right, reason, clause = _right_fan(layer, parameter, mode)
    if right is None or not _factor(used / right):
        return None
    if reason == "fan_axis" and layer.kind == "conv_transpose" and mode != "fan_in":
        return None
    expected = second * used / right
    if abs(second * right / 2 - 1) < _EXACT:  # a gain makes up for the count: what is there is right
        return None
    shown = f'mode="{mode}"' if not xavier else "fan_in + fan_out"
    return reason, f"{write.op} ({shown}) {clause}", f"nn.init.normal_(weight, std={math.sqrt(expected):.4g})", expected


def _right_fan(layer: Layer, parameter: ParameterFacts, mode: str) -> tuple[float | None, str, str]:
    """The count that ``mode`` should have used for this layer, with reason and clause; ``None``: torch is right."""
    torch_in, torch_out = layer.torch_fans or (0, 0)
    shape = parameter.shape
    fan_in, fan_out = layer.fan_in or 1.0, layer.fan_out or 1.0
    if layer.kind == "conv" and layer.groups > 1 and mode != "fan_in":
        out = torch_out / layer.groups
        right = out if mode == "fan_out" else torch_in + out
        return right, "grouped_fan", f"counts all {layer.groups} groups: fan_out {torch_out} instead of {out:g}"
    if layer.kind == "conv_transpose" and mode == "fan_in":
        return (
            fan_in,
            "fan_axis",
            (
                f"reads fan_in {torch_in} from the output channels of a transposed convolution;"
                f" each output sums {fan_in:.4g} inputs"
            ),
        )
    if layer.layout.startswith("stacked") and len(shape) >= 3:
        right = {"fan_in": fan_in, "fan_out": fan_out, "both": fan_in + fan_out}[mode]
        return (
            right,
            "fan_axis",
            f"takes the stacked weight {shape} for one convolution: fan_in {torch_in} instead of {fan_in:g}",
        )
    if layer.layout == "in_out" and mode == "fan_in":  # its "fan_out" is the true fan_in: right by whoever knew
        right = fan_in
        return right, "fan_axis", f"takes a weight stored (in, out) for (out, in): {torch_in} instead of {right:g}"
    if layer.blocks and mode == "both" and len(shape) == 2:
        rows = layer.blocks[0].stop - layer.blocks[0].start
        if 0 < rows < shape[0]:
            names = ", ".join(block.name for block in layer.blocks)
            return (
                torch_in + rows,
                "fused_fan",
                f"takes the packed projections {names} for one: fan_out {torch_out} instead of {rows}",
            )
    return None, "", ""


def _variance_as_std(
    layer: Layer, parameter: ParameterFacts, write: Write | None, asked: Requested | None, second: float
) -> _Found | None:
    if asked is None or write is None or write.origin == "torch" or write.op.startswith(("kaiming", "xavier")):
        return None
    if asked.family not in ("normal", "truncated") or not asked.std:
        return None
    fan_in, fan_out = layer.fan_in or 1.0, layer.fan_out or 1.0
    for label, fan in (("fan_in", fan_in), ("fan_out", fan_out), ("(fan_in + fan_out) / 2", (fan_in + fan_out) / 2)):
        for gain in (1.0, 2.0):
            variance = gain / fan
            # std = 1/fan is a scheme of its own where fan is small; require the factor to matter
            if fan > 4 and abs(asked.std / variance - 1) < _EXACT and not _fits(layer, second):
                return (
                    "variance_as_std",
                    (
                        f"the std {asked.std:.4g} is {gain:g} / {label}, a variance:"
                        f" its root {math.sqrt(variance):.4g} was meant"
                    ),
                    f"nn.init.normal_(weight, std={math.sqrt(variance):.4g})",
                    variance,
                )
    return None


def _mean(
    layer: Layer, parameter: ParameterFacts, write: Write | None, asked: Requested | None, second: float
) -> _Found | None:
    """A weight drawn with a mean of the size of its spread: arguments in the wrong places."""
    if asked is None or write is None or write.origin == "torch" or not write.random or layer.kind == "embedding":
        return None
    mean, std = asked.mean or 0.0, asked.std or 0.0
    # |mean| of at least half the std adds F/4 times the variance along the mean direction: no scheme does that
    if std <= 0 or abs(mean) < std / 2:
        return None
    return (
        "nonzero_mean",
        f"{write.op} draws around {mean:.4g} with std {std:.4g}: the mean is not zero",
        f"nn.init.normal_(weight, mean=0.0, std={std:.4g})",
        std * std,
    )


def _other_activation(layer: Layer, write: Write | None, second: float) -> str:
    if write is None or write.origin == "torch" or layer.consumer != "activation" or layer.activation is None:
        return ""
    act = layer.activation
    # the call names the activation that it is for: a mismatch even where the numbers lie close
    if write.op.startswith("kaiming") and act in SQUASHERS and write.args.get("nonlinearity") in RELU_FAMILY:
        return f"Kaiming for {write.args['nonlinearity']} before {act}"
    if _fits(layer, second):
        return ""
    # a rectifier passes about half of the second moment: Xavier at less than three quarters of He's variance
    if write.op.startswith("xavier") and act in RECTIFIERS and second < 1.5 / (layer.fan_in or 1.0):
        return f"Xavier (for tanh and linear layers) before {act}: half of the variance that {act} needs"
    if write.op.startswith("kaiming") and act in SQUASHERS | {"selu", "sin"}:
        return f"Kaiming (for rectifiers) before {act}"
    if act == "selu" and write.op.startswith(("xavier", "orthogonal", "normal", "uniform", "trunc")):
        return "SELU normalises itself only with LeCun's variance 1 / fan_in"
    return ""


def _fits(layer: Layer, second: float, factor: float = _MIN_FACTOR) -> bool:
    """Whether a scheme that suits the layer has this variance, within a factor. Orthogonal schemes have their own."""
    return any(1 / factor < second / s.var < factor for s in acceptable(layer) if s.family != "orthogonal")


def _nearest(schemes: tuple[Scheme, ...], second: float) -> Scheme | None:
    fit = [s for s in schemes if s.var > 0 and s.family != "orthogonal"]
    return min(fit, key=lambda s: abs(math.log(s.var / second))) if fit and second > 0 else None


def _formula(second: float, fan: float) -> bool:
    """Whether a second moment is one of the usual gains over this fan, to rounding."""
    return any(abs(second * fan / gain - 1) < 2 * _EXACT for gain in _GAINS)


def _factor(ratio: float) -> bool:
    return not 1 / _MIN_FACTOR < ratio < _MIN_FACTOR


def grouped(found: tuple[Suspect, ...], reason: str) -> Mapping[tuple[str, int], list[Suspect]]:
    """Suspects of one reason by the line that is to be mended."""
    from initlint.rule import site_of

    groups: dict[tuple[str, int], list[Suspect]] = {}
    for suspect in found:
        if suspect.reason == reason:
            site = site_of(suspect.parameter)
            groups.setdefault((site.file, site.line) if site else ("", 0), []).append(suspect)
    return groups
