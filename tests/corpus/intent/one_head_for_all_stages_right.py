import torch
from torch import nn


class Model(nn.Module):
    """One head shared by all decoder layers, as in detectors without box refinement."""

    def __init__(self, d=32):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(d, d) for _ in range(3)])
        head = nn.Linear(d, 4)
        self.heads = nn.ModuleList([head for _ in range(3)])

    def forward(self, x):
        out = []
        for layer, head in zip(self.layers, self.heads):
            x = torch.relu(layer(x))
            out.append(head(x))
        return torch.stack(out)


def example_inputs():
    return (torch.randn(16, 32),)
