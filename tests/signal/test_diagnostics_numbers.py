"""Diagnoses against the numbers of THEORY 6 and the tables of the literature."""

from __future__ import annotations

import math

import pytest
from signal_graphs import plain

from initlint.signal import propagate
from initlint.signal.diagnostics import class_bias, dead, depth_scale, largest_share, number_range, saturation
from initlint.signal.moments import state
from initlint.signal.order import log_sum_exp, maximum, softmax_energy


@pytest.mark.parametrize(
    ("rho", "classes", "share"),
    [(0.3183, 2, 0.69), (0.3183, 10, 0.33), (0.3183, 100, 0.14), (0.5, 2, 0.75), (0.9, 10, 0.73), (0.97, 100, 0.78)],
)
def test_largest_share_of_an_untrained_classifier(rho, classes, share):
    assert largest_share(rho / (1 - rho), classes) == pytest.approx(share, abs=0.015)


def test_guessing_bias_of_one_rectified_layer():
    bias = class_bias(propagate(plain(1, 2.0).facts()))
    assert bias is not None
    # C(0) of ReLU is 1 / pi
    assert bias.gamma == pytest.approx((1 / math.pi) / (1 - 1 / math.pi), rel=0.01)


@pytest.mark.parametrize(("c", "share"), [(0.9, 0.14), (0.97, 0.28), (0.99, 0.37)])
def test_dead_units_come_from_correlation(c, share):
    # THEORY 6.3.3, 1024 samples
    assert dead(state(1.0, 0.0, 1 - c, 1 - c, 1 - c), 1024) == pytest.approx(share, abs=0.01)


def test_dead_units_of_a_constant_signal():
    assert dead(state(1.0, 0.0, 0.0, 0.0, 0.0)) == pytest.approx(0.5)
    assert dead(state(4.0, -2.0, 0.0, 0.0, 0.0)) == 1.0


def test_saturation_of_tanh():
    graph = plain(1, 4.0, "tanh")
    signal = propagate(graph.facts())
    assert signal.sweeps is not None
    # P(|z| > 2 / sqrt 4)
    assert saturation(signal.scene, signal.sweeps[0].states)[2] == pytest.approx(0.3173, abs=1e-3)


def test_depth_scale_of_a_chaotic_net():
    found = depth_scale(propagate(plain(20, 2.5, "tanh", bias=0.05).facts()))
    assert found is not None
    assert found.chi == pytest.approx(1.1335, abs=0.02)


def test_depth_scale_of_an_ordered_net():
    found = depth_scale(propagate(plain(40, 1.0, "tanh").facts()))
    shallow = depth_scale(propagate(plain(40, 0.5, "tanh").facts()))
    assert found is not None
    assert shallow is not None
    assert shallow.scale == pytest.approx(-1 / math.log(0.5), rel=0.15)
    assert found.scale > 3 * shallow.scale


def test_half_precision_overflows_before_single():
    signal = propagate(plain(10, 20.0).facts())
    assert number_range(signal, "float16").overflow
    assert not number_range(signal, "float32").overflow


def test_bfloat16_loses_the_input_of_a_default_net():
    signal = propagate(plain(14, 1 / 3, bias=1 / 768).facts())
    assert number_range(signal, "bfloat16").constant
    assert not number_range(signal, "float32").constant


@pytest.mark.parametrize(("k", "mean", "var"), [(2, 0.56419, 0.68169), (9, 1.48501, 0.35735), (49, 2.24119, 0.21677)])
def test_order_statistics(k, mean, var):
    assert maximum(k) == pytest.approx((mean, var), abs=2e-5)


@pytest.mark.parametrize(
    ("s", "t", "value"),
    [(0.5, 16, 1.25), (1, 128, 2.58), (2, 1024, 29.2), (3, 16, 7.63), (3, 1024, 138), (5, 128, 64.9)],
)
def test_softmax_energy(s, t, value):
    assert t * softmax_energy(s, t) == pytest.approx(value, rel=5e-3)


def test_expected_loss():
    assert log_sum_exp(0.0, 10) == pytest.approx(math.log(10))
    assert log_sum_exp(0.5, 10) == pytest.approx(math.log(10) + 0.125 - (math.exp(0.25) - 1) / 20, abs=5e-4)
    # far beyond, the greatest logit alone counts
    assert log_sum_exp(100.0, 10) == pytest.approx(100 * maximum(10)[0], rel=0.01)
