import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width=32, depth=6):
        super().__init__()
        self.trunk = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, 4)
        for name, p in self.named_parameters():
            if ("out" in name or "trunk" in name) and p.dim() > 1:
                nn.init.kaiming_normal_(p, nonlinearity="relu")

    def forward(self, x):
        for layer in self.trunk:
            x = torch.relu(layer(x))
        return self.out(self.norm(x))


def example_inputs():
    return (torch.randn(16, 32),)
