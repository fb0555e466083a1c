import torch
from torch import nn


def draw(m):
    if isinstance(m, nn.Linear):
        nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
        nn.init.zeros_(m.bias)


def stack(depth=3):
    layers = []
    for _ in range(depth):
        layers += [nn.Linear(32, 32), nn.ReLU()]
    return nn.Sequential(*layers)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = stack(), stack()
        self.head = nn.Linear(32, 4)
        nn.init.normal_(self.head.weight, std=0.01)
        self.reset()
        self.reset()

    def reset(self):
        self.encoder.apply(draw)

    def forward(self, x):
        return self.head(self.decoder(self.encoder(x)))


def example_inputs():
    return (torch.randn(16, 32),)
