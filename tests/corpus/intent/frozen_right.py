import torch
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.extra = nn.Linear(32, 32).requires_grad_(False)
        layers = []
        for _ in range(5):
            layers += [nn.Linear(32, 32), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(32, 4)
        for p in self.parameters():
            if not p.requires_grad or p.dim() < 2:
                continue
            nn.init.kaiming_normal_(p, nonlinearity="relu")

    def forward(self, x):
        return self.head(self.body(self.extra(x)))


def example_inputs():
    return (torch.randn(16, 32),)
