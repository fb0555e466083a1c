import math, torch
import torch.nn.functional as F
from torch import nn

D = 32


def mod(x, sh, sc):
    return x * (1 + sc.unsqueeze(1)) + sh.unsqueeze(1)


class DiT(nn.Module):
    def __init__(self, d=D, n=4):
        super().__init__()
        self.t = nn.Linear(16, d)
        self.inp = nn.Linear(8, d)
        self.blocks = nn.ModuleList(DBlock(d) for _ in range(n))
        self.nf = nn.LayerNorm(d, elementwise_affine=False)
        self.out = nn.Linear(d, 8)
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.xavier_uniform_(m.weight)
                nn.init.zeros_(m.bias)
        self.post()

    def post(self):
        pass

    def forward(self, x, t):
        c = F.silu(self.t(t))
        x = self.inp(x)
        for b in self.blocks:
            x = b(x, c)
        return self.out(self.nf(x))


class DBlock(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.n1 = nn.LayerNorm(d, elementwise_affine=False)
        self.n2 = nn.LayerNorm(d, elementwise_affine=False)
        self.qkv = nn.Linear(d, 3 * d)
        self.proj = nn.Linear(d, d)
        self.f1 = nn.Linear(d, 4 * d)
        self.f2 = nn.Linear(4 * d, d)
        self.ada = nn.Sequential(nn.SiLU(), nn.Linear(d, 6 * d))

    def attn(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, 4, d // 4).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, d))

    def forward(self, x, c):
        s1, c1, g1, s2, c2, g2 = self.ada(c).chunk(6, dim=1)
        x = x + g1.unsqueeze(1) * self.attn(mod(self.n1(x), s1, c1))
        return x + g2.unsqueeze(1) * self.f2(F.gelu(self.f1(mod(self.n2(x), s2, c2))))


class A_ok(DiT):
    def post(self):
        for b in self.blocks:
            nn.init.zeros_(b.ada[1].weight)
            nn.init.zeros_(b.ada[1].bias)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)


class A_shiftscale(DiT):
    "only shift and scale zeroed (first 2 chunks each), gates random: bug"

    def post(self):
        d = D
        for b in self.blocks:
            w = b.ada[1].weight.data
            w[0 : 2 * d] = 0
            w[3 * d : 5 * d] = 0


class A_wrongfirst(DiT):
    "gate rows taken as [0:d] and [3d:4d] (shift) : bug"

    def post(self):
        d = D
        for b in self.blocks:
            w = b.ada[1].weight.data
            w[0:d] = 0
            w[3 * d : 4 * d] = 0


class A_gatesonly(DiT):
    "gates zero only: right"

    def post(self):
        d = D
        for b in self.blocks:
            w = b.ada[1].weight.data
            w[2 * d : 3 * d] = 0
            w[5 * d :] = 0


class A_never(DiT):
    "adaLN-zero missing: choice"


class A_both(DiT):
    "ada zero and proj zero: both zero: stuck"

    def post(self):
        for b in self.blocks:
            nn.init.zeros_(b.ada[1].weight)
            nn.init.zeros_(b.ada[1].bias)
            nn.init.zeros_(b.proj.weight)
            nn.init.zeros_(b.f2.weight)
            nn.init.zeros_(b.proj.bias)
            nn.init.zeros_(b.f2.bias)


class A_half(DiT):
    "one gate of two closed: siblings differ"

    def post(self):
        d = D
        for b in self.blocks:
            b.ada[1].weight.data[2 * d : 3 * d] = 0


class A_biasone(DiT):
    "gate biases one with zero weight: choice"

    def post(self):
        d = D
        for b in self.blocks:
            nn.init.zeros_(b.ada[1].weight)
            nn.init.zeros_(b.ada[1].bias)
            b.ada[1].bias.data[2 * d : 3 * d] = 1
            b.ada[1].bias.data[5 * d :] = 1


class A_onescale(DiT):
    "1+scale and scale bias 1 : doubles"

    def post(self):
        d = D
        for b in self.blocks:
            nn.init.zeros_(b.ada[1].weight)
            nn.init.zeros_(b.ada[1].bias)
            b.ada[1].bias.data[d : 2 * d] = 1
            b.ada[1].bias.data[4 * d : 5 * d] = 1


def example_inputs():
    return torch.randn(4, 6, 8), torch.randn(4, 16)
