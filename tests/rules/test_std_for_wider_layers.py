"""IL115 speaks of models that are too narrow for their std, and not of single layers, run-time factors or norms."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import initlint
from initlint.findings import Severity


class Stream(nn.Module):
    """Residual branches of two layers behind norms, from N(0, std), closed by zeros where ``closed``."""

    def __init__(self, width: int, std: float, *, depth: int = 4, factor: float = 1.0) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.up = nn.ModuleList(nn.Linear(width, 4 * width) for _ in range(depth))
        self.down = nn.ModuleList(nn.Linear(4 * width, width) for _ in range(depth))
        self.factor = factor
        for layer in (*self.up, *self.down):
            nn.init.normal_(layer.weight, std=std)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for norm, up, down in zip(self.norms, self.up, self.down, strict=True):
            x = x + down(nn.functional.gelu(self.factor * up(norm(x))))
        return x


class FirstOfFewInputs(nn.Module):
    """A first layer of 6 inputs beside branches of 512."""

    def __init__(self) -> None:
        super().__init__()
        self.inward, self.stream = nn.Linear(6, 512), Stream(512, 0.02)
        nn.init.normal_(self.inward.weight, std=0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.stream(self.inward(x))


def normed() -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(6):
        layers += [nn.Linear(32, 32, bias=False), nn.LayerNorm(32), nn.ReLU()]
        nn.init.normal_(layers[-3].weight, std=0.02)
    return nn.Sequential(*layers)


def frozen() -> nn.Module:
    return Stream(64, 0.02).requires_grad_(False)


def found(build: Callable[[], nn.Module], width: int) -> list[initlint.Finding]:
    run = initlint.check(build, inputs=(torch.randn(8, width),), select=["IL101", "IL115"])
    return [f for f in run.findings if f.code in ("IL101", "IL115")]


@pytest.mark.parametrize(("width", "std"), [(32, 0.02), (64, 0.02), (80, 0.02)])
def test_a_narrow_model_is_told_once_as_a_note(width: int, std: float) -> None:
    (finding,) = found(lambda: Stream(width, std), width)
    assert (finding.code, finding.severity) == ("IL115", Severity.NOTE)
    assert finding.parameters == tuple(f"up.{at}.weight" for at in range(4))
    assert finding.actual is not None
    assert finding.actual["std"] == pytest.approx(std, rel=0.05)
    assert finding.expected is not None
    assert finding.expected["std"] == pytest.approx((2 / (5 * width)) ** 0.5)


@pytest.mark.parametrize(
    ("build", "width"),
    [
        (lambda: Stream(128, 0.02), 128),  # 1 / 6.5 of PyTorch's default
        (lambda: Stream(64, 0.05), 64),
        (lambda: Stream(64, 0.02, factor=5.0), 64),  # as in SIREN: the layer's output is scaled up
        (FirstOfFewInputs, 6),
        (normed, 32),
        (frozen, 64),
    ],
)
def test_nothing_is_said(build: Callable[[], nn.Module], width: int) -> None:
    assert [f.code for f in found(build, width) if f.code == "IL115"] == []
