"""The method asks for a layer that the class never makes; the layers it does make keep the default."""

import torch
from torch import nn


class EdgeConv(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.sender = nn.Linear(inputs, outputs, bias=False)
        self.receiver = nn.Linear(inputs, outputs, bias=False)
        self.shift = nn.Parameter(torch.zeros(outputs))
        self.start()

    def start(self):
        if getattr(self, "lin", None) is not None:
            nn.init.kaiming_normal_(self.lin.weight, nonlinearity="relu")
        nn.init.uniform_(self.shift, -0.1, 0.1)

    def forward(self, x, near):
        return torch.relu(self.receiver(x) + near @ self.sender(x) + self.shift)


class Net(nn.Module):
    def __init__(self, width=60):
        super().__init__()
        sizes = [16, width, width, width]
        self.convs = nn.ModuleList([EdgeConv(a, b) for a, b in zip(sizes, sizes[1:])])
        self.out = nn.Linear(width, 4)

    def forward(self, x, near):
        for conv in self.convs:
            x = conv(x, near)
        return self.out(x)


def example_inputs():
    return (torch.randn(12, 16), torch.eye(12))
