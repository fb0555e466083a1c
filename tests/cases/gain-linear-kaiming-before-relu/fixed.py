import torch
from torch import nn


def block(a, b):
    return [nn.Conv2d(a, b, 3, padding=1), nn.ReLU(inplace=True)]


class Model(nn.Module):
    def __init__(self, c=32, depth=22):
        super().__init__()
        layers = block(3, c)
        for _ in range(depth - 1):
            layers += block(c, c)
        self.net = nn.Sequential(*layers)
        self.head = nn.Linear(c, 10)
        for m in self.net:
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_uniform_(m.weight, nonlinearity="relu")
                nn.init.zeros_(m.bias)

    def forward(self, x):
        return self.head(self.net(x).mean((2, 3)))


def example_inputs():
    return (torch.randn(2, 3, 16, 16),)
