import torch
from torch import nn


class Pointwise(nn.Module):
    """Linear layer in the transposed layout: weight is (inputs, outputs)."""

    def __init__(self, outputs, inputs):
        super().__init__()
        self.outputs = outputs
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x):
        y = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
        return y.view(*x.shape[:-1], self.outputs)


class Model(nn.Module):
    def __init__(self, dim=64, hidden=512, out=16):
        super().__init__()
        self.up = Pointwise(hidden, dim)
        self.down = Pointwise(dim, hidden)
        self.head = nn.Linear(dim, out)
        self.apply(self.init_layer)

    def init_layer(self, m):
        if isinstance(m, Pointwise):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        return self.head(torch.relu(self.down(torch.relu(self.up(x)))))


def example_inputs():
    return (torch.randn(4, 10, 64),)
