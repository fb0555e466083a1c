import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, init="kaiming"):
        super().__init__()
        layers = []
        for _ in range(5):
            layers += [nn.Linear(32, 32), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(32, 4)
        if init == "kaiming":
            for m in self.body:
                if isinstance(m, nn.Linear):
                    nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
        elif init == "xavier":
            for m in self.body:
                if isinstance(m, nn.Linear):
                    nn.init.xavier_normal_(m.weight)

    def forward(self, x):
        return self.head(self.body(x))


def example_inputs():
    return (torch.randn(16, 32),)
