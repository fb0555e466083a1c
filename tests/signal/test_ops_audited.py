"""Ops whose arguments change what they do: what is predicted at each layer against a real forward and backward."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

import initlint

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional
pytestmark = pytest.mark.usefixtures("one_thread")


class Between(nn.Module):
    """A function between two dense layers of ``into`` inputs and ``out`` outputs."""

    def __init__(self, function: Callable, into: int = 64, out: int = 64, ends: int = 64) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(into, out), nn.Linear(ends, 64)
        self.function = function

    def forward(self, x):
        return self.last(self.function(self.first(x)))


class Maps(nn.Module):
    """A function between two convolutions of 32 channels."""

    def __init__(self, function: Callable) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(8, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)
        self.function = function

    def forward(self, x):
        return self.last(self.function(self.first(x)))


def differences(build: Callable, *inputs) -> dict[str, tuple[float, float]]:
    """By layer: log10 of the standard deviation, predicted over measured, of the output and of its gradient."""
    torch.manual_seed(0)
    run = initlint.check(build, inputs=inputs, measure=True, seed=1)
    found = {}
    for row in run.models[0].rows:
        signal = row.signal
        pairs = (
            (signal.forward_std, signal.measured_forward_std),
            (signal.gradient_std, signal.measured_gradient_std),
        )
        forward, gradient = (math.log10(a / b) if a and b else math.nan for a, b in pairs)
        found[row.name] = (forward, gradient)
    return found


def agree(build: Callable, *inputs, within: float = 0.1) -> None:
    found = differences(build, *inputs)
    assert len(found) >= 2
    assert all(not math.isnan(forward) and abs(forward) < within for forward, _ in found.values()), found
    assert all(math.isnan(gradient) or abs(gradient) < within for _, gradient in found.values()), found


@pytest.mark.parametrize("iterations", [1, 5])
def test_the_older_spectral_norm_iterates_before_it_divides(iterations):
    def build():
        norm = torch.nn.utils.spectral_norm
        layers = [norm(nn.Linear(128, 128), n_power_iterations=iterations) for _ in range(3)]
        return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])

    agree(build, torch.randn(128, 128))


class Affine(nn.Module):
    """beta b + alpha x W between two layers, for all samples together or in four groups of channels."""

    def __init__(self, grouped: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 64), nn.Linear(64, 64)
        self.w = nn.Parameter(torch.randn(*((4, 16, 16) if grouped else (64, 64))) * 0.3)
        self.b = nn.Parameter(torch.randn(*((4, 1, 16) if grouped else (64,))))
        self.grouped = grouped

    def forward(self, x):
        h = torch.relu(self.first(x))
        if not self.grouped:
            return self.last(torch.addmm(self.b, h, self.w, beta=0.5, alpha=3.0))
        parts = h.view(-1, 4, 16).transpose(0, 1)
        h = torch.baddbmm(self.b, parts, self.w, beta=2.0, alpha=0.25)
        return self.last(h.transpose(0, 1).reshape(-1, 64))


class Scores(nn.Module):
    """The same of two signals."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.last = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(16, 64)

    def forward(self, x, y):
        q, k = self.q(x), self.k(y)
        return self.last(torch.baddbmm(q[:, :, :16], q, k.transpose(1, 2), beta=2.0, alpha=0.125))


@pytest.mark.parametrize("grouped", [False, True])
def test_factors_of_a_fused_product_and_sum(grouped):
    agree(lambda: Affine(grouped), torch.randn(128, 64))


def test_factors_of_a_fused_product_of_two_signals():
    agree(Scores, torch.randn(32, 16, 64), torch.randn(32, 16, 64))


@pytest.mark.parametrize(
    "bound",
    [
        lambda x: torch.clamp(x - 0.5, min=torch.tensor(0.0)),
        lambda x: (x - 0.5).clamp(torch.zeros(64), torch.ones(64)),
        lambda x: (x - 0.5).clamp_min(torch.tensor(0.2)),
        lambda x: torch.clamp(x, max=torch.linspace(0.1, 0.2, 64)),
        lambda x: torch.clamp(x, max=x.mean(1, keepdim=True)),
        lambda x: torch.maximum(x, torch.zeros_like(x)),
        lambda x: torch.maximum(x, torch.linspace(-0.2, 0.2, 64)),
        lambda x: torch.max(x, torch.linspace(-0.2, 0.2, 64)),
    ],
)
def test_bounds_of_a_clamp_that_are_tensors(bound):
    agree(lambda: Between(bound), torch.randn(128, 64))


@pytest.mark.parametrize(
    "between",
    [
        nn.LPPool2d(2, 2),
        lambda x: F.lp_pool2d(x, 2, 3, 3),
        nn.LPPool2d(2, 1),
        nn.Sequential(nn.ReLU(), nn.LPPool2d(2, 2)),
        nn.Sequential(nn.Sigmoid(), nn.LPPool2d(3, 2)),
        nn.AvgPool2d(2, divisor_override=1),
        lambda x: F.avg_pool2d(x, 3, 2, divisor_override=4),
    ],
)
def test_pooling_that_is_no_mean(between):
    agree(lambda: Maps(between), torch.randn(16, 8, 12, 12))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_interpolation_without_aliasing_averages(mode):
    agree(lambda: Maps(lambda x: F.interpolate(x, (5, 5), mode=mode, antialias=True)), torch.randn(16, 8, 15, 15))


class Unpooled(nn.Module):
    """What max pooling leaves goes back to where it was."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(8, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, x):
        y, places = F.max_pool2d(self.first(x), 2, return_indices=True)
        return self.last(F.max_unpool2d(y, places, 2))


def test_functions_that_pool_with_indices_and_unpool():
    agree(Unpooled, torch.randn(16, 8, 12, 12))


class Packed(nn.Module):
    """A recurrent layer over packed sequences, of one length or of many."""

    def __init__(self, cell: type[nn.RNNBase], vary: bool, batch_first: bool) -> None:
        super().__init__()
        self.first, self.cell = nn.Linear(64, 64), cell(64, 64, batch_first=True)
        self.last = nn.Linear(64, 32)
        self.vary, self.batch_first = vary, batch_first

    def forward(self, x):
        axis = 0 if self.batch_first else 1
        samples, steps = x.shape[axis], x.shape[1 - axis]
        lengths = torch.arange(samples) % (steps // 2) + steps // 2 if self.vary else torch.full((samples,), steps)
        packed = nn.utils.rnn.pack_padded_sequence(
            self.first(x), lengths, batch_first=self.batch_first, enforce_sorted=not self.vary
        )
        y, _ = nn.utils.rnn.pad_packed_sequence(self.cell(packed)[0], batch_first=self.batch_first)
        return self.last(y)


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize(("vary", "batch_first"), [(False, True), (False, False), (True, True)])
def test_packed_sequences(cell, vary, batch_first):
    x = torch.randn(*((32, 20, 64) if batch_first else (20, 32, 64)))
    agree(lambda: Packed(cell, vary, batch_first), x)


class Bags(nn.Module):
    """Rows of a table, alone or in bags, before a dense layer."""

    def __init__(self, table: nn.Module) -> None:
        super().__init__()
        self.table, self.last = table, nn.Linear(128, 64)

    def forward(self, *given):
        return self.last(self.table(*given))


def padded(share: float = 0.5) -> torch.Tensor:
    """Places (128, 10) of which a share holds padding."""
    return torch.randint(1, 300, (128, 10)) * (torch.rand(128, 10) > share)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_many_sizes(mode):
    build = lambda: Bags(nn.EmbeddingBag(300, 128, mode=mode, padding_idx=0))  # noqa: E731
    agree(build, padded())
    begins = torch.cumsum(torch.randint(2, 20, (64,)), 0)
    agree(lambda: Bags(nn.EmbeddingBag(300, 128, mode=mode)), torch.randint(0, 300, (1000,)), begins - begins[0])


def test_bags_with_weights():
    agree(
        lambda: Bags(nn.EmbeddingBag(300, 128, mode="sum")), torch.randint(0, 300, (128, 10)), None, torch.rand(128, 10)
    )


def test_places_that_hold_padding():
    agree(lambda: Bags(nn.Embedding(300, 128, padding_idx=0)), padded(0.7))


class Projecting(nn.Module):
    """An LSTM whose hidden state has fewer units than its cell."""

    def __init__(self, size: int, **options: int | bool) -> None:
        super().__init__()
        self.first = nn.Linear(128, 128)
        self.cell = nn.LSTM(128, 128, batch_first=True, proj_size=size, **options)
        self.last = nn.Linear(size * (1 + options.get("bidirectional", False)), 32)

    def forward(self, x):
        return self.last(self.cell(self.first(x))[0])


@pytest.mark.parametrize(("size", "options"), [(16, {}), (64, {}), (32, {"bidirectional": True})])
def test_projected_hidden_states(size, options):
    agree(lambda: Projecting(size, **options), torch.randn(32, 20, 128))


class Attending(nn.Module):
    """Attention whose weights are returned, and read or not."""

    def __init__(self, read: bool) -> None:
        super().__init__()
        self.attention, self.last = nn.MultiheadAttention(64, 4, batch_first=True), nn.Linear(64, 64)
        self.read = read

    def forward(self, x):
        y, weights = self.attention(x, x, x, need_weights=True)
        return self.last(weights @ y if self.read else y)


@pytest.mark.parametrize("read", [False, True])
def test_what_nobody_reads_is_not_missed(read):
    run = initlint.check(lambda: Attending(read), inputs=torch.randn(16, 10, 64), measure=True, seed=1)
    assert bool(run.models[0].facts.trace.unsupported) == read
