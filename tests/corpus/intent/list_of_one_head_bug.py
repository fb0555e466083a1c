import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.body = nn.Linear(32, d)
        self.heads = nn.ModuleList([nn.Linear(d, 3)] * 4)

    def forward(self, x):
        h = torch.relu(self.body(x))
        return torch.cat([f(h) for f in self.heads], -1)


def example_inputs():
    return (torch.randn(16, 32),)
