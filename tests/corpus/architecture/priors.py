import math, torch, numpy as np
from torch import nn


class Det(nn.Module):
    def __init__(self, out=9):
        super().__init__()
        self.tower = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU())
        self.cls = nn.Conv2d(16, out, 1)
        self.box = nn.Conv2d(16, 4, 1)
        nn.init.normal_(self.cls.weight, std=0.01)
        self.prior()

    def prior(self):
        pass

    def forward(self, x):
        h = self.tower(x)
        return self.cls(h).flatten(2), self.box(h)


class P1(Det):
    "raw logits, bug"

    def prior(self):
        pi = 0.01
        b = np.log((1 - pi) / pi)
        self.cls.bias.data.fill_(b)


class P2(Det):
    "ok"

    def prior(self):
        pi = 0.01
        b = -np.log((1 - pi) / pi)
        self.cls.bias.data.fill_(b)


class P3(Det):
    "swap: -log(p/(1-p)) bug"

    def prior(self):
        nn.init.constant_(self.cls.bias, -math.log(0.05 / (1 - 0.05)))


class P4(Det):
    "log10 bug"

    def prior(self):
        p = 0.01
        nn.init.constant_(self.cls.bias, -math.log10((1 - p) / p))


class P5(Det):
    "on the tower: bug"

    def prior(self):
        p = 0.01
        nn.init.constant_(self.tower[0].bias, -math.log((1 - p) / p))


class P6(Det):
    "centernet literal ok"

    def prior(self):
        self.cls.bias.data.fill_(-2.19)


class P7(Det):
    "centernet literal wrong sign, in-graph sigmoid"

    def prior(self):
        self.cls.bias.data.fill_(2.19)

    def forward(self, x):
        h = self.tower(x)
        return self.cls(h).sigmoid(), self.box(h)


class P8(nn.Module):
    "survival prior .99 by logit form: innocent"

    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(10, 16), nn.ReLU())
        self.o = nn.Linear(16, 1)
        p = 0.99
        nn.init.constant_(self.o.bias, math.log(p / (1 - p)))

    def forward(self, x):
        return torch.sigmoid(self.o(self.f(x)))


class P9(nn.Module):
    "regression head with the mean target in the bias: innocent"

    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(10, 16), nn.ReLU())
        self.o = nn.Linear(16, 1)
        self.o.bias.data.fill_(22.53)

    def forward(self, x):
        return self.o(self.f(x))


class Q1(nn.Module):
    "highway gates: bias -2 ok; keep-gate 1.0"

    def __init__(self):
        super().__init__()
        self.h = nn.Linear(16, 16)
        self.t = nn.Linear(16, 16)
        self.o = nn.Linear(16, 3)
        nn.init.constant_(self.t.bias, -2.0)

    def forward(self, x):
        t = torch.sigmoid(self.t(x))
        x = t * torch.relu(self.h(x)) + (1 - t) * x
        return self.o(x)


class Q2(nn.Module):
    "multi-label linear raw, bug with rate/ (1-rate) sign"

    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(10, 16), nn.ReLU())
        self.o = nn.Linear(16, 14)
        rate = 0.03
        self.o.bias.data[:] = math.log((1 - rate) / rate)

    def forward(self, x):
        return self.o(self.f(x))


class Q3(nn.Module):
    "prior in conv head weight"

    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU())
        self.o = nn.Conv2d(16, 4, 1)
        self.o.weight.data.fill_(-4.59511985013459)

    def forward(self, x):
        return self.o(self.f(x))


class Q4(nn.Module):
    "opacity head nerf-ish: literal 0.1: ok"

    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(10, 16), nn.ReLU())
        self.o = nn.Linear(16, 4)
        self.o.bias.data.fill_(0.1)

    def forward(self, x):
        return self.o(self.f(x)).sigmoid()
