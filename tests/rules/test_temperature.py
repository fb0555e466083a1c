"""Queries and keys behind norms: the factor of their products is a choice, until gradients explode by it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import initlint
from initlint.findings import Finding, Severity


class Block(nn.Module):
    def __init__(self, width: int, heads: int, factor: float, *, fused: bool) -> None:
        super().__init__()
        self.heads, self.factor, self.fused = heads, factor, fused
        self.before, self.after = nn.RMSNorm(width), nn.RMSNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.of_q, self.of_k = nn.RMSNorm(width // heads), nn.RMSNorm(width // heads)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.before(x)
        q, k, v = (m(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for m in (self.q, self.k, self.v))
        q, k = self.of_q(q), self.of_k(k)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, scale=self.factor)
        else:
            y = torch.softmax(q @ k.transpose(-2, -1) * self.factor, dim=-1) @ v
        return x + self.after(self.o(y.transpose(1, 2).flatten(-2)))


class Deep(nn.Module):
    def __init__(self, factor: float, *, fused: bool) -> None:
        super().__init__()
        self.stem = nn.Linear(48, 128)
        self.blocks = nn.Sequential(*(Block(128, 2, factor, fused=fused) for _ in range(32)))
        self.norm, self.head = nn.RMSNorm(128), nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.blocks(self.stem(x))).mean(1))


def found(factor: float, *, fused: bool) -> list[Finding]:
    run = initlint.check(lambda: Deep(factor, fused=fused), inputs=(torch.randn(4, 40, 48),), seed=0)
    assert run.models[0].facts.trace.ran
    return [f for f in run.findings if f.severity > Severity.NOTE]


@pytest.mark.parametrize("fused", [True, False])
def test_one_finding_names_the_attentions_where_gradients_explode_by_them(fused: bool) -> None:
    (finding,) = found(2.0, fused=fused)
    assert finding.code == "IL211"
    assert "gradient's second moment grows" in finding.effect
    assert finding.parameters[:2] == ("blocks.0.of_q.weight", "blocks.0.of_k.weight")


@pytest.mark.parametrize("fused", [True, False])
def test_with_the_usual_factor_depth_is_harmless(fused: bool) -> None:
    assert not found(64**-0.5, fused=fused)
