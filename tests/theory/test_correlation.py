"""Correlation maps against closed forms, two-dimensional sums and sampling."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from initlint.theory import activations
from initlint.theory.quadrature import gauss_legendre


def brute_force(name: str, mean: float, var: float, gap: float) -> float:
    """Half E[(f(s + d) - f(s - d))^2] with independent s ~ N(mean, var - gap/2), d ~ N(0, gap/2)."""
    function = activations.bind(name)
    points, weights = gauss_legendre(12)
    outer = [(-8 + 0.5 * (2 * k + 1 + x), 0.5 * w) for k in range(16) for x, w in zip(points, weights, strict=True)]
    total = 0.0
    for z, w in outer:
        if z <= 0:
            continue
        d = math.sqrt(gap / 2) * z
        weight = 2 * w * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        edges = {-8.5, 8.5, *(x / 2 for x in range(-16, 17))}
        sigma = math.sqrt(var - gap / 2)
        edges |= {(k + s * d - mean) / sigma for k in function.kinks for s in (-1, 1)}
        breaks = sorted(e for e in edges if -8.5 <= e <= 8.5)
        inner = 0.0
        for a, b in pairwise(breaks):
            for x, v in zip(points, weights, strict=True):
                t = 0.5 * (a + b) + 0.5 * (b - a) * x
                s = mean + sigma * t
                change = function.value(s + d) - function.value(s - d)
                inner += 0.5 * (b - a) * v * math.exp(-t * t / 2) / math.sqrt(2 * math.pi) * change * change
        total += weight * inner
    return 0.5 * total


@pytest.mark.parametrize("name", ["relu", "gelu", "tanh", "elu", "hardtanh", "silu", "erf", "sin"])
@pytest.mark.parametrize(("mean", "var", "share"), [(0.0, 1.013, 1.0), (0.4, 0.31, 0.3), (0.0, 2.7, 1e-3)])
def test_contrast_against_two_dimensional_quadrature(name, mean, var, share) -> None:
    found = activations.contrast(name, {}, mean, var, share * var)
    assert found == pytest.approx(brute_force(name, mean, var, share * var), rel=5e-3)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.9, 0.999])
def test_relu_follows_cho_and_saul(correlation) -> None:
    angle = math.acos(correlation)
    expected = (math.sin(angle) + (math.pi - angle) * math.cos(angle)) / (2 * math.pi)
    assert activations.correlation("relu", {}, 0.0, 1.0, correlation) == pytest.approx(expected, abs=1e-12)
    # the same through the general series, which knows no closed form away from mean zero
    assert activations.correlation("relu", {}, 1e-6, 1.0, correlation) == pytest.approx(expected, rel=2e-4)


def test_erf_follows_williams() -> None:
    c, v = 0.6, 1.7
    expected = 2 / math.pi * math.asin(2 * c * v / (1 + 2 * v))
    assert activations.correlation("erf", {}, 0.0, v, c * v) == pytest.approx(expected, rel=1e-10)


def test_hermite_series_of_gelu() -> None:
    """C(c) at c = 0.9 from stored coefficients of GELU at unit variance (THEORY section 4)."""
    found = activations.correlation("gelu", {}, 0.0, 1.0, 0.9) / activations.moments("gelu", {}, 0.0, 1.0).second
    assert found == pytest.approx(0.9046, abs=1.5e-2)
    assert activations.correlation("gelu", {}, 0.0, 1.0, 0.0) == pytest.approx(0.282095**2, rel=1e-4)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "gelu", "tanh", "silu", "sigmoid", "sin", "exp", "square"])
def test_nearly_equal_inputs_keep_their_difference(name) -> None:
    """As the gap vanishes the contrast is gap E f'^2: no rounding eats it."""
    slope = activations.moments(name, {}, 0.1, 0.7).slope_second
    for gap in (1e-9, 1e-14, 1e-30):
        assert activations.contrast(name, {}, 0.1, 0.7, gap) == pytest.approx(gap * slope, rel=2e-3)


@pytest.mark.parametrize("name", ["relu", "gelu", "tanh", "cos", "sigmoid"])
def test_contrast_is_monotone_and_ends_at_the_variance(name) -> None:
    values = [activations.contrast(name, {}, 0.2, 1.3, share * 1.3) for share in (0, 1e-6, 1e-3, 0.1, 0.5, 1.0)]
    assert values == sorted(values)
    assert values[0] == 0.0
    assert values[-1] == pytest.approx(activations.moments(name, {}, 0.2, 1.3).var, rel=1e-3)


def test_off_grid_points_are_smooth() -> None:
    """No step shows between neighbouring cached points."""
    values = [activations.contrast("gelu", {}, 0.0, 1.0 + 1e-3 * k, 0.5 * (1.0 + 1e-3 * k)) for k in range(40)]
    steps = [b - a for a, b in pairwise(values)]
    assert min(steps) > 0.8 * max(steps) > 0
