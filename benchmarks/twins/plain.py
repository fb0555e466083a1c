"""Chains without norms or residual sums: CNNs and MLPs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class _Plain(nn.Module):
    """Convolutions of one width, then a mean over positions and a head."""

    def __init__(self, depth: int, act: Any, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.convs = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1) for _ in range(depth)])
        self.acts = nn.ModuleList([act() for _ in range(depth + 1)])
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.acts[0](self.stem(x))
        for conv, act in zip(self.convs, self.acts[1:], strict=True):
            x = act(conv(x))
        return self.head(x.mean((2, 3)))


def cnn_default(broken: bool) -> nn.Module:
    net = _Plain(13, nn.ReLU)
    if not broken:
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)
    return net


def cnn_small(broken: bool) -> nn.Module:
    net = _Plain(13, nn.ReLU)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            if broken:
                nn.init.normal_(module.weight, std=0.01)
            else:
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return net


def prelu_gain_as_slope(broken: bool) -> nn.Module:
    net = _Plain(12, nn.PReLU)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, a=2**0.5 if broken else 0.25)
            nn.init.zeros_(module.bias)
    return net


class _Chain(nn.Module):
    def __init__(self, depth: int, act: Any, width: int = 64, classes: int = 10) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])
        self.act = act()
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = self.act(layer(x))
        return self.head(x)


def tanh_unit_normal(broken: bool) -> nn.Module:
    net = _Chain(10, nn.Tanh)
    for layer in net.layers:
        if broken:
            nn.init.normal_(layer.weight)
        else:
            nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    return net


def sigmoid_deep(broken: bool) -> nn.Module:
    net = _Chain(10 if broken else 3, nn.Sigmoid)
    for layer in net.layers:
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    return net


def selu_he(broken: bool) -> nn.Module:
    net = _Chain(16, nn.SELU)
    for layer in net.layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu" if broken else "linear")
        nn.init.zeros_(layer.bias)
    return net


def negative_biases(broken: bool) -> nn.Module:
    net = _Chain(4, nn.ReLU)
    for layer in net.layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.constant_(layer.bias, -4.0 if broken else 0.1)
    return net


class _Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU())
        self.head = nn.Linear(512, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def loud_head(broken: bool) -> nn.Module:
    net = _Wide()
    for layer in (net.body[0], net.body[2]):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    nn.init.normal_(net.head.weight, std=1.0 if broken else 0.01)
    nn.init.zeros_(net.head.bias)
    return net


def half_precision(broken: bool) -> nn.Module:
    net = _Chain(8, nn.ReLU)
    for layer in net.layers:
        if broken:
            nn.init.normal_(layer.weight)
        else:
            nn.init.kaiming_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    return net.to(torch.float16)


def ordered_tanh(broken: bool) -> nn.Module:
    net = _Chain(20, nn.Tanh)
    for layer in net.layers:
        nn.init.normal_(layer.weight, std=(0.5 / 64) ** 0.5 if broken else 64**-0.5)
        nn.init.normal_(layer.bias, std=1.0 if broken else 0.01)
    return net


def chaotic_tanh(broken: bool) -> nn.Module:
    net = _Chain(14, nn.Tanh, width=256)
    for layer in net.layers:
        nn.init.xavier_normal_(layer.weight, gain=4.0 if broken else 1.0)
        nn.init.zeros_(layer.bias)
    return net
