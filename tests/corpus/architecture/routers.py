import torch
import torch.nn.functional as F
from torch import nn


class Mixture(nn.Module):
    "N(0, 1) behind a norm: scores of std 8"

    std = 1.0

    def __init__(self, d=64, experts=8):
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.router = nn.Linear(d, experts, bias=False)
        self.experts = nn.ModuleList([nn.Sequential(nn.Linear(d, d), nn.GELU(), nn.Linear(d, d)) for _ in range(experts)])
        self.head = nn.Linear(d, 4)
        if self.std:
            nn.init.normal_(self.router.weight, std=self.std)

    def forward(self, x: torch.Tensor):
        h = self.norm(x)
        return self.head(h + self.mix(h, self.router(h)))

    def mix(self, h, scores):
        weights = scores.softmax(-1)
        return (torch.stack([e(h) for e in self.experts], 1) * weights.unsqueeze(-1)).sum(1)


def example_inputs():
    return (torch.randn(24, 64),)


class Small(Mixture):
    std = 0.02


class Default(Mixture):
    std = None


class BestTwo(Mixture):
    "softmax behind the choice"

    def mix(self, h, scores):
        best, index = scores.topk(2, dim=-1)
        weights = torch.zeros_like(scores).scatter(1, index, best.softmax(-1))
        return (torch.stack([e(h) for e in self.experts], 1) * weights.unsqueeze(-1)).sum(1)


class Renormalised(Mixture):
    "the weights of the chosen sum to one"

    def mix(self, h, scores):
        best, index = scores.softmax(-1).topk(2, dim=-1)
        weights = torch.zeros_like(scores).scatter(1, index, best / best.sum(-1, keepdim=True))
        return torch.einsum("ne,ned->nd", weights, torch.stack([e(h) for e in self.experts], 1))


class Dispatched(Mixture):
    "each expert gets its own rows"

    def mix(self, h, scores):
        best, index = F.softmax(scores, dim=-1, dtype=torch.float).topk(2, dim=-1)
        out = torch.zeros_like(h)
        for number, expert in enumerate(self.experts):
            rows, place = torch.where(index == number)
            out.index_add_(0, rows, expert(h[rows]) * best[rows, place, None])
        return out


class DispatchedSmall(Dispatched):
    std = 0.02


class Temperature(Mixture):
    "divided before softmax"

    def mix(self, h, scores):
        return super().mix(h, scores / 16.0)


class Classifier(nn.Module):
    "a softmax that is the output, with large weights"

    def __init__(self):
        super().__init__()
        self.norm, self.body, self.head = nn.LayerNorm(64), nn.Linear(64, 64), nn.Linear(64, 8)
        nn.init.normal_(self.head.weight)

    def forward(self, x: torch.Tensor):
        return self.head(torch.relu(self.body(self.norm(x)))).softmax(-1)


class CopyOrWrite(nn.Module):
    "a pointer generator: the softmax over words is scaled by a gate"

    def __init__(self):
        super().__init__()
        self.norm, self.gate, self.words = nn.LayerNorm(64), nn.Linear(64, 1), nn.Linear(64, 30)
        nn.init.normal_(self.words.weight)

    def forward(self, x: torch.Tensor):
        h = self.norm(x)
        return self.words(h).softmax(-1) * torch.sigmoid(self.gate(h))


class Pooled(nn.Module):
    "attention over positions"

    def __init__(self):
        super().__init__()
        self.body, self.score, self.head = nn.Linear(64, 64), nn.Linear(64, 1), nn.Linear(64, 4)

    def forward(self, x: torch.Tensor):
        h = torch.tanh(self.body(x)).reshape(4, 6, 64)
        return self.head((h * self.score(h).softmax(1)).sum(1))
