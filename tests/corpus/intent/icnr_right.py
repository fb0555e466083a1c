import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def __init__(self, c=8):
        super().__init__()
        self.a = nn.Conv2d(3, c, 3, padding=1)
        self.up = nn.Conv2d(c, 3 * 4, 3, padding=1)
        k = nn.init.kaiming_normal_(torch.empty(3, c, 3, 3))
        self.up.weight.data.copy_(k.repeat_interleave(4, 0))

    def forward(self, x):
        return F.pixel_shuffle(self.up(torch.relu(self.a(x))), 2)


def example_inputs():
    return (torch.randn(2, 3, 10, 10),)
