import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, d=32, heads=4):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(d, 3 * d)
        self.out = nn.Linear(d, d)
        self.temperature = nn.Parameter(torch.full((1,), (d / heads) ** 0.5))

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        a = (q @ k.transpose(-2, -1) / self.temperature).softmax(-1)
        return self.out((a @ v).transpose(1, 2).reshape(b, t, d))


def example_inputs():
    return (torch.randn(2, 7, 32),)
