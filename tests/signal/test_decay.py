"""exp of a signal that is never positive: decay rates of gates and state-space models."""

from __future__ import annotations

import math

import pytest
import torch
from signal_graphs import Graph

from initlint.signal import propagate
from initlint.signal.decay import decay


@pytest.mark.parametrize(("shape", "scale"), [(0.1, 10.0), (1.0, 0.5), (4.0, 0.05), (0.5, 40.0)])
def test_moments_are_those_of_gamma_rates(shape: float, scale: float):
    torch.manual_seed(0)
    rates = torch.distributions.Gamma(torch.tensor(shape, dtype=torch.float64), 1 / scale).sample((400_000,))
    kept = torch.exp(-rates)
    found = decay(-shape * scale, shape * scale * scale)
    assert found.mean == pytest.approx(float(kept.mean()), rel=0.01)
    assert found.second == found.slope == pytest.approx(float(kept.square().mean()), rel=0.01)
    fourth = float(kept.pow(4).mean()) / found.second**2 - 1.0
    assert found.shape.fourth == pytest.approx(fourth, rel=0.05, abs=0.02)
    z = -(rates - shape * scale) / (math.sqrt(shape) * scale)
    assert found.shape.tilt == pytest.approx(float((kept * z).mean()) ** 2 / found.second, rel=0.05, abs=0.002)
    assert found.gap(0.0) == 0.0
    assert found.gap(1e9) == pytest.approx(found.second - found.mean**2)
    assert found.kernel(1e9) == pytest.approx(found.mean**2)


def scan(sign: int) -> Graph:
    """exp(A dt) x, with dt from a softplus and A of one sign: what a selective scan keeps."""
    graph = Graph()
    x = graph.input(64)
    step = graph.add("activation", graph.linear(x, 64, 9.0), fn="softplus", shape=(8, 64))
    rate = graph.add("parameter", shape=(64,), mean=sign * 8.5, second=93.5, sign=sign)
    kept = graph.add("activation", graph.add("mul", step, rate, shape=(8, 64)), fn="exp", shape=(8, 64))
    graph.linear(graph.add("mul", x, kept, shape=(8, 64)), 10, 1.0, name="head")
    return graph


def test_a_decay_passes_no_more_gradient_than_it_keeps():
    signal = propagate(scan(-1).facts())
    assert signal.built[5].q < 1.0
    assert signal.built[4].p < signal.built[5].p


def test_a_growth_rests_on_its_tail_and_is_no_number():
    signal = propagate(scan(1).facts())
    assert "tail" in (signal.built[5].undetermined or "")
