import numpy as np
import torch
from torch import nn


class SSM(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.a_log = nn.Parameter(torch.log(torch.from_numpy(np.tile(np.arange(1, 9, dtype="float32"), (d, 1)))))
        self.inp = nn.Linear(d, d)

    def forward(self, x):
        return x + self.inp(x) * torch.exp(-self.a_log.exp().mean(1))


class Model(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.body = nn.Sequential(SSM(d), SSM(d))
        self.head = nn.Linear(d, 4)

    def forward(self, x):
        return self.head(self.body(x))


def example_inputs():
    return (torch.randn(16, 32),)
