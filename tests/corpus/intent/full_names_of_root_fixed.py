"""The walk over the root's parameters sees full names; an ending tells which they are."""

import math

import torch
from torch import nn


class Mixer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 3 * width)
        self.back = nn.Linear(3 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.back(torch.tanh(self.expand(self.norm(x))))


class Tower(nn.Module):
    def __init__(self, width: int = 40, depth: int = 9) -> None:
        super().__init__()
        self.depth = depth
        self.lift = nn.Linear(12, width)
        self.mixers = nn.ModuleList([Mixer(width) for _ in range(depth)])
        self.apply(self._start)

    def _start(self, part: nn.Module) -> None:
        if isinstance(part, nn.Linear):
            part.weight.data.normal_(0.0, 0.08)
            part.bias.data.zero_()
        if part is self:
            for key, tensor in part.named_parameters():
                if key.endswith("back.weight"):
                    tensor.data.normal_(0.0, 0.08 / math.sqrt(self.depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.lift(x)
        for mixer in self.mixers:
            x = mixer(x)
        return x


def example_inputs() -> tuple[torch.Tensor]:
    return (torch.randn(8, 12),)
