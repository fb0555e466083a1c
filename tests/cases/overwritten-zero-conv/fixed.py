import torch
from torch import nn


def zeroed(module):
    for p in module.parameters():
        nn.init.zeros_(p)
    return module


class Model(nn.Module):
    """A control branch that must start closed."""

    def __init__(self, c=16):
        super().__init__()
        self.main = nn.Conv2d(3, c, 3, padding=1)
        self.control = nn.Conv2d(1, c, 3, padding=1)
        self.join = nn.Conv2d(c, c, 1)
        self.out = nn.Conv2d(c, 3, 3, padding=1)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight)
        zeroed(self.join)

    def forward(self, x, hint):
        h = torch.relu(self.main(x))
        return self.out(h + self.join(torch.relu(self.control(hint))))


def example_inputs():
    return torch.randn(2, 3, 10, 10), torch.randn(2, 1, 10, 10)
