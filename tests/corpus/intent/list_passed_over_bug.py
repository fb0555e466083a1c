"""Branches are closed in the blocks of one list only."""

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.branch = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        return x + self.branch(self.norm(x))


class TwoStages(nn.Module):
    def __init__(self, width=24, depth=3):
        super().__init__()
        self.enter, self.leave = nn.Linear(10, width), nn.Linear(width, 4)
        self.below = nn.ModuleList(Block(width) for _ in range(depth))
        self.above = nn.ModuleList(Block(width) for _ in range(depth))
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.xavier_uniform_(m.weight)
        for block in self.below:
            nn.init.zeros_(block.branch[-1].weight)

    def forward(self, x):
        x = self.enter(x)
        for block in (*self.below, *self.above):
            x = block(x)
        return self.leave(x)


def example_inputs():
    return (torch.randn(8, 10),)
