import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, d=64, depth=8):
        super().__init__()
        layers = []
        for _ in range(depth):
            layers += [nn.Linear(d, d), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.out = nn.Linear(d, 4)
        self.prepare()
        self.reset_weights

    def prepare(self):
        self.calls = 0

    def reset_weights(self):
        for m in self.body:
            if isinstance(m, nn.Linear):
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
                nn.init.zeros_(m.bias)

    def forward(self, x):
        return self.out(self.body(x))


def example_inputs():
    return (torch.randn(16, 64),)
