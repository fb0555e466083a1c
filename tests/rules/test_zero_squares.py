"""A parameter at zero of which the model uses a square has no slope to leave zero by; one with a slope is silent."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import initlint
from initlint.findings import Severity

Forward = Callable[[Tensor, Tensor, nn.Module], Tensor]


class Branch(nn.Module):
    """A linear model beside a term that is made of the zero parameter ``v``."""

    def __init__(self, term: Forward, v: Tensor) -> None:
        super().__init__()
        self.term, self.v = term, nn.Parameter(v)
        self.other = nn.Linear(12, 6, bias=False)
        self.u = nn.Parameter(torch.zeros_like(v))
        self.head = nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x) + self.term(x, self.v, self)


class Items(nn.Module):
    """The pair term of a factorisation machine over a table of items."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.linear, self.table = nn.EmbeddingBag(30, 1, mode="sum"), nn.Embedding(30, 5)
        nn.init.normal_(self.table.weight, std=std)

    def forward(self, items: Tensor) -> Tensor:
        each = self.table(items)
        return self.linear(items) + (each.sum(1).square() - each.square().sum(1)).sum(1, keepdim=True) / 2


STUCK: dict[str, Forward] = {
    "square": lambda x, v, m: (x @ v).square(),
    "fourth power": lambda x, v, m: (x @ v) ** 4,
    "odd power": lambda x, v, m: torch.pow(x @ v, 3),
    "times itself": lambda x, v, m: (y := x @ v) * y,
    "matrix squared": lambda x, v, m: x**2 @ v**2,
    "matrix times itself": lambda x, v, m: x @ (v * v),
    "absolute": lambda x, v, m: (x @ v).abs(),
    "rectified weight": lambda x, v, m: x @ torch.relu(v),
    "gram matrix": lambda x, v, m: (x @ (v @ v.t()))[:, :6],
    "sine squared": lambda x, v, m: torch.sin(x @ v) ** 2,
    "two views of one": lambda x, v, m: (x @ v) * (x.flip(1) @ v),
    "norm of rows": lambda x, v, m: (x @ v).norm(dim=1, keepdim=True),
    "product of zeros": lambda x, v, m: x @ (v * m.get_parameter("u")),
}
LEARNS: dict[str, Forward] = {
    "linear": lambda x, v, m: x @ v,
    "with a slope beside the square": lambda x, v, m: x @ v + (x @ v) ** 2,
    "one plus, squared": lambda x, v, m: (1 + x @ v) ** 2,
    "one plus the weight, squared": lambda x, v, m: x @ (1 + v) ** 2,
    "times another": lambda x, v, m: (x @ v) * m.get_submodule("other")(x),
    "positive": lambda x, v, m: x @ v.exp(),
    "bounded": lambda x, v, m: torch.tanh(x @ v),
    "scaled by one plus the other": lambda x, v, m: x @ (v * (1 + m.get_parameter("u"))),
    "weight norm": lambda x, v, m: x @ (v / (1 + v.norm(dim=0))),
    "absolute of a shift": lambda x, v, m: (x @ v - 1).abs(),
}


def named(build: Callable[[], nn.Module], x: Tensor) -> dict[str, Severity]:
    run = initlint.check(build, inputs=(x,), select=["IL003"])
    assert not run.not_analysed
    return {name: f.severity for f in run.findings for name in f.parameters}


@pytest.mark.parametrize("name", STUCK)
def test_no_slope_at_zero(name: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 12)
    model = Branch(STUCK[name], torch.zeros(12, 6))
    model(x).square().sum().backward()
    assert model.v.grad is not None
    assert not model.v.grad.any(), "the example is what it says"
    found = named(lambda: Branch(STUCK[name], torch.zeros(12, 6)), x)
    assert found.get("v") is Severity.ERROR
    assert ("u" in found) == (name == "product of zeros")
    assert not named(lambda: Branch(STUCK[name], torch.randn(12, 6)), x)


@pytest.mark.parametrize("name", LEARNS)
def test_a_slope_at_zero(name: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 12)
    model = Branch(LEARNS[name], torch.zeros(12, 6))
    model(x).square().sum().backward()
    assert model.v.grad is not None
    assert model.v.grad.any(), "the example is what it says"
    assert not named(lambda: Branch(LEARNS[name], torch.zeros(12, 6)), x)


@pytest.mark.parametrize(("std", "stuck"), [(0.0, True), (0.01, False)])
def test_pairs_of_items(std: float, stuck: bool) -> None:
    found = named(lambda: Items(std), torch.randint(0, 30, (8, 6)))
    assert found == ({"table.weight": Severity.ERROR} if stuck else {})
