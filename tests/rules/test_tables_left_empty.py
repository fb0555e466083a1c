"""A frozen table of zeros that is added to the signal does nothing; the same zeros that learn, or are filled, do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import initlint
from initlint.findings import Severity


class Frames(nn.Module):
    """Frames with a table of times that is added in one of several ways."""

    def __init__(self, how: str = "plain", *, learns: bool = False, std: float = 0.0) -> None:
        super().__init__()
        self.how = how
        self.embed, self.mix, self.head = nn.Linear(12, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        self.times = nn.Parameter(torch.zeros(1, 9, 16), requires_grad=learns)
        if std:
            nn.init.normal_(self.times, std=std)

    def forward(self, x: Tensor) -> Tensor:
        x, n = self.embed(x), x.shape[1]
        if self.how == "in place":
            x += self.times[:, :n]
        elif self.how == "repeated":
            x = x + self.times[:, :n].expand(len(x), -1, -1)
        elif self.how == "late":
            x = torch.relu(self.mix(x)).reshape(-1, n, 16) + self.times[:, :n]
        else:
            x = x + self.times[:, :n, :]
        return self.head(torch.relu(x).mean(1))


class OnLogits(nn.Module):
    """A frozen mask of zeros masks nothing, as it should."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 12)
        self.mask = nn.Parameter(torch.zeros(6, 6), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.q(x) @ self.k(x).transpose(1, 2) / 12**0.5 + self.mask
        return self.v(logits.softmax(-1) @ x)


class Remembers(nn.Module):
    """A memory of nodes that starts empty; training writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Linear(12, 16), nn.Linear(16, 4)
        self.memory = nn.Parameter(torch.zeros(20, 16), requires_grad=False)

    def forward(self, x: Tensor, nodes: Tensor) -> Tensor:
        return self.head(torch.relu(self.features(x) + self.memory[nodes]))


class State(nn.Module):
    """A state that a method writes between the steps."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Linear(12, 16), nn.Linear(16, 4)
        self.state = nn.Parameter(torch.zeros(8, 16), requires_grad=False)

    def remember(self, values: Tensor) -> None:
        self.state.data.copy_(values)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.features(x) + self.state))


class Backbone(nn.Module):
    """A finished model, whose weights are not loaded here, below a new head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.top = Frames(learns=True), nn.Linear(4, 2)
        self.backbone.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.backbone(x))


class Necked(nn.Module):
    """The bias of a neck and an offset per channel are frozen on purpose."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.neck, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 4)
        self.neck.bias.requires_grad_(False)
        self.offset = nn.Parameter(torch.zeros(1, 8, 1, 1), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.neck(self.conv(x) + self.offset)).mean((2, 3)))


def found(make: Callable[[], nn.Module], inputs: tuple[Tensor, ...]) -> list[tuple[Severity, tuple[str, ...]]]:
    run = initlint.check(make, inputs=inputs, select=["IL331"])
    assert not run.not_analysed
    return [(f.severity, f.parameters) for f in run.findings]


@pytest.mark.parametrize("how", ["plain", "in place", "repeated", "late"])
def test_zeros_that_nothing_changes(how: str) -> None:
    x = torch.randn(8, 6, 12)
    assert found(lambda: Frames(how), (x,)) == [(Severity.WARNING, ("times",))]
    assert not found(lambda: Frames(how, learns=True), (x,))
    assert not found(lambda: Frames(how, std=0.02), (x,))


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (OnLogits, (torch.randn(8, 6, 12),)),
        (Remembers, (torch.randn(8, 12), torch.randint(0, 20, (8,)))),
        (State, (torch.randn(8, 12),)),
        (Backbone, (torch.randn(8, 6, 12),)),
        (Necked, (torch.randn(8, 3, 6, 6),)),
    ],
)
def test_zeros_with_a_purpose(make: Callable[[], nn.Module], inputs: tuple[Tensor, ...]) -> None:
    assert not found(make, inputs)
