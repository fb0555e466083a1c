import torch
from torch import nn


def init(m):
    if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)):
        nn.init.normal_(m.weight, 0.0, 0.02)


class Model(nn.Module):
    def __init__(self, z=32, c=32):
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(z, 2 * c, 4, 1, 0, bias=False),
            nn.BatchNorm2d(2 * c),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * c, c, 4, 2, 1, bias=False),
            nn.BatchNorm2d(c),
            nn.ReLU(),
            nn.ConvTranspose2d(c, 3, 4, 2, 1, bias=False),
            nn.Tanh(),
        )
        self.apply(init)

    def forward(self, z):
        return self.main(z)


def example_inputs():
    return (torch.randn(8, 32, 1, 1),)
