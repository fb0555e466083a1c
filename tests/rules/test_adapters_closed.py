"""Adapters of several factors beside a frozen layer: one factor at zero closes them, random ones throughout do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import initlint
from initlint.findings import Severity

WIDTH, RANK = 48, 4


class Singular(nn.Module):
    """A product of three beside the frozen layer, in one of the ways of writing it."""

    def __init__(self, std: float, form: str) -> None:
        super().__init__()
        self.form = form
        self.base = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
        self.a, self.b = nn.Parameter(torch.randn(RANK, WIDTH) * 0.1), nn.Parameter(torch.randn(WIDTH, RANK) * 0.1)
        self.e = nn.Parameter(torch.randn(RANK, 1) * std)
        self.count = nn.Parameter(torch.tensor(4.0), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.form == "merged":
            return F.linear(x, self.base.weight + self.b @ (self.a * self.e), self.base.bias)
        if self.form == "between":
            return self.base(x) + F.linear(F.linear(x, self.a) * self.e[:, 0], self.b)
        return self.base(x) + 16 * (x @ (self.a * self.e).T @ self.b.T) / self.count


class Vectors(nn.Module):
    """Random matrices that stay, and trained vectors that scale what they give."""

    def __init__(self, last: float) -> None:
        super().__init__()
        self.base = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
        self.register_buffer("a", torch.randn(16, WIDTH) * WIDTH**-0.5)
        self.register_buffer("b", torch.randn(WIDTH, 16) / 4)
        self.inner, self.outer = nn.Parameter(torch.full((16,), 0.1)), nn.Parameter(torch.full((WIDTH,), last))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.outer * F.linear(self.inner * F.linear(x, self.a), self.b)


class Pair(nn.Module):
    def __init__(self, down: float, up: float, *, activation: bool = False) -> None:
        super().__init__()
        self.base = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
        self.down, self.up = nn.Linear(WIDTH, RANK, bias=False), nn.Linear(RANK, WIDTH, bias=False)
        nn.init.normal_(self.down.weight, std=down)
        nn.init.normal_(self.up.weight, std=up)
        self.between = nn.ReLU() if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.between(self.down(x)))


class Stacked(nn.Sequential):
    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__(nn.Linear(8, WIDTH).requires_grad_(False), make(), nn.ReLU(), make(), nn.Linear(WIDTH, 3))


def found(make: Callable[[], nn.Module]) -> list[Any]:
    run = initlint.check(lambda: Stacked(make), inputs=torch.randn(4, 8), select=["IL330"])
    assert not run.not_analysed
    return list(run.findings)


@pytest.mark.parametrize("form", ["beside", "between", "merged"])
def test_the_diagonal_is_named_once(form: str) -> None:
    (finding,) = found(lambda: Singular(1.0, form))
    assert finding.severity is Severity.WARNING
    assert finding.parameters[:2] == ("1.e", "3.e")
    assert set(finding.parameters) == {f"{i}.{name}" for i in (1, 3) for name in "abe"}


@pytest.mark.parametrize("form", ["beside", "between", "merged"])
def test_a_zero_diagonal_is_closed(form: str) -> None:
    assert not found(lambda: Singular(0.0, form))


def test_a_small_diagonal_is_a_note() -> None:
    (finding,) = found(lambda: Singular(0.02, "between"))
    assert finding.severity is Severity.NOTE


@pytest.mark.parametrize(("last", "codes"), [(0.0, []), (0.3, [Severity.NOTE]), (20.0, [Severity.WARNING])])
def test_vectors_that_scale_frozen_matrices(last: float, codes: list[Severity]) -> None:
    assert [f.severity for f in found(lambda: Vectors(last))] == codes


@pytest.mark.parametrize(
    ("make", "levels"),
    [
        (lambda: Pair(0.2, 0.5), [Severity.WARNING]),
        (lambda: Pair(0.2, 0.0), []),
        (lambda: Pair(0.0, 0.2), []),
        (lambda: Pair(1e-3, 1e-3), []),  # less than half precision sees
        (lambda: Pair(0.2, 0.5, activation=True), []),  # a layer of features, no low-rank change of the frozen weight
    ],
    ids=["both random", "up zero", "down zero", "below rounding", "with an activation"],
)
def test_two_factors(make: Callable[[], nn.Module], levels: list[Severity]) -> None:
    assert [f.severity for f in found(make)] == levels
