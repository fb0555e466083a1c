"""Rules that an audit of more than a thousand small models found to be far from what runs of them measure."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import initlint

pytestmark = pytest.mark.usefixtures("one_thread")


class Net(nn.Module):
    """Layers, and functions of what they return, one after another."""

    def __init__(self, *parts: nn.Module | Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.parts = [part if callable(part) and not isinstance(part, nn.Module) else None for part in parts]
        self.layers = nn.ModuleList([part if isinstance(part, nn.Module) else nn.Identity() for part in parts])

    def forward(self, x: Tensor) -> Tensor:
        for layer, function in zip(self.layers, self.parts, strict=True):
            x = layer(x) if function is None else function(x)
        return x


def layer(before: int, after: int, gain: float = 1.0) -> nn.Linear:
    made = nn.Linear(before, after)
    nn.init.normal_(made.weight, 0.0, math.sqrt(gain / before))
    nn.init.zeros_(made.bias)
    return made


def agrees(build: Callable[[], nn.Module], *shape: int, rel: float = 0.1, seeds: int = 2, back: float = 0.0) -> None:
    """Each layer's signal and gradient are predicted as a run measures them, over a few seeds."""
    found: dict[str, list[float]] = {}
    for seed in range(seeds):
        torch.manual_seed(1000 + seed)  # no numbers that the weights are drawn from, too
        run = initlint.check(build, inputs=(torch.randn(*shape),), seed=seed, measure=True)
        for row in run.models[0].rows:
            signal = row.signal
            if signal is None or not signal.measured_forward_std or not signal.gradient_std:
                continue
            forward, gradient = (
                signal.forward_std / signal.measured_forward_std,
                signal.gradient_std / signal.measured_gradient_std,
            )
            found.setdefault(f"{row.name} forward", []).append(math.log(forward))
            found.setdefault(f"{row.name} gradient", []).append(math.log(gradient))
    assert found
    for name, logs in found.items():
        allowed = back if back and name.endswith("gradient") else rel
        assert math.exp(sum(logs) / len(logs)) == pytest.approx(1.0, abs=allowed), name


class Shifted(nn.Module):
    """A rectifier whose threshold is a parameter of each channel (TLU)."""

    def __init__(self, width: int, spread: float) -> None:
        super().__init__()
        self.threshold = nn.Parameter(spread * torch.randn(width) - 0.3 * bool(spread))

    def forward(self, x: Tensor) -> Tensor:
        return torch.max(x, self.threshold)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.maximum(x, torch.zeros_like(x)),
        lambda x: -torch.minimum(-x, torch.zeros_like(x)),
        lambda x: torch.fmax(torch.zeros_like(x), x),
        lambda x: torch.clamp(x, min=torch.tensor(0.0)),
        lambda x: torch.max(x, 0.1 * x),
    ],
)
def test_a_greater_of_a_signal_and_one_number_is_a_rectifier(function: Callable[[Tensor], Tensor]) -> None:
    agrees(lambda: Net(layer(64, 256), function, layer(256, 256, 2.0), function, layer(256, 64)), 512, 64)


@pytest.mark.parametrize("spread", [0.0, 0.7])
def test_a_greater_of_a_signal_and_a_parameter(spread: float) -> None:
    agrees(
        lambda: Net(layer(64, 256), Shifted(256, spread), layer(256, 256), Shifted(256, spread), layer(256, 64)),
        512,
        64,
    )


class Halves(nn.Module):
    def __init__(self, choose: Callable[[Tensor, Tensor], Tensor], before: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.last = layer(64, 256), layer(64, 256, 3.0), layer(256, 64)
        self.choose, self.before = choose, before

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.choose(self.before(self.first(x)), self.before(self.second(x))))
        return out


@pytest.mark.parametrize("choose", [torch.maximum, torch.minimum])
@pytest.mark.parametrize("before", [lambda x: x, F.relu])
def test_a_greater_of_two_signals(
    choose: Callable[[Tensor, Tensor], Tensor], before: Callable[[Tensor], Tensor]
) -> None:
    agrees(lambda: Halves(choose, before), 256, 64)


class Sum(nn.Module):
    """The greater of a signal and of one that holds it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = layer(64, 256), layer(256, 256), layer(256, 64)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        out: Tensor = self.last(torch.maximum(h + 0.5 * self.second(h), h))
        return out


def test_a_greater_of_two_signals_that_share_one() -> None:
    agrees(Sum, 256, 64)


@pytest.mark.parametrize("fn", ["max", "min"])
def test_differences_of_a_greater_one(fn: str) -> None:
    from test_ops_simulated import SHAPE, Mix, close, rule, simulate

    mixes = (Mix(0.3, 0.2, 0.4, 0.5, 0.4), Mix(0.1, 0.5, 0.1, 0.1, -0.2))
    got, grads = simulate(torch.maximum if fn == "max" else torch.minimum, *mixes, draws=30)
    y, sent = rule("extremum", tuple(mix.state() for mix in mixes), SHAPE, fn=fn)
    close(y, got, 0.06)
    assert [g.p for g in sent] == pytest.approx(grads, rel=0.06)


@pytest.mark.parametrize(
    "mean",
    [
        lambda x: x.cumsum(1) / torch.arange(1, 25).view(1, 24, 1),
        lambda x: x.cumsum(1) * (1.0 / torch.arange(1.0, 25.0)).view(1, 24, 1),
        lambda x: torch.relu(x).cumsum(1) / torch.arange(1, 25).view(24, 1),
    ],
)
def test_a_running_sum_over_its_count_is_a_mean_at_each_position(mean: Callable[[Tensor], Tensor]) -> None:
    agrees(lambda: Net(layer(32, 128, 2.0), mean, layer(128, 128, 2.0), nn.ReLU(), layer(128, 32)), 48, 24, 32)


class Causal(nn.Module):
    """Linear attention to what came before: a running sum of products over one of weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.q, self.k, self.v, self.last = (layer(64, 64) for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        q, k = F.elu(self.q(h)) + 1.0, F.elu(self.k(h)) + 1.0
        products = torch.einsum("bnd,bne->bnde", k, self.v(h)).cumsum(1)
        total = torch.einsum("bnd,bnd->bn", q, k.cumsum(1))
        out: Tensor = self.last(torch.einsum("bnd,bnde->bne", q, products) / (total[..., None] + 1e-6))
        return out


def test_a_running_sum_over_another_one() -> None:
    torch.manual_seed(7)
    rows = initlint.check(Causal, inputs=(torch.randn(32, 32, 64),), measure=True).models[0].rows
    found = {row.name: row.signal for row in rows if row.signal is not None}
    last, value = found["last"], found["v"]
    assert last.forward_std == pytest.approx(last.measured_forward_std, rel=0.25)  # -37 % by averages
    assert value.gradient_std == pytest.approx(value.measured_gradient_std, rel=0.25)  # +230 %


class Ratio(nn.Module):
    def __init__(self, under: Callable[[Tensor], Tensor], before: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.last = layer(64, 128, 2.0), layer(64, 128, 2.0), layer(128, 64)
        self.under, self.before = under, before

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.before(self.first(x)), self.before(self.second(x))
        out: Tensor = self.last(torch.relu(a / self.under(b)))
        return out


@pytest.mark.parametrize(
    "under",
    [
        lambda b: 1.0 + b * b,
        lambda b: 1.0 + b.abs(),
        lambda b: 1.0 + torch.exp(-b),
        lambda b: F.softplus(b) + 1e-2,
    ],
)
@pytest.mark.parametrize("before", [lambda x: x, F.relu])
def test_a_divisor_that_is_a_function_of_one_signal(
    under: Callable[[Tensor], Tensor], before: Callable[[Tensor], Tensor]
) -> None:
    agrees(lambda: Ratio(under, before), 512, 64)


@pytest.mark.parametrize("most", [lambda x: x.max(1)[0], lambda x: x.amax(1), lambda x: x[:, :3].amin(1)])
@pytest.mark.parametrize("before", [lambda x: x, F.relu])
def test_an_extreme_of_positions_of_a_rectified_signal(
    most: Callable[[Tensor], Tensor], before: Callable[[Tensor], Tensor]
) -> None:
    agrees(
        lambda: Net(layer(32, 128, 2.0), before, most, layer(128, 128, 2.0), nn.ReLU(), layer(128, 32)),
        64, 32, 32, rel=0.25,
    )  # fmt: skip


class Stacked(nn.Module):
    """Two recurrent layers; the forget gates of an LSTM open."""

    def __init__(self, kind: type[nn.LSTM | nn.GRU], directions: int) -> None:
        super().__init__()
        self.first = nn.Linear(64, 64)
        self.rnn = kind(64, 64, num_layers=2, batch_first=True, bidirectional=directions == 2)
        if kind is nn.LSTM:
            for name, parameter in self.rnn.named_parameters():
                if name.startswith("bias_ih"):
                    parameter.data[64:128] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.rnn(self.first(x))[0]
        return out


@pytest.mark.parametrize(("kind", "directions"), [(nn.LSTM, 1), (nn.GRU, 1), (nn.GRU, 2)])
def test_what_a_layer_hands_on_at_every_step_alike_adds_up_in_the_next(
    kind: type[nn.LSTM | nn.GRU], directions: int
) -> None:
    torch.manual_seed(9)
    rows = initlint.check(
        lambda: Stacked(kind, directions), inputs=(torch.randn(64, 32, 64),), measure=True
    ).models[0].rows  # fmt: skip
    signal = next(row.signal for row in rows if row.name.startswith("rnn") and row.signal is not None)
    assert signal.forward_std == pytest.approx(
        signal.measured_forward_std, rel=0.16
    )  # -28 % of the LSTM, by biases alone


class Identity(nn.Module):
    """A ReLU network whose recurrent matrix is the identity (IRNN)."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.first = layer(64, 64)
        self.rnn = nn.RNN(64, 256, nonlinearity="relu", batch_first=True)
        nn.init.eye_(self.rnn.weight_hh_l0)
        nn.init.normal_(self.rnn.weight_ih_l0, 0.0, 0.01)
        nn.init.normal_(self.rnn.bias_ih_l0, 0.0, bias)
        nn.init.zeros_(self.rnn.bias_hh_l0)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.rnn(self.first(x))[0]
        return out


@pytest.mark.parametrize("bias", [0.0, 0.02])
def test_a_relu_network_whose_recurrent_matrix_is_the_identity(bias: float) -> None:
    torch.manual_seed(9)
    rows = initlint.check(lambda: Identity(bias), inputs=(torch.randn(64, 24, 64),), measure=True).models[0].rows
    found = {row.name.partition(".")[0]: row.signal for row in rows if row.signal is not None}
    after, before = found["rnn"], found["first"]
    assert after.forward_std == pytest.approx(after.measured_forward_std, rel=0.1)  # a quarter, of random weights
    assert before.gradient_std == pytest.approx(before.measured_gradient_std, rel=0.1)


class Swish(nn.Module):
    """x sigmoid(beta x), with a beta for each channel."""

    def __init__(self, width: int, beta: float) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.full((width,), beta))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.beta * x)


@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_a_gate_of_the_signal_itself_times_a_parameter(beta: float) -> None:
    def build() -> nn.Module:
        return Net(layer(64, 256), Swish(256, beta), layer(256, 256, 2.0), Swish(256, beta), layer(256, 64))

    agrees(build, 512, 64)
    run = initlint.check(build, inputs=(torch.randn(64, 64),), measure=True)
    # the gradient goes past the product with beta, which is not taken for one that gets none
    assert not [finding for finding in run.findings if "gradient" in finding.message]


@pytest.mark.parametrize("before", [lambda x: x, F.relu])
def test_a_signal_mixed_by_a_gate_of_its_own(before: Callable[[Tensor], Tensor]) -> None:
    agrees(lambda: Halves(lambda a, b: torch.lerp(a, b, torch.sigmoid(a)), before), 256, 64, rel=0.12, back=0.25)


class Distances(nn.Module):
    """Attention written by hand, with a bias that falls with the distance, at another rate in each head (ALiBi)."""

    def __init__(self, causal: bool, taken: bool) -> None:
        super().__init__()
        self.q, self.k, self.v, self.last = (layer(64, 64) for _ in range(4))
        self.causal, self.taken = causal, taken

    def forward(self, x: Tensor) -> Tensor:
        batch, n, width = x.shape
        q, k, v = (part(x).view(batch, n, 4, width // 4).transpose(1, 2) for part in (self.q, self.k, self.v))
        place = torch.arange(n)
        slopes = torch.tensor([0.5, 0.25, 0.125, 0.0625]).view(4, 1, 1)
        far = (place[:, None] - place[None]).abs() * slopes
        logits = q @ k.transpose(-1, -2) / 4.0
        logits = logits - far if self.taken else logits + -far
        if self.causal:
            logits = logits.masked_fill(place[:, None] < place[None], float("-inf"))
        out: Tensor = self.last((torch.softmax(logits, -1) @ v).transpose(1, 2).reshape(batch, n, width))
        return out


@pytest.mark.parametrize(("causal", "taken"), [(False, False), (False, True), (True, False)])
def test_a_fixed_bias_against_far_keys_is_a_soft_mask(causal: bool, taken: bool) -> None:
    agrees(lambda: Distances(causal, taken), 16, 48, 64, rel=0.25, back=0.35)
