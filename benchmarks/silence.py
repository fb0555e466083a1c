"""Correct deep nets must be silent in every seed; the same nets off by a factor in every layer must be found.

    python benchmarks/silence.py [--seeds 200] [--nets he_mlp,selu] [--widths 32,128] [--factors 1,4,0.25]
    python benchmarks/silence.py --smallest [--seeds 20] [--nets nfnet] [--widths 128]

Each net is traced once in this process and drawn anew for every seed. Printed: the share of seeds with a finding at error, at
warning or above, and with a note that the correct net does not have. ``--smallest`` looks for the smallest factor, up
and down, that is found in 95 % of the seeds, at warning and at note.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from unittest import mock

import torch
from torch import nn

from initlint import engine, packs
from initlint.config import Config
from initlint.findings import Severity
from initlint.options import ProbeOptions
from initlint.probe import inputs as finding
from initlint.probe import pipeline
from initlint.probe import trace as tracing
from initlint.probe.build import seed_everything

Init = Callable[[torch.Tensor], object]
#: Factors that are tried; the smallest one found lies between an entry and the one before it.
GRID = (1.2, 1.41, 1.7, 2.0, 2.4, 2.8, 3.4, 4.0, 5.7, 8.0, 11.3, 16.0, 32.0, 64.0, 256.0, 1024.0)
SHARE = 0.95
RULES = packs.load()


def scaled(factor: float, init: Init) -> Init:
    """An init function whose result is multiplied by a factor."""

    def apply(weight: torch.Tensor) -> None:
        init(weight)
        if factor != 1:
            with torch.no_grad():
                weight.mul_(factor)

    return apply


def chain(width: int, depth: int, act: type[nn.Module], init: Init) -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(depth):
        linear = nn.Linear(width, width)
        init(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, act()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def he_mlp(factor: float, width: int) -> nn.Module:
    return chain(width, 20, nn.ReLU, scaled(factor, lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu")))


def selu(factor: float, width: int) -> nn.Module:
    return chain(width, 20, nn.SELU, scaled(factor, lambda w: nn.init.normal_(w, std=w.shape[1] ** -0.5)))


def orthogonal_tanh(factor: float, width: int) -> nn.Module:
    return chain(width, 20, nn.Tanh, scaled(factor, nn.init.orthogonal_))


class _PreLN(nn.Module):
    def __init__(self, d: int, depth: int, factor: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        for layer in (self.qkv, self.proj, self.up, self.down):
            writer = layer in (self.proj, self.down)
            small = (2 / (5 * d)) ** 0.5  # Nguyen and Salazar 2019: what GPT-2's .02 is at its width, at any width
            nn.init.normal_(layer.weight, std=factor * small / ((2 * depth) ** 0.5 if writer else 1))
            nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, 4, d // 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(b, t, d))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


def preln_transformer(factor: float, width: int) -> nn.Module:
    head = nn.Linear(width, 100)
    nn.init.normal_(head.weight, std=factor * (2 / (5 * width)) ** 0.5)
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


def fixup(factor: float, width: int) -> nn.Module:
    return nn.Sequential(*[_Fixup(width, 20, factor) for _ in range(20)], nn.Linear(width, 10))


class _Standardised(nn.Linear):
    """Scaled weight standardisation (Brock et al. 2021): the weight's own scale cancels, the gain is what counts."""

    def __init__(self, width: int, factor: float) -> None:
        super().__init__(width, width)
        nn.init.kaiming_normal_(self.weight, nonlinearity="linear")
        nn.init.zeros_(self.bias)
        self.gain = nn.Parameter(torch.full((width, 1), factor))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        var, mean = torch.var_mean(self.weight, dim=1, keepdim=True)
        weight = (self.weight - mean) * torch.rsqrt(var * self.weight.shape[1] + 1e-6) * self.gain
        return nn.functional.linear(x, weight, self.bias)


class _NormFree(nn.Module):
    """x + alpha f(x / beta), with beta the predicted standard deviation of x (NF-ResNet, NFNet)."""

    def __init__(self, width: int, beta: float, factor: float, alpha: float = 0.2) -> None:
        super().__init__()
        self.fc1, self.fc2 = _Standardised(width, factor), _Standardised(width, factor)
        self.alpha, self.beta = alpha, beta

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.fc1(torch.relu(x / self.beta) * 1.7139588594436646)
        return x + self.alpha * self.fc2(torch.relu(h) * 1.7139588594436646)


def nfnet(factor: float, width: int) -> nn.Module:
    blocks = [_NormFree(width, (1 + 0.04 * block) ** 0.5, factor) for block in range(12)]
    head = nn.Linear(width, 10)
    nn.init.normal_(head.weight, std=0.01)
    return nn.Sequential(*blocks, head)


@contextmanager
def undrawn_defaults(width: int) -> Iterator[None]:
    """PyTorch's default init skipped in hidden layers, which draw all they hold anew: it would take most of the time.

    Hidden layers have a multiple of the width as outputs; heads (10 or 100) keep their default, which is part of the net.
    """
    default = nn.Linear.reset_parameters

    def reset(layer: nn.Linear) -> None:
        if layer.out_features % width:
            default(layer)
        else:
            for parameter in layer.parameters():  # what a net forgot to draw would show as NaN
                parameter.detach().fill_(torch.nan)

    with mock.patch.object(nn.Linear, "reset_parameters", reset):
        yield


Builder = Callable[[float, int], nn.Module]
NETS: dict[str, Builder] = {f.__name__: f for f in (he_mlp, selu, orthogonal_tanh, preln_transformer, fixup, nfnet)}


@dataclass(frozen=True, slots=True)
class Tally:
    """What was found over some seeds: numbers of seeds, and of each code at each severity."""

    seeds: int
    errors: int
    warnings: int  # seeds with a finding at warning or above
    notes: int  # seeds with any finding whose code the correct net does not have
    codes: Counter[str]

    def found(self, level: Severity) -> float:
        """The share of seeds in which the scale was found at this level or above."""
        return (self.warnings if level >= Severity.WARNING else max(self.notes, self.warnings)) / self.seeds


class Redrawn:
    """One net of which only the weights are drawn anew for each seed.

    Built, recorded and traced once; then for every seed the same constructor runs under it, its values are copied into
    the traced model, and measuring, reading the graph, propagation, rules and the choice among findings run as ever.
    """

    def __init__(self, name: str, factor: float, width: int) -> None:
        self._build, self._width = partial(NETS[name], float(factor), width), width
        inputs = torch.randn(4, 16, width) if name == "preln_transformer" else torch.randn(16, width)
        self._options = ProbeOptions()
        self._model, self._record = pipeline._built(self._build, self._options, {})
        given = finding.find(self._model, {"example_inputs": lambda: (inputs,)}, (), seed=0)
        self._traced = tracing.trace(self._model, given, seed=0)
        self._used = tuple(given.facts)

    def findings(self, seed: int) -> tuple[tuple[str, Severity], ...]:
        """Codes and severities for one draw."""
        seed_everything(seed)
        with undrawn_defaults(self._width):
            drawn = self._build()
        with torch.no_grad():
            for old, new in zip(self._model.parameters(), drawn.parameters(), strict=True):
                old.copy_(new)
        facts = pipeline.describe(self._model, self._record, pipeline.Identity("Net", "net"), self._options)
        facts = pipeline.merged(facts, pipeline._paired(self._traced, self._record, facts, self._used, []))
        run = engine.run([engine.Analysis("net", (facts,))], Config(), RULES, known=RULES)
        return tuple(sorted({(f.code, f.severity) for f in run.findings}))


@lru_cache(maxsize=4)
def redrawn(name: str, factor: float, width: int) -> Redrawn:
    """The net, ready to be drawn."""
    torch.manual_seed(0)
    return Redrawn(name, factor, width)


@cache
def findings(name: str, factor: float, width: int, seed: int) -> tuple[tuple[str, Severity], ...]:
    """Codes and severities for one draw."""
    return redrawn(name, factor, width).findings(seed)


def tally(name: str, factor: float, width: int, seeds: int) -> Tally:
    """What is found of one net at one scale, over the seeds."""
    known = {code for seed in range(min(seeds, 5)) for code, _ in findings(name, 1.0, width, seed)}
    errors = warnings = notes = 0
    codes: Counter[str] = Counter()
    for seed in range(seeds):
        found = findings(name, factor, width, seed)
        errors += any(level >= Severity.ERROR for _, level in found)
        warnings += any(level >= Severity.WARNING for _, level in found)
        notes += any(code not in known for code, _ in found)
        codes.update(f"{code}/{level.label}" for code, level in found)
    return Tally(seeds, errors, warnings, notes, codes)


def smallest(name: str, width: int, seeds: int, level: Severity, *, up: bool) -> float | None:
    """The smallest factor of the grid from which on at least 95 % of the seeds are found; by bisection."""

    def caught(at: int) -> bool:
        return tally(name, GRID[at] if up else 1 / GRID[at], width, seeds).found(level) >= SHARE

    low, high = -1, len(GRID) - 1
    if not caught(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if caught(middle) else (middle, high)
    return GRID[high]


def table(names: list[str], widths: list[int], factors: list[float], seeds: int) -> None:
    for name in names:
        for width in widths:
            for factor in factors:
                row = tally(name, factor, width, seeds)
                print(
                    f"{name:18s} width {width:5d}  scale x{factor:<5g} of {seeds:3d} seeds: error {row.errors:3d},"
                    f" warning or above {row.warnings:3d}, new note {row.notes:3d}  {dict(sorted(row.codes.items()))}",
                    flush=True,
                )


def limits(names: list[str], widths: list[int], seeds: int) -> None:
    for name in names:
        for width in widths:
            cells = []
            for level in (Severity.WARNING, Severity.NOTE):
                for up in (True, False):
                    found = smallest(name, width, seeds, level, up=up)
                    cells.append(f"{level.label} {'x' if up else '/'}{f'{found:g}' if found else 'never'}")
            print(f"{name:18s} width {width:5d}  {', '.join(cells)}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--widths", default="128")
    parser.add_argument("--factors", default="1,4,0.25")
    parser.add_argument("--smallest", action="store_true", help="look for the smallest factor found in 95 %% of seeds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names, widths = arguments.nets.split(","), [int(w) for w in arguments.widths.split(",")]
    if arguments.smallest:
        limits(names, widths, arguments.seeds)
    else:
        table(names, widths, [float(f) for f in arguments.factors.split(",")], arguments.seeds)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
