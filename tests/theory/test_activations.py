"""Moments of elementwise functions against stored values, brute-force sums, and torch itself."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from initlint.theory import activations
from initlint.theory.quadrature import nodes

# name, args, E f, E f^2, E f'^2, k = E f^4 / (E f^2)^2 - 1, d log E f^2 / d log q: z ~ N(0, 1), from a
# Gauss-Legendre quadrature of order 64 on panels of 0.25 sigma (two orders agree to 1e-13)
STORED = [
    ("relu", {}, 0.3989422804014327, 0.5, 0.5, 5.0, 1.0),
    ("leaky_relu", {"negative_slope": 0.2}, 0.319153824321146, 0.52, 0.52, 4.5561, 1.0),
    ("abs", {}, 0.797884560802865, 1.0, 1.0, 2.0, 1.0),
    ("elu", {}, 0.160521, 0.644945, 0.668102, 2.78, 0.8910),
    ("selu", {}, 0.0, 1.0, 1.071575, 1.50, 0.7826),
    ("gelu", {}, 0.282095, 0.425221, 0.455851, 6.22, 1.1441),
    ("gelu", {"approximate": "tanh"}, 0.282039, 0.425194, 0.455818, 6.22, 1.1443),
    ("quick_gelu", {}, 0.282331, 0.421953, 0.449549, 6.14, 1.1365),
    ("silu", {}, 0.206621, 0.355776, 0.379482, 6.26, 1.1726),
    ("mish", {}, 0.240404, 0.452342, 0.479084, 5.35, 1.0763),
    ("softplus", {}, 0.806059, 0.921246, 0.293379, 1.75, 0.4921),
    ("softsign", {}, 0.0, 0.183014, 0.227671, 0.59, 0.4767),
    ("tanh", {}, 0.0, 0.394294, 0.464403, 0.63, 0.4611),
    ("sigmoid", {}, 0.5, 0.293379, 0.044836, 0.53, 0.1063),
    ("logsigmoid", {}, -0.806059, 0.921246, 0.293379, 1.75, 0.4921),
    ("hardtanh", {}, 0.0, 0.516059, 0.682689, 0.61, 0.3851),
    ("relu6", {}, 0.398942, 0.5, 0.5, 5.0, 1.0),
    ("hardswish", {}, 0.166217, 0.331567, 0.358532, 6.67, 1.2239),
    ("hardsigmoid", {}, 0.5, 0.277639, 0.027703, 0.38, 0.0971),
    ("hardshrink", {}, 0.0, 0.969140, 0.617075, 2.19, 1.0454),
    ("softshrink", {}, 0.0, 0.419279, 0.617075, 4.50, 1.4718),
    ("tanhshrink", {}, 0.0, 0.182883, 0.252992, 7.69, 1.8262),
    ("sin", {}, 0.0, 0.432332, 0.567668, 0.64, 0.3130),
    ("sin", {"omega": 30.0}, 0.0, 0.5, 450.0, 0.50, 0.0),
    ("cos", {}, 0.606531, 0.567668, 0.432332, 0.37, -0.2384),
    ("square", {}, 1.0, 3.0, 4.0, 10.67, 2.0),
    ("relu_squared", {}, 0.5, 1.5, 2.0, 22.33, 2.0),
    ("exp", {}, 1.648721, 7.389056, 7.389056, 53.60, 2.0),
    ("erf", {}, 0.0, 0.464559, 0.569410, 0.56, 0.4086),
    ("arctan", {}, 0.0, 0.449701, 0.5, 0.78, 0.5608),
    ("log1p_relu", {}, 0.267411, 0.193422, 0.206378, 3.01, 0.6832),
    ("threshold", {"threshold": 0.0, "value": 0.0}, 0.398942, 0.5, 0.5, 5.0, 1.0),
]


@pytest.mark.parametrize(("name", "args", "mean", "second", "slope", "width", "stable"), STORED)
def test_stored_values(name, args, mean, second, slope, width, stable) -> None:
    found = activations.moments(name, args, 0.0, 1.0)
    assert found.mean == pytest.approx(mean, abs=6e-7)
    assert found.second == pytest.approx(second, abs=6e-7)
    assert found.slope_second == pytest.approx(slope, rel=2e-6, abs=6e-7)
    assert activations.finite_width(name, args) == pytest.approx(width, abs=6e-3)
    assert activations.stability(name, args) == pytest.approx(stable, abs=6e-5)


@pytest.mark.shared
def test_all_values_of_the_reference_table(shared: Path) -> None:
    reference = json.loads((shared / "theory" / "activations.json").read_text())
    checked = 0
    for name, entry in reference.items():
        for text, values in entry.get("by_sigma", {}).items():
            sigma = float(text)
            if name == "exp" and sigma >= 4:
                continue  # the reference truncates the Gaussian at 12 sigma, where exp(2x) still has mass
            found = activations.moments(name, {}, 0.0, sigma * sigma)
            for value, key in ((found.mean, "m1"), (found.second, "m2"), (found.slope_second, "d2")):
                assert value == pytest.approx(values[key], rel=1e-6, abs=1e-9), (name, sigma, key)
                checked += 1
        if "gain_fwd_centered" in entry and entry["gain_fwd_centered"] is not None:
            assert activations.centred_gain(name) == pytest.approx(entry["gain_fwd_centered"], rel=1e-6)
            assert activations.chi(name) == pytest.approx(entry["chi1_at_self_consistent"], rel=1e-6, abs=1e-9)
            assert activations.correlation_at_zero(name) == pytest.approx(entry["c0_map_at_0"], rel=1e-6, abs=1e-9)
    assert checked > 700


@pytest.mark.shared
def test_fixed_points_of_the_reference_table(shared: Path) -> None:
    reference = json.loads((shared / "theory" / "activations.json").read_text())
    for name in ("tanh", "selu", "sigmoid", "hardtanh", "relu6", "softsign"):
        for key, weight in (("gain1", 1.0), ("he", 2.0)):
            expected = reference[name][f"q_star_{key}"]
            if expected is not None and 0.05 < expected < 100:
                assert activations.fixed_point(name, {}, weight) == pytest.approx(expected, rel=1e-4)


NAMES = sorted(
    set(activations.ACTIVATIONS) - {"log", "log1p", "sqrt", "rsqrt", "reciprocal", "affine", "scale", "shift"}
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("mean", "var"), [(0.0, 0.0123), (0.3, 1.7), (-1.1, 0.6), (2.3, 5.1)])
def test_off_the_grid_against_direct_quadrature(name, mean, var) -> None:
    """Closed forms and the expansion around a grid point agree with quadrature at the point itself."""
    function = activations.bind(name)
    if name in ("exp", "expm1", "sinh", "cosh") and var > 2:
        pytest.skip("exp(2x) has its mass beyond the reach of quadrature")
    sigma = math.sqrt(var)
    zs, ws = nodes(function, mean, sigma, order=24)
    values = [function.value(mean + sigma * z) for z in zs]
    slopes = [function.slope(mean + sigma * z) for z in zs]
    found = activations.moments(name, {}, mean, var)
    second = sum(w * v * v for w, v in zip(ws, values, strict=True))
    assert found.mean == pytest.approx(sum(w * v for w, v in zip(ws, values, strict=True)), rel=1e-6, abs=1e-9)
    # 4.5 sigma into the tail (hardshrink here) the sixth order leaves 2e-6 of what little is there
    assert found.second == pytest.approx(second, rel=1e-6, abs=1e-9 * var)
    assert found.slope_second == pytest.approx(
        sum(w * s * s for w, s in zip(ws, slopes, strict=True)), rel=1e-6, abs=1e-10
    )


def test_values_and_slopes_are_those_of_torch() -> None:
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    pairs = [
        ("relu", {}, torch.relu),
        ("leaky_relu", {"negative_slope": 0.3}, lambda x: functional.leaky_relu(x, 0.3)),
        ("elu", {"alpha": 1.7}, lambda x: functional.elu(x, 1.7)),
        ("celu", {"alpha": 1.7}, lambda x: functional.celu(x, 1.7)),
        ("selu", {}, torch.selu),
        ("gelu", {}, functional.gelu),
        ("gelu", {"approximate": "tanh"}, lambda x: functional.gelu(x, approximate="tanh")),
        ("gelu", {"approximate": "none"}, functional.gelu),
        ("silu", {}, functional.silu),
        ("mish", {}, functional.mish),
        ("softplus", {"beta": 2.5}, lambda x: functional.softplus(x, 2.5)),
        ("softsign", {}, functional.softsign),
        ("tanh", {}, torch.tanh),
        ("sigmoid", {}, torch.sigmoid),
        ("logsigmoid", {}, functional.logsigmoid),
        ("hardtanh", {"min_val": -0.4, "max_val": 2.0}, lambda x: functional.hardtanh(x, -0.4, 2.0)),
        ("clamp", {"min": -0.3}, lambda x: x.clamp(min=-0.3)),
        ("relu6", {}, functional.relu6),
        ("hardswish", {}, functional.hardswish),
        ("hardsigmoid", {}, functional.hardsigmoid),
        ("hardshrink", {"lambd": 0.7}, lambda x: functional.hardshrink(x, 0.7)),
        ("softshrink", {"lambd": 0.7}, lambda x: functional.softshrink(x, 0.7)),
        ("tanhshrink", {}, functional.tanhshrink),
        ("threshold", {"threshold": 0.2, "value": -1.0}, lambda x: functional.threshold(x, 0.2, -1.0)),
        ("sin", {"omega": 3.0}, lambda x: torch.sin(3 * x)),
        ("cos", {}, torch.cos),
        ("exp", {}, torch.exp),
        ("expm1", {}, torch.expm1),
        ("erf", {}, torch.erf),
        ("arctan", {}, torch.atan),
        ("asinh", {}, torch.asinh),
        ("sinh", {}, torch.sinh),
        ("cosh", {}, torch.cosh),
        ("square", {}, torch.square),
        ("pow", {"exponent": 3}, lambda x: x**3),
        ("abs", {}, torch.abs),
        ("quick_gelu", {}, lambda x: x * torch.sigmoid(1.702 * x)),
    ]
    xs = [-4.1, -3.0001, -0.77, -0.21, 0.13, 0.66, 1.9, 3.3]
    for name, args, reference in pairs:
        function = activations.bind(name, args)
        x = torch.tensor(xs, dtype=torch.float64, requires_grad=True)
        y = reference(x)
        y.sum().backward()
        assert [function.value(v) for v in xs] == pytest.approx(y.tolist(), abs=1e-9), name
        assert [function.slope(v) for v in xs] == pytest.approx(x.grad.tolist(), abs=1e-6), name


@pytest.mark.parametrize("cls", ["ReLU", "LeakyReLU", "Hardswish", "SiLU", "GELU", "Tanhshrink", "LogSigmoid", "ReLU6"])
def test_names_of_torch_modules_are_known(cls) -> None:
    assert activations.known(cls)
    assert activations.known(f"torch.nn.modules.activation.{cls}")


def test_spellings() -> None:
    assert activations.canonical("relu_")[0] == "relu"
    assert activations.canonical("swish")[0] == "silu"
    assert activations.canonical("NewGELUActivation")[0] == "gelu_tanh"
    assert activations.canonical("no_such_thing")[0] == "no_such_thing"
    with pytest.raises(activations.UnknownActivationError):
        activations.bind("no_such_thing")


def test_torch_gain() -> None:
    torch = pytest.importorskip("torch")
    registry = activations.ACTIVATIONS
    for name in ("relu", "tanh", "sigmoid", "selu"):
        assert registry[name].gain() == pytest.approx(torch.nn.init.calculate_gain(name))
    assert registry["leaky_relu"].gain({"negative_slope": 0.2}) == pytest.approx(
        torch.nn.init.calculate_gain("leaky_relu", 0.2)
    )
    assert registry["gelu"].gain() is None


def test_a_chain_is_one_function() -> None:
    """tanh(softplus(3 x + 1)) against a direct sum, and sin(30 x) as scale then sine."""
    whole = activations.compose([("affine", {"factor": 3.0, "value": 1.0}), ("softplus", {}), ("tanh", {})])
    found = activations.moments_of(whole, 0.2, 0.8)
    step = 1e-3
    grid = [0.2 + math.sqrt(0.8) * (k * step) for k in range(-8000, 8001)]
    weight = [step * math.exp(-0.5 * (k * step) ** 2) / math.sqrt(2 * math.pi) for k in range(-8000, 8001)]
    values = [math.tanh(math.log1p(math.exp(3 * x + 1))) for x in grid]
    assert found.second == pytest.approx(sum(w * v * v for w, v in zip(weight, values, strict=True)), rel=1e-6)
    siren = activations.compose([("scale", {"factor": 30.0}), ("sin", {})])
    assert activations.moments_of(siren, 0.0, 1.0).slope_second == pytest.approx(450.0)


def test_kinks_of_a_chain_are_pulled_back() -> None:
    whole = activations.compose([("shift", {"value": -2.0}), ("relu", {}), ("hardtanh", {})])
    assert {round(kink, 6) for kink in whole.kinks} >= {2.0, 3.0}


def test_a_table_of_samples() -> None:
    xs = [-8 + 16 * k / 256 for k in range(257)]
    table = {"x": xs, "y": [math.tanh(x) for x in xs], "dy": [1 - math.tanh(x) ** 2 for x in xs]}
    for mean, var in ((0.0, 1.0), (0.4, 0.09), (0.0, 25.0)):
        found, exact = activations.table_moments(table, mean, var), activations.moments("tanh", {}, mean, var)
        assert found.second == pytest.approx(exact.second, rel=1e-4)
        assert found.slope_second == pytest.approx(exact.slope_second, rel=2e-3)


def test_gated_units() -> None:
    found = activations.gated("sigmoid", {}, (0.0, 1.0), (0.0, 1.0))
    assert (found.second, found.to_value, found.to_gate) == pytest.approx((0.293379, 0.293379, 0.044836), abs=1e-6)
    swiglu = activations.gated("silu", {}, (0.5, 2.0), (0.0, 1.0))
    assert swiglu.mean == pytest.approx(0.5 * 0.206621, abs=1e-6)
    assert swiglu.to_gate == pytest.approx(2 * 0.379482, abs=1e-5)


def test_saturation() -> None:
    assert activations.saturation("tanh", {}, 0.0, 1.0) == pytest.approx(0.0455003, abs=1e-6)
    assert activations.saturation("sigmoid", {}, 0.0, 16.0) == pytest.approx(0.3173105, abs=1e-6)
    assert activations.saturation("relu", {}, 0.0, 1e6) == 0.0
    assert activations.saturation("tanh", {}, 5.0, 0.0) == 1.0


def test_degenerate_inputs() -> None:
    point = activations.moments("gelu", {}, 1.0, 0.0)
    assert point.mean == pytest.approx(0.8413447, abs=1e-6)
    assert activations.moments("tanh", {}, 0.0, math.inf).reliable is False
    assert activations.moments("tanh", {}, 0.0, 1e200).second == pytest.approx(1.0)
    assert activations.moments("silu", {}, 0.0, 1e-200).second == pytest.approx(0.25e-200, rel=1e-6)
    assert not activations.moments("reciprocal", {}, 1.0, 1.0).reliable
    near = activations.moments("rsqrt", {}, 4.0, 1e-4)
    assert near.reliable
    assert near.mean == pytest.approx(0.5, rel=1e-4)
