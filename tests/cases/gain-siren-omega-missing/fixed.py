import math

import torch
from torch import nn


class Sine(nn.Module):
    def __init__(self, inputs, width, omega=30.0):
        super().__init__()
        self.omega = omega
        self.lin = nn.Linear(inputs, width)

    def forward(self, x):
        return torch.sin(self.omega * self.lin(x))


class Model(nn.Module):
    """Coordinates to colours."""

    def __init__(self, width=128, depth=4):
        super().__init__()
        self.first = Sine(2, width)
        self.hidden = nn.ModuleList([Sine(width, width) for _ in range(depth)])
        self.out = nn.Linear(width, 3)
        bound = math.sqrt(6 / width) / self.first.omega
        with torch.no_grad():
            self.first.lin.weight.uniform_(-0.5, 0.5)
            for layer in self.hidden:
                layer.lin.weight.uniform_(-bound, bound)

    def forward(self, xy):
        h = self.first(xy)
        for layer in self.hidden:
            h = layer(h)
        return self.out(h)


def example_inputs():
    return (torch.rand(64, 2) * 2 - 1,)
