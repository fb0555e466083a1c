import torch
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        layers = []
        for _ in range(5):
            layers += [nn.Linear(32, 32), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.blocks = nn.ModuleList([l for l in layers if isinstance(l, nn.Linear)])
        self.head = nn.Linear(32, 4)
        self.go()

    def go(self):
        for i in range(len(self.blocks)):
            nn.init.kaiming_normal_(self.blocks[i].weight, nonlinearity="relu")
            nn.init.zeros_(self.blocks[i].bias)
            return self

    def forward(self, x):
        return self.head(self.body(x))


def example_inputs():
    return (torch.randn(16, 32),)
