"""The reasons for a weight's variance that the record shows: a formula in the wrong place, a wrong count, a mean."""

from __future__ import annotations

import math
import re

from initlint.asked import named
from initlint.facts import Layer, ParameterFacts, Write
from initlint.records import dataclass
from initlint.theory.misapplied import misapplied
from initlint.theory.miscounts import EXACT, MIN_FACTOR, by_hand, counts, of_call
from initlint.theory.schemes import Requested, Scheme, acceptable

#: Gains of calculate_gain, as they turn up in the place of a slope.
_CALCULATED = (
    math.sqrt(2),
    5 / 3,
    0.75,
    math.sqrt(2 / (1 + 0.01**2)),
    math.sqrt(2 / (1 + 0.2**2)),
    math.sqrt(2 / 1.01),
)
#: What the bound of a uniform distribution is computed with.
_THREES = re.compile(r"(?<![\w.])[36](?:\.0*)?(?![\w.])")
#: Where code takes a root.
_ROOTS = re.compile(r"sqrt|\*\*\s*\(?\s*-?\s*(?:0?\.5|1\s*/\s*2)")
#: Rectifiers and the functions that behave like one at the scale of a unit Gaussian.
RECTIFIERS = frozenset(
    {
        *("relu", "leaky_relu", "prelu", "rrelu", "relu6", "elu", "celu", "gelu", "gelu_tanh", "quick_gelu", "silu"),
        *("mish", "hardswish", "softplus", "threshold"),
    }
)
#: How near a variance is to 2 / fan_out if that is where it comes from: three sigma of a thousand weights.
_BACKWARD = 1.15
RELU_FAMILY = ("relu", "leaky_relu")
#: Bounded odd functions, which Glorot derived his scheme for, and their shifted kin.
SQUASHERS = frozenset(
    ("tanh", "sigmoid", "softsign", "hardtanh", "hardsigmoid", "erf", "arctan", "logsigmoid", "tanhshrink")
)


@dataclass(frozen=True, slots=True)
class Case:
    """A weight with what its init call asked for."""

    layer: Layer
    parameter: ParameterFacts
    write: Write | None
    asked: Requested | None
    second: float
    alike: tuple[tuple[int, ...], ...] | None  # shapes to which the line gives the same std; None: a bare number
    text: str = ""  # the line of the call, and the one that computes its value


#: A reason, the evidence in words, the line to write instead, and the variance that it gives.
Found = tuple[str, str, str, float]


def slope_taken(case: Case) -> Found | None:
    """A gain given as the negative slope."""
    layer, write, second = case.layer, case.write, case.second
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


def fan_counted(case: Case) -> Found | None:
    """A fan counted wrongly: over all groups, by the wrong axis, over stacked projections."""
    if case.write is None or case.write.origin == "torch":
        return None
    if named(case.write):
        return _fan_of_call(case, case.write)
    if case.asked is None or case.alike is None or case.asked.structured:
        return None
    found = by_hand(case.layer, case.parameter.shape, case.second, case.alike)
    if found is None:
        return None
    expected = case.second * found.used / found.right
    line = f"nn.init.normal_(weight, std={math.sqrt(expected):.4g})"
    return found.reason, f"the std {math.sqrt(case.second):.4g} {found.clause}", line, expected


def _fan_of_call(case: Case, write: Write) -> Found | None:
    found = of_call(case.layer, case.parameter.shape, write)
    if found is None:
        return None
    expected = case.second * found.used / found.right
    if abs(case.second * found.right / 2 - 1) < EXACT:  # a gain makes up for the count: what is there is right
        return None
    shown = "fan_in + fan_out" if write.op.startswith("xavier") else f'mode="{write.args.get("mode", "fan_in")}"'
    line = f"nn.init.normal_(weight, std={math.sqrt(expected):.4g})"
    return found.reason, f"{write.op} ({shown}) {found.clause}", line, expected


def formula_misplaced(case: Case) -> Found | None:
    """A formula in the wrong place."""
    if case.asked is None or case.alike is None or case.write is None or case.write.origin == "torch":
        return None
    found = misapplied(case.layer, case.parameter.shape, case.asked)
    if found is None or not all(counts(shape, found.count) for shape in case.alike if found.count):
        return None
    # of 3 x 3 x 3 taps one axis may be left out of a count: a factor 3 that no 3 or 6 stands for
    if found.third and 3 in case.parameter.shape[4:] and not _THREES.search(case.text):
        return None
    # one root of a fan, which the code shows, and a number that makes another root of it: 4 / sqrt(128) = 2 ** -1.5
    lines = set(case.text.splitlines())
    roots = sum(len(_ROOTS.findall(line)) for line in lines)
    if found.roots is not None and roots == 1 and (found.roots or "/" in case.text):
        return None
    return found.reason, found.clause, found.line, found.variance


def mean_shifted(case: Case) -> Found | None:
    """A weight drawn with a mean of the size of its spread: arguments in the wrong places."""
    layer, write, asked = case.layer, case.write, case.asked
    if asked is None or write is None or write.origin == "torch" or not write.random:
        return None
    mean, std = asked.mean or 0.0, asked.std or 0.0
    if std <= 0:
        return None
    # normal_(w, 0.02): the only argument is the mean, the std keeps its default of one
    one = write.args.get("std", std) == 1.0 if asked.family == "truncated" else asked.family == "normal" and std == 1.0
    meant = write.args.get("mean", mean)  # truncation moves the mean of what is drawn
    mean = float(meant) if one and isinstance(meant, (int, float)) else mean
    if one and 0 < abs(mean) < 1:
        what = f"{write.op} draws around {mean:.4g} with std 1: its first argument is the mean"
        return "nonzero_mean", what, f"nn.init.normal_(weight, std={abs(mean):.4g})", mean * mean
    # |mean| of at least half the std adds F/4 times the variance along the mean direction: no scheme does that
    if abs(mean) < std / 2 or layer.kind == "embedding":
        return None
    what = f"{write.op} draws around {mean:.4g} with std {std:.4g}: the mean is not zero"
    return "nonzero_mean", what, f"nn.init.normal_(weight, mean=0.0, std={std:.4g})", std * std


def other_activation(layer: Layer, write: Write | None, second: float, depth: int = 0) -> str:
    """A scheme that the code chose and that is derived for another activation; "" where it suits."""
    if write is None or write.origin == "torch" or layer.consumer != "activation" or layer.activation is None:
        return ""
    act = layer.activation
    # the call names the activation that it is for: a mismatch even where the numbers lie close
    if write.op.startswith("kaiming") and act in SQUASHERS and write.args.get("nonlinearity") in RELU_FAMILY:
        return f"Kaiming for {write.args['nonlinearity']} before {act}"
    if fits(layer, second, depth=depth):
        return ""
    # a rectifier passes about half of the second moment: Xavier at less than three quarters of He's variance
    if write.op.startswith("xavier") and act in RECTIFIERS and second < 1.5 / (layer.fan_in or 1.0):
        return f"Xavier (for tanh and linear layers) before {act}: half of the variance that {act} needs"
    if write.op.startswith("kaiming") and act in SQUASHERS | {"selu", "sin"}:
        return f"Kaiming (for rectifiers) before {act}"
    if act == "selu" and write.op.startswith(("xavier", "orthogonal", "normal", "uniform", "trunc")):
        return "SELU normalises itself only with LeCun's variance 1 / fan_in"
    return ""


def fits(layer: Layer, second: float, factor: float = MIN_FACTOR, *, family: str = "", depth: int = 0) -> bool:
    """Whether a scheme that suits the layer has this variance, within a factor. Orthogonal schemes have their own.

    ``family``: the distribution of which the weight is known to be. A uniform one is no N(0, 0.02): numbers that hold
    whatever the width are conventions of the normal distribution. ``depth``: residual branches of the model, by which
    schemes for the writers of branches are scaled. He's backward mode keeps gradients and gives the forward up: it is a
    reason for the variance that it gives, not for others near it.
    """
    schemes = [s for s in acceptable(layer, depth or None) if s.family != "orthogonal"]
    if family == "uniform":
        schemes = [s for s in schemes if not s.number]
    return any(1 / width < second / s.var < width for s in schemes if (width := _BACKWARD if s.backward else factor))


def nearest_scheme(schemes: tuple[Scheme, ...], second: float) -> Scheme | None:
    """The scheme of the nearest variance."""
    fit = [s for s in schemes if s.var > 0 and s.family != "orthogonal"]
    return min(fit, key=lambda s: abs(math.log(s.var / second))) if fit and second > 0 else None
