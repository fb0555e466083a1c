"""Weights that are computed from other parameters: weight_norm, spectral_norm, parametrizations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from initlint.facts import ParameterFacts

if TYPE_CHECKING:
    from initlint.probe.provenance import Recorder
    from initlint.probe.record_writes import Histories


def generated_weights(recorder: Recorder, model: torch.nn.Module, histories: Histories) -> list[ParameterFacts]:
    """One entry for each effective weight."""
    del recorder, model, histories
    return []
