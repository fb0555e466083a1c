import torch
from torch import nn


class Model(nn.Module):
    """Bottleneck projector that keeps its matrices as (inputs, outputs)."""

    def __init__(self, features=768, bottleneck=32, classes=10):
        super().__init__()
        self.w_down = nn.Parameter(torch.empty(features, bottleneck))
        self.b_down = nn.Parameter(torch.zeros(bottleneck))
        self.w_out = nn.Parameter(torch.empty(bottleneck, classes))
        nn.init.kaiming_normal_(self.w_down)
        nn.init.normal_(self.w_out, std=bottleneck**-0.5)

    def forward(self, x):
        h = torch.relu(x @ self.w_down + self.b_down)
        return h @ self.w_out


def example_inputs():
    return (torch.randn(32, 768),)
