"""Layers of equal units: several on the only path pass on one number, and hardly train; a single one is a warning."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import initlint
from initlint.findings import Severity

WIDTH, RANK = 32, 16


class Factored(nn.Module):
    """A weight made of two factors."""

    def __init__(self, inputs: int, *, ones: bool) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.ones(WIDTH, RANK) if ones else torch.randn(WIDTH, RANK) * RANK**-0.5)
        self.right = nn.Parameter(torch.randn(RANK, inputs) * (2 / inputs / (RANK if ones else 1)) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.left @ self.right)


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.inner(x))


def plain(first: bool, second: bool) -> nn.Module:
    layers = (Factored(WIDTH, ones=first), nn.ReLU(), Factored(WIDTH, ones=second), nn.ReLU())
    return nn.Sequential(nn.Linear(20, WIDTH), *layers, nn.Linear(WIDTH, 10))


def residual() -> nn.Module:
    blocks = (Residual(Factored(WIDTH, ones=True)) for _ in range(2))
    return nn.Sequential(nn.Linear(20, WIDTH), *blocks, nn.Linear(WIDTH, 10))


def levels(make: Callable[[], nn.Module]) -> list[Severity]:
    run = initlint.check(make, inputs=(torch.randn(8, 20),), select=["IL004"])
    assert not run.not_analysed
    return [f.severity for f in run.findings]


def trained(model: nn.Module) -> float:
    """The training loss after some steps, over that at the start."""
    torch.manual_seed(1)
    x, optimiser = torch.randn(256, 20), torch.optim.Adam(model.parameters(), 3e-3)
    labels = (x @ torch.randn(20, 10)).argmax(1)
    losses = []
    for _ in range(300):
        optimiser.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        losses.append(float(loss.detach()))
        optimiser.step()
    return losses[-1] / losses[0]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(True, True, [Severity.ERROR]), (True, False, [Severity.WARNING]), (False, False, [])],
)
def test_by_how_many_there_are(first: bool, second: bool, expected: list[Severity]) -> None:
    assert levels(lambda: plain(first, second)) == expected


def test_branches_beside_a_stream_are_told_apart_by_it() -> None:
    assert levels(residual) == [Severity.WARNING]


def test_what_training_makes_of_them() -> None:
    """What the severity says: the loss hardly falls, where random factors bring it down a thousandfold."""
    torch.manual_seed(0)
    assert trained(plain(True, True)) > 0.3
    assert trained(plain(False, False)) < 0.01
