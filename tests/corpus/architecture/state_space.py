import math, torch
import torch.nn.functional as F
from torch import nn


class Mamba(nn.Module):
    def __init__(self, d=16, n=4, r=2):
        super().__init__()
        self.inp = nn.Linear(d, 2 * d)
        self.x = nn.Linear(d, r + 2 * n, bias=False)
        self.dt = nn.Linear(r, d)
        self.n, self.r = n, r
        self.A_log = nn.Parameter(torch.log(torch.arange(1, n + 1).float().repeat(d, 1)))
        self.D = nn.Parameter(torch.ones(d))
        self.out = nn.Linear(d, d)
        dt = torch.exp(torch.rand(d) * (math.log(0.1) - math.log(0.001)) + math.log(0.001)).clamp(min=1e-4)
        with torch.no_grad():
            self.dt.bias.copy_(dt + torch.log(-torch.expm1(-dt)))
        self.post()

    def post(self):
        pass

    def A(self):
        return -torch.exp(self.A_log)

    def forward(self, u):
        x, z = self.inp(u).chunk(2, -1)
        x = F.silu(x)
        d, B, C = self.x(x).split([self.r, self.n, self.n], -1)
        dt = F.softplus(self.dt(d))
        A = self.A()
        h = torch.zeros(u.shape[0], u.shape[2], self.n)
        ys = []
        for t in range(u.shape[1]):
            h = torch.exp(dt[:, t, :, None] * A) * h + dt[:, t, :, None] * B[:, t, None, :] * x[:, t, :, None]
            ys.append((h * C[:, t, None, :]).sum(-1))
        y = torch.stack(ys, 1) + self.D * x
        return self.out(y * F.silu(z))


class M_ok(Mamba):
    "ok"


class M_rawA(Mamba):
    "A_log holds arange itself, not its log: exp(1..n)"

    def post(self):
        self.A_log.data.copy_(torch.arange(1, self.n + 1).float().repeat(16, 1))


class M_pos(Mamba):
    "A = +exp: unstable"

    def A(self):
        return torch.exp(self.A_log)


class M_dtraw(Mamba):
    "bias holds dt itself instead of softplus inverse"

    def post(self):
        self.dt.bias.data.copy_(torch.exp(torch.rand(16) * (math.log(0.1) - math.log(0.001)) + math.log(0.001)))


class M_dtzero(Mamba):
    def post(self):
        self.dt.bias.data.zero_()


class M_dtlog(Mamba):
    "log dt without correction: nearly right"

    def post(self):
        self.dt.bias.data.copy_(torch.rand(16) * (math.log(0.1) - math.log(0.001)) + math.log(0.001))


class M_D0(Mamba):
    def post(self):
        self.D.data.zero_()


class M_A0(Mamba):
    "A_log zeros: all states equal"

    def post(self):
        self.A_log.data.zero_()


class Heads(nn.Module):
    "one time step and one rate for each head, the bias a parameter of its own"

    start = 0.01
    slowest = 1.0

    def __init__(self, d=16, heads=4, n=5):
        super().__init__()
        self.k, self.v = nn.Linear(d, n), nn.Linear(d, d)
        self.q, self.step = nn.Linear(d, n), nn.Linear(d, heads, bias=False)
        self.shift = nn.Parameter(torch.full((heads,), math.log(math.expm1(self.start))))
        self.rates = nn.Parameter(torch.log(torch.linspace(self.slowest, 6.0, heads)))
        self.heads, self.out = heads, nn.Linear(d, d)

    def forward(self, u):
        b, t, d = u.shape
        step = F.softplus(self.step(u) + self.shift)
        keep = torch.exp(-self.rates.exp() * step)
        v = self.v(u).view(b, t, self.heads, -1) * step[..., None]
        k, q, s, ys = self.k(u), self.q(u), 0.0, []
        for i in range(t):
            s = keep[:, i, :, None, None] * s + v[:, i, :, :, None] * k[:, i, None, None]
            ys.append((s * q[:, i, None, None]).sum(-1).flatten(1))
        return self.out(torch.stack(ys, 1))


class H_ok(Heads):
    "ok"


class H_long(Heads):
    "steps of 1.6 where the slowest rate makes memories of many tokens of them"

    start = 1.6
    slowest = 0.01


class H_forgets(Heads):
    "steps of 2: exp(-2) at most is left of a state after a token"

    start = 2.0


def example_inputs():
    return (torch.randn(2, 6, 16),)
