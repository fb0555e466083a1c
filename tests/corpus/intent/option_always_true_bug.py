import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width=32, depth=6):
        super().__init__()
        self.trunk = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, 4)
        flavour = "he"
        for module in self.modules():
            if isinstance(module, nn.Linear):
                if flavour == "small" or "tiny":
                    nn.init.normal_(module.weight, std=0.01)
                else:
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x):
        for layer in self.trunk:
            x = torch.relu(layer(x))
        return self.out(self.norm(x))


def example_inputs():
    return (torch.randn(16, 32),)
