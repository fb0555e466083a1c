from fnmatch import fnmatch

import torch
from torch import nn


class Encoder(nn.Module):
    def __init__(self, dim, depth):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(dim, dim) for _ in range(depth)])

    def forward(self, x):
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x


class Model(nn.Module):
    """The names begin with that of the encoder, the pattern does not."""

    def __init__(self, dim=48, depth=8):
        super().__init__()
        self.encoder = Encoder(dim, depth)
        self.head = nn.Linear(dim, 4)
        for name, module in self.named_modules():
            if fnmatch(name, "layers.*"):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif name == "head":
                nn.init.zeros_(module.bias)

    def forward(self, x):
        return self.head(self.encoder(x))


def example_inputs():
    return (torch.randn(4, 48),)
