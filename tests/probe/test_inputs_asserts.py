"""Shapes of inputs that a forward asserts."""
# ruff: noqa: PT018  assertions as models write them

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from initlint.probe.inputs import find
from initlint.probe.inputs_asserts import Stated, stated_shapes


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.channels, self.image_size, self.sizes = 4, 40, (24, 56)
        self.config = SimpleNamespace(image_size=48)
        self.lifted, self.time = nn.Linear(1, 8), nn.Linear(1, 8)
        self.weight = nn.Parameter(torch.randn(8, 4, 3, 3))

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(x, self.weight, padding="same")


class Tail(Base):
    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        assert x.shape[1:] == (self.channels, self.image_size, self.image_size)
        return self.run(x) + self.time(time[:, None])[:, :, None, None]


class Axes(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.ndim == 4
        assert self.channels == x.shape[1] and x.shape[-1] == x.size(2) == self.config.image_size, "of that size"
        return self.run(x)


class Unpacked(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _b, c, h, w, _device, size = *x.shape, x.device, self.image_size
        assert h == size and w == size, f"height and width must be {size}"
        assert c == self.channels
        return self.run(x)


class Pair(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, *_ = x.shape
        assert tuple(x.shape[-2:]) == self.sizes
        assert len(x.shape) == 4 and x.shape[1] == 4 and b > 0
        return self.run(x)


class Steps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.length, self.table, self.head = 12, nn.Embedding(9, 8), nn.Linear(12 * 8, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        assert ids.size(1) == self.length
        return self.head(self.table(ids).flatten(1))


@pytest.mark.parametrize(
    ("cls", "shape"),
    [(Tail, (4, 4, 40, 40)), (Axes, (4, 4, 48, 48)), (Unpacked, (4, 4, 40, 40)), (Pair, (4, 4, 24, 56))],
)
def test_inputs_have_the_shape_that_is_asserted(cls: type[Base], shape: tuple[int, ...]) -> None:
    given = find(cls(), seed=0)
    assert not given.notes
    assert given.facts[0].shape == shape


def test_other_evidence_stays() -> None:
    given = find(Steps(), seed=0)
    assert not given.notes
    assert (given.facts[0].dtype, given.facts[0].shape, given.facts[0].high) == ("int64", (4, 12), 9)


class Silent(Base):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        assert x.shape[1] != 3 and x.shape[2] >= 8
        assert x.shape[2] == y.shape[2] or x.shape[3] == 5
        assert y.shape[0] == x.shape[0]
        assert x.device == y.device
        y = self.run(x)
        assert y.shape[1] == 8
        return y


def test_what_is_no_equality_with_a_known_size_says_nothing() -> None:
    assert stated_shapes(Silent()) == {}
    assert stated_shapes(nn.Linear(2, 2)) == {}
    assert stated_shapes(Axes())["x"] == Stated(((1, 4), (-1, 48), (2, 48)), 4)


class Emphasis(nn.Module):
    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        assert len(wave.size()) == 2, "a wave for each sample"
        return wave[:, None, 1:] - 0.97 * wave[:, None, :-1]


class Speaker(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.front, self.conv = nn.Sequential(Emphasis(), nn.Identity()), nn.Conv1d(1, 8, 5)

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        return self.conv(self.front(sound)).mean(-1)


class Triplet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = Speaker()

    def forward(self, anchor: torch.Tensor, other: torch.Tensor, margin: float = 0.1) -> torch.Tensor:
        return (self.embed(anchor) - self.embed(other)).square().sum(1) + margin


def test_what_a_part_asserts_of_an_argument_that_is_handed_on() -> None:
    model = Triplet()
    assert stated_shapes(model) == {"anchor": Stated((), 2), "other": Stated((), 2)}
    assert [len(given.shape) for given in find(model).facts] == [2, 2]
