import torch
from torch import nn


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 2)


class Unit(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inner = nn.Linear(width, width)

    def forward(self, x):
        return torch.relu(self.inner(x))


def init(m):
    if isinstance(m, Gated):
        nn.init.kaiming_normal_(m.inner.weight, nonlinearity="relu")


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(32)
        self.units = nn.Sequential(*[Unit(32) for _ in range(6)])
        self.head = nn.Linear(32, 4)
        self.apply(init)

    def forward(self, x):
        return self.head(self.units(self.norm(x)))


def example_inputs():
    return (torch.randn(16, 32),)
