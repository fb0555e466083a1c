"""Maps and their borders, places that are read, and rows of weights: predicted against a real forward and backward."""

from __future__ import annotations

import functools
import math

import pytest

from initlint.options import ProbeOptions
from initlint.signal import propagate
from initlint.signal.rectified import _climbed

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional
pytestmark = pytest.mark.usefixtures("one_thread")


def errors(model, *inputs) -> tuple[dict[str, float], dict[str, float]]:
    """log10 of predicted over measured standard deviations, of outputs and of their gradients, by module or op."""
    from initlint.probe import pipeline

    signal = propagate(pipeline.analyse_live(model.train(), inputs, ProbeOptions(seed=1, measure=True)))
    forward: dict[str, float] = {}
    backward: dict[str, float] = {}
    for node in signal.scene.nodes:
        got, found = node.measured, signal.built[node.index]
        if got is None or not got.second or node.op in ("reshape", "identity"):
            continue
        assert found.undetermined is None, node.label
        assert not found.numeric, node.label
        name = node.module or node.op
        forward[name] = 0.5 * math.log10(found.q / got.second)
        if got.gradient_second and found.p:
            backward[name] = 0.5 * math.log10(found.p / got.gradient_second)
    return forward, backward


def largest(found: dict[str, float], *names: str) -> float:
    return max(abs(found[name]) for name in names or found)


class Cells(nn.Module):
    """Separable convolutions over a map that is hardly larger than their kernels."""

    def __init__(self, width: int = 96, depth: int = 8) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, width, 3, padding=1), nn.Linear(width, 200)
        self.norm = nn.BatchNorm2d(width)
        self.cells = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(),
                nn.Conv2d(width, width, 5, padding=2, groups=width, bias=False),
                nn.Conv2d(width, width, 1, bias=False),
                nn.BatchNorm2d(width),
            )
            for _ in range(depth)
        )

    def forward(self, x):
        x = self.norm(self.stem(x))
        for cell in self.cells:
            x = cell(x)
        return self.head(x.mean((2, 3)))


def test_zeros_beyond_the_border_make_positions_differ():
    torch.manual_seed(0)
    forward, backward = errors(Cells(), torch.randn(8, 3, 4, 4))
    assert largest(forward, *(name for name in forward if name.startswith("cells"))) < 0.05
    assert largest(backward, "stem", "cells.0.1", "cells.4.1") < 0.08  # all positions taken as alike: 0.2 at the stem


class Pooled(nn.Module):
    def __init__(self, stride: int, width: int = 64) -> None:
        super().__init__()
        self.conv, self.head, self.stride = nn.Conv2d(8, width, 3), nn.Linear(width, 300), stride

    def forward(self, x):
        return self.head(F.max_pool2d(self.conv(x), 3, self.stride).mean((2, 3)))


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_overlapping_windows_share_their_greatest(stride):
    torch.manual_seed(0)
    _, backward = errors(Pooled(stride), torch.randn(8, 8, 16, 16))
    assert largest(backward, "conv") < 0.06  # one winner for each window: -0.39 at stride 1, -0.16 at 2


class Alike(nn.Module):
    """Samples whose positions are nearly alike: a batch norm sees as many values as there are samples."""

    def __init__(self, width: int = 512) -> None:
        super().__init__()
        self.layer, self.conv = nn.Linear(32, width), nn.Conv2d(width, width, 1)
        self.norm, self.head = nn.BatchNorm2d(width), nn.Linear(width, 300)

    def forward(self, x, noise):
        x = self.conv(self.layer(x)[:, :, None, None] + noise)
        return self.head(self.norm(x).mean((2, 3)))


@pytest.mark.parametrize("samples", [6, 8, 32])
def test_a_batch_norm_over_alike_positions(samples):
    torch.manual_seed(0)
    noise = 0.1 * torch.randn(samples, 512, 6, 6)
    _, backward = errors(Alike(), torch.randn(samples, 32), noise)
    assert largest(backward, "conv", "norm") < 0.05  # all positions counted: 0.1 at six samples


class Shared(nn.Module):
    """Heads of queries that read fewer heads of keys and values; ``sharp``: normed and not scaled."""

    def __init__(self, heads: int = 8, groups: int = 1, sharp: bool = False, width: int = 256) -> None:
        super().__init__()
        self.heads, self.groups, self.sharp, size = heads, groups, sharp, width // heads
        self.q, self.k, self.v = (nn.Linear(width, n * size, bias=False) for n in (heads, groups, groups))
        self.out, self.head = nn.Linear(width, width, bias=False), nn.Linear(width, 300)

    def forward(self, x):
        batch, count, width = x.shape
        q, k, v = (f(x).view(batch, count, -1, width // self.heads).transpose(1, 2) for f in (self.q, self.k, self.v))
        if self.sharp:
            q, k = (F.rms_norm(y, y.shape[-1:]) for y in (q, k))
        y = F.scaled_dot_product_attention(q, k, v, scale=1.0 if self.sharp else None)
        return self.head(self.out(y.transpose(1, 2).reshape(batch, count, width)).mean(1))


def test_a_head_of_keys_takes_the_gradients_of_all_that_read_it():
    torch.manual_seed(0)
    _, backward = errors(Shared(), torch.randn(4, 32, 256))
    assert largest(backward, "k", "v") < 0.1  # as if each had its own: -0.45


def test_rows_of_weights_that_differ_between_queries():
    torch.manual_seed(0)
    _, backward = errors(Shared(groups=8, sharp=True), torch.randn(4, 64, 256))
    assert largest(backward, "k", "v") < 0.15  # as if all queries weighed a key alike: 0.7 at the values


class Flow(nn.Module):
    """Reads one map where a flow says, three times, and compares it with another."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.body, self.look = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(64, width, 1)
        self.flow = nn.ModuleList(nn.Conv2d(width, 2, 3, padding=1) for _ in range(3))
        self.head = nn.Linear(width + 2, 200)

    def forward(self, one, two):
        a, b = self.body(torch.cat((one, two))).relu().chunk(2)
        volume = torch.matmul(a.flatten(2).transpose(1, 2), b.flatten(2)) / a.shape[1]
        size = a.shape[-1]
        rows = torch.linspace(-1, 1, size)
        grid = torch.stack(torch.meshgrid(rows, rows, indexing="xy"))[None].expand(a.shape[0], -1, -1, -1)
        again = torch.stack(torch.meshgrid(rows, rows, indexing="xy"))[None].expand(a.shape[0], -1, -1, -1)
        places = grid
        for flow in self.flow:
            places = places + 0.01 * flow(self.look(volume.view(*volume.shape[:2], size, size)).tanh())
        read = F.grid_sample(b, places.permute(0, 2, 3, 1), align_corners=False)
        return self.head(torch.cat((read, places - again), 1).mean((2, 3)))


def test_maps_that_are_read_where_a_flow_says():
    torch.manual_seed(0)
    forward, backward = errors(Flow(), torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8))
    assert forward["matmul"] == pytest.approx(0.0, abs=0.15)  # one layer's outputs share a mean: 0.9 without
    assert forward["sample"] == pytest.approx(0.0, abs=0.1)
    assert forward["sub"] == pytest.approx(0.0, abs=0.2)  # the flow that is left, and not the places: 1.5
    assert backward["body"] == pytest.approx(0.0, abs=0.06)


class Score(nn.Module):
    """Additive attention: tokens weighed by a linear score of themselves, and summed."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.query, self.score, self.head = nn.Linear(width, width), nn.Linear(width, 1), nn.Linear(width, 200)

    def forward(self, x):
        q = self.query(x)
        return self.head((q * self.score(q)).sum(1))


def test_a_score_of_the_signal_itself():
    torch.manual_seed(0)
    off = [errors(Score(), torch.randn(4, 256, 64))[0]["reduce"] for _ in range(5)]
    assert sum(off) / len(off) == pytest.approx(0.0, abs=0.1)  # as if independent: -0.45


@functools.lru_cache
def table(count: int, width: int):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count))


class Kept(nn.Module):
    """A table that an earlier call made, a divisor of fixed values, and a size that the input decides."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(32, 32), nn.Linear(32, 200)

    def forward(self, x):
        x = self.layer(x) + table(8, 32)
        x = x / (10.0 ** torch.linspace(0, 2, 32))
        empty = torch.zeros(x.shape[0], int((x[:, 0, 0] > 0).sum() * 0 + 8), 32)
        empty[:, :8] = x
        return self.head(empty.mean(1))


def test_an_argument_of_a_cache_is_no_constant():
    from initlint.probe.recorded_constants import memoised

    @functools.lru_cache
    def read(tensor, other):
        return tensor + other

    one, other = torch.ones(2), torch.ones(2)
    made = read(one, other)
    assert memoised(made)
    assert not memoised(one)
    assert not memoised(other)


def test_tables_divisors_and_sizes():
    torch.manual_seed(0)
    table(8, 32)
    forward, _ = errors(Kept(), torch.randn(4, 8, 32))
    assert forward["add"] == pytest.approx(0.0, abs=0.05)
    assert forward["div"] == pytest.approx(0.0, abs=0.1)  # by the mean of the divisor: 1.0


class Averaged(nn.Module):
    """Blocks that take away what positions differ by: avg(n) - n of a norm n, and one mean at the end."""

    def __init__(self, width: int = 64, depth: int = 12) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, width, 1), nn.Linear(width, 200)
        self.norms = nn.ModuleList(nn.GroupNorm(1, width) for _ in range(depth))

    def forward(self, x):
        x = 0.1 * self.stem(x)
        for norm in self.norms:
            y = norm(x)
            x = x + 0.1 * (F.avg_pool2d(y, 3, 1, 1, count_include_pad=False) - y)
        return self.head(x.mean((2, 3)))


def test_a_gradient_that_positions_share_is_its_own_average():
    torch.manual_seed(0)
    _, backward = errors(Averaged(), torch.randn(4, 3, 8, 8))
    assert largest(backward, "stem") < 0.3  # as if it were an average of independent gradients: 3.7


def test_what_hardly_differs_is_not_lost_in_rounding():
    from initlint.signal.attention import _differing

    assert _differing(1.0, 1e-40, 2.0, 1e-41) == pytest.approx(2.1e-40)
    assert _differing(1.0, 1.0, 2.0, 2.0) == pytest.approx(2.0)  # all of it, where all differs


def test_a_walk_that_stops_at_zero():
    torch.manual_seed(0)
    w = torch.zeros(400_000)
    for steps in range(1, 13):
        w = (w + torch.randn_like(w)).relu()
        mean, second, above = _climbed(steps, float(steps))
        assert float(w.mean()) == pytest.approx(mean, rel=0.01)
        assert float((w * w).mean()) == pytest.approx(second, rel=0.02)
        assert float((w > 0).double().mean()) == pytest.approx(above, abs=0.003)


class Small(nn.Module):
    """Small changes of a rectified trunk, each rectified again."""

    def __init__(self, width: int = 96, depth: int = 16, factor: float = 0.1, scale: float = 1.0) -> None:
        super().__init__()
        self.factor, self.scale = factor, scale
        self.stem, self.head = nn.Conv2d(3, width, 3, padding=1), nn.Linear(width, 200)
        self.norm = nn.BatchNorm2d(width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, width, 1, bias=False),
            )
            for _ in range(depth)
        )

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        for block in self.blocks:
            x = x + self.factor * block(x)
            x = (x if self.scale == 1.0 else x * self.scale).relu()
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("factor", [0.1, 1.0])
def test_a_trunk_that_is_rectified_again_and_again(factor):
    torch.manual_seed(0)
    forward, backward = errors(Small(factor=factor), torch.randn(8, 3, 12, 12))
    assert largest(forward, "blocks.8.0", "blocks.15.0") < 0.06
    assert largest(backward, "stem", "blocks.0.3", "blocks.8.3") < 0.12


def test_a_sum_that_is_scaled_before_it_is_rectified():
    torch.manual_seed(0)
    forward, _ = errors(Small(depth=6, scale=0.7), torch.randn(8, 3, 12, 12))
    assert largest(forward, "blocks.3.0", "blocks.5.0") < 0.05  # by the moments of the sum: 0.15 a block
