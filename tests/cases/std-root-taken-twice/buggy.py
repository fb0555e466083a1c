import math

import torch
from torch import nn


class Model(nn.Module):
    """Auto-encoder."""

    def __init__(self, d=96):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d), nn.ReLU())
        self.dec = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d))
        with torch.no_grad():
            for m in self.modules():
                if isinstance(m, nn.Linear):
                    std = math.sqrt(2.0 / m.in_features)
                    m.weight.normal_(0, math.sqrt(std))
                    m.bias.zero_()

    def forward(self, x):
        return self.dec(self.enc(x))


def example_inputs():
    return (torch.randn(32, 96),)
