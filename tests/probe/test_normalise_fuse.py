"""Norms, activations, softmax and gated units written from primitives, in the spellings that people use."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from normalise_helper import Call, ops, traced
from torch import nn

X = (4, 5, 12)
IMAGE = (4, 6, 5, 5)


def one(value: float, *shape: int) -> nn.Parameter:
    return nn.Parameter(torch.full(shape or (12,), value))


def rms(s: Any, x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def centred(s: Any, x: torch.Tensor) -> torch.Tensor:
    mean = x.mean(-1, keepdim=True)
    var = (x - mean).pow(2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(var + 1e-5)


def by_moments(s: Any, x: torch.Tensor) -> torch.Tensor:
    mean = x.mean(dim=-1, keepdim=True)
    var = (x * x).mean(dim=-1, keepdim=True) - mean**2
    return (x - mean) * (var + 1e-5).rsqrt()


def by_std(s: Any, x: torch.Tensor) -> torch.Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6)


def by_var_mean(s: Any, x: torch.Tensor) -> torch.Tensor:
    var, mean = torch.var_mean(x, -1, keepdim=True, unbiased=False)
    return (x - mean) * torch.rsqrt(var + 1e-5)


def batch(s: Any, x: torch.Tensor) -> torch.Tensor:
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, unbiased=False)
    return (x - mean) / (var + 1e-5).sqrt()


def instance(s: Any, x: torch.Tensor) -> torch.Tensor:
    x = s.conv(x)
    return (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), keepdim=True) + 1e-5).sqrt()


NORMS: list[tuple[str, Callable[..., Any], dict[str, Any], tuple[int, ...], dict[str, Any]]] = [
    ("rms", rms, {}, X, {"kind": "rms", "n": 12}),
    ("rms with gain", lambda s, x: s.g * rms(s, x), {"g": one(1.5)}, X, {"kind": "rms", "weight_mean": 1.5}),
    ("gain after a cast", lambda s, x: s.g * rms(s, x.double()).type_as(x), {"g": one(1.0)}, X, {"weight_mean": 1.0}),
    ("unit offset", lambda s, x: rms(s, x) * (1 + s.g), {"g": one(0.0)}, X, {"unit_offset": True, "weight_mean": 0.0}),
    ("by norm", lambda s, x: x / (x.norm(dim=-1, keepdim=True) * 12**-0.5 + 1e-8), {}, X, {"kind": "rms"}),
    ("by clamp", lambda s, x: x / x.norm(dim=-1, keepdim=True).clamp(min=1e-6), {}, X, {"kind": "l2", "n": 12}),
    ("unit length", lambda s, x: x / x.pow(2).sum(-1, keepdim=True).sqrt(), {}, X, {"kind": "l2", "n": 12}),
    ("layer", centred, {}, X, {"kind": "layer", "n": 12}),
    ("layer by moments", by_moments, {}, X, {"kind": "layer"}),
    ("layer by std", by_std, {}, X, {"kind": "layer"}),
    ("layer by var_mean", by_var_mean, {}, X, {"kind": "layer"}),
    ("layer affine", lambda s, x: s.g * centred(s, x) + s.b, {"g": one(1.0), "b": one(0.2)}, X,
     {"kind": "layer", "weight_mean": 1.0, "bias_mean": pytest.approx(0.2)}),
    ("gain first", lambda s, x: s.g * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) + s.b,
     {"g": one(1.0), "b": one(0.0)}, X, {"kind": "layer", "weight_mean": 1.0, "bias_mean": 0.0}),
    ("batch", batch, {}, IMAGE, {"kind": "batch", "n": 100}),
]  # fmt: skip


@pytest.mark.parametrize("recorded", [False, True], ids=["symbolic", "recorded"])
@pytest.mark.parametrize(("function", "held", "shape", "attrs"), [c[1:] for c in NORMS], ids=[c[0] for c in NORMS])
def test_norm(
    function: Callable[..., Any], held: dict[str, Any], shape: tuple[int, ...], attrs: dict[str, Any], recorded: bool
) -> None:
    nodes, _ = traced(Call(function, recorded, **held), torch.randn(shape))
    left = [op for op in ops(nodes) if op not in ("identity",)]
    assert left == ["norm"]
    norm = next(n for n in nodes if n.op == "norm")
    assert {k: norm.attrs.get(k) for k in attrs} == attrs
    assert set(norm.parameters) == {"weight" for k in held if k == "g"} | {"bias" for k in held if k == "b"}


def test_instance_norm_by_hand() -> None:
    nodes, _ = traced(Call(instance, conv=nn.Conv2d(6, 6, 1)), torch.randn(IMAGE))
    assert ops(nodes) == ["conv", "norm"]
    assert nodes[2].attrs["kind"] == "instance"


@pytest.mark.parametrize(
    "function",
    [
        lambda s, x: x / (x.mean(-1, keepdim=True) + 1e-6),  # not scale-free of the right kind
        lambda s, x: x / (x.pow(2).mean(-1, keepdim=True) + 1e-6),  # degree two
        lambda s, x: x * x.var(-1, keepdim=True),
        lambda s, x: x / (x.flip(0).std(-1, keepdim=True) + 1e-6),  # the statistic of another signal
        lambda s, x: x / (x.std(-1, keepdim=True) + 5.0),  # no epsilon
    ],
)
def test_no_norm(function: Callable[..., Any]) -> None:
    nodes, _ = traced(Call(function), torch.randn(X))
    assert "norm" not in ops(nodes)


ACTIVATIONS: list[tuple[str, Callable[[torch.Tensor], torch.Tensor], dict[str, Any]]] = [
    ("silu", lambda x: x * torch.sigmoid(x), {"fn": "silu"}),
    ("quick_gelu", lambda x: x * torch.sigmoid(1.702 * x), {"fn": "quick_gelu"}),
    ("gelu", lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))), {"fn": "gelu"}),
    ("gelu outside", lambda x: 0.5 * (x * (1.0 + torch.erf(x / math.sqrt(2.0)))), {"fn": "gelu"}),
    ("gelu_tanh", lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3)))),
     {"fn": "gelu_tanh"}),
    ("gelu_tanh factored", lambda x: 0.5 * x * (1 + torch.tanh(x * 0.7978845608 * (1 + 0.044715 * x * x))),
     {"fn": "gelu_tanh"}),
    ("mish", lambda x: x * torch.tanh(F.softplus(x)), {"fn": "mish"}),
    ("hardswish", lambda x: x * F.relu6(x + 3) / 6, {"fn": "hardswish"}),
    ("hardswish clamp", lambda x: x * ((x + 3).clamp(0, 6) / 6), {"fn": "hardswish"}),
    ("square", lambda x: x * x, {"fn": "square"}),
    ("relu squared", lambda x: F.relu(x) ** 2, {"fn": "relu_squared"}),
    ("relu squared mul", lambda x: F.relu(x) * F.relu(x), {"fn": "relu_squared"}),
    ("leaky", lambda x: F.relu(x) - 0.1 * F.relu(-x), {"fn": "leaky_relu"}),
    ("softsign", lambda x: x / (1 + x.abs()), {"fn": "softsign"}),
    ("tanhshrink", lambda x: x - torch.tanh(x), {"fn": "tanhshrink"}),
    ("unnamed", lambda x: x * torch.sigmoid(3.0 * x), {"fn": "callable"}),
]  # fmt: skip


@pytest.mark.parametrize("recorded", [False, True], ids=["symbolic", "recorded"])
@pytest.mark.parametrize(("function", "attrs"), [c[1:] for c in ACTIVATIONS], ids=[c[0] for c in ACTIVATIONS])
def test_activation(function: Callable[[torch.Tensor], torch.Tensor], attrs: dict[str, Any], recorded: bool) -> None:
    nodes, _ = traced(Call(lambda s, x: function(x), recorded), torch.randn(X))
    assert ops(nodes) == ["activation"]
    found = next(n for n in nodes if n.op == "activation")
    assert found.attrs["fn"] == attrs["fn"]
    if attrs["fn"] == "callable":
        x, y = torch.tensor(found.table["x"]), torch.tensor(found.table["y"])
        assert torch.allclose(y, function(x), atol=1e-5)
    if attrs["fn"] == "leaky_relu":
        assert found.attrs["negative_slope"] == pytest.approx(0.1)


def test_a_custom_function_is_tabulated_or_recognised() -> None:
    class Swish(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return x * torch.sigmoid(x)

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            (x,) = ctx.saved_tensors
            s = torch.sigmoid(x)
            return grad * s * (1 + x * (1 - s))

    nodes, _ = traced(Call(lambda s, x: Swish.apply(x)), torch.randn(X))
    assert [n.attrs["fn"] for n in nodes if n.op == "activation"] == ["silu"]


def test_a_residual_sum_is_no_activation() -> None:
    nodes, _ = traced(Call(lambda s, x: x + s.a(x), a=nn.Linear(12, 12)), torch.randn(X))
    assert ops(nodes) == ["linear", "add"]


@pytest.mark.parametrize("shifted", [True, False])
def test_softmax_by_hand(shifted: bool) -> None:
    def function(s: Any, x: torch.Tensor) -> torch.Tensor:
        e = torch.exp(x - x.max(-1, keepdim=True).values if shifted else x)
        return e / e.sum(-1, keepdim=True)

    nodes, _ = traced(Call(function), torch.randn(X))
    assert ops(nodes) == ["softmax"]
    assert nodes[1].attrs["n"] == 12


def test_gated_unit_keeps_two_functions_apart() -> None:
    def wave(s: Any, x: torch.Tensor) -> torch.Tensor:
        a, b = s.f(x).chunk(2, -1)
        return torch.tanh(a) * torch.sigmoid(b)

    nodes, _ = traced(Call(wave, f=nn.Linear(12, 8)), torch.randn(X))
    assert "glu" not in ops(nodes)
    assert [n.attrs["fn"] for n in nodes if n.op == "activation"] == ["tanh", "sigmoid"]


def test_attention_products_are_told_apart() -> None:
    def attend(s: Any, x: torch.Tensor) -> torch.Tensor:
        q, k, v = s.q(x), s.k(x), s.v(x)
        return torch.softmax(q @ k.transpose(1, 2) / 3.0, -1) @ v

    held = {k: nn.Linear(12, 12) for k in "qkv"}
    nodes, _ = traced(Call(attend, **held), torch.randn(X))
    assert [n.attrs["kind"] for n in nodes if n.op == "matmul"] == ["logits", "values"]


def test_similarity_is_no_attention() -> None:
    nodes, _ = traced(Call(lambda s, x: (x @ x.transpose(1, 2)).softmax(-1)), torch.randn(X))
    assert [n.attrs["kind"] for n in nodes if n.op == "matmul"] == ["other"]


@pytest.mark.parametrize("p", [0.2, 0.5])
def test_drop_path_by_hand(p: float) -> None:
    def function(s: Any, x: torch.Tensor) -> torch.Tensor:
        mask = x.new_empty((x.shape[0], 1, 1)).bernoulli_(1 - p)
        return x * mask.div_(1 - p)

    nodes, _ = traced(Call(function), torch.randn(X))
    assert ops(nodes) == ["dropout"]
    assert nodes[1].attrs["kind"] == "path"
    assert nodes[1].attrs["p"] == pytest.approx(p, abs=1e-6)


def test_low_rank_weight_is_taken_apart() -> None:
    def function(s: Any, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, s.w + 2.0 * (s.b @ s.a), s.bias)

    held = {"w": one(0.1, 7, 12), "a": one(0.3, 2, 12), "b": one(0.0, 7, 2), "bias": one(0.0, 7)}
    nodes, _ = traced(Call(function, **held), torch.randn(X))
    assert ops(nodes) == ["linear", "linear", "linear", "scale", "add"]
    assert [n.parameters["weight"] for n in nodes if n.op == "linear"] == ["w", "a", "b"]
    assert [n.operator.fan_in for n in nodes if n.operator] == [12.0, 12.0, 2.0]


def test_standardised_weight_has_degree_zero() -> None:
    def function(s: Any, x: torch.Tensor) -> torch.Tensor:
        w = s.w
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(x, w)

    nodes, _ = traced(Call(function, w=nn.Parameter(torch.randn(4, 6, 3, 3))), torch.randn(IMAGE))
    assert ops(nodes) == ["conv"]
    assert nodes[1].attrs["weight_degree"] == 0.0
    assert nodes[1].parameters == {"weight": "w"}


def test_equalised_weight_has_degree_one() -> None:
    held = {"w": nn.Parameter(torch.randn(7, 12))}
    nodes, _ = traced(Call(lambda s, x: F.linear(x, s.w * math.sqrt(2 / 12)), **held), torch.randn(X))
    node = nodes[1]
    assert node.attrs["weight_degree"] == 1.0
    assert node.operator.gain == pytest.approx(float(held["w"].detach().square().sum(1).mean()) * 2 / 12, rel=1e-5)


def test_what_no_norm_is_made_of_is_not_walked_in_deep_models() -> None:
    """A product with another signal's statistic: is it a norm? Behind the first sum there is nothing to look for."""

    def deep(s: Any, x: torch.Tensor) -> torch.Tensor:
        for _ in range(700):
            x = x + x * torch.rsqrt(x.tanh().pow(2).mean(-1, keepdim=True) + 1e-6) * 1e-3
        return rms(s, x)

    nodes, _ = traced(Call(deep), torch.randn(X))
    assert sum(n.op == "norm" for n in nodes) == 1
