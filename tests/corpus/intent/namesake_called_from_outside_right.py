import torch
from torch import nn


class Mixer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.down, self.up = nn.Linear(width, width), nn.Linear(width, width)
        self.apply(self._init)

    def _init(self, module):
        if isinstance(module, Mixer):
            nn.init.normal_(module.down.weight, std=0.02)
            nn.init.zeros_(module.up.weight)

    def forward(self, x):
        return x + self.up(torch.tanh(self.down(x)))


class Feed(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first, self.last = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def _init(self, module):
        if isinstance(module, Feed):
            nn.init.kaiming_normal_(module.first.weight, nonlinearity="relu")
            nn.init.kaiming_normal_(module.last.weight, nonlinearity="linear")

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Sequential(Mixer(32), Feed(32)) for _ in range(6)])
        self.head = nn.Linear(32, 4)
        for layer in self.layers:
            for part in layer:
                part._init(part)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def example_inputs():
    return (torch.randn(16, 32),)
