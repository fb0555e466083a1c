"""``torch.where`` on a signal's own values is one function of it: hand-written ELU, SELU, hardtanh, thresholds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import initlint

Function = Callable[[Tensor], Tensor]


class Net(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function
        self.layers = nn.ModuleList(nn.Linear(128, 128) for _ in range(4))
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = self.function(layer(x))
        out: Tensor = self.layers[-1](x)
        return out


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.where(x > 0, x, torch.exp(x) - 1),
        lambda x: 1.0507 * torch.where(x > 0, x, 1.67326 * (torch.exp(x) - 1)),
        lambda x: torch.where(x.abs() < 1, x, torch.sign(x)),
        lambda x: torch.where(x < 0.5, torch.ones_like(x), x),
        lambda x: torch.where(x <= 0, 0.1 * x, x),
        lambda x: x.masked_fill(x < 0, 0.0),
        lambda x: x * (x > 0),
    ],
    ids=["elu", "selu", "hardtanh", "ones", "leaky", "masked_fill", "times the mask"],
)
def test_as_measured(function: Function) -> None:
    torch.manual_seed(0)
    run = initlint.check(lambda: Net(function), inputs=(torch.randn(512, 128),), measure=True)
    for row in run.models[0].rows:
        seen = row.signal
        assert seen.measured_forward_std
        assert seen.measured_gradient_std
        assert seen.forward_std == pytest.approx(seen.measured_forward_std, rel=0.12), row.name
        assert seen.gradient_std == pytest.approx(seen.measured_gradient_std, rel=0.12), row.name


def test_another_signals_values_are_a_mask() -> None:
    class Other(Net):
        def forward(self, x: Tensor) -> Tensor:
            a, b = self.layers[0](x), self.layers[1](x)
            out: Tensor = self.layers[2](torch.where(a > 0, b, 0.1 * b))
            return out

    torch.manual_seed(0)
    run = initlint.check(lambda: Other(torch.relu), inputs=(torch.randn(512, 128),), measure=True)
    last = next(row.signal for row in run.models[0].rows if row.name == "layers.2")
    assert last.measured_forward_std
    assert last.forward_std == pytest.approx(last.measured_forward_std, rel=0.12)
