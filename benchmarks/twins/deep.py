"""Recurrent and residual nets: GRU, ViT, mixer, residual MLP, post-norm transformer."""

from __future__ import annotations

import torch
from torch import nn


class _Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(32, 64, batch_first=True)
        self.head = nn.Linear(64, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out, _ = self.gru(x)
        return self.head(out[:, -1])


def gru_normal(broken: bool) -> nn.Module:
    net = _Reader()
    for name, parameter in net.gru.named_parameters():
        if "weight" in name:
            if broken:
                nn.init.normal_(parameter)
            elif "hh" in name:
                for gate in parameter.chunk(3):
                    nn.init.orthogonal_(gate)
            else:
                nn.init.xavier_uniform_(parameter)
        else:
            nn.init.zeros_(parameter)
    return net


class _Block(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, t, 3, 4, d // 4).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * (d // 4) ** -0.5).softmax(-1)
        x = x + self.proj((weights @ v).transpose(1, 2).reshape(b, t, d))
        return x + self.mlp(self.norm2(x))


class _Vit(nn.Module):
    def __init__(self, dim: int = 64, depth: int = 6) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, dim, 8, stride=8)
        self.cls = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos = nn.Parameter(torch.zeros(1, 17, dim))
        self.blocks = nn.ModuleList([_Block(dim) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.pos
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def vit_normal(broken: bool) -> nn.Module:
    net = _Vit()
    for module in net.modules():
        if isinstance(module, nn.Linear):
            if broken:
                nn.init.normal_(module.weight)
            else:
                nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    nn.init.trunc_normal_(net.cls, std=0.02)
    nn.init.trunc_normal_(net.pos, std=0.02)
    return net


class _Mix(nn.Module):
    def __init__(self, tokens: int, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.tokens = nn.Sequential(nn.Linear(tokens, 32), nn.GELU(), nn.Linear(32, tokens))
        self.channels = nn.Sequential(nn.Linear(dim, 64), nn.GELU(), nn.Linear(64, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


def mixer_constant(broken: bool) -> nn.Module:
    blocks = [_Mix(16, 32) for _ in range(4)]
    for block in blocks:
        for part in (block.tokens, block.channels):
            for layer in (part[0], part[2]):
                if broken:
                    nn.init.constant_(layer.weight, 0.02)
                else:
                    nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
    return nn.Sequential(*blocks, nn.LayerNorm(32), nn.Linear(32, 10))


class _Residual(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.up(x)))


def residual_unscaled(broken: bool) -> nn.Module:
    blocks = [_Residual(64) for _ in range(40)]
    for block in blocks:
        nn.init.kaiming_normal_(block.up.weight)
        nn.init.zeros_(block.up.bias)
        if broken:
            nn.init.kaiming_normal_(block.down.weight)
        else:
            nn.init.normal_(block.down.weight, std=(2 / 64 / 40) ** 0.5)
        nn.init.zeros_(block.down.bias)
    return nn.Sequential(*blocks, nn.Linear(64, 10))


class _Encoder(nn.Module):
    def __init__(self, copies: bool) -> None:
        super().__init__()

        def layer() -> nn.Module:
            return nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0)

        self.layers = nn.TransformerEncoder(layer(), 6).layers if copies else nn.ModuleList([layer() for _ in range(6)])
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))


def post_norm_clones(broken: bool) -> nn.Module:
    return _Encoder(broken)
