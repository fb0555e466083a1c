"""Arguments of a forward that say where and how to compute."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from initlint.probe.inputs import find


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(4, 8, 8, stride=4), nn.Linear(8 * 20 * 20, 6)

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(x).relu().flatten(1))


class Moved(Net):
    def forward(self, x: Any, where: Any) -> torch.Tensor:
        return self.run(torch.Tensor(x).to(where))


class Made(Net):
    def forward(self, x: Any, where: Any, kind: Any) -> torch.Tensor:
        noise = torch.zeros(x.shape, device=where, dtype=kind)
        return self.run(x + noise)


class Annotated(Net):
    def forward(self, x: torch.Tensor, target: torch.device, precision: torch.dtype) -> torch.Tensor:
        return self.run(self._placed(x, target, precision))

    def _placed(self, x: torch.Tensor, target: torch.device, precision: torch.dtype) -> torch.Tensor:
        return x.to(target).to(precision)


class Named(Net):
    def forward(self, x: Any, device: Any, dtype: Any) -> torch.Tensor:
        return self.run(self._placed(x, device, dtype))

    def _placed(self, x: torch.Tensor, place: Any, kind: Any) -> torch.Tensor:
        return x.to(place).to(kind)


@pytest.mark.parametrize("cls", [Moved, Made, Annotated, Named])
def test_a_device_is_no_image(cls: type[Net]) -> None:
    given = find(cls(), seed=0)
    assert not given.notes
    assert given.args[0].shape[1] == 4
    assert given.args[1] == torch.device("cpu")
    assert given.args[2:] == (torch.float32,) * len(given.args[2:])
    assert [fact.name for fact in given.facts] == ["x"]


class Category(nn.Module):
    """Which device a visitor uses: an index into a table."""

    def __init__(self) -> None:
        super().__init__()
        self.devices, self.head = nn.Embedding(7, 16), nn.Linear(16, 2)

    def forward(self, device: torch.Tensor) -> torch.Tensor:
        return self.head(self.devices(device))


class Like(nn.Module):
    """Hands a tensor to ``to``, as a pattern."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(16, 2), nn.Linear(16, 2)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.one(x.to(y)) + self.two(y)


def test_tensors_stay_tensors() -> None:
    (device,) = find(Category(), seed=0).args
    assert device.dtype == torch.int64
    given = find(Like(), seed=0)
    assert not given.notes
    assert [fact.shape[-1] for fact in given.facts] == [16, 16]
