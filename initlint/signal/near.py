"""Neighbours that are alike: the correlation of a gradient between positions a few steps apart.

A map that interpolates spreads each coarse position over several fine ones, whose neighbours overlap. Going back, what
neighbours have in common adds up, and the coarse gradients are alike in turn: by 0.3 from one position to the next
after one bilinear doubling, more after the next. Along each axis by itself (the filters are separable).
"""

from __future__ import annotations

from functools import lru_cache

#: Steps along an axis that are followed: after repeated doubling the correlation is below 0.01 beyond.
LAGS = 3

#: Correlation between positions 1, 2, ... steps apart along one axis, of what positions do not all share.
Near = tuple[float, ...]


@lru_cache(maxsize=64)
def _weights(factor: int) -> tuple[float, ...]:
    """The triangle by which linear interpolation spreads one position over the fine ones around it."""
    places = ((at + 0.5) / factor - 0.5 for at in range(-factor, 2 * factor))
    return tuple(weight for place in places if (weight := 1.0 - abs(place)) > 0.0)


def gathered_back(near: Near, factor: int) -> tuple[float, Near]:
    """Through linear interpolation by a whole factor, along one axis: the energy that comes back, relative to that of
    independent neighbours, and the correlation of what came back."""
    weights = _weights(factor)

    def covariance(apart: int) -> float:
        return sum(
            a * b * _at(near, i - j + factor * apart) for i, a in enumerate(weights) for j, b in enumerate(weights)
        )

    energy = covariance(0)
    found = tuple(covariance(apart) / energy for apart in range(1, LAGS + 1))
    return energy / sum(weight * weight for weight in weights), found


def _at(near: Near, apart: int) -> float:
    steps = abs(apart)
    return 1.0 if steps == 0 else near[steps - 1] if steps <= len(near) else 0.0


def mixed(parts: tuple[tuple[float, Near], ...]) -> Near:
    """The correlation of a sum of independent gradients with these energies."""
    total = sum(weight for weight, _ in parts)
    if total <= 0.0 or not any(near for _, near in parts):
        return ()
    return tuple(sum(weight * _at(near, step) for weight, near in parts) / total for step in range(1, LAGS + 1))
