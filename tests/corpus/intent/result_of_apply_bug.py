"""The function given to apply hands its draw back instead of writing it."""

import math

import torch
from torch import nn


def he(shape):
    return torch.randn(*shape) * math.sqrt(2 / math.prod(shape[1:]))


def init_weights(m):
    weight = getattr(m, "weight", None)
    if isinstance(m, nn.Linear):
        weight = he(m.weight.shape)
        nn.init.zeros_(m.bias)
    return weight


class Deep(nn.Module):
    def __init__(self, width=48, depth=9):
        super().__init__()
        layers = [nn.Linear(12, width), nn.ReLU()]
        for _ in range(depth):
            layers += [nn.Linear(width, width), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 3))
        self.layers.apply(init_weights)

    def forward(self, x):
        return self.layers(x)


def example_inputs():
    return (torch.randn(8, 12),)
