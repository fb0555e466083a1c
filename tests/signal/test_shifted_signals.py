"""A signal beside its own shifted, rolled or flipped self: other elements meet, unless positions share them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import initlint

Mix = Callable[[Tensor], Tensor]


def alike(x: Tensor) -> Tensor:
    """Positions that share two fifths of their second moment."""
    return x + 4.0 * x.mean(1, keepdim=True)


def _of_alike(x: Tensor) -> Tensor:
    y = alike(x)
    return y - y.roll(1, 1)


class Net(nn.Module):
    """[B, T, C] through a layer, the op, and two layers."""

    def __init__(self, mix: Mix) -> None:
        super().__init__()
        self.mix = mix
        self.first, self.second, self.last = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(torch.relu(self.second(self.mix(self.first(x)))))
        return out


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x - x.roll(1, 1),
        lambda x: x + x.roll(3, dims=-1),
        lambda x: x + x.flip(1),
        lambda x: x - x.flip([2]),
        lambda x: 0.5 * x + 0.5 * F.pad(x, (0, 0, 1, -1)),
    ],
    ids=["roll", "roll channels", "flip", "flip channels", "pad"],
)
def test_as_measured(mix: Mix) -> None:
    torch.manual_seed(0)
    inputs = (torch.randn(64, 24, 64),)
    run = initlint.check(lambda: Net(mix), inputs=inputs, measure=True)
    for row in run.models[0].rows:
        seen = row.signal
        assert seen.measured_forward_std
        assert seen.measured_gradient_std
        assert seen.forward_std == pytest.approx(seen.measured_forward_std, rel=0.08), row.name
        assert seen.gradient_std == pytest.approx(seen.measured_gradient_std, rel=0.08), row.name


def test_what_positions_share_is_the_same_after_a_roll() -> None:
    torch.manual_seed(0)
    run = initlint.check(lambda: Net(_of_alike), inputs=(torch.randn(64, 24, 64),), measure=True)
    for row in run.models[0].rows:
        seen = row.signal
        assert seen.measured_forward_std
        assert seen.forward_std == pytest.approx(seen.measured_forward_std, rel=0.08), row.name
