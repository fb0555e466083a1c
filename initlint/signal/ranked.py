"""The largest of several values: what a router picks of its probabilities, or of the scores themselves."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from initlint.signal.moments import State, bounded

#: Values that are drawn for the averages over rankings, and rows at least: an error of a few per cent of q. The draw is
#: the same each time, so that no verdict depends on it. Of a long row (a vocabulary) fewer rows do.
DRAWN, ROWS, MOST = 2000, 40, 20_000
#: Widest spread of logits that is told apart: beyond it one probability is all there is.
WIDEST = 1e3
#: Halvings of an interval of logarithms from 1e-3 to ``WIDEST``: to 1e-4 of it.
HALVINGS = 18


def largest(x: State, total: int, kept: int) -> State:
    """The ``kept`` largest of ``total`` values along the channels: probabilities of a softmax, or Gaussian scores."""
    if x.kind == "weights" and x.share > 0.0:
        m, q = _probabilities(round(x.share, 3), total, kept)
    elif x.kind == "gaussian" and x.v > 0.0:
        low, high = _scores(total, kept)
        root = math.sqrt(x.v)
        m, q = x.m + root * low, x.m * x.m + 2.0 * x.m * root * low + x.v * high
    else:
        return replace(x, ties=())
    differs = max(q - m * m, 0.0)
    apart, along = (min(part / x.v, 1.0) if x.v > 0.0 else 0.0 for part in (x.d, x.e))
    d, e, u = (differs * part for part in (apart, along, max(apart, along)))
    return replace(x, q=bounded(q), m=m, d=d, e=e, u=u, kind="post", ties=(), parts=())


@lru_cache(maxsize=256)
def spread_of(row: float, total: int) -> float:
    """The standard deviation of the logits whose softmax has this sum of squares."""
    low, high = math.log(1e-3), math.log(WIDEST)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        below = sum(p * p for p in _softmax(math.exp(middle), total)) < row * len(_rows(total))
        low, high = (middle, high) if below else (low, middle)
    return math.exp(0.5 * (low + high))


def _softmax(spread: float, total: int, kept: int | None = None) -> list[float]:
    """The probabilities of all rows, the largest ``kept`` of each."""
    found: list[float] = []
    for row in _rows(total):
        parts = [math.exp(spread * (z - row[0])) for z in row]
        whole = sum(parts)
        found += [part / whole for part in parts[:kept]]
    return found


@lru_cache(maxsize=64)
def _rows(total: int) -> tuple[tuple[float, ...], ...]:
    """Rows of standard normal numbers, the largest first."""
    draw = random.Random(0)
    return tuple(
        tuple(sorted((draw.gauss(0.0, 1.0) for _ in range(total)), reverse=True))
        for _ in range(max(DRAWN // total, min(ROWS, MOST // total), 1))
    )


@lru_cache(maxsize=256)
def _scores(total: int, kept: int) -> tuple[float, float]:
    return _moments([value for row in _rows(total) for value in row[:kept]])


@lru_cache(maxsize=256)
def _probabilities(row: float, total: int, kept: int) -> tuple[float, float]:
    return _moments(_softmax(spread_of(row, total), total, kept))


def _moments(values: Sequence[float]) -> tuple[float, float]:
    return sum(values) / len(values), sum(value * value for value in values) / len(values)
