"""Ops whose arguments change what they do: what is predicted at each layer against a real forward and backward."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

import initlint

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional
pytestmark = pytest.mark.usefixtures("one_thread")


class Between(nn.Module):
    """A function between two dense layers of ``into`` inputs and ``out`` outputs."""

    def __init__(self, function: Callable, into: int = 64, out: int = 64, ends: int = 64) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(into, out), nn.Linear(ends, 64)
        self.function = function

    def forward(self, x):
        return self.last(self.function(torch.relu(self.first(x))))


class Maps(nn.Module):
    """A function between two convolutions of 32 channels."""

    def __init__(self, function: Callable) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(8, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)
        self.function = function

    def forward(self, x):
        return self.last(self.function(self.first(x)))


def differences(build: Callable, *inputs) -> dict[str, tuple[float, float]]:
    """By layer: log10 of the standard deviation, predicted over measured, of the output and of its gradient."""
    torch.manual_seed(0)
    run = initlint.check(build, inputs=inputs, measure=True, seed=1)
    found = {}
    for row in run.models[0].rows:
        signal = row.signal
        pairs = (
            (signal.forward_std, signal.measured_forward_std),
            (signal.gradient_std, signal.measured_gradient_std),
        )
        forward, gradient = (math.log10(a / b) if a and b else math.nan for a, b in pairs)
        found[row.name] = (forward, gradient)
    return found


def agree(build: Callable, *inputs, within: float = 0.1) -> None:
    found = differences(build, *inputs)
    assert len(found) >= 2
    assert all(not math.isnan(forward) and abs(forward) < within for forward, _ in found.values()), found
    assert all(math.isnan(gradient) or abs(gradient) < within for _, gradient in found.values()), found


@pytest.mark.parametrize("iterations", [1, 5])
def test_the_older_spectral_norm_iterates_before_it_divides(iterations):
    def build():
        norm = torch.nn.utils.spectral_norm
        layers = [norm(nn.Linear(128, 128), n_power_iterations=iterations) for _ in range(3)]
        return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])

    agree(build, torch.randn(128, 128))
