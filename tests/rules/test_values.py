"""Slices that stay equal, shifts and gains, half types and outliers: bugs beside siblings that are right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import initlint
from initlint.findings import Severity


class Queries(nn.Module):
    """Learned queries read a set; pooled, or with an output of their own."""

    def __init__(self, queries: Tensor, *, pooled: bool) -> None:
        super().__init__()
        self.queries, self.pooled = nn.Parameter(queries), pooled
        self.into, self.q, self.k = nn.Linear(10, 32), nn.Linear(32, 32), nn.Linear(32, 32)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.into(x)
        read = (self.q(self.queries) @ self.k(h).transpose(1, 2) / 6).softmax(-1) @ h
        out = self.head(torch.relu(read))
        return out.mean(1) if self.pooled else out


class Positions(nn.Module):
    """Zero positions that only a branch closed at first tells apart."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.positions = nn.Linear(10, 32), nn.Parameter(torch.zeros(1, 12, 32))
        self.up, self.down, self.head = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 4)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.into(x) + self.positions
        return self.head((h + self.down(torch.relu(self.up(h)))).mean(1))


class Density(nn.Module):
    """The likelihood of a mixture of Gaussians whose means are predicted by a head of zeros, or not."""

    def __init__(self, *, spread: bool, members: int = 4, dim: int = 6) -> None:
        super().__init__()
        self.shape = (members, dim)
        self.body, self.mean = nn.Linear(10, 32), nn.Linear(32, members * dim)
        nn.init.zeros_(self.mean.weight)
        nn.init.zeros_(self.mean.bias)
        if spread:
            nn.init.uniform_(self.mean.bias, -1.0, 1.0)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        mean = self.mean(torch.tanh(self.body(x))).view(-1, *self.shape)
        return (-(y[:, None] - mean).square().sum(-1) / 2).logsumexp(-1)


class Mixture(nn.Module):
    """Experts that are equal or not, behind a gate of zeros."""

    def __init__(self, experts: Tensor) -> None:
        super().__init__()
        self.gate, self.experts, self.head = nn.Linear(24, 4), nn.Parameter(experts), nn.Linear(24, 3)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, x: Tensor) -> Tensor:
        each = torch.einsum("bd,edf->bef", x, self.experts).relu()
        return self.head(torch.einsum("be,bed->bd", self.gate(x).softmax(-1), each))


def doubled(columns: bool) -> nn.Module:
    """Each unit twice; what reads them weighs both alike, or not."""
    first, second = nn.Linear(10, 32), nn.Linear(32, 32)
    with torch.no_grad():
        rows, halves = torch.randn(16, 10) * 0.4, torch.randn(32, 16) * 0.2
        first.weight.copy_(torch.cat([rows, rows]))
        first.bias.zero_()
        if columns:
            second.weight.copy_(torch.cat([halves, halves], 1))
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(32, 4))


class Half(nn.Module):
    """A branch with a scale, in half precision."""

    def __init__(self, scale: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.fc, self.scale, self.out = nn.Linear(8, 8), nn.Parameter(torch.full((8,), scale)), nn.Linear(8, 2)
        self.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x + self.scale * torch.relu(self.fc(x)))


def batchnorms(shift: float) -> nn.Module:
    layers: list[nn.Module] = []
    for channels in (3, 16, 16):
        norm = nn.BatchNorm2d(16)
        nn.init.constant_(norm.bias, shift)
        layers += [nn.Conv2d(channels, 16, 3, padding=1, bias=False), norm, nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(16, 5, 1))


SET, FLAT = (4, 12, 10), (8, 10)
HALF = torch.float16
#: what it is -> (builder, inputs, code, least severity, parameter that is named)
WRONG: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any], str, Severity, str]] = {
    "zero queries, pooled": (
        lambda: Queries(torch.zeros(1, 6, 32), pooled=True),
        lambda: torch.randn(SET), "IL004", Severity.ERROR, "queries",
    ),
    "one query repeated": (
        lambda: Queries(torch.randn(1, 1, 32).repeat(1, 6, 1), pooled=True),
        lambda: torch.randn(SET), "IL004", Severity.ERROR, "queries",
    ),
    "equal experts": (
        lambda: Mixture((torch.randn(1, 24, 24) * 0.2).repeat(4, 1, 1)),
        lambda: torch.randn(8, 24), "IL004", Severity.ERROR, "experts",
    ),
    "units doubled": (lambda: doubled(True), lambda: torch.randn(FLAT), "IL004", Severity.WARNING, "0.weight"),
    "scale below float16": (
        lambda: Half(1e-8, HALF), lambda: torch.randn(4, 8).half(), "IL009", Severity.NOTE, "scale",
    ),
    "shifts of one": (lambda: batchnorms(1.0), lambda: torch.randn(2, 3, 9, 9), "IL007", Severity.NOTE, "1.bias"),
}  # fmt: skip

RIGHT: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "random queries": (lambda: Queries(torch.randn(1, 6, 32), pooled=True), lambda: torch.randn(SET)),
    "queries with outputs of their own": (
        lambda: Queries(torch.zeros(1, 6, 32), pooled=False), lambda: torch.randn(SET),
    ),
    "positions behind a zero branch": (Positions, lambda: torch.randn(SET)),
    "experts of their own": (lambda: Mixture(torch.randn(4, 24, 24) * 0.2), lambda: torch.randn(8, 24)),
    "units doubled, read differently": (lambda: doubled(False), lambda: torch.randn(FLAT)),
    "scale that float16 holds": (lambda: Half(1e-4, HALF), lambda: torch.randn(4, 8).half()),
    "scale that bfloat16 holds": (lambda: Half(1e-8, torch.bfloat16), lambda: torch.randn(4, 8).bfloat16()),
    "small shifts": (lambda: batchnorms(0.1), lambda: torch.randn(2, 3, 9, 9)),
}  # fmt: skip


def check(build: Callable[[], nn.Module], inputs: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    return initlint.check(build, inputs=(inputs(),), seed=0)


@pytest.mark.parametrize("name", WRONG)
def test_bug_is_named(name: str) -> None:
    build, inputs, code, least, parameter = WRONG[name]
    found = [f for f in check(build, inputs).findings if f.code == code and f.severity >= least]
    assert any(parameter in f.parameters for f in found)


@pytest.mark.parametrize("name", RIGHT)
def test_sibling_is_silent(name: str) -> None:
    assert not [f.message for f in check(*RIGHT[name]).findings if f.severity >= Severity.WARNING]


def test_the_model_is_as_before() -> None:
    torch.manual_seed(0)
    model = Queries(torch.zeros(1, 6, 32), pooled=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    initlint.check(model, inputs=(torch.randn(SET),))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("spread", [False, True])
def test_components_of_a_mixture_that_start_equal_stay_equal(spread: bool) -> None:
    run = initlint.check(lambda: Density(spread=spread), inputs=(torch.randn(12, 10), torch.randn(12, 6)), seed=0)
    assert run.models
    found = [f for f in run.findings if f.code == "IL004"]
    if spread:
        assert not found
    else:
        assert found[0].severity is Severity.ERROR
        assert "mean.weight" in found[0].parameters


class Gains(nn.Module):
    """Batch norms whose gains are drawn about a mean: about zero, signals vanish and gradients grow."""

    def __init__(self, mean: float, depth: int = 4) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 64, 3, padding=1), nn.Linear(64, 100)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(64, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64)) for _ in range(depth)
        )
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, mean, 0.02)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            y = block(x)
            x = y * y.sigmoid() * y  # of the second order where y is small
        return self.head(x.mean((2, 3)))


def test_one_finding_where_gains_are_why_the_signal_vanishes() -> None:
    torch.manual_seed(0)
    depth = {"IL201", "IL202", "IL203", "IL204", "IL205"}
    drawn = initlint.check(lambda: Gains(0.0), inputs=(torch.randn(8, 3, 12, 12),), seed=0).findings
    assert [(f.code, f.severity) for f in drawn if f.severity >= Severity.WARNING] == [("IL007", Severity.ERROR)]
    alone = initlint.check(lambda: Gains(0.0), inputs=(torch.randn(8, 3, 12, 12),), seed=0, ignore=("IL007",)).findings
    named = [f for f in alone if f.code in depth]
    assert named
    assert all(name.endswith("1.weight") for f in named for name in f.parameters)
    assert named[0].fix is not None
    assert "ones_" in str(named[0].fix)
    assert not initlint.check(lambda: Gains(1.0), inputs=(torch.randn(8, 3, 12, 12),), seed=0).findings
