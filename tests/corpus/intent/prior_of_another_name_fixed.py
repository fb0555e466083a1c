"""The prior is for the head that the model has."""

import torch
from torch import nn


class Detector(nn.Module):
    def __init__(self, heads={"centre": 5, "size": 2}, width=16):
        super().__init__()
        self.heads = heads
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU())
        for head in sorted(heads):
            layers = nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, heads[head], 1)
            self.add_module(head, nn.Sequential(*layers))
        for head in self.heads:
            last = getattr(self, head)[-1]
            nn.init.normal_(last.weight, std=0.01)
            nn.init.zeros_(last.bias)
            if "centre" in head:
                nn.init.constant_(last.bias, -2.19)

    def forward(self, x):
        h = self.body(x)
        found = {head: getattr(self, head)(h) for head in self.heads}
        found["centre"] = torch.sigmoid(found["centre"])
        return found


def example_inputs():
    return (torch.randn(2, 3, 16, 16),)
