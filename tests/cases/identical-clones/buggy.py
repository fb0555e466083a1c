import copy

import torch
from torch import nn


class Layer(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.up = nn.Linear(d, 2 * d)
        self.down = nn.Linear(2 * d, d)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(self.norm(x))))


def clones(layer, n):
    return nn.ModuleList([copy.deepcopy(layer) for _ in range(n)])


class Model(nn.Module):
    def __init__(self, d=32, n=3):
        super().__init__()
        self.layers = clones(Layer(d), n)
        self.out = nn.Linear(d, 4)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.out(x)


def example_inputs():
    return (torch.randn(8, 32),)
