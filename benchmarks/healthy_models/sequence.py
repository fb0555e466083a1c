"""Healthy models for sequences: transformers, recurrent nets, state spaces."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LSTMClassifier(nn.Module):
    """Embedding, LSTM, linear: all defaults."""

    def __init__(self, vocabulary: int = 200, width: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width, padding_idx=0)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.head = nn.Linear(width, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(self.embed(tokens))
        return self.head(hidden[-1])


class Translator(nn.Module):
    """GRU encoder and decoder with shared vocabulary, defaults."""

    def __init__(self, vocabulary: int = 200, width: int = 64) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(vocabulary, width), nn.Embedding(vocabulary, width)
        self.encoder = nn.GRU(width, width, batch_first=True)
        self.decoder = nn.GRU(width, width, batch_first=True)
        self.out = nn.Linear(width, vocabulary)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        _, state = self.encoder(self.source(source))
        y, _ = self.decoder(self.target(target), state)
        return self.out(y)


class CausalBlock(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).split(d, dim=2)
        q, k, v = (z.view(b, t, self.heads, d // self.heads).transpose(1, 2) for z in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, d)
        x = x + self.proj(y)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """Tied head, N(0, 0.02), residual writers divided by sqrt(2 n_layer); ``zero_positions``: the table starts at zero."""

    def __init__(self, depth: int = 4, width: int = 64, vocabulary: int = 200, zero_positions: bool = False) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.zeros(1, 32, width))
        self.blocks = nn.ModuleList(CausalBlock(width, 4) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        self.apply(self._init)
        for name, p in self.named_parameters():
            if name.endswith(("proj.weight", "down.weight")):
                nn.init.normal_(p, mean=0.0, std=0.02 / math.sqrt(2 * depth))
        if not zero_positions:
            nn.init.normal_(self.positions, std=0.02)

    @staticmethod
    def _init(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, mean=0.0, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, mean=0.0, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions[:, : tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class RMSNorm(nn.Module):
    """Scale by the root mean square."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class UnscaledAttention(nn.Module):
    """T5's attention: no division by sqrt(d), a smaller query matrix instead, a learnt relative bias."""

    def __init__(self, width: int, heads: int, positions: int = 32) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.v, self.o = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.relative = nn.Embedding(2 * positions, heads)
        nn.init.normal_(self.q.weight, std=(width * (width // heads)) ** -0.5)
        for layer in (self.k, self.v, self.o):
            nn.init.normal_(layer.weight, std=width**-0.5)
        nn.init.normal_(self.relative.weight, std=width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = (f(x).view(b, t, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        place = torch.arange(t)
        bias = self.relative(place[None] - place[:, None] + 32).permute(2, 0, 1)
        scores = q @ k.transpose(-1, -2) + bias
        return self.o((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, d))


class T5Encoder(nn.Module):
    """RMS norms, gated GELU, unscaled attention (Raffel et al. 2020)."""

    def __init__(self, depth: int = 3, width: int = 64, hidden: int = 128, vocabulary: int = 200) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embed.weight, std=1.0)
        self.attention = nn.ModuleList(UnscaledAttention(width, 4) for _ in range(depth))
        self.gate = nn.ModuleList(self._linear(width, hidden) for _ in range(depth))
        self.up = nn.ModuleList(self._linear(width, hidden) for _ in range(depth))
        self.down = nn.ModuleList(self._linear(hidden, width) for _ in range(depth))
        self.norms = nn.ModuleList(RMSNorm(width) for _ in range(2 * depth + 1))
        self.head = self._linear(width, vocabulary)

    @staticmethod
    def _linear(a: int, b: int) -> nn.Linear:
        layer = nn.Linear(a, b, bias=False)
        nn.init.normal_(layer.weight, std=a**-0.5)
        return layer

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for i, attention in enumerate(self.attention):
            x = x + attention(self.norms[2 * i](x))
            y = self.norms[2 * i + 1](x)
            x = x + self.down[i](F.gelu(self.gate[i](y)) * self.up[i](y))
        return self.head(self.norms[-1](x))


class PostNormBlock(nn.Module):
    """Attention and MLP, each followed by addition and norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-12), nn.LayerNorm(width, eps=1e-12)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = (f(x).view(b, t, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        scores = q @ k.transpose(-1, -2) / math.sqrt(d // self.heads)
        y = (self.drop(scores.softmax(-1)) @ v).transpose(1, 2).reshape(b, t, d)
        x = self.norm1(x + self.drop(self.o(y)))
        return self.norm2(x + self.drop(self.down(F.gelu(self.up(x)))))


class BERT(nn.Module):
    """Post-norm encoder, N(0, 0.02), padding row zero, a pooled classifier."""

    def __init__(self, depth: int = 4, width: int = 64, vocabulary: int = 200) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width, padding_idx=0)
        self.places, self.kinds = nn.Embedding(32, width), nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.blocks = nn.ModuleList(PostNormBlock(width, 4) for _ in range(depth))
        self.pool, self.classify = nn.Linear(width, width), nn.Linear(width, 3)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
                if module.padding_idx is not None:
                    with torch.no_grad():
                        module.weight[module.padding_idx].zero_()

    def forward(self, tokens: Tensor) -> Tensor:
        place = torch.arange(tokens.shape[1])
        x = self.norm(self.words(tokens) + self.places(place) + self.kinds(torch.zeros_like(tokens)))
        for block in self.blocks:
            x = block(x)
        return self.classify(torch.tanh(self.pool(x[:, 0])))


class SelectiveBlock(nn.Module):
    """A selective state space (Gu & Dao 2023): real diagonal A, step sizes drawn log-uniformly."""

    def __init__(self, width: int = 32, state: int = 8, rank: int = 4) -> None:
        super().__init__()
        inner = 2 * width
        self.state, self.rank = state, rank
        self.norm = nn.LayerNorm(width)
        self.enter = nn.Linear(width, 2 * inner, bias=False)
        self.conv = nn.Conv1d(inner, inner, 4, padding=3, groups=inner)
        self.select = nn.Linear(inner, rank + 2 * state, bias=False)
        self.step = nn.Linear(rank, inner)
        nn.init.uniform_(self.step.weight, -(rank**-0.5), rank**-0.5)
        dt = torch.exp(torch.rand(inner) * (math.log(0.1) - math.log(0.001)) + math.log(0.001)).clamp(min=1e-4)
        with torch.no_grad():
            self.step.bias.copy_(dt + torch.log(-torch.expm1(-dt)))
        self.a_log = nn.Parameter(torch.log(torch.arange(1, state + 1).float().repeat(inner, 1)))
        self.skip = nn.Parameter(torch.ones(inner))
        self.leave = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        t = x.shape[1]
        u, gate = self.enter(self.norm(x)).chunk(2, -1)
        u = F.silu(self.conv(u.transpose(1, 2))[..., :t].transpose(1, 2))
        low, b, c = self.select(u).split([self.rank, self.state, self.state], -1)
        dt = F.softplus(self.step(low))
        decay = torch.exp(dt[..., None] * -torch.exp(self.a_log))
        write = (dt * u)[..., None] * b[:, :, None]
        h, outs = torch.zeros_like(write[:, 0]), []
        for i in range(t):
            h = decay[:, i] * h + write[:, i]
            outs.append((h * c[:, i, None]).sum(-1))
        y = torch.stack(outs, 1) + u * self.skip
        return x + self.leave(y * F.silu(gate))


class Mamba(nn.Module):
    """Two selective blocks between a table and a head."""

    def __init__(self, width: int = 32, vocabulary: int = 100, depth: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.blocks = nn.Sequential(*[SelectiveBlock(width) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embed(tokens))))


class BiaffineParser(nn.Module):
    """Arc scores by a bilinear form that starts at zero (Dozat & Manning 2017)."""

    def __init__(self, vocabulary: int = 100, width: int = 64, arc: int = 48) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width // 2, batch_first=True, bidirectional=True)
        self.head, self.dependent = nn.Linear(width, arc), nn.Linear(width, arc)
        for layer in (self.head, self.dependent):
            nn.init.orthogonal_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.form = nn.Parameter(torch.zeros(arc + 1, arc))

    def forward(self, tokens: Tensor) -> Tensor:
        y, _ = self.lstm(self.embed(tokens))
        h, d = F.leaky_relu(self.head(y), 0.1), F.leaky_relu(self.dependent(y), 0.1)
        d = torch.cat([d, torch.ones_like(d[..., :1])], -1)
        return d @ self.form @ h.transpose(1, 2)


class ViT(nn.Module):
    """Patches, class token, pre-norm blocks, truncated normal 0.02."""

    def __init__(self, depth: int = 4, width: int = 64, classes: int = 10) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, 17, width))
        layer = [VisionBlock(width, 4) for _ in range(depth)]
        self.blocks = nn.Sequential(*layer)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)
        nn.init.trunc_normal_(self.token, std=0.02)
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.apply(self._init)

    @staticmethod
    def _init(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


class VisionBlock(nn.Module):
    """Pre-norm attention by ``nn.MultiheadAttention``-free code and an MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        y = ((q @ k.transpose(-2, -1)) * self.scale).softmax(-1) @ v
        x = x + self.proj(y.transpose(1, 2).reshape(b, n, d))
        return x + self.mlp(self.norm2(x))


class DefaultEncoder(nn.Module):
    """nn.TransformerEncoder as it comes."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 4, 128, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))
