import math

import torch
from torch import nn


def truncated(shape, std):
    """Normal values by the inverse of the error function, in half precision."""
    u = (2 * torch.rand(shape) - 1).clamp(-0.95, 0.95)
    values = torch.erfinv(u) * math.sqrt(2) * std
    return values.clamp(-2, 2)


class Model(nn.Module):
    def __init__(self, vocab=3000, d=32):
        super().__init__()
        self.embed = nn.Embedding(vocab, d)
        self.embed.weight.data.copy_(truncated((vocab, d), 0.02))
        self.out = nn.Linear(d, 4)

    def forward(self, ids):
        return self.out(self.embed(ids).mean(1))


def example_inputs():
    return (torch.randint(0, 3000, (4, 16)),)
