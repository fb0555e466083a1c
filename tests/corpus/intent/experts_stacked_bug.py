import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, d=24, n=4):
        super().__init__()
        one = nn.Linear(d, d)
        self.w = nn.Parameter(torch.stack([one.weight.detach() for _ in range(n)]))
        self.gate = nn.Linear(d, n)
        self.head = nn.Linear(d, 3)

    def forward(self, x):
        p = self.gate(x).softmax(-1)
        y = torch.einsum("bd,ned->bne", x, self.w).relu()
        return self.head(torch.einsum("bn,bne->be", p, y))


def example_inputs():
    return (torch.randn(16, 24),)
