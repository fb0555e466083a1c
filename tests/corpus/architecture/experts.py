import torch, copy
import torch.nn.functional as F
from torch import nn


class Exp(nn.Module):
    def __init__(self, d, h):
        super().__init__()
        self.a = nn.Linear(d, h)
        self.b = nn.Linear(h, d)

    def forward(self, x):
        return self.b(F.gelu(self.a(x)))


class Mix(nn.Module):
    "mixtral style dispatch loop; zero gate"

    zero = True

    def __init__(self, d=16, n=4, k=2):
        super().__init__()
        self.k = k
        self.n = n
        self.gate = nn.Linear(d, n, bias=False)
        self.ex = nn.ModuleList(Exp(d, 32) for _ in range(n))
        if self.zero:
            nn.init.constant_(self.gate.weight, 0.0)

    def forward(self, x):
        b, t, d = x.shape
        x = x.view(-1, d)
        p = F.softmax(self.gate(x), dim=1, dtype=torch.float)
        w, sel = torch.topk(p, self.k, dim=-1)
        w = w / w.sum(-1, keepdim=True)
        out = torch.zeros_like(x)
        m = F.one_hot(sel, self.n).permute(2, 1, 0)
        for e in range(self.n):
            i, tk = torch.where(m[e])
            if tk.numel() == 0:
                continue
            out.index_add_(0, tk, self.ex[e](x[tk]) * w[tk, i, None])
        return out.view(b, t, d)


class MixOk(Mix):
    zero = False


class Top1(nn.Module):
    "switch, argmax, ones weight"

    def __init__(self, d=16, n=4, c=1.0):
        super().__init__()
        self.gate = nn.Linear(d, n)
        self.ex = nn.ModuleList(Exp(d, 32) for _ in range(n))
        self.n = n
        nn.init.constant_(self.gate.weight, c)
        nn.init.zeros_(self.gate.bias)

    def forward(self, x):
        p = self.gate(x).softmax(-1)
        v, i = p.max(-1)
        y = torch.stack([e(x) for e in self.ex], -2)
        oh = F.one_hot(i, self.n).to(x.dtype)
        return (y * (oh * v.unsqueeze(-1)).unsqueeze(-1)).sum(-2)


class Soft(nn.Module):
    "dense gate zero: right"

    def __init__(self, d=16, n=4):
        super().__init__()
        self.gate = nn.Linear(d, n)
        self.ex = nn.ModuleList(Exp(d, 32) for _ in range(n))
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, x):
        p = self.gate(x).softmax(-1)
        y = torch.stack([e(x) for e in self.ex], -2)
        return (y * p.unsqueeze(-1)).sum(-2)


class Noisy(nn.Module):
    "Shazeer noisy top-k with zero W_g: right"

    def __init__(self, d=16, n=4):
        super().__init__()
        self.wg = nn.Parameter(torch.zeros(d, n))
        self.wn = nn.Parameter(torch.zeros(d, n))
        self.n = n
        self.ex = nn.ModuleList(Exp(d, 32) for _ in range(n))

    def forward(self, x):
        l = x @ self.wg
        l = l + torch.randn_like(l) * F.softplus(x @ self.wn)
        v, i = l.topk(2, -1)
        g = torch.zeros_like(l).scatter(-1, i, v.softmax(-1))
        y = torch.stack([e(x) for e in self.ex], -2)
        return (y * g.unsqueeze(-1)).sum(-2)


class BareZero(nn.Module):
    "bare parameter router zeros + topk"

    def __init__(self, d=16, n=4):
        super().__init__()
        self.wg = nn.Parameter(torch.zeros(d, n))
        self.n = n
        self.w1 = nn.Parameter(torch.randn(n, d, 32) * d**-0.5)
        self.w2 = nn.Parameter(torch.randn(n, 32, d) * 32**-0.5)

    def forward(self, x):
        v, i = (x @ self.wg).topk(2, -1)
        g = torch.zeros(*x.shape[:-1], self.n).scatter(-1, i, v.softmax(-1))
        y = torch.einsum("btd,edh->bteh", x, self.w1).relu()
        y = torch.einsum("bteh,ehd->bted", y, self.w2)
        return (y * g.unsqueeze(-1)).sum(-2)


class TopkHead(nn.Module):
    "a zero-init classifier whose topk is returned for decoding: innocent"

    def __init__(self, d=16):
        super().__init__()
        self.f = nn.Linear(d, 32)
        self.h = nn.Linear(32, 10)
        nn.init.zeros_(self.h.weight)
        nn.init.zeros_(self.h.bias)

    def forward(self, x):
        return self.h(self.f(x).relu()).topk(3, -1)


class Repeat(nn.Module):
    "experts repeated; bmm"

    def __init__(self, d=16, n=4):
        super().__init__()
        self.gate = nn.Linear(d, n)
        w = torch.empty(d, d)
        nn.init.kaiming_uniform_(w)
        self.w = nn.Parameter(w.unsqueeze(0).repeat(n, 1, 1))
        self.n = n

    def forward(self, x):
        p = self.gate(x).softmax(-1)
        y = torch.matmul(x.unsqueeze(1), self.w)
        return torch.einsum("bte,betd->btd", p, y) if False else (p.permute(0, 2, 1).unsqueeze(-1) * y).sum(1)


class LoopCopy(nn.Module):
    "per-slice copy_ of expert 0"

    def __init__(self, d=16, n=4):
        super().__init__()
        self.gate = nn.Linear(d, n)
        self.w = nn.Parameter(torch.empty(n, d, d))
        nn.init.xavier_uniform_(self.w[0])
        with torch.no_grad():
            for e in range(1, n):
                self.w[e].copy_(self.w[0])

    def forward(self, x):
        p = self.gate(x).softmax(-1)
        y = torch.einsum("btd,edh->bteh", x, self.w)
        return (y * p.unsqueeze(-1)).sum(-2)


class StackOk(nn.Module):
    def __init__(self, d=16, n=4):
        super().__init__()
        self.gate = nn.Linear(d, n)
        self.w = nn.Parameter(torch.stack([nn.init.xavier_uniform_(torch.empty(d, d)) for _ in range(n)]))

    def forward(self, x):
        p = self.gate(x).softmax(-1)
        y = torch.einsum("btd,edh->bteh", x, self.w)
        return (y * p.unsqueeze(-1)).sum(-2)


class BigRouter(nn.Module):
    "N(0,1) router, hard softmax"

    def __init__(self, d=256, n=8):
        super().__init__()
        self.inp = nn.Linear(16, d)
        self.gate = nn.Linear(d, n)
        nn.init.normal_(self.gate.weight)
        self.ex = nn.ModuleList(nn.Linear(d, 16) for _ in range(n))
        self.norm = nn.LayerNorm(d)

    def forward(self, x):
        x = self.norm(self.inp(x))
        p = self.gate(x).softmax(-1)
        y = torch.stack([e(x) for e in self.ex], -2)
        return (y * p.unsqueeze(-1)).sum(-2)


def example_inputs():
    return (torch.randn(4, 6, 16),)
