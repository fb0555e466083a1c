import torch
import torch.nn.functional as F
from torch import nn


class Stage(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc = nn.Linear(width, width)

    def forward(self, x):
        return F.gelu(self.fc(x))


class Model(nn.Module):
    """Deep feed-forward field without norms or skips."""

    def __init__(self, width=128, depth=24):
        super().__init__()
        self.blocks = nn.ModuleList([Stage(width) for _ in range(depth)])
        self.read = nn.Linear(width, 2)
        for name, p in self.blocks.named_parameters():
            if p.dim() > 1:
                nn.init.xavier_uniform_(p)
            else:
                nn.init.zeros_(p)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.read(x)


def example_inputs():
    return (torch.randn(16, 128),)
