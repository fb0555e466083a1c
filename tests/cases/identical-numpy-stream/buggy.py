import numpy as np
import torch
from torch import nn


def draw(rows, columns):
    rng = np.random.RandomState(0)
    return nn.Parameter(torch.from_numpy(rng.randn(rows, columns).astype("float32") / columns**0.5))


class Model(nn.Module):
    def __init__(self, d=32, depth=3):
        super().__init__()
        self.mats = nn.ParameterList([draw(d, d) for _ in range(depth)])
        self.out = nn.Linear(d, 3)

    def forward(self, x):
        for w in self.mats:
            x = torch.tanh(x @ w.t())
        return self.out(x)


def example_inputs():
    return (torch.randn(8, 32),)
