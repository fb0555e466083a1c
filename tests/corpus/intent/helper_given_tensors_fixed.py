"""The helper asks a layer for its weight; it is handed the layer."""

import torch
from torch import nn


def start_small(layer, scale=1.0):
    if getattr(layer, "weight", None) is not None:
        layer.weight.data.normal_(0.0, scale)


class Encoder(nn.Module):
    def __init__(self, inputs=24, width=72, depth=5):
        super().__init__()
        sizes = [inputs] + [width] * depth
        self.steps = nn.ModuleList([nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])])
        self.out = nn.Linear(width, 3)
        for step in self.steps:
            start_small(step, scale=0.17)

    def forward(self, x):
        for step in self.steps:
            x = torch.relu(step(x))
        return self.out(x)


def example_inputs():
    return (torch.randn(16, 24),)
