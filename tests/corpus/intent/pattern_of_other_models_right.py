import re

import torch
from torch import nn


class Checkpointed(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.inner_module = module

    def forward(self, x):
        return self.inner_module(x)


class Block(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.up = nn.Linear(dim, dim)
        self.down = nn.Linear(dim, dim)

    def forward(self, x):
        return torch.relu(self.down(torch.relu(self.up(x))))


class Model(nn.Module):
    """One pattern is for a model that has convolutions; the embedding keeps its default."""

    def __init__(self, dim=32, depth=6):
        super().__init__()
        self.embed = nn.Linear(8, dim)
        self.blocks = nn.ModuleList([Checkpointed(Block(dim)) for _ in range(depth)])
        self.head = nn.Linear(dim, 4)
        stds = {r"(head)\.weight": 0.1, r"blocks\.\d+\.(up|down)\.weight": 0.25, r"stem\.conv\.weight": 0.05}
        for pattern, std in stds.items():
            for name, p in self.named_parameters():
                if re.fullmatch(pattern, name.replace("inner_module.", "")):
                    nn.init.normal_(p, mean=0.0, std=std)

    def forward(self, x):
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def example_inputs():
    return (torch.randn(4, 8),)
