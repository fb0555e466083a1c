import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, features=20, hidden=32):
        super().__init__()
        self.register_buffer("shift", torch.zeros(features))
        self.register_buffer("scale", torch.empty(features))
        self.net = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, x):
        return self.net((x - self.shift) / self.scale)


def example_inputs():
    return (torch.randn(8, 20),)
