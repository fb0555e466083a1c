import torch
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.decoder = nn.Linear(32, 100)
        self.init_weights(0.1)

    def init_weights(self, r):
        self.decoder.weight.data.zero_()
        self.decoder.weight.data.uniform_(-r, r)

    def forward(self, x):
        return self.decoder(self.body(x))


def example_inputs():
    return (torch.randn(16, 32),)
