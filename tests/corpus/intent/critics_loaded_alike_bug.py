import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.critics = nn.ModuleList([nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, 1)) for _ in range(3)])
        for c in self.critics[1:]:
            c.load_state_dict(self.critics[0].state_dict())

    def forward(self, x):
        return torch.stack([c(x) for c in self.critics]).min(0).values


def example_inputs():
    return (torch.randn(16, 32),)
