"""Slices that are equal and stay so: looked for everywhere in small models, among tokens and queries in large ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from initlint.probe import symmetry
from initlint.probe.pipeline import analyse


class Registers(nn.Module):
    """Four tokens put before those of the input, without positions, and dropped in the end."""

    def __init__(self, scale: float = 0.0) -> None:
        super().__init__()
        self.registers = nn.Parameter(scale * torch.randn(1, 4, 16))
        self.mixing = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, 10)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = torch.cat([self.registers.expand(len(tokens), -1, -1), tokens], 1)
        return self.head((tokens + self.mixing(tokens, tokens, tokens)[0])[:, 4:].mean(1))


def equal(scale: float) -> list[str]:
    facts = analyse(lambda: Registers(scale), inputs=(torch.randn(4, 8, 16),))
    return [entry.name for entry in facts.trace.equal]


@pytest.mark.parametrize("limit", [20_000_000, 100])
def test_equal_tokens_are_found_in_small_and_in_large_models(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symmetry, "_SMALL_MODEL", limit)
    assert equal(0.0) == ["registers"]
    assert equal(0.1) == []


def test_layers_of_large_models_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symmetry, "_SMALL_MODEL", 100)
    model = Registers(0.1)
    nn.init.ones_(model.head.weight)
    named = dict(model.named_parameters())
    assert "registers" in symmetry._bare(model, named)
    assert not any(name.startswith("head") for name in symmetry._bare(model, named))


def test_nothing_runs_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symmetry, "_LARGE_MODEL", 100)
    assert equal(0.0) == []
