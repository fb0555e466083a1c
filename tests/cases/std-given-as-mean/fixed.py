import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, z=64, width=128):
        super().__init__()
        self.gen = nn.Sequential(
            nn.Linear(z, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, 96),
            nn.Tanh(),
        )
        for m in self.gen:
            if isinstance(m, nn.Linear):
                m.weight.data.normal_(0, 0.1)
                m.bias.data.zero_()

    def forward(self, z):
        return self.gen(z)


def example_inputs():
    return (torch.randn(16, 64),)
