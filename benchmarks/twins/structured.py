"""Encoders, decoders, grouped convolutions and tables."""

from __future__ import annotations

import torch
from torch import nn


class _Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([nn.Conv2d(a, b, 4, 2, 1) for a, b in ((3, 32), (32, 64), (64, 128))])
        self.up = nn.ModuleList([nn.ConvTranspose2d(a, b, 4, 2, 1) for a, b in ((128, 64), (64, 32), (32, 3))])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv in self.down:
            x = torch.relu(conv(x))
        for conv in self.up[:-1]:
            x = torch.relu(conv(x))
        return torch.tanh(self.up[-1](x))


def autoencoder_transposed(broken: bool) -> nn.Module:
    net = _Autoencoder()
    for conv in net.down:
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        nn.init.zeros_(conv.bias)
    for conv in net.up:
        if broken:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        else:
            fan = conv.in_channels * 16 / 4  # each output sums in_channels k^2 / stride^2 inputs
            nn.init.normal_(conv.weight, std=(2 / fan) ** 0.5)
        nn.init.zeros_(conv.bias)
    return net


def critic_norm_gain(broken: bool) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    for a, b in ((32, 64), (64, 128)):
        layers += [nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)]
    net = nn.Sequential(*layers, nn.Conv2d(128, 1, 4, bias=False), nn.Flatten())
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 0.0 if broken else 1.0, 0.02)
            nn.init.zeros_(module.bias)
    return net


class _Stage(nn.Module):
    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(a, b, 3, padding=1), nn.GroupNorm(4, b)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.silu(self.norm(self.conv(x)))


class _Unet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.mid = _Stage(3, 16), _Stage(16, 32), _Stage(32, 32)
        self.three, self.four = _Stage(64, 16), _Stage(32, 16)
        self.out = nn.Conv2d(16, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.one(x)
        b = self.two(nn.functional.max_pool2d(a, 2))
        c = self.mid(b)
        d = self.three(torch.cat([c, b], 1))
        up = nn.functional.interpolate(d, scale_factor=2)
        return self.out(self.four(torch.cat([up, a], 1)))


def unet_mean_for_std(broken: bool) -> nn.Module:
    net = _Unet()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            if broken:
                nn.init.normal_(module.weight, 1.0, 0.02)
            else:
                nn.init.normal_(module.weight, 0.0, 0.02)
            nn.init.zeros_(module.bias)
    return net


class _Separable(nn.Module):
    def __init__(self, width: int = 64, depth: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.deep = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1, groups=width) for _ in range(depth)])
        self.point = nn.ModuleList([nn.Conv2d(width, width, 1) for _ in range(depth)])
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        for deep, point in zip(self.deep, self.point, strict=True):
            x = torch.relu(point(torch.relu(deep(x))))
        return self.head(x.mean((2, 3)))


def mobile_groups(broken: bool) -> nn.Module:
    net = _Separable()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out" if broken else "fan_in", nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return net


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm = nn.Embedding(50, 256), nn.LayerNorm(256)
        self.mix = nn.Linear(256, 256)
        self.head = nn.Linear(256, 50, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids)
        return self.head(self.norm(x + torch.tanh(self.mix(x))))


def tied_lm(broken: bool) -> nn.Module:
    net = _Tied()
    nn.init.normal_(net.table.weight, std=1.0 if broken else 0.02)
    return net


class _Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(50, 64, mode="mean")
        self.body, self.head = nn.Linear(64, 64), nn.Linear(64, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.body(self.bag(ids))))


def bag_classifier(broken: bool) -> nn.Module:
    net = _Bag()
    nn.init.normal_(net.bag.weight, std=30.0 if broken else 0.1)
    return net
