import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, d=100, depth=6):
        super().__init__()
        layers = []
        for _ in range(depth):
            layers += [nn.Linear(d, d), nn.ReLU()]
        self.mlp = nn.Sequential(*layers, nn.Linear(d, 6))
        for m in self.mlp:
            if isinstance(m, nn.Linear):
                nn.init.trunc_normal_(m.weight, -0.1, 0.1)
                nn.init.zeros_(m.bias)

    def forward(self, x):
        return self.mlp(x)


def example_inputs():
    return (torch.randn(32, 100),)
