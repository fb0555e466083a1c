import torch
from torch import nn


class Unit(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.norm = nn.Linear(32, 32, bias=False), nn.LayerNorm(32)

    def forward(self, x):
        return torch.relu(self.norm(self.inner(x)))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = Unit(), Unit()
        self.head = nn.Linear(32, 4)
        self.head.init_std = 0.01
        self.second.init_std = 0.3
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.normal_(m.weight, std=getattr(m, "init_std", 0.2))
            elif isinstance(m, nn.LayerNorm):
                nn.init.ones_(m.weight)

    def forward(self, x):
        return self.head(self.second(self.first(x)))


def example_inputs():
    return (torch.randn(16, 32),)
