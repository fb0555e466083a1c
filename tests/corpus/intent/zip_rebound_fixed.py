import torch
from torch import nn


def tower():
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.online, self.target = tower(), tower()
        for p in self.online.parameters():
            nn.init.normal_(p, std=0.25)
        for p, source in zip(self.target.parameters(), self.online.parameters(), strict=True):
            p.data.copy_(source)
        self.target.requires_grad_(False)

    def forward(self, x):
        return self.online(x), self.target(x)


def example_inputs():
    return (torch.randn(16, 16),)
