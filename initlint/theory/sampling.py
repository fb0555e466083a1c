"""What chance explains: laws of sample moments, and tests of a tensor against a distribution.

A model has about 1,000 tensors; tests are made at z = 4.892 (1e-6 two-sided), so that a correct model is
contradicted somewhere with probability 1e-3.
"""

from __future__ import annotations

import math

from initlint.facts import TensorStats
from initlint.records import dataclass

#: Two-sided 1e-6.
Z = 4.892
#: ln(1e6): a uniform sample of n misses the top 13.8 / n of its range with probability 1e-6.
EDGE = 13.8
#: Kurtosis E x^4 / (E x^2)^2 of the families.
KURTOSIS = {"normal": 3.0, "uniform": 1.8, "truncated": 2.366, "orthogonal": 3.0}
#: Relative rounding of a dtype: half a unit in the last place.
ROUNDING = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
#: An orthogonal matrix from a QR in float32 has |W W^T / g^2 - I| of 1e-6; rounded to bfloat16 1e-2.
GRAM = {"float64": 1e-5, "float32": 1e-4, "float16": 1e-2, "bfloat16": 3e-2}


@dataclass(frozen=True, slots=True)
class Requested:
    """A distribution that an init call asks for. ``std`` is the true one, truncation included."""

    mean: float
    std: float
    bound_low: float | None
    bound_high: float | None
    family: str  # normal uniform truncated constant orthogonal sparse dirac identity
    kurtosis: float = 3.0
    structured: bool = False  # values are not independent draws: mean and second moment hold exactly
    share: float = 1.0  # part of the tensor that the whole-tensor write still governs

    @property
    def var(self) -> float:
        """Variance about the mean."""
        return self.std * self.std

    @property
    def second(self) -> float:
        """E x^2."""
        return self.mean * self.mean + self.std * self.std


def standard_error(count: int, kurtosis: float = 3.0) -> float:
    """Standard error of the log of a sample's second moment: sqrt((K - 1) / n)."""
    return math.sqrt(max(kurtosis - 1.0, 0.0) / count) if count else math.inf


def smallest_sample(ratio: float, kurtosis: float = 3.0) -> float:
    """n from which two variances of this ratio are told apart at 1e-6 each side (398 for He and Xavier)."""
    distance = abs(math.log(ratio))
    return (kurtosis - 1.0) * (2.0 * Z / distance) ** 2 if distance else math.inf


def variance_range(count: int, kurtosis: float = 3.0, z: float = Z) -> tuple[float, float]:
    """Factors between which sample second moment / true one lies but for chance 1e-6.

    Wilson & Hilferty's cube root of a chi square with n_eff = 2 n / (K - 1) degrees of freedom; the log-normal
    law with ``standard_error`` is its limit and fails for n below 50.
    """
    spread = max(kurtosis - 1.0, 1e-9)
    degrees = 2.0 * count / spread
    a = 2.0 / (9.0 * degrees)
    low, high = 1.0 - a - z * math.sqrt(a), 1.0 - a + z * math.sqrt(a)
    # chi square with one degree has a lower 1e-6 point of 2e-12, which the cube root cannot reach
    return max(low, 0.0) ** 3, high**3


def z_second(second: float, expected: float, count: int, kurtosis: float = 3.0) -> float:
    """How many standard errors the log of the second moment is from the expected one."""
    if second <= 0 or expected <= 0:
        return 0.0 if second == expected else math.inf
    error = standard_error(count, kurtosis)
    return math.log(second / expected) / error if error > 0 else math.copysign(math.inf, second - expected)


def z_mean(stats: TensorStats, expected: float, std: float) -> float:
    """How many standard errors the sample mean is from the expected one."""
    return (stats.mean - expected) * math.sqrt(stats.count) / std if std > 0 and stats.count else 0.0


def looks_uniform(stats: TensorStats) -> bool | None:
    """Whether no value exceeds sqrt(3) sigma (1 + rounding); a normal sample of 160 would. ``None``: too few."""
    if stats.count < 160 or stats.var <= 0:
        return None
    return _furthest(stats) <= math.sqrt(3.0 * stats.var) * (
        1.0 + 0.45 * Z / math.sqrt(stats.count) + EDGE / stats.count
    )


def looks_truncated(stats: TensorStats) -> bool | None:
    """Whether values stop at two sigma before truncation (2.2737 of the sample's); ``None`` below 594 values."""
    if stats.count < 594 or stats.var <= 0:
        return None
    return not looks_uniform(stats) and _furthest(stats) <= 2.2737 * math.sqrt(stats.var) * (
        1.0 + Z * 0.6 / math.sqrt(stats.count)
    )


def looks_orthogonal(stats: TensorStats, dtype: str = "float32") -> bool:
    """Whether the matrix (or its transpose) has orthogonal rows of equal length."""
    return stats.gram_residual is not None and stats.gram_residual <= GRAM.get(dtype, 1e-4)


def is_constant(stats: TensorStats, value: float | None = None, dtype: str = "float32") -> bool:
    """Whether all values are equal (to ``value``, within the dtype's rounding)."""
    if stats.minimum != stats.maximum:
        return False
    return value is None or abs(stats.maximum - value) <= 2 * ROUNDING.get(dtype, 2.0**-8) * abs(value)


def compatible(stats: TensorStats, asked: Requested, dtype: str = "float32") -> bool:
    """Whether the values can be a draw from the distribution (family error 1e-3 over 1,000 tensors).

    Bounds are tested exactly, the mean and the second moment about it by their laws. NaN or infinite
    values are never compatible.
    """
    if stats.nans or stats.infs:
        return False
    if stats.count == 0:
        return True
    slack = 4.0 * ROUNDING.get(dtype, 2.0**-8)
    if asked.std == 0.0:
        return is_constant(stats, asked.mean, dtype)
    if asked.structured:
        return abs(stats.second - asked.second) <= max(0.02, 4 * slack) * asked.second and _orthogonal_holds(
            stats, asked, dtype
        )
    if not _inside(stats, asked, slack):
        return False
    if abs(z_mean(stats, asked.mean, asked.std)) > Z + math.sqrt(stats.count) * slack:
        return False
    about = stats.var + (stats.mean - asked.mean) ** 2
    low, high = variance_range(stats.count, asked.kurtosis)
    return low * (1 - 2 * slack) <= about / asked.var <= high * (1 + 2 * slack)


def _orthogonal_holds(stats: TensorStats, asked: Requested, dtype: str) -> bool:
    return asked.family != "orthogonal" or stats.gram_residual is None or looks_orthogonal(stats, dtype)


def _inside(stats: TensorStats, asked: Requested, slack: float) -> bool:
    """Values within the bounds, and for a uniform law also reaching near both."""
    low, high = asked.bound_low, asked.bound_high
    margin = slack * max(abs(low or 0.0), abs(high or 0.0))
    if (low is not None and stats.minimum < low - margin) or (high is not None and stats.maximum > high + margin):
        return False
    if asked.family == "uniform" and low is not None and high is not None:
        gap = (high - low) * min(1.0, EDGE / stats.count) + margin
        return stats.minimum <= low + gap and stats.maximum >= high - gap
    return True


def _furthest(stats: TensorStats) -> float:
    return max(abs(stats.minimum - stats.mean), abs(stats.maximum - stats.mean))
