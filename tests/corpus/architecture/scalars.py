import math, torch
import torch.nn.functional as F
from torch import nn


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(40, 32), nn.Linear(24, 32)

    def feats(self, x, y):
        return F.normalize(self.a(x), dim=-1), F.normalize(self.b(y), dim=-1)


class A1(Base):
    "raw 100 exponentiated after the product"

    def __init__(self):
        super().__init__()
        self.s = nn.Parameter(torch.tensor([10.0]))

    def forward(self, x, y):
        a, b = self.feats(x, y)
        l = a @ b.t()
        return l * torch.exp(self.s)


class A2(Base):
    "log stored, used raw"

    def __init__(self):
        super().__init__()
        self.s = nn.Parameter(torch.ones([]) * math.log(1 / 0.07))

    def forward(self, x, y):
        a, b = self.feats(x, y)
        return self.s * (a @ b.t())


class A3(Base):
    "temperature multiplies"

    def __init__(self):
        super().__init__()
        self.t = nn.Parameter(torch.tensor(0.07))

    def forward(self, x, y):
        a, b = self.feats(x, y)
        return (a @ b.t()) * self.t


class A4(Base):
    "divides by exp(log(1/.07))"

    def __init__(self):
        super().__init__()
        self.t = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, x, y):
        a, b = self.feats(x, y)
        return (a @ b.t()) / self.t.exp()


class A5(Base):
    "clamped, ok"

    def __init__(self):
        super().__init__()
        self.t = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, x, y):
        a, b = self.feats(x, y)
        return (a @ b.t()) * self.t.exp().clamp(max=100)


class A6(Base):
    "siglip, ok"

    def __init__(self):
        super().__init__()
        self.t = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.tensor(-10.0))

    def forward(self, x, y):
        a, b = self.feats(x, y)
        return (a @ b.t()) * self.t.exp() + self.bias


class A7(Base):
    "temperature as a param, ok"

    def __init__(self):
        super().__init__()
        self.t = nn.Parameter(torch.tensor(0.07))

    def forward(self, x, y):
        a, b = self.feats(x, y)
        return (a @ b.t()) / self.t


class A8(Base):
    "clamped raw: saturates at the clamp, which has no gradient"

    def __init__(self):
        super().__init__()
        self.t = nn.Parameter(torch.tensor(1 / 0.07))

    def forward(self, x, y):
        a, b = self.feats(x, y)
        return (a @ b.t()) * self.t.exp().clamp(max=100)


class A9(Base):
    "swin v2 style, ok: log(10) per head, clamp"

    def __init__(self):
        super().__init__()
        self.t = nn.Parameter(torch.log(10 * torch.ones(4, 1, 1)))

    def forward(self, x, y):
        a, b = self.feats(x, y)
        q, k = a.view(8, 4, 8, 1).transpose(0, 1)[..., 0], b.view(8, 4, 8, 1).transpose(0, 1)[..., 0]
        l = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        return (l * torch.clamp(self.t, max=math.log(100)).exp()).softmax(-1).mean(0)


class B1(Base):
    "1/temperature at zero"

    def __init__(self):
        super().__init__()
        self.t = nn.Parameter(torch.zeros(1))

    def forward(self, x, y):
        a, b = self.feats(x, y)
        return (a @ b.t()) * (1 / self.t)


class B2(Base):
    "per channel scale zeros divides"

    def __init__(self):
        super().__init__()
        self.t = nn.Parameter(torch.zeros(32))

    def forward(self, x, y):
        return self.a(x) / self.t + self.b(y)


class B3(Base):
    "protected"

    def __init__(self):
        super().__init__()
        self.t = nn.Parameter(torch.zeros(1))

    def forward(self, x, y):
        a, b = self.feats(x, y)
        return (a @ b.t()) / (F.softplus(self.t) + 1e-4)


class B4(Base):
    "clamp eps: 1e6"

    def __init__(self):
        super().__init__()
        self.t = nn.Parameter(torch.zeros(1))

    def forward(self, x, y):
        a, b = self.feats(x, y)
        return ((a @ b.t()) / self.t.clamp(min=1e-6)).softmax(-1)


class B5(Base):
    "log of zero"

    def __init__(self):
        super().__init__()
        self.t = nn.Parameter(torch.zeros(32))

    def forward(self, x, y):
        return self.a(x) * torch.log(self.t) + self.b(y)


class B6(Base):
    "sqrt at zero: infinite gradient"

    def __init__(self):
        super().__init__()
        self.t = nn.Parameter(torch.zeros(32))

    def forward(self, x, y):
        return self.a(x) * torch.sqrt(self.t) + self.b(y)


class B7(Base):
    "rsqrt / pow"

    def __init__(self):
        super().__init__()
        self.t = nn.Parameter(torch.zeros(1))

    def forward(self, x, y):
        return (self.a(x) @ self.b(y).t()) * self.t.pow(-1)


class B8(nn.Module):
    "homoscedastic: exp(-s), s = 0 ok"

    def __init__(self):
        super().__init__()
        self.f = nn.Linear(40, 2)
        self.s = nn.Parameter(torch.zeros(2))

    def forward(self, x, y):
        return (self.f(x) * torch.exp(-self.s) + self.s).sum(-1)


class B9(nn.Module):
    "1/(2 sigma^2), sigma zero"

    def __init__(self):
        super().__init__()
        self.f = nn.Linear(40, 2)
        self.s = nn.Parameter(torch.zeros(2))

    def forward(self, x, y):
        return (self.f(x) ** 2 / (2 * self.s**2) + torch.log(self.s)).sum(-1)


def example_inputs():
    return torch.randn(8, 40), torch.randn(8, 24)
