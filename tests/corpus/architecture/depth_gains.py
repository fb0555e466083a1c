import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    def __init__(self, d, heads=4):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(d, d, bias=False) for _ in range(4))

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = (f(x).view(b, t, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, d))


class Layer(nn.Module):
    def __init__(self, d, alpha, norm):
        super().__init__()
        self.alpha = alpha
        self.attention = Attention(d)
        self.up, self.down = nn.Linear(d, 2 * d), nn.Linear(2 * d, d)
        self.n1, self.n2 = (nn.LayerNorm(d), nn.LayerNorm(d)) if norm else (nn.Identity(), nn.Identity())

    def forward(self, x):
        x = self.n1(self.alpha * x + self.attention(x))
        return self.n2(self.alpha * x + self.down(F.relu(self.up(x))))


class Net(nn.Module):
    "T-Fixup: no norms"

    scaled = ("v", "o", "up", "down")
    alpha = 1.0
    norm = False
    depth = 7

    def __init__(self, vocab=60, d=32):
        super().__init__()
        self.table = nn.Embedding(vocab, d)
        self.layers = nn.ModuleList([Layer(d, self.alpha, self.norm) for _ in range(self.depth)])
        self.head = nn.Linear(d, vocab)
        nn.init.normal_(self.table.weight, std=d**-0.5 * (9 * self.depth) ** -0.25)
        for layer in self.layers:
            for name, m in [*layer.attention.named_children(), ("up", layer.up), ("down", layer.down)]:
                nn.init.xavier_normal_(m.weight, gain=self.gain() if name in self.scaled else 1.0)

    def gain(self):
        return 0.67 * self.depth**-0.25

    def forward(self, tokens):
        x = self.table(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class Decoder(Net):
    def gain(self):
        return (9 * self.depth) ** -0.25


class Chooses(Net):
    scaled = ("q", "k")


class NoValues(Net):
    scaled = ("o", "up", "down")


class NoFeedForward(Net):
    scaled = ("v", "o")


class Inverse(Net):
    def gain(self):
        return (9 * self.depth) ** 0.25


class Everything(Net):
    "queries and keys as well: flatter attention, no harm"

    scaled = ("q", "k", "v", "o", "up", "down")


class DeepNorm(Net):
    depth = 6
    alpha = (2 * 6) ** 0.25
    norm = True

    def gain(self):
        return (8 * self.depth) ** -0.25


class AlphaForBeta(DeepNorm):
    def gain(self):
        return self.alpha


class DeepNormChooses(DeepNorm):
    scaled = ("q", "k")


class PlainPostNorm(Net):
    norm = True
    scaled = ()


class SmallWriters(Net):
    "a gain of one's own"

    norm = True
    scaled = ("o", "down")

    def gain(self):
        return 0.3


class RoundNumber(Net):
    "0.5 is (8 N)^-1/4 for two layers, and a number that people choose"

    depth = 2
    scaled = ("q", "k")

    def gain(self):
        return 0.5
