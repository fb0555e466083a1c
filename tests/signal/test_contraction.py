"""Products of two signals over any axes, and quotients by what is never negative: linear attention."""

from __future__ import annotations

import math

import pytest
from test_layers_measured import compared, off
from test_ops_simulated import BATCH, CHANNELS, POSITIONS, Mix, moments, rule

from initlint.signal.inverse import inverse
from initlint.signal.moments import Grad

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional
pytestmark = pytest.mark.usefixtures("one_thread")

SHARED = Mix(0.2, 0.1, 0.3, 0.4, mean=0.5)
#: The equation, the shapes of its two operands and of the result, and what the sum runs over.
PRODUCTS = {
    "memory": ("bkc,bkd->bcd", (BATCH, POSITIONS, CHANNELS), (BATCH, POSITIONS, CHANNELS), (BATCH, CHANNELS, CHANNELS)),
    "read": ("blc,bcd->bld", (BATCH, POSITIONS, CHANNELS), (BATCH, CHANNELS, CHANNELS), (BATCH, POSITIONS, CHANNELS)),
    "maps": ("blc,bmc->blm", (BATCH, POSITIONS, CHANNELS), (BATCH, POSITIONS, CHANNELS), (BATCH, POSITIONS, POSITIONS)),
}


def drawn(equation: str, shapes, seed: int):
    a = SHARED.draw(seed, positions=shapes[0][1])
    b = SHARED.draw(seed + 1, positions=shapes[1][1])
    return a, b, torch.einsum(equation, a, b)


@pytest.mark.parametrize("name", PRODUCTS)
def test_what_operands_share_along_the_sum_adds_up(name: str):
    equation, *shapes = PRODUCTS[name]
    draws = [drawn(equation, shapes, 2 * seed)[2] for seed in range(20)]
    got = [sum(part) / len(draws) for part in zip(*(moments(y) for y in draws), strict=True)]
    x = SHARED.state()
    count = shapes[0][1] if name == "memory" else shapes[0][2]
    found, _ = rule("matmul", (x, x), shapes[2], shapes[:2], kind="other", contraction=count, equation=equation)
    # the simulation itself has a spread of some per cent: few channels share a mean square
    assert [found.q, found.d, found.e, found.u] == pytest.approx(got, rel=0.12)


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("alike", [0.0, 0.5])
def test_gradients_add_up_as_far_as_they_are_alike(name: str, alike: float):
    equation, *shapes = PRODUCTS[name]
    found = []
    for seed in range(20):
        a, b, _ = drawn(equation, shapes, 2 * seed)
        a.requires_grad_(), b.requires_grad_()
        g = torch.Generator().manual_seed(100 + seed)
        common = torch.randn(shapes[2][0], 1, shapes[2][2], generator=g)
        grad = math.sqrt(alike) * common + math.sqrt(1.0 - alike) * torch.randn(shapes[2], generator=g)
        found.append(torch.autograd.grad(torch.einsum(equation, a, b), (a, b), grad))
    x = SHARED.state()
    count = shapes[0][1] if name == "memory" else shapes[0][2]
    _, back = rule(
        "matmul", (x, x), shapes[2], shapes[:2], Grad(1.0, alike), kind="other", contraction=count, equation=equation
    )
    for which in (0, 1):
        got = sum(float(pair[which].square().mean()) for pair in found) / len(found)
        assert back[which].p == pytest.approx(got, rel=0.15)
        n = shapes[which][1]
        sums = sum(float(pair[which].sum(1).square().mean()) for pair in found) / len(found)
        assert back[which].t == pytest.approx((sums / n - got) / (n - 1), rel=0.2, abs=0.05 * got)


class LinearAttention(nn.Module):
    """phi(q) (phi(k)^T v) over phi(q) sum phi(k), phi = elu + 1 (Katharopoulos et al. 2020)."""

    def __init__(self, width: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.head = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x):
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)) for f in (self.query, self.key, self.value))
        q, k = F.elu(q) + 1, F.elu(k) + 1
        memory = torch.einsum("bshd,bshv->bhdv", k, v)
        over = 1 / (torch.einsum("blhd,bhd->blh", q, k.sum(1)) + 1e-6)
        return self.head(torch.einsum("blhd,bhdv,blh->blhv", q, memory, over).flatten(2))


def test_linear_attention_forward_and_backward():
    torch.manual_seed(0)
    found = compared(LinearAttention(), torch.randn(8, 256, 64))
    assert off(found, 0) < 0.05
    # keys and values pass an average over 256 positions, queries what is left of it
    assert off(found, 1, "key", "value", "head") < 0.06
    assert off(found, 1, "query") < 0.2


class Retention(nn.Module):
    """q (k^T v) without a normalisation."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.query, self.key, self.value, self.head = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x):
        q, k, v = self.query(x), self.key(x), self.value(x)
        return self.head(q @ (k.transpose(1, 2) @ v))


def test_two_projections_of_the_same_tokens_are_alike_by_chance():
    """W_k C W_v^T: with 256 tokens of 64 channels five times what independent factors would give."""
    torch.manual_seed(0)
    found = compared(Retention(), torch.randn(8, 256, 64))
    assert off(found, 0) < 0.06
    assert off(found, 1) < 0.06


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("spread", [0.05, 0.2])
def test_moments_of_an_inverse(power: float, spread: float):
    torch.manual_seed(0)
    s = math.sqrt(math.log1p(spread))
    z = torch.randn(2, 2_000_000, dtype=torch.float64)
    x = 3.0 * torch.exp(s * z[0] - 0.5 * s * s)
    y = x**-power
    found = inverse(3.0, 9.0 * spread, power)
    assert found.mean == pytest.approx(float(y.mean()), rel=0.01)
    assert found.second == pytest.approx(float(y.square().mean()), rel=0.01)
    slope = power * x ** (-power - 1.0)
    assert found.slope == pytest.approx(float(slope.square().mean()), rel=0.02)
    assert found.shape.fourth == pytest.approx(float(y.pow(4).mean()) / found.second**2 - 1.0, rel=0.1)
    half = math.log1p(0.5 * spread) / math.log1p(spread)  # correlation of the logarithms where x has one half
    other = 3.0 * torch.exp(s * (half * z[0] + math.sqrt(1.0 - half * half) * z[1]) - 0.5 * s * s)
    assert found.gap(4.5 * spread) == pytest.approx(float(0.5 * (y - other**-power).square().mean()), rel=0.02)
    kernel = float((slope * power * other ** (-power - 1.0)).mean())
    assert found.kernel(4.5 * spread) == pytest.approx(kernel, rel=0.02)
    lean = float((slope * (x - 3.0) / math.sqrt(9.0 * spread)).mean())
    assert found.shape.tilt == pytest.approx(lean * lean / found.slope, rel=0.05)


def test_sums_of_positive_weights_are_divided_by_with_certainty():
    """Sums of 16 exponentials: m / sigma = 4, of which a Gaussian would have zeros."""
    torch.manual_seed(0)
    x = torch.empty(1_000_000, 16, dtype=torch.float64).exponential_().sum(1)
    found = inverse(16.0, 16.0)
    assert found.second == pytest.approx(float(x.pow(-2).mean()), rel=0.02)
    assert found.slope == pytest.approx(float(x.pow(-4).mean()), rel=0.1)
