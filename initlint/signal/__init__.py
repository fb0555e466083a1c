"""Analytic propagation of signals and gradients through a traced model, and what follows from it. No torch."""

from __future__ import annotations

from initlint.signal.confirmed import confirmed
from initlint.signal.effect import Effect, counterfactual
from initlint.signal.moments import Moments, Nominal
from initlint.signal.profile import Culprit, Point, Span
from initlint.signal.propagate import Signal, propagate

__all__ = [
    "Culprit",
    "Effect",
    "Moments",
    "Nominal",
    "Point",
    "Signal",
    "Span",
    "confirmed",
    "counterfactual",
    "propagate",
]
