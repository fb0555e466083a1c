import math

import torch
from torch import nn


class Model(nn.Module):
    """Dense detector head trained with the focal loss."""

    def __init__(self, c=24, anchors=9, prior=0.01):
        super().__init__()
        self.tower = nn.Sequential(nn.Conv2d(c, c, 3, padding=1), nn.ReLU())
        self.cls = nn.Conv2d(c, anchors, 3, padding=1)
        nn.init.normal_(self.cls.weight, std=0.01)
        nn.init.constant_(self.cls.bias, math.log((1 - prior) / prior))

    def forward(self, x):
        return torch.sigmoid(self.cls(self.tower(x)))


def example_inputs():
    return (torch.randn(2, 24, 12, 12),)
