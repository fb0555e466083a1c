import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, c=24):
        super().__init__()
        self.tower = nn.Sequential(nn.Conv2d(3, c, 3, padding=1), nn.ReLU())
        self.hm = nn.Conv2d(c, 6, 1)
        self.hm.bias.data.fill_(-2.19)

    def forward(self, x):
        return torch.sigmoid(self.hm(self.tower(x)))


def example_inputs():
    return (torch.randn(2, 3, 10, 10),)
