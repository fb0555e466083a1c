"""Published results on real nets: built by torch, traced and propagated from their actual weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from initlint.probe import pipeline  # noqa: E402
from initlint.signal import Signal, confirmed, propagate  # noqa: E402


def of(build: Callable[[], nn.Module], *shape: int) -> Signal:
    facts = pipeline.analyse(build, inputs=(torch.randn(*shape),))
    return propagate(facts, confirmed(facts))


def delta_orthogonal(weight: Any, gain: float) -> None:
    """Xiao et al. 2018, algorithm 1: an orthogonal matrix at the centre tap, zero around it."""
    nn.init.zeros_(weight)
    with torch.no_grad():
        nn.init.orthogonal_(weight[:, :, 1, 1], gain)


def tanh_convolutions(depth: int, init: Callable[[Any], Any]) -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(depth):
        conv = nn.Conv2d(16, 16, 3, padding=1, padding_mode="circular", bias=False)
        init(conv.weight)
        layers += [conv, nn.Tanh()]
    return nn.Sequential(*layers)


def test_xiao_2018_delta_orthogonal_convolutions_keep_gradients_over_a_thousand_layers() -> None:
    # gain 1 is critical for tanh without biases: q falls like 1 / (1 + 2 depth), the gradient by a power of depth;
    # any other gain gives an exponential: 1e-38 with .957, 1e+38 with 1.045 after 1000 layers
    deep = of(lambda: tanh_convolutions(1000, lambda w: delta_orthogonal(w, 1.0)), 2, 16, 4, 4)
    body = [p for p in deep.profile if p.body and p.energy is not None]
    assert len([p for p in body if deep.scene and deep.scene.nodes[p.node].op == "conv"]) > 990
    energies = [p.energy for p in body if p.energy is not None]
    assert max(energies) - min(energies) < 3.5  # (1 + 2 depth)^-1 forward, and E tanh'^2 of what is left
    assert deep.forward_span < 3.5


def test_xiao_2018_twice_the_gain_explodes_where_it_is_chaotic() -> None:
    # sigma_w^2 = 4 without bias: q* = 2.0 or so, chi = 4 E tanh'^2(q*) > 1.3: 1e6 after 50 layers
    chaotic = of(lambda: tanh_convolutions(60, lambda w: delta_orthogonal(w, 2.0)), 2, 16, 4, 4)
    assert not chaotic.spans["gradient"].shrinks
    assert chaotic.gradient_span > 6


def singular_values(conv: Any, size: int) -> Any:
    """Of the linear map that a circular convolution is: those of its matrices by frequency."""
    transform = torch.fft.fft2(conv.weight.detach(), (size, size)).permute(2, 3, 0, 1)
    return torch.linalg.svdvals(transform)


def test_xiao_2018_delta_orthogonal_is_an_isometry_and_orthogonal_kernels_are_not() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(32, 32, 3, padding=1, padding_mode="circular", bias=False)
    delta_orthogonal(conv.weight, 1.0)
    values = singular_values(conv, 8)
    assert float(values.min()) == pytest.approx(1.0, abs=1e-5)
    assert float(values.max()) == pytest.approx(1.0, abs=1e-5)
    nn.init.orthogonal_(conv.weight)  # rows of the flattened kernel: .006 to 1.93, mean square 1
    values = singular_values(conv, 8)
    assert float(values.min()) < 0.1
    assert 1.7 < float(values.max()) < 2.1
    assert float(values.square().mean()) == pytest.approx(1.0, abs=0.02)


def test_pytorch_23854_fan_out_of_a_depthwise_convolution() -> None:
    # (9, 36) by torch, (9, 9) by what reads what: kaiming_normal_(mode="fan_out") gives var * 9 = 2 / 4
    torch.manual_seed(0)
    conv = nn.Conv2d(64, 64, 3, padding=1, groups=64, padding_mode="circular", bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    assert float(conv.weight.detach().var()) * 9 == pytest.approx(2 / 64, rel=0.2)
    signal = of(lambda: nn.Sequential(conv), 4, 64, 8, 8)
    assert signal.scene is not None
    layer = next(node.index for node in signal.scene.nodes if node.op == "conv")
    assert signal.built[layer].q == pytest.approx(2 / 64, rel=0.2)


@pytest.mark.parametrize("depth", [22, 30])
def test_he_2015_xavier_on_rectifiers(depth: int) -> None:
    # section 2.2: each ReLU layer halves the second moment, 2^-22 and 2^-30 after 22 and 30
    def build() -> nn.Module:
        layers: list[nn.Module] = []
        for _ in range(depth):
            linear = nn.Linear(64, 64, bias=False)
            nn.init.xavier_normal_(linear.weight)
            layers += [linear, nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(64, 10))

    signal = of(build, 16, 64)
    assert signal.spans["forward"].raw == pytest.approx(depth * math.log10(2), abs=0.1)
    assert signal.spans["gradient"].raw == pytest.approx((depth - 1) * math.log10(2), abs=0.4)
