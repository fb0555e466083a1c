import copy

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.q = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, 4))
        self.target = copy.deepcopy(self.q)
        for p in self.target.parameters():
            p.requires_grad = False

    def forward(self, x):
        return self.q(x), self.target(x)


def example_inputs():
    return (torch.randn(16, 32),)
