import torch
from torch import nn


class Residual(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(d, 2 * d), nn.ReLU(), nn.Linear(2 * d, d))
        self.alpha = nn.Parameter(torch.ones(1))
        nn.init.kaiming_normal_(self.f[0].weight)
        nn.init.kaiming_normal_(self.f[2].weight, nonlinearity="linear")

    def forward(self, x):
        return x + self.alpha * self.f(x)


class Model(nn.Module):
    def __init__(self, d=64, depth=28):
        super().__init__()
        self.layers = nn.Sequential(*[Residual(d) for _ in range(depth)])
        self.out = nn.Linear(d, 5)

    def forward(self, x):
        return self.out(self.layers(x))


def example_inputs():
    return (torch.randn(16, 64),)
