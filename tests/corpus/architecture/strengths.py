import torch
from torch import nn


class Blk(nn.Module):
    def __init__(self, d, a, norm=False, per=False):
        super().__init__()
        self.f1 = nn.Conv2d(d, d, 3, padding=1)
        self.f2 = nn.Conv2d(d, d, 3, padding=1)
        self.n = nn.BatchNorm2d(d) if norm else nn.Identity()
        self.g = nn.Parameter(torch.full((d, 1, 1) if per else (1,), a))
        for c in (self.f1, self.f2):
            nn.init.kaiming_normal_(c.weight, mode="fan_in", nonlinearity="relu")
            nn.init.zeros_(c.bias)

    def forward(self, x):
        return x + self.g * self.f2(torch.relu(self.f1(torch.relu(self.n(x)))))


class Net(nn.Module):
    a = 1.0
    norm = False
    per = False
    depth = 16

    def __init__(self, d=16):
        super().__init__()
        self.stem = nn.Conv2d(3, d, 3, padding=1)
        self.b = nn.Sequential(*[Blk(d, self.a, self.norm, self.per) for _ in range(self.depth)])
        self.h = nn.Linear(d, 5)

    def forward(self, x):
        return self.h(self.b(self.stem(x)).mean((2, 3)))


class N1(Net):
    "bug"


class N2(Net):
    "per-channel gain, bug"

    per = True


class N3(Net):
    "zero ok"

    a = 0.0


class N4(Net):
    "norm inside ok"

    norm = True


class N5(Net):
    "shallow ok"

    depth = 5


class N6(Net):
    "small ok"

    a = 0.1


def example_inputs():
    return (torch.randn(2, 3, 16, 16),)
