"""What units share behind layers whose weights have a mean, against sampling."""

from __future__ import annotations

import math

import pytest
import torch

from initlint.theory.coherence import Coherence, scaled, through


@pytest.mark.parametrize(("mean", "std"), [(0.03, 0.1), (0.01, 0.1), (-0.05, 0.05), (0.0, 0.1)])
def test_against_sampling(mean: float, std: float) -> None:
    fan, steps, draws = 64, 5, 300
    generator = torch.Generator().manual_seed(0)
    whole = shared = 0.0
    for _ in range(draws):
        x = torch.randn(200, fan, generator=generator)
        for _ in range(steps):
            x = x @ (mean + std * torch.randn(fan, fan, generator=generator))
        whole += float(x.square().mean()) / draws
        # the square of the mean over units holds the shared part and 1 / fan of the rest
        shared += float(x.mean(1).square().mean()) / draws
    predicted = Coherence()
    for _ in range(steps):
        predicted = through(predicted, fan, mean, std * std)
    assert 10**predicted.whole == pytest.approx(whole, rel=0.15)
    share = (shared / whole - 1 / fan) / (1 - 1 / fan)
    assert predicted.share == pytest.approx(share, abs=0.05)
    assert predicted.steps == steps


def test_without_a_mean_it_is_mean_field_theory() -> None:
    x = Coherence()
    for _ in range(6):
        x = through(x, 32, 0.0, 1 / 32)
    assert (x.share, x.whole, x.beyond) == (0.0, pytest.approx(0.0), pytest.approx(0.0))


def test_the_shared_part_grows_by_the_sum_of_the_weights() -> None:
    x = Coherence()
    for _ in range(20):
        x = through(x, 512, 0.02, 0.0001)
    assert x.gain == pytest.approx(math.hypot(512 * 0.02, math.sqrt(512 * 0.0001)), rel=1e-3)
    assert scaled(x, 0.5).gain == pytest.approx(x.gain / 2)
    assert scaled(x, 0.5).beyond == pytest.approx(x.beyond)
