"""Correct deep nets must be silent in every seed; the same nets off by a factor in every layer must be found.

    python benchmarks/silence.py [--seeds 200] [--nets he_mlp,selu] [--factors 4,2,1.5]

Each net is built and checked in this process, seed by seed. Printed: the share of seeds with a finding at warning or above.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import nn

import initlint
from initlint.findings import Severity


def _chain(width: int, depth: int, act: type[nn.Module], init: Callable[[nn.Linear], None]) -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(depth):
        linear = nn.Linear(width, width)
        init(linear)
        nn.init.zeros_(linear.bias)
        layers += [linear, act()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def _scaled(factor: float, init: Callable[[torch.Tensor], object]) -> Callable[[nn.Linear], None]:
    def apply(linear: nn.Linear) -> None:
        init(linear.weight)
        if factor != 1:
            with torch.no_grad():
                linear.weight.mul_(factor)

    return apply


def he_mlp(factor: float, width: int = 128) -> nn.Module:
    return _chain(width, 20, nn.ReLU, _scaled(factor, lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu")))


def selu(factor: float, width: int = 128) -> nn.Module:
    return _chain(width, 20, nn.SELU, _scaled(factor, lambda w: nn.init.normal_(w, std=w.shape[1] ** -0.5)))


def orthogonal_tanh(factor: float, width: int = 128) -> nn.Module:
    return _chain(width, 20, nn.Tanh, _scaled(factor, nn.init.orthogonal_))


class _PreLN(nn.Module):
    def __init__(self, d: int, depth: int, factor: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        for layer in (self.qkv, self.proj, self.up, self.down):
            writer = layer in (self.proj, self.down)
            nn.init.normal_(layer.weight, std=0.02 * factor / ((2 * depth) ** 0.5 if writer else 1))
            nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, 4, d // 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(b, t, d))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


def preln_transformer(factor: float, width: int = 128) -> nn.Module:
    head = nn.Linear(width, 100)
    nn.init.normal_(head.weight, std=0.02 * factor)
    return nn.Sequential(*[_PreLN(width, 8, factor) for _ in range(8)], nn.LayerNorm(width), head)


class _Fixup(nn.Module):
    def __init__(self, width: int, depth: int, factor: float) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.normal_(self.fc1.weight, std=factor * (2 / width) ** 0.5 * depth**-0.5)
        nn.init.zeros_(self.fc2.weight)
        nn.init.zeros_(self.fc1.bias)
        nn.init.zeros_(self.fc2.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.fc2(torch.relu(self.fc1(x)))


def fixup(factor: float, width: int = 128) -> nn.Module:
    return nn.Sequential(*[_Fixup(width, 20, factor) for _ in range(20)], nn.Linear(width, 10))


NETS: dict[str, Callable[..., nn.Module]] = {
    f.__name__: f for f in (he_mlp, selu, orthogonal_tanh, preln_transformer, fixup)
}


def share(net: Callable[..., nn.Module], factor: float, width: int, seeds: int) -> tuple[float, dict[str, int]]:
    """Share of seeds with a finding at warning or above, and the codes."""
    found, codes = 0, {}
    for seed in range(seeds):
        run = initlint.check(lambda: net(factor, width), inputs=_inputs(net, width), seed=seed)
        loud = [f for f in run.findings if f.severity >= Severity.WARNING]
        found += bool(loud)
        for finding in loud:
            codes[f"{finding.code}/{finding.severity.label}"] = (
                codes.get(f"{finding.code}/{finding.severity.label}", 0) + 1
            )
    return found / seeds, codes


def _inputs(net: Callable[..., nn.Module], width: int) -> tuple[torch.Tensor, ...]:
    return (torch.randn(4, 16, width) if net is preln_transformer else torch.randn(16, width),)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--widths", default="128")
    parser.add_argument("--factors", default="1,4,0.25")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.nets.split(","):
        for width in map(int, arguments.widths.split(",")):
            for factor in map(float, arguments.factors.split(",")):
                rate, codes = share(NETS[name], factor, width, arguments.seeds)
                print(
                    f"{name:20s} width {width:5d}  scale x{factor:<5g} found in {rate:6.1%} of {arguments.seeds} seeds  {codes}",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
