import torch
import torch.nn.functional as F
from torch import nn


class S(nn.Module):
    def __init__(self):
        super().__init__()
        self.loc = nn.Sequential(nn.Conv2d(1, 8, 5), nn.MaxPool2d(2), nn.ReLU())
        self.fc = nn.Sequential(nn.Linear(8 * 16, 32), nn.ReLU(), nn.Linear(32, 6))
        self.c = nn.Linear(144, 5)
        self.init()

    def init(self):
        pass

    def forward(self, x):
        th = self.fc(self.loc(x).flatten(1)).view(-1, 2, 3)
        return self.c(F.grid_sample(x, F.affine_grid(th, x.size())).flatten(1))


class Tut(S):
    "tutorial: ok"

    def init(self):
        self.fc[2].weight.data.zero_()
        self.fc[2].bias.data.copy_(torch.tensor([1, 0, 0, 0, 1, 0], dtype=torch.float))


class Default(S):
    "bug"


class OnlyBias(S):
    "weight default"

    def init(self):
        self.fc[2].bias.data.copy_(torch.tensor([1, 0, 0, 0, 1, 0], dtype=torch.float))


class Swapped(S):
    "transposed identity: bug"

    def init(self):
        self.fc[2].weight.data.zero_()
        self.fc[2].bias.data.copy_(torch.tensor([1, 0, 0, 1, 0, 0], dtype=torch.float))


class Ones(S):
    "all ones: bug"

    def init(self):
        self.fc[2].weight.data.zero_()
        nn.init.ones_(self.fc[2].bias)


class ZeroW_DefaultB(S):
    def init(self):
        nn.init.zeros_(self.fc[2].weight)


class Residual(S):
    "identity added in forward, zero layer: ok"

    def init(self):
        nn.init.zeros_(self.fc[2].weight)
        nn.init.zeros_(self.fc[2].bias)

    def forward(self, x):
        th = self.fc(self.loc(x).flatten(1)).view(-1, 2, 3) + torch.eye(2, 3)
        return self.c(F.grid_sample(x, F.affine_grid(th, x.size())).flatten(1))


class ResidualDefault(Residual):
    "identity added in forward, default layer: note"

    def init(self):
        pass


def example_inputs():
    return (torch.randn(4, 1, 12, 12),)
