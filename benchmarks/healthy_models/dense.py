"""Healthy models made of dense layers: perceptrons, fields, autoencoders, graphs, point sets, policies, adapters."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def default_mlp(depth: int = 3, width: int = 128) -> nn.Module:
    """A shallow perceptron with PyTorch's defaults: by itself no error."""
    layers: list[nn.Module] = [nn.Flatten()]
    size = 28 * 28
    for _ in range(depth - 1):
        layers += [nn.Linear(size, width), nn.ReLU()]
        size = width
    return nn.Sequential(*layers, nn.Linear(size, 10))


class RadianceField(nn.Module):
    """Eight default layers with the encoded position concatenated again half way (Mildenhall et al. 2020)."""

    def __init__(self, encoded: int = 63, width: int = 128) -> None:
        super().__init__()
        sizes = [encoded] + [width + encoded if i == 4 else width for i in range(1, 8)]
        self.hidden = nn.ModuleList(nn.Linear(size, width) for size in sizes)
        self.density = nn.Linear(width, 1)
        self.colour = nn.Linear(width, 3)

    def forward(self, encoded: Tensor) -> Tensor:
        y = encoded
        for i, layer in enumerate(self.hidden):
            y = layer(torch.cat([y, encoded], -1) if i == 4 else y).relu()
        return torch.cat([torch.sigmoid(self.colour(y)), F.relu(self.density(y))], -1)


def he_mlp(width: int = 128, depth: int = 10) -> nn.Module:
    """Kaiming normal before every ReLU, biases zero."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        linear = nn.Linear(width, width)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


class SelfNormalising(nn.Module):
    """SELU with LeCun's variance (Klambauer et al. 2017)."""

    def __init__(self, width: int = 128, depth: int = 8) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.head = nn.Linear(width, 10)
        for layer in self.layers:
            nn.init.normal_(layer.weight, std=1 / math.sqrt(layer.in_features))
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.selu(layer(x))
        return self.head(x)


class TanhOrthogonal(nn.Module):
    """A plain tanh net, orthogonal weights with gain one: on the edge of chaos."""

    def __init__(self, width: int = 96, depth: int = 8) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.head = nn.Linear(width, 10)
        for layer in self.layers:
            nn.init.orthogonal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return self.head(x)


class Sine(nn.Module):
    """A layer of a sinusoidal network: first bound 1/fan_in, later ones sqrt(6/fan_in)/omega (Sitzmann et al. 2020)."""

    def __init__(self, size: int, width: int, first: bool = False, omega: float = 30.0) -> None:
        super().__init__()
        self.omega = omega
        self.linear = nn.Linear(size, width)
        bound = 1 / size if first else math.sqrt(6 / size) / omega
        nn.init.uniform_(self.linear.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.omega * self.linear(x))


def siren(width: int = 128) -> nn.Module:
    """A correct sinusoidal network from coordinates to a colour."""
    head = nn.Linear(width, 3)
    bound = math.sqrt(6 / width) / 30
    nn.init.uniform_(head.weight, -bound, bound)
    return nn.Sequential(Sine(2, width, first=True), Sine(width, width), Sine(width, width), head)


def autoencoder() -> nn.Module:
    """A dense autoencoder with PyTorch's defaults and a sigmoid at the end."""
    sizes = [784, 256, 64, 16, 64, 256, 784]
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1], nn.Sigmoid())


class VariationalAutoencoder(nn.Module):
    """Gaussian latent code by reparametrisation (Kingma & Welling 2014); default layers."""

    def __init__(self, pixels: int = 784, hidden: int = 200, code: int = 20) -> None:
        super().__init__()
        self.enter = nn.Linear(pixels, hidden)
        self.mean = nn.Linear(hidden, code)
        self.log_variance = nn.Linear(hidden, code)
        self.leave = nn.Linear(code, hidden)
        self.pixels = nn.Linear(hidden, pixels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = F.relu(self.enter(x))
        mean, log_variance = self.mean(h), self.log_variance(h)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        return torch.sigmoid(self.pixels(F.relu(self.leave(z)))), mean, log_variance


class ActorCritic(nn.Module):
    """Orthogonal weights, gain sqrt(2) inside, 0.01 for the policy and 1 for the value (the PPO convention)."""

    def __init__(self, observed: int = 24, actions: int = 4, width: int = 64) -> None:
        super().__init__()
        self.actor = nn.Sequential(*self._body(observed, width), self._linear(width, actions, 0.01))
        self.critic = nn.Sequential(*self._body(observed, width), self._linear(width, 1, 1.0))
        self.log_std = nn.Parameter(torch.zeros(1, actions))

    def _body(self, size: int, width: int) -> list[nn.Module]:
        gain = math.sqrt(2)
        return [self._linear(size, width, gain), nn.Tanh(), self._linear(width, width, gain), nn.Tanh()]

    @staticmethod
    def _linear(size: int, width: int, gain: float) -> nn.Linear:
        layer = nn.Linear(size, width)
        nn.init.orthogonal_(layer.weight, gain)
        nn.init.constant_(layer.bias, 0.0)
        return layer

    def forward(self, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = self.actor(seen)
        return mean, self.log_std.expand_as(mean).exp(), self.critic(seen)


class Alignment(nn.Module):
    """PointNet's transform: starts as the identity."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k
        self.conv1, self.conv2 = nn.Conv1d(k, 32, 1), nn.Conv1d(32, 128, 1)
        self.fc1, self.fc2 = nn.Linear(128, 64), nn.Linear(64, k * k)
        self.norm1, self.norm2, self.norm3 = nn.BatchNorm1d(32), nn.BatchNorm1d(128), nn.BatchNorm1d(64)
        nn.init.zeros_(self.fc2.weight)
        with torch.no_grad():
            self.fc2.bias.copy_(torch.eye(k).flatten())

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y))).max(2).values
        return self.fc2(F.relu(self.norm3(self.fc1(y)))).view(-1, self.k, self.k)


class PointNet(nn.Module):
    """Points, an alignment, shared layers, a maximum (Qi et al. 2017)."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.align = Alignment(3)
        self.conv1, self.conv2 = nn.Conv1d(3, 64, 1), nn.Conv1d(64, 256, 1)
        self.norm1, self.norm2 = nn.BatchNorm1d(64), nn.BatchNorm1d(256)
        self.head = nn.Sequential(nn.Linear(256, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, classes))

    def forward(self, points: Tensor) -> Tensor:
        x = torch.bmm(points.transpose(1, 2), self.align(points)).transpose(1, 2)
        x = F.relu(self.norm1(self.conv1(x)))
        return self.head(self.norm2(self.conv2(x)).max(2).values)


class GraphConvolution(nn.Module):
    """Two rounds of neighbour averaging with weights stored (in, out) (Kipf & Welling 2017)."""

    def __init__(self, features: int = 64, width: int = 32, classes: int = 7) -> None:
        super().__init__()
        self.weight1 = nn.Parameter(torch.empty(features, width))
        self.bias1 = nn.Parameter(torch.zeros(width))
        self.weight2 = nn.Parameter(torch.empty(width, classes))
        self.bias2 = nn.Parameter(torch.zeros(classes))
        nn.init.xavier_uniform_(self.weight1)
        nn.init.xavier_uniform_(self.weight2)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        x = torch.relu(adjacency @ (x @ self.weight1) + self.bias1)
        return adjacency @ (x @ self.weight2) + self.bias2


def graph_inputs(nodes: int = 30, features: int = 64) -> tuple[Tensor, Tensor]:
    """Random features and a symmetrically normalised adjacency with self loops."""
    links = torch.rand(nodes, nodes) < 0.1
    a = (links | links.T).float().fill_diagonal_(1.0)
    d = a.sum(1).rsqrt()
    return torch.randn(nodes, features), d[:, None] * a * d[None]


class LowRank(nn.Module):
    """A frozen linear layer with a low-rank update of which exactly one factor is zero (Hu et al. 2021)."""

    def __init__(self, size: int, width: int, rank: int = 8, reverse: bool = False) -> None:
        super().__init__()
        self.base = nn.Linear(size, width)
        self.base.requires_grad_(False)
        self.a = nn.Parameter(torch.empty(rank, size))
        self.b = nn.Parameter(torch.empty(width, rank))
        open_, closed = (self.b, self.a) if reverse else (self.a, self.b)
        nn.init.normal_(open_, std=1 / math.sqrt(open_.shape[1])) if reverse else nn.init.kaiming_uniform_(
            open_, a=math.sqrt(5)
        )
        nn.init.zeros_(closed)
        self.scale = 16 / rank

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + F.linear(F.linear(x, self.a), self.b) * self.scale


def lora_mlp(reverse: bool = False) -> nn.Module:
    """A perceptron whose layers are adapted."""
    return nn.Sequential(
        LowRank(64, 128, reverse=reverse), nn.ReLU(), LowRank(128, 64, reverse=reverse), nn.ReLU(), nn.Linear(64, 10)
    )


class LowRankEmbedding(nn.Module):
    """An adapted table: the factor that is looked up is zero, the other is normal."""

    def __init__(self, vocabulary: int = 100, width: int = 64, rank: int = 4) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, width)
        self.table.requires_grad_(False)
        self.a = nn.Parameter(torch.zeros(rank, vocabulary))
        self.b = nn.Parameter(torch.randn(width, rank))
        self.head = nn.Linear(width, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        update = F.embedding(tokens, self.a.t()) @ self.b.t()
        return self.head((self.table(tokens) + update).mean(1))


def zero_classifier() -> nn.Module:
    """One linear layer, all zero: convex, so nothing is symmetric that stays so."""
    head = nn.Linear(50, 5)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def zero_last_layer() -> nn.Module:
    """A body at its defaults and a last layer of zeros."""
    head = nn.Linear(64, 10)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), head)
