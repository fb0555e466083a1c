import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, d=24, h=48, n=4):
        super().__init__()
        self.gate = nn.Linear(d, n)
        self.w = nn.Parameter(torch.randn(d, h).mul(0.2).repeat(n, 1, 1))
        self.v = nn.Parameter(torch.randn(n, h, d) * 0.2)
        self.head = nn.Linear(d, 3)

    def forward(self, x):
        p = self.gate(x).softmax(-1)
        y = torch.bmm(x.unsqueeze(0).expand(self.w.shape[0], -1, -1), self.w).relu()
        y = torch.bmm(y, self.v).transpose(0, 1)
        return self.head((p.unsqueeze(-1) * y).sum(1))


def example_inputs():
    return (torch.randn(16, 24),)
