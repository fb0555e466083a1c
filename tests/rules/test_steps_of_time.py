"""What repeats over time is a warning at most, also where the recurrence is written out, and its T is stated."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import initlint
from initlint.findings import Severity

STEPS = 30


class Recurrence(nn.Module):
    """h = relu(W x_t + U h), U orthogonal with gain 3: 4.5 times the second moment at each step."""

    def __init__(self, *, every: bool) -> None:
        super().__init__()
        self.inward, self.again = nn.Linear(16, 64), nn.Linear(64, 64, bias=False)
        self.head, self.every = nn.Linear(64, 5), every
        nn.init.orthogonal_(self.again.weight, gain=3.0)

    def forward(self, x: Tensor) -> Tensor:
        h = self.inward(x[:, 0])
        for t in range(1, x.shape[1]):
            read = self.again(h)
            h = torch.relu(read + self.inward(x[:, t]) if self.every else read)
        out: Tensor = self.head(h)
        return out


class Depth(nn.Module):
    """The same with a weight of its own at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(64, 64, bias=False) for _ in range(STEPS))
        self.inward, self.head = nn.Linear(16, 64), nn.Linear(64, 5)
        for layer in self.layers:
            nn.init.orthogonal_(layer.weight, gain=3.0)

    def forward(self, x: Tensor) -> Tensor:
        h = self.inward(x)
        for layer in self.layers:
            h = torch.relu(layer(h))
        out: Tensor = self.head(h)
        return out


@pytest.mark.parametrize("every", [False, True])
def test_written_out_over_time(every: bool) -> None:
    run = initlint.check(lambda: Recurrence(every=every), inputs=(torch.randn(8, STEPS, 16),))
    loud = [f for f in run.findings if f.severity >= Severity.WARNING]
    assert loud
    assert {f.severity for f in loud} == {Severity.WARNING}
    assert any(f"over {STEPS - 1} steps of one weight" in f.effect for f in loud)


def test_depth_is_an_error() -> None:
    run = initlint.check(Depth, inputs=(torch.randn(8, 16),))
    assert max(f.severity for f in run.findings) is Severity.ERROR
    assert not any("steps of one weight" in f.effect for f in run.findings)


class Cell(nn.Module):
    """An LSTM written out over five steps, with gates and candidates of N(0, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.gates, self.head = nn.Linear(128 + 64, 256), nn.Linear(64, 10)
        nn.init.normal_(self.gates.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.shape[0], 64)
        for t in range(x.shape[1]):
            i, f, g, o = self.gates(torch.cat([x[:, t], h], 1)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        out: Tensor = self.head(h)
        return out


def test_candidates_of_a_cell_that_is_written_out() -> None:
    run = initlint.check(Cell, inputs=(torch.randn(16, 5, 128),))
    (finding,) = [f for f in run.findings if f.code == "IL207"]
    assert finding.severity is Severity.WARNING
    assert finding.parameters == ("gates.weight",)
