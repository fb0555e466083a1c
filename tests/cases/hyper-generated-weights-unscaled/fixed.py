import torch
from torch import nn


class Model(nn.Module):
    """A task embedding generates the weights of a three-layer network."""

    def __init__(self, task=16, d=64, depth=4):
        super().__init__()
        self.d, self.depth = d, depth
        self.make = nn.Linear(task, depth * d * d, bias=False)
        nn.init.normal_(self.make.weight, std=(2 / (task * d)) ** 0.5)
        self.out = nn.Linear(d, 2)

    def forward(self, x, task):
        weights = self.make(task).view(self.depth, self.d, self.d)
        for i in range(self.depth):
            x = torch.relu(x @ weights[i])
        return self.out(x)


def example_inputs():
    return torch.randn(8, 64), torch.randn(16)
