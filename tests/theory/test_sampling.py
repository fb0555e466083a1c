"""Laws of sample moments against published table entries and repeated draws."""

from __future__ import annotations

import math
import random

import pytest

from initlint.facts import TensorStats
from initlint.theory import sampling
from initlint.theory.torch_init import constant, normal, truncated, uniform


def draw(count: int, kind: str, rng: random.Random, scale: float = 1.0) -> TensorStats:
    """Statistics of ``count`` values."""
    values = [rng.gauss(0, scale) if kind == "normal" else rng.uniform(-scale, scale) for _ in range(count)]
    mean = sum(values) / count
    var = sum((v - mean) ** 2 for v in values) / count
    second = sum(v * v for v in values) / count
    return TensorStats(count, mean, second, var, None, min(values), max(values))


@pytest.mark.parametrize(
    ("ratio", "kurtosis", "count"),
    [(2, 3.0, 398), (2, 1.8, 159), (3, 1.8, 63), (1.292, 2.366, 1988), (1.176, 3.0, 7294)],
)
def test_smallest_samples_of_the_table(ratio, kurtosis, count) -> None:
    assert sampling.smallest_sample(ratio, kurtosis) == pytest.approx(count, rel=0.02)


def test_standard_error_of_the_log_second_moment() -> None:
    rng = random.Random(1)
    for kind, kurtosis in (("normal", 3.0), ("uniform", 1.8)):
        logs = [math.log(draw(200, kind, rng).second) for _ in range(600)]
        mean = sum(logs) / len(logs)
        spread = math.sqrt(sum((x - mean) ** 2 for x in logs) / len(logs))
        assert spread == pytest.approx(sampling.standard_error(200, kurtosis), rel=0.12)


@pytest.mark.parametrize("count", [1, 2, 5, 30, 400])
def test_true_draws_are_not_contradicted(count) -> None:
    rng = random.Random(2)
    for _ in range(400):
        assert sampling.compatible(draw(count, "normal", rng, 0.3), normal(0, 0.3))
        assert sampling.compatible(draw(count, "uniform", rng, 0.3), uniform(-0.3, 0.3))


def test_wrong_scales_are_contradicted() -> None:
    rng = random.Random(3)
    for _ in range(50):
        stats = draw(400, "normal", rng)
        assert not sampling.compatible(stats, normal(0, math.sqrt(2)))
        assert not sampling.compatible(stats, normal(0, 1 / math.sqrt(2)))
        assert not sampling.compatible(stats, normal(0.5, 1))
        assert not sampling.compatible(draw(200, "uniform", rng), uniform(-0.9, 0.9))
        assert not sampling.compatible(draw(200, "uniform", rng), uniform(-1.2, 1.2))
        assert not sampling.compatible(stats, truncated(0, 1, -2, 2))


def test_families_are_told_apart() -> None:
    rng = random.Random(4)
    for _ in range(100):
        assert sampling.looks_uniform(draw(400, "uniform", rng)) is True
        assert sampling.looks_uniform(draw(2000, "normal", rng)) is False
    assert sampling.looks_uniform(draw(20, "uniform", rng)) is None
    assert sampling.looks_truncated(draw(2000, "normal", rng)) is False


def test_constants_and_bad_values() -> None:
    flat = TensorStats(10, 0.1, 0.01, 0.0, None, 0.1, 0.1)
    assert sampling.compatible(flat, constant(0.1))
    assert sampling.compatible(flat, constant(0.1000000001))
    assert not sampling.compatible(flat, constant(0.2))
    assert not sampling.compatible(flat, normal(0.1, 1.0))
    assert not sampling.compatible(TensorStats(10, 0.1, 0.01, 0.0, None, 0.1, 0.1, nans=1), constant(0.1))


def test_half_precision_may_round_past_a_bound() -> None:
    stats = TensorStats(5000, 0.0, 1 / 3, 1 / 3, 1.8, -1.002, 1.002)
    assert sampling.compatible(stats, uniform(-1, 1), "bfloat16")
    assert not sampling.compatible(stats, uniform(-1, 1), "float32")


def test_variance_range_is_wide_for_few_values() -> None:
    low, high = sampling.variance_range(4)
    assert low == pytest.approx(0.0, abs=1e-3)
    assert high > 8
    low, high = sampling.variance_range(10**6)
    assert high - low == pytest.approx(4 * sampling.Z / math.sqrt(2e6), rel=0.05)
