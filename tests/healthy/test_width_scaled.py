"""Transformers scaled for their width as in muP: nothing is said of the right ones, and what is wrong of others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import initlint  # noqa: E402
from initlint.findings import Severity  # noqa: E402

BASE, WIDTH, VOCABULARY = 32, 128, 50
TIMES = WIDTH / BASE
Std = Callable[[nn.Linear], float]


class Attention(nn.Module):
    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        batch, steps, width = x.shape
        q, k, v = (f(x).view(batch, steps, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0 / q.shape[-1])
        return self.o(y.transpose(1, 2).reshape(batch, steps, width))


class Scaled(nn.Module):
    """Four blocks, so that the square root of their number is that of the feed-forward layers' ratio of widths."""

    def __init__(self, hidden: Std, readout: float, multiplier: float, depth: int = 4) -> None:
        super().__init__()
        self.multiplier = multiplier
        self.table = nn.Embedding(VOCABULARY, WIDTH)
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH) for _ in range(2 * depth)])
        self.attention = nn.ModuleList([Attention(WIDTH) for _ in range(depth)])
        self.up = nn.ModuleList([nn.Linear(WIDTH, 4 * WIDTH) for _ in range(depth)])
        self.down = nn.ModuleList([nn.Linear(4 * WIDTH, WIDTH) for _ in range(depth)])
        self.norm, self.readout = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY, bias=False)
        nn.init.normal_(self.table.weight, std=0.02)
        for layer in self.hidden():
            nn.init.normal_(layer.weight, std=hidden(layer))
        nn.init.normal_(self.readout.weight, std=readout) if readout else nn.init.zeros_(self.readout.weight)

    def hidden(self) -> Iterator[nn.Linear]:
        return (m for m in self.modules() if isinstance(m, nn.Linear) and m is not self.readout)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens)
        for place, (attention, up, down) in enumerate(zip(self.attention, self.up, self.down, strict=True)):
            x = x + attention(self.norms[2 * place](x))
            x = x + down(F.gelu(up(self.norms[2 * place + 1](x))))
        return self.readout(self.norm(x)) * self.multiplier


def base_std(_: nn.Linear) -> float:
    return 0.02 / math.sqrt(TIMES)


def by_fan(layer: nn.Linear) -> float:
    return layer.in_features**-0.5


def said(hidden: Std, readout: float, multiplier: float) -> dict[str, Severity]:
    torch.manual_seed(0)
    run = initlint.check(
        lambda: Scaled(hidden, readout, multiplier), inputs=(torch.randint(0, VOCABULARY, (2, 12)),), seed=0
    )
    return {f.code: f.severity for f in run.findings}


@pytest.mark.parametrize(
    ("hidden", "readout", "multiplier"),
    [
        (base_std, 0.02, 1 / TIMES),  # Yang et al. 2022, table 8
        (base_std, 0.02 / TIMES, 1.0),  # table 3: the same in the std
        (base_std, 1 / WIDTH, 1.0),
        (by_fan, 0.0, 1 / TIMES),  # a readout that starts at zero, as they advise
        (by_fan, 1.0, 1 / WIDTH),
    ],
)
def test_right_scaling_is_silent(hidden: Std, readout: float, multiplier: float) -> None:
    assert not said(hidden, readout, multiplier)


@pytest.mark.parametrize(
    ("hidden", "readout", "multiplier", "code", "level"),
    [
        (base_std, 1.0, 1.0, "IL209", Severity.ERROR),  # the multiplier was left out
        (base_std, 0.02, 64 * TIMES, "IL209", Severity.WARNING),  # multiplied instead of divided
        (lambda layer: 1 / layer.in_features, 0.02, 1 / TIMES, "IL108", Severity.NOTE),  # hidden layers as a readout
        (base_std, 1 / WIDTH, 1 / WIDTH, "IL108", Severity.NOTE),  # scaled for its width twice
    ],
)
def test_wrong_scaling_is_named(hidden: Std, readout: float, multiplier: float, code: str, level: Severity) -> None:
    assert said(hidden, readout, multiplier).get(code) == level
