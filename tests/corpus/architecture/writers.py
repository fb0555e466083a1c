import math, torch
import torch.nn.functional as F
from torch import nn

D, L, H = 32, 4, 4


class Attn(nn.Module):
    def __init__(self, d=D, fused=True):
        super().__init__()
        self.qkv = nn.Linear(d, 3 * d)
        self.proj = nn.Linear(d, d)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, H, d // H).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, d))


class SwiGLU(nn.Module):
    def __init__(self, d=D, h=64):
        super().__init__()
        self.w1 = nn.Linear(d, h, bias=False)
        self.w2 = nn.Linear(h, d, bias=False)
        self.w3 = nn.Linear(d, h, bias=False)

    def forward(self, x):
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    def __init__(self, d=D):
        super().__init__()
        self.n1 = nn.LayerNorm(d)
        self.a = Attn(d)
        self.n2 = nn.LayerNorm(d)
        self.f = SwiGLU(d)

    def forward(self, x):
        x = x + self.a(self.n1(x))
        return x + self.f(self.n2(x))


class GPT(nn.Module):
    depth = L

    def __init__(self, v=101, d=D):
        super().__init__()
        self.tok = nn.Embedding(v, d)
        self.pos = nn.Embedding(16, d)
        self.h = nn.ModuleList(Block(d) for _ in range(self.depth))
        self.n = nn.LayerNorm(d)
        self.head = nn.Linear(d, v, bias=False)
        self.apply(self._init)
        self.post()

    def _init(self, m):
        if isinstance(m, nn.Linear):
            nn.init.normal_(m.weight, std=0.02)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
        elif isinstance(m, nn.Embedding):
            nn.init.normal_(m.weight, std=0.02)

    def post(self):
        pass

    def forward(self, ids):
        x = self.tok(ids) + self.pos(torch.arange(ids.shape[1]))
        for b in self.h:
            x = b(x)
        return self.head(self.n(x))


def ex():
    return (torch.randint(0, 101, (2, 16)),)


class T_ok(GPT):
    def post(self):
        for n, p in self.named_parameters():
            if n.endswith(("proj.weight", "w2.weight")):
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * self.depth))


class T_onlyattn(GPT):
    "w2 forgotten: proj scaled, w2 not"

    def post(self):
        for n, p in self.named_parameters():
            if n.endswith("proj.weight"):
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * self.depth))


class T_qkv(GPT):
    "qkv gets it instead of proj"

    def post(self):
        for n, p in self.named_parameters():
            if n.endswith(("qkv.weight", "w2.weight")):
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * self.depth))


class T_w1(GPT):
    "w1 instead of w2, proj right"

    def post(self):
        for n, p in self.named_parameters():
            if n.endswith(("proj.weight", "w1.weight")):
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * self.depth))


class T_mul(GPT):
    "scaled up instead of down: std .02*sqrt(2N)"

    def post(self):
        for n, p in self.named_parameters():
            if n.endswith(("proj.weight", "w2.weight")):
                nn.init.normal_(p, std=0.02 * math.sqrt(2 * self.depth))


class T_twice(GPT):
    "scaled twice (mul_ twice)"

    def post(self):
        for n, p in self.named_parameters():
            if n.endswith(("proj.weight", "w2.weight")):
                p.data.mul_(1 / (2 * self.depth))


class T_unit(GPT):
    "positions N(0,1), tok .02"

    def post(self):
        nn.init.normal_(self.pos.weight)


class T_headtie(GPT):
    "tied unit"

    def post(self):
        self.head.weight = self.tok.weight
        nn.init.normal_(self.tok.weight)


class T_bias(GPT):
    "output head fine; padded"


class T_q(GPT):
    "query std big: N(0,1)"

    def post(self):
        for b in self.h:
            nn.init.normal_(b.a.qkv.weight)


class T_sign(GPT):
    "writer zero for both"

    def post(self):
        for b in self.h:
            nn.init.zeros_(b.a.proj.weight)
            nn.init.zeros_(b.f.w2.weight)


class Apart(Attn):
    def __init__(self, d=D):
        super().__init__(d)
        del self.qkv
        self.query, self.key, self.value = (nn.Linear(d, d) for _ in range(3))

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = (f(x).view(b, t, H, d // H).transpose(1, 2) for f in (self.query, self.key, self.value))
        return self.proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, d))


class ApartGPT(GPT):
    scaled = ()

    def post(self):
        for block in self.h:
            block.a = Apart()
            block.a.apply(self._init)
        for n, p in self.named_parameters():
            if n.endswith(("proj.weight", "w2.weight", *self.scaled)):
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * (self.depth + 1)))


class T_scores(ApartGPT):
    "queries and keys get it as well"

    scaled = ("query.weight", "key.weight", "value.weight")


class T_values(ApartGPT):
    "values get it as well, as in DeepNet"

    scaled = ("value.weight",)


example_inputs = ex
