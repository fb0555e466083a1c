import math

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, c=24, anchors=9, prior=0.01):
        super().__init__()
        self.tower = nn.Sequential(nn.Conv2d(c, c, 3, padding=1), nn.ReLU())
        self.cls = nn.Conv2d(c, anchors, 3, padding=1)
        self.box = nn.Conv2d(c, 4 * anchors, 3, padding=1)
        self.apply(self.basic)
        nn.init.constant_(self.cls.bias, -math.log((1 - prior) / prior))

    @staticmethod
    def basic(m):
        if isinstance(m, nn.Conv2d):
            nn.init.normal_(m.weight, std=0.01)
            nn.init.constant_(m.bias, 0.0)

    def forward(self, x):
        h = self.tower(x)
        return torch.sigmoid(self.cls(h)), self.box(h)


def example_inputs():
    return (torch.randn(2, 24, 12, 12),)
