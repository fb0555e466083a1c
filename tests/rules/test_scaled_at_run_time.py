"""Weights that the forward multiplies: finding, line to write and table tell what they should hold."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import initlint

WIDTH, FACTOR = 256, 0.25


class Scaled(nn.Module):
    def __init__(self, std: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(WIDTH, WIDTH))
        nn.init.normal_(self.weight, std=std)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * FACTOR)


def net(std: float) -> nn.Module:
    return nn.Sequential(*(m for _ in range(8) for m in (Scaled(std), nn.ReLU())))


RIGHT = math.sqrt(2 / WIDTH) / FACTOR


def test_the_number_to_write_undoes_the_factor() -> None:
    run = initlint.check(lambda: net(4 * RIGHT), inputs=(torch.randn(32, WIDTH),))
    (finding,) = [f for f in run.findings if f.code == "IL101"]
    assert finding.expected["std"] == pytest.approx(RIGHT, rel=0.05)
    assert "scheme" not in finding.expected
    assert finding.fix is not None
    assert f"std={finding.expected['std']:.3g}" in finding.fix.snippet
    for row in run.models[0].rows:
        assert row.expected_std == pytest.approx(finding.expected["std"])
        assert row.ratio == pytest.approx(4, rel=0.1)


def test_the_table_of_a_right_net_knows_the_factor() -> None:
    run = initlint.check(lambda: net(RIGHT), inputs=(torch.randn(32, WIDTH),))
    assert not [f for f in run.findings if f.code.startswith("IL1")]
    for row in run.models[0].rows:
        assert row.ratio == pytest.approx(1, rel=0.05)


class Scores(nn.Module):
    """Scores as T5 makes them: weights of N(0, 1), of hidden states behind a norm over sqrt(d)."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.table, self.norm, self.factor = nn.Embedding(500, WIDTH), nn.LayerNorm(WIDTH), factor
        self.head = nn.Linear(WIDTH, 500, bias=False)
        nn.init.normal_(self.head.weight)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.table(ids)) * self.factor)


@pytest.mark.parametrize(("factor", "codes"), [(WIDTH**-0.5, set()), (1.0, {"IL209"})])
def test_a_factor_behind_a_norm_counts_as_part_of_the_weights(factor: float, codes: set[str]) -> None:
    run = initlint.check(lambda: Scores(factor), inputs=(torch.randint(500, (8, 16)),))
    assert {f.code for f in run.findings if f.severity.label != "note"} == codes
