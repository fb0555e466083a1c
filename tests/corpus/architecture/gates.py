import math, torch
import torch.nn.functional as F
from torch import nn


class Highway(nn.Module):
    b = -2.0
    n = 10

    def __init__(self, d=32):
        super().__init__()
        self.H = nn.ModuleList(nn.Linear(d, d) for _ in range(self.n))
        self.T = nn.ModuleList(nn.Linear(d, d) for _ in range(self.n))
        self.o = nn.Linear(d, 3)
        for t in self.T:
            nn.init.constant_(t.bias, self.b)

    def forward(self, x):
        for h, t in zip(self.H, self.T):
            g = torch.sigmoid(t(x))
            x = g * F.relu(h(x)) + (1 - g) * x
        return self.o(x)


class HwOk(Highway):
    "ok"


class HwPos(Highway):
    "+2: carry gate closed: bug (sign)"

    b = 2.0


class HwZero(Highway):
    b = 0.0


class HwCarry(Highway):
    "gate multiplies x: +2 right"

    b = 2.0

    def forward(self, x):
        for h, t in zip(self.H, self.T):
            c = torch.sigmoid(t(x))
            x = c * x + (1 - c) * F.relu(h(x))
        return self.o(x)


class HwCarryNeg(HwCarry):
    "gate multiplies x: -2 bug"

    b = -2.0


class GTrXL(nn.Module):
    "GRU gating: bias bg=2 subtracts: z=sigmoid(Wz+Uz-bg)"

    def __init__(self, d=32, bg=2.0):
        super().__init__()
        self.wr, self.ur, self.wz, self.uz, self.wg, self.ug = (nn.Linear(d, d) for _ in range(6))
        self.bg = nn.Parameter(torch.full((d,), bg))
        self.f = nn.Linear(d, d)
        self.o = nn.Linear(d, 3)

    def forward(self, x):
        y = F.relu(self.f(x))
        r = torch.sigmoid(self.wr(y) + self.ur(x))
        z = torch.sigmoid(self.wz(y) + self.uz(x) - self.bg)
        h = torch.tanh(self.wg(y) + self.ug(r * x))
        return self.o((1 - z) * x + z * h)


def example_inputs():
    return (torch.randn(8, 32),)
