"""Biases of single gates of RNN, LSTM and GRU: predicted against runs, and gates that they shut for good."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import initlint
from initlint.findings import Severity

HIDDEN, STEPS = 64, 24
Set = Callable[[Tensor], object]


class Net(nn.Module):
    def __init__(self, kind: str, gate: int, fill: Set | None) -> None:
        super().__init__()
        self.first = nn.Linear(32, 32)
        self.rnn = getattr(nn, kind)(32, HIDDEN, batch_first=True)
        self.last = nn.Linear(HIDDEN, 8)
        if fill is not None:
            fill(self.rnn.bias_ih_l0.data[gate * HIDDEN : (gate + 1) * HIDDEN])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.rnn(self.first(x))[0])
        return out


def to(value: float) -> Set:
    return lambda part: part.fill_(value)


def checked(kind: str, gate: int, fill: Set | None, seed: int = 0) -> initlint.Run:
    torch.manual_seed(seed)
    inputs = (torch.randn(64, STEPS, 32),)
    return initlint.check(lambda: Net(kind, gate, fill), inputs=inputs, seed=seed, measure=True)


@pytest.mark.parametrize(
    ("kind", "gate", "value"),
    [
        ("LSTM", 0, -10.0),
        ("LSTM", 1, 1.0),
        ("LSTM", 2, 2.0),
        ("LSTM", 3, -3.0),
        ("GRU", 0, -4.0),
        ("GRU", 1, 6.0),
        ("GRU", 1, -3.0),
        ("RNN", 0, 1.0),
    ],
)
def test_predicted_as_measured(kind: str, gate: int, value: float) -> None:
    rows = {row.name.partition(".")[0]: row.signal for row in checked(kind, gate, to(value)).models[0].rows}
    after, before = rows["rnn"], rows["first"]
    assert after.measured_forward_std
    assert before.measured_gradient_std
    assert after.forward_std == pytest.approx(after.measured_forward_std, rel=0.2)
    assert before.gradient_std == pytest.approx(before.measured_gradient_std, rel=0.3)


@pytest.mark.parametrize(("kind", "gate", "value"), [("LSTM", 0, -30.0), ("LSTM", 3, -30.0), ("GRU", 1, 30.0)])
def test_shut_for_good(kind: str, gate: int, value: float) -> None:
    (finding,) = [f for f in checked(kind, gate, to(value)).findings if f.code == "IL207"]
    assert finding.severity is Severity.ERROR
    assert finding.actual is not None
    assert finding.actual["shut_share"] == pytest.approx(1.0, abs=0.01)
    assert "rnn.bias_ih_l0" in finding.parameters


@pytest.mark.parametrize(
    ("kind", "gate", "fill"),
    [
        ("LSTM", 1, to(30.0)),  # nothing is forgotten: a sum over time
        ("LSTM", 0, lambda part: part.copy_(-torch.rand_like(part).mul(998.0).add(1.0).log())),  # chrono, T = 1000
        ("GRU", 0, to(-30.0)),  # no recurrence inside the candidate
        ("GRU", 1, to(-30.0)),  # nothing is kept
        ("RNN", 0, to(3.0)),
    ],
)
def test_open_or_slow_gates_are_not(kind: str, gate: int, fill: Set) -> None:
    assert [f.code for f in checked(kind, gate, fill).findings if f.code == "IL207"] == []
