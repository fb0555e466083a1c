"""An option of the constructor is part of the condition, and off: nothing was missed."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, scheme="default", depth=4):
        super().__init__()
        self.body = nn.Sequential(*[m for _ in range(depth) for m in (nn.Linear(64, 64), nn.ReLU())])
        self.head = nn.Linear(64, 10)
        for layer in self.body:
            if isinstance(layer, nn.Linear) and scheme != "default":
                nn.init.kaiming_normal_(layer.weight)

    def forward(self, x):
        return self.head(self.body(x))


def example_inputs():
    return (torch.randn(4, 64),)
