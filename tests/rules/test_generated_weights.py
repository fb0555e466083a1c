"""IL335 tells hypernetworks whose weights are too large from right ones, and from what only looks like one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import initlint
from initlint.findings import Severity

WIDTH, CODE, BATCH = 32, 16, 8


class Written(nn.Module):
    """One layer of WIDTH inputs and outputs whose weights come from a code."""

    def __init__(
        self, std: float | None, use: Callable[[Tensor, Tensor], Tensor], entries: int = WIDTH * WIDTH
    ) -> None:
        super().__init__()
        self.use, self.write, self.last = use, nn.Linear(CODE, entries, bias=False), nn.Linear(WIDTH, 4)
        if std is not None:
            nn.init.normal_(self.write.weight, std=std)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        return self.last(torch.relu(self.use(x, self.write(code))))


def batched(x: Tensor, w: Tensor) -> Tensor:
    return torch.bmm(w.view(-1, WIDTH, WIDTH), x.unsqueeze(-1)).squeeze(-1)


def by_letters(x: Tensor, w: Tensor) -> Tensor:
    return torch.einsum("boi,bi->bo", w.reshape(-1, WIDTH, WIDTH), x)


def grouped(x: Tensor, w: Tensor) -> Tensor:
    image = x.reshape(1, -1, 1, 1).expand(1, -1, 4, 4)
    return F.conv2d(image, w.reshape(-1, WIDTH, 1, 1), groups=len(x)).mean((2, 3)).view(len(x), WIDTH)


def one_row(x: Tensor, w: Tensor) -> Tensor:
    return torch.einsum("bi,bi->b", w, x).unsqueeze(-1) * x


class Queries(nn.Module):
    """Attention: what is multiplied has an axis of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(CODE, WIDTH), nn.Linear(CODE, WIDTH)
        for layer in (self.q, self.k):
            nn.init.normal_(layer.weight, std=CODE**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        q, k = (f(x).view(*x.shape[:2], 4, -1).transpose(1, 2) for f in (self.q, self.k))
        return (q @ k.transpose(-1, -2)).tanh()


def found(build: Callable[[], nn.Module], *inputs: Tensor) -> list[initlint.Finding]:
    return [f for f in initlint.check(build, inputs=inputs).findings if f.code in ("IL101", "IL335")]


@pytest.mark.parametrize("use", [batched, by_letters, grouped])
def test_the_own_fan_alone(use: Callable[[Tensor, Tensor], Tensor]) -> None:
    (finding,) = found(lambda: Written(CODE**-0.5, use), torch.randn(BATCH, WIDTH), torch.randn(BATCH, CODE))
    assert (finding.code, finding.severity) == ("IL335", Severity.WARNING)
    assert finding.parameters == ("write.weight",)
    assert finding.expected is not None
    assert finding.expected["std"] == pytest.approx((2 / (CODE * WIDTH)) ** 0.5, rel=0.1)


@pytest.mark.parametrize("use", [batched, by_letters, grouped])
def test_both_fans(use: Callable[[Tensor, Tensor], Tensor]) -> None:
    std = (2 / (CODE * WIDTH)) ** 0.5
    assert found(lambda: Written(std, use), torch.randn(BATCH, WIDTH), torch.randn(BATCH, CODE)) == []


def test_the_default_is_a_note() -> None:
    (finding,) = found(lambda: Written(None, batched), torch.randn(BATCH, WIDTH), torch.randn(BATCH, CODE))
    assert (finding.code, finding.severity) == ("IL335", Severity.NOTE)


def test_rows_and_queries_are_left_alone() -> None:
    gate = found(lambda: Written(CODE**-0.5, one_row, WIDTH), torch.randn(BATCH, WIDTH), torch.randn(BATCH, CODE))
    assert [f.code for f in gate if f.code == "IL335"] == []
    assert [f.code for f in found(Queries, torch.randn(BATCH, 4, CODE)) if f.code == "IL335"] == []
