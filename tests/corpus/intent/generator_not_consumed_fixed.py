import torch
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        layers = []
        for _ in range(5):
            layers += [nn.Linear(32, 32), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(32, 4)
        [nn.init.kaiming_normal_(m.weight, nonlinearity="relu") for m in self.body if isinstance(m, nn.Linear)]

    def forward(self, x):
        return self.head(self.body(x))


def example_inputs():
    return (torch.randn(16, 32),)
