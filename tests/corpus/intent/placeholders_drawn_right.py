import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.pos = nn.Parameter(torch.zeros(1, 8, d))
        self.cls = nn.Parameter(torch.ones(1, 1, d))
        self.inp, self.out = nn.Linear(8, d), nn.Linear(d, 4)
        for n, p in self.named_parameters():
            if p.dim() > 1:
                nn.init.trunc_normal_(p, std=0.02)
            else:
                nn.init.zeros_(p)

    def forward(self, x):
        h = self.inp(x) + self.pos
        return self.out(torch.cat([self.cls.expand(h.shape[0], -1, -1), h], 1).mean(1))


def example_inputs():
    return (torch.randn(4, 8, 8),)
