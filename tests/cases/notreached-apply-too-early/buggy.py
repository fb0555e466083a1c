import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, d=48, classes=7):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(30, d), nn.ReLU(), nn.Linear(d, d), nn.ReLU())
        self.apply(self.init_module)
        self.head = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, classes))

    @staticmethod
    def init_module(m):
        if isinstance(m, nn.Linear):
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
            nn.init.zeros_(m.bias)

    def forward(self, x):
        return self.head(self.body(x))


def example_inputs():
    return (torch.randn(16, 30),)
