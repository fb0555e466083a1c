"""Every family of ops, as module, function and method, by both ways of tracing: its canonical node."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from normalise_helper import Call, ops, traced
from torch import nn

import initlint

X = (4, 8, 6)  # samples, channels or tokens, channels
I = (4, 8, 6, 6)  # noqa: E741  images


def P(*shape: int) -> nn.Parameter:  # noqa: N802
    return nn.Parameter(torch.randn(shape))


# (name, function of (self, x), what it holds, shape of x, expected ops, attributes of the last one)
CASES: list[tuple[str, Callable[..., Any], dict[str, Any], tuple[int, ...], list[str], dict[str, Any]]] = [
    ("relu", lambda s, x: F.relu(x), {}, X, ["activation"], {"fn": "relu"}),
    ("relu method", lambda s, x: x.relu(), {}, X, ["activation"], {"fn": "relu"}),
    ("relu in place", lambda s, x: torch.relu_(x * 2), {}, X, ["scale", "activation"], {"fn": "relu"}),
    ("leaky", lambda s, x: F.leaky_relu(x, 0.2), {}, X, ["activation"], {"fn": "leaky_relu", "negative_slope": 0.2}),
    ("elu", lambda s, x: F.elu(x, alpha=0.5), {}, X, ["activation"], {"fn": "elu", "alpha": 0.5}),
    ("gelu tanh", lambda s, x: F.gelu(x, approximate="tanh"), {}, X, ["activation"], {"fn": "gelu_tanh"}),
    ("silu module", lambda s, x: s.a(x), {"a": nn.SiLU()}, X, ["activation"], {"fn": "silu"}),
    ("softplus", lambda s, x: s.a(x), {"a": nn.Softplus(2.0)}, X, ["activation"], {"fn": "softplus", "beta": 2.0}),
    ("hardtanh", lambda s, x: s.a(x), {"a": nn.Hardtanh(-2, 2)}, X, ["activation"], {"fn": "hardtanh", "max": 2.0}),
    ("prelu", lambda s, x: s.a(x), {"a": nn.PReLU(8)}, X, ["activation"], {"fn": "prelu", "negative_slope": 0.25}),
    ("clamp", lambda s, x: x.clamp(min=0), {}, X, ["activation"], {"fn": "clamp", "min": 0.0}),
    ("maximum", lambda s, x: torch.maximum(x, torch.zeros(())), {}, X, ["activation"], {"fn": "clamp", "min": 0.0}),
    ("pow", lambda s, x: x**2, {}, X, ["activation"], {"fn": "square"}),
    ("pow 3", lambda s, x: torch.pow(x, 3), {}, X, ["activation"], {"fn": "pow", "exponent": 3.0}),
    ("sin", lambda s, x: torch.sin(30 * x), {}, X, ["scale", "activation"], {"fn": "sin"}),
    ("scale", lambda s, x: x * 3, {}, X, ["scale"], {"factor": 3.0}),
    ("scale left", lambda s, x: math.sqrt(6) * x, {}, X, ["scale"], {"factor": math.sqrt(6)}),
    ("scale by a size", lambda s, x: x / math.sqrt(x.size(-1)), {}, X, ["scale"], {"factor": 1 / math.sqrt(6)}),
    ("negative", lambda s, x: -x, {}, X, ["scale"], {"factor": -1.0}),
    ("shift", lambda s, x: x - 1, {}, X, ["shift"], {"value": -1.0}),
    ("reversed", lambda s, x: 1 - x, {}, X, ["scale", "shift"], {"value": 1.0}),
    ("reciprocal", lambda s, x: 2 / x, {}, X, ["activation", "scale"], {"factor": 2.0}),
    ("add", lambda s, x: x + F.relu(x.flip(0)), {}, X, ["reshape", "activation", "add"], {}),
    ("add alpha", lambda s, x: torch.add(x, x.flip(0), alpha=2), {}, X, ["reshape", "add"], {"alpha": 2.0}),
    ("add parameter", lambda s, x: x + s.w, {"w": P(6)}, X, ["parameter", "add"], {}),
    ("mul parameter", lambda s, x: s.w * x, {"w": P(6)}, X, ["parameter", "mul"], {}),
    ("expression", lambda s, x: x * s.w.exp(), {"w": P(1)}, X, ["parameter", "mul"], {}),
    ("broadcast", lambda s, x: torch.broadcast_tensors(x, F.relu(x))[1], {}, X, ["activation", "reshape"],
     {"kind": "broadcast_tensors"}),
    ("buffer", lambda s, x: x + s.w, {"w": torch.randn(6)}, X, ["parameter", "add"], {}),
    ("random", lambda s, x: x + torch.randn_like(x), {}, X, ["constant", "add"], {}),
    ("linear", lambda s, x: s.a(x), {"a": nn.Linear(6, 5)}, X, ["linear"], {"layout": "out_in"}),
    ("F.linear", lambda s, x: F.linear(x, s.w, s.b), {"w": P(5, 6), "b": P(5)}, X, ["linear"], {"layout": "out_in"}),
    ("matmul", lambda s, x: x @ s.w, {"w": P(6, 5)}, X, ["linear"], {"layout": "in_out"}),
    ("matmul t", lambda s, x: x @ s.w.t(), {"w": P(5, 6)}, X, ["linear"], {"layout": "out_in"}),
    ("matmul T", lambda s, x: torch.matmul(x, s.w.T), {"w": P(5, 6)}, X, ["linear"], {"layout": "out_in"}),
    ("matmul transpose", lambda s, x: x @ s.w.transpose(0, 1), {"w": P(5, 6)}, X, ["linear"], {"layout": "out_in"}),
    ("weight left", lambda s, x: s.w @ x, {"w": P(5, 8)}, X, ["linear"], {"layout": "out_in"}),
    ("vector", lambda s, x: x @ s.w, {"w": P(6)}, X, ["linear"], {}),
    ("scaled weight", lambda s, x: x @ (s.w * 0.5), {"w": P(6, 5)}, X, ["linear"], {"weight_degree": 1.0}),
    ("bias added", lambda s, x: x @ s.w + s.b, {"w": P(6, 5), "b": P(5)}, X, ["linear"], {"layout": "in_out"}),
    ("einsum", lambda s, x: torch.einsum("btc,co->bto", x, s.w), {"w": P(6, 5)}, X, ["linear"], {"layout": "in_out"}),
    ("einsum heads", lambda s, x: torch.einsum("btc,hcd->bhtd", x, s.w), {"w": P(2, 6, 3)}, X, ["linear"],
     {"layout": "stacked_in_out", "stack": 2}),
    ("experts", lambda s, x: torch.bmm(x.transpose(0, 1), s.w), {"w": P(8, 6, 5)}, X, ["reshape", "linear"],
     {"layout": "stacked_in_out", "stack": 8}),
    ("stacked out in", lambda s, x: torch.einsum("btc,toc->bto", x, s.w), {"w": P(8, 5, 6)}, X, ["linear"],
     {"layout": "stacked_out_in", "stack": 8}),
    ("tensordot", lambda s, x: torch.tensordot(x, s.w, dims=1), {"w": P(6, 5)}, X, ["linear"], {"layout": "in_out"}),
    ("addmm", lambda s, x: torch.addmm(s.b, x.reshape(-1, 6), s.w), {"w": P(6, 5), "b": P(5)}, X,
     ["reshape", "linear"], {"layout": "in_out"}),
    ("chunk of a weight", lambda s, x: F.linear(x, s.w.chunk(3)[1]), {"w": P(9, 6)}, X, ["linear"], {"part": [3, 6]}),
    ("concatenated weights", lambda s, x: F.linear(x, torch.cat([s.w, s.v])), {"w": P(3, 6), "v": P(2, 6)}, X,
     ["linear"], {"layout": "out_in"}),
    ("fixed matrix", lambda s, x: s.w @ x, {"w": torch.eye(8)}, X, ["linear"], {"fixed": True}),
    ("two signals", lambda s, x: x @ x.transpose(1, 2), {}, X, ["reshape", "matmul"], {"contraction": 6}),
    ("einsum of signals", lambda s, x: torch.einsum("bic,bjc->bij", x, x), {}, X, ["matmul"], {"contraction": 6}),
    ("conv", lambda s, x: s.a(x), {"a": nn.Conv2d(8, 4, 3, groups=2)}, I, ["conv"], {"groups": 2, "kernel": [3, 3]}),
    ("F.conv", lambda s, x: F.conv2d(x, s.w, padding=1), {"w": P(4, 8, 3, 3)}, I, ["conv"], {"padding": [1, 1]}),
    ("conv transpose", lambda s, x: s.a(x), {"a": nn.ConvTranspose2d(8, 4, 2, 2)}, I, ["conv_transpose"], {}),
    ("bilinear", lambda s, x: s.a(x, x), {"a": nn.Bilinear(6, 6, 3)}, X, ["bilinear"], {"in1": 6, "in2": 6}),
    ("glu", lambda s, x: F.glu(x, -1), {}, X, ["glu"], {"fn": "sigmoid"}),
    ("glu by chunk", lambda s, x: operator.mul(*(lambda t: (t[0], F.silu(t[1])))(s.a(x).chunk(2, -1))),
     {"a": nn.Linear(6, 8)}, X, ["linear", "glu"], {"fn": "silu"}),
    ("softmax", lambda s, x: x.softmax(-1), {}, X, ["softmax"], {"n": 6}),
    ("log softmax", lambda s, x: F.log_softmax(x, dim=1), {}, X, ["log_softmax"], {"n": 8}),
    ("layer norm", lambda s, x: s.a(x), {"a": nn.LayerNorm(6)}, X, ["norm"], {"kind": "layer", "n": 6}),
    ("F.layer_norm", lambda s, x: F.layer_norm(x, (6,)), {}, X, ["norm"], {"kind": "layer", "n": 6}),
    ("batch norm", lambda s, x: s.a(x), {"a": nn.BatchNorm2d(8)}, I, ["norm"], {"kind": "batch", "n": 144}),
    ("group norm", lambda s, x: s.a(x), {"a": nn.GroupNorm(2, 8)}, I, ["norm"], {"kind": "group", "n": 144}),
    ("instance norm", lambda s, x: s.a(x), {"a": nn.InstanceNorm2d(8)}, I, ["norm"], {"kind": "instance", "n": 36}),
    ("rms norm", lambda s, x: s.a(x), {"a": nn.RMSNorm(6)}, X, ["norm"], {"kind": "rms", "n": 6}),
    ("normalize", lambda s, x: F.normalize(x, dim=-1), {}, X, ["norm"], {"kind": "l2", "n": 6}),
    ("local response", lambda s, x: s.a(x), {"a": nn.LocalResponseNorm(3)}, I, ["norm"], {"kind": "local_response"}),
    ("dropout", lambda s, x: s.a(x), {"a": nn.Dropout(0.2)}, X, ["dropout"], {"p": 0.2, "kind": "element"}),
    ("dropout 2d", lambda s, x: F.dropout2d(x, 0.3), {}, I, ["dropout"], {"p": 0.3, "kind": "channel"}),
    ("dropout off", lambda s, x: F.dropout(x, 0.3, training=False), {}, X, ["identity"], {}),
    ("avg pool", lambda s, x: F.avg_pool2d(x, 2), {}, I, ["pool"], {"kind": "avg", "window": 4}),
    ("max pool", lambda s, x: s.a(x), {"a": nn.MaxPool2d(3, 2, 1)}, I, ["pool"], {"kind": "max", "window": 9}),
    ("adaptive", lambda s, x: F.adaptive_avg_pool2d(x, (2, 2)), {}, I, ["pool"], {"kind": "avg", "window": 9.0}),
    ("mean", lambda s, x: x.mean((2, 3)), {}, I, ["reduce"], {"fn": "mean", "n": 36}),
    ("sum", lambda s, x: torch.sum(x, 1, keepdim=True), {}, X, ["reduce"], {"fn": "sum", "n": 8, "keepdim": True}),
    ("max value", lambda s, x: x.max(1)[0], {}, X, ["reduce"], {"fn": "max"}),
    ("amax", lambda s, x: x.amax(1), {}, X, ["reduce"], {"fn": "max", "n": 8}),
    ("cumsum", lambda s, x: x.cumsum(1), {}, X, ["cumsum"], {"n": 8}),
    ("view", lambda s, x: x.view(x.size(0), -1), {}, X, ["reshape"], {}),
    ("permute", lambda s, x: x.permute(0, 2, 1), {}, X, ["reshape"], {}),
    ("expand", lambda s, x: x.unsqueeze(1).expand(-1, 3, -1, -1), {}, X, ["reshape", "reshape"], {"kept": 3.0}),
    ("pixel shuffle", lambda s, x: F.pixel_shuffle(x, 2), {}, I, ["reshape"], {}),
    ("unfold", lambda s, x: F.unfold(x, 3), {}, I, ["reshape"], {"kept": 4.0}),
    ("slice", lambda s, x: x[:, 0], {}, X, ["select"], {"share": 1 / 8, "start": 0, "stop": 1}),
    ("narrow", lambda s, x: x.narrow(-1, 2, 3), {}, X, ["select"], {"share": 0.5, "start": 2, "stop": 5}),
    ("cat", lambda s, x: torch.cat([x, F.relu(x)], -1), {}, X, ["activation", "cat"], {"sizes": [192, 192]}),
    ("stack", lambda s, x: torch.stack([x, F.relu(x)]), {}, X, ["activation", "stack"], {}),
    ("where", lambda s, x: torch.where(s.m, x, -x.flip(0)), {"m": torch.ones(6).bool()}, X,
     ["reshape", "scale", "where"], {"share": 1.0}),
    ("masked fill", lambda s, x: x.masked_fill(s.m, 0.0), {"m": torch.tensor([True] * 3 + [False] * 3)}, X,
     ["constant", "where"], {"share": 0.5}),
    ("interpolate", lambda s, x: F.interpolate(x, scale_factor=2), {}, I, ["resize"], {"gain_white": 1.0}),
    ("upsample", lambda s, x: s.a(x), {"a": nn.Upsample(scale_factor=2, mode="bilinear")}, I, ["resize"], {}),
    ("pad", lambda s, x: F.pad(x, (1, 1)), {}, X, ["pad"], {"n_in": 192, "n_out": 256}),
    ("zero pad", lambda s, x: s.a(x), {"a": nn.ZeroPad2d(1)}, I, ["pad"], {}),
    ("detach", lambda s, x: x.detach(), {}, X, ["stop"], {}),
    ("argmax", lambda s, x: x.argmax(-1), {}, X, ["stop"], {}),
    ("attention", lambda s, x: F.scaled_dot_product_attention(x, x, x), {}, X, ["attention"], {"head_dim": 6}),
    ("lerp", lambda s, x: torch.lerp(x, x.flip(0), 0.3), {}, X, ["reshape", "scale", "scale", "add"], {}),
    ("addcmul", lambda s, x: torch.addcmul(x, x, x.flip(0)), {}, X, ["reshape", "mul", "add"], {}),
    ("cast", lambda s, x: x.double().float(), {}, X, [], {}),
    ("loss", lambda s, x: F.mse_loss(x, x.flip(0)), {}, X, ["reshape", "loss"], {"kind": "mse_loss"}),
]  # fmt: skip


@pytest.mark.parametrize("recorded", [False, True], ids=["symbolic", "recorded"])
@pytest.mark.parametrize(
    ("function", "held", "shape", "expected", "attrs"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_op(
    function: Callable[..., Any],
    held: dict[str, Any],
    shape: tuple[int, ...],
    expected: list[str],
    attrs: dict[str, Any],
    recorded: bool,
) -> None:
    nodes, outputs = traced(Call(function, recorded, **held), torch.randn(shape))
    assert ops(nodes) == expected
    if expected and attrs:
        last = [n for n in nodes if n.op == expected[-1]][-1]
        found = {k: last.attrs.get(k) for k in attrs}
        assert found == pytest.approx(attrs) if all(isinstance(v, float) for v in attrs.values()) else found == attrs
    assert [n.index for n in nodes] == list(range(len(nodes)))
    assert all(i < n.index for n in nodes for i in n.inputs)
    assert all(nodes[i].op != "output" for i in outputs)


INDEX: list[tuple[str, Callable[..., Any], dict[str, Any], list[str]]] = [
    ("embedding", lambda s, i: s.e(i), {"e": nn.Embedding(20, 6, padding_idx=0)}, ["embedding"]),
    ("F.embedding", lambda s, i: F.embedding(i, s.w), {"w": P(20, 6)}, ["embedding"]),
    ("lookup", lambda s, i: s.w[i], {"w": P(20, 6)}, ["embedding"]),
    ("stacked lookup", lambda s, i: s.w[:, i], {"w": P(2, 20, 6)}, ["embedding"]),
    ("bag", lambda s, i: s.e(i), {"e": nn.EmbeddingBag(20, 6, mode="mean")}, ["embedding"]),
    ("positions", lambda s, i: s.e(i) + s.p(torch.arange(i.shape[1])),
     {"e": nn.Embedding(20, 6), "p": nn.Embedding(9, 6)}, ["embedding", "constant", "embedding", "add"]),
    ("tied", lambda s, i: s.e(i) @ s.e.weight.t(), {"e": nn.Embedding(20, 6)}, ["embedding", "linear"]),
    ("one hot", lambda s, i: F.one_hot(i, 20).float() @ s.w, {"w": P(20, 6)}, ["stop", "linear"]),
]  # fmt: skip


@pytest.mark.parametrize("recorded", [False, True], ids=["symbolic", "recorded"])
@pytest.mark.parametrize(("function", "held", "expected"), [c[1:] for c in INDEX], ids=[c[0] for c in INDEX])
def test_index_op(function: Callable[..., Any], held: dict[str, Any], expected: list[str], recorded: bool) -> None:
    nodes, _ = traced(Call(function, recorded, **held), torch.randint(0, 20, (4, 9)))
    assert sorted(ops(nodes)) == sorted(expected)


def test_unknown_functions_are_opaque_and_never_the_identity() -> None:
    nodes, _ = traced(Call(lambda s, x: torch.linalg.inv(x @ x.transpose(1, 2) + torch.eye(8))), torch.randn(X))
    found = [n for n in nodes if n.op == "opaque"]
    assert [n.attrs["name"] for n in found] == ["inv"]


def test_the_model_is_left_as_it_was() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(6))
            self.register_buffer("steps", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.w.clone().mul_(2.0) + self.steps.add(1)

    model, x = Counting(), torch.randn(X)
    state = torch.random.get_rng_state()
    nodes, _ = traced(model, x)
    assert float(model.w.sum()) == 6.0
    assert float(model.steps) == 0.0
    assert torch.equal(state, torch.random.get_rng_state())
    assert [n.attrs["mean"] for n in nodes if n.op == "parameter"] == [2.0]


def test_scores_scattered_into_a_mask_are_what_counts() -> None:
    """A router's chosen scores among -inf: the sigmoid behind sees the scores, and nothing that is saturated."""

    def routed(s: Any, x: torch.Tensor) -> torch.Tensor:
        scores = x @ s.w
        best, chosen = scores.topk(1, dim=-1)
        return torch.full_like(scores, float("-inf")).scatter(1, chosen, best).sigmoid()

    nodes, _ = traced(Call(routed, w=P(6, 5)), torch.randn(8, 6))
    mixed = next(n for n in nodes if n.op == "where")
    assert mixed.attrs["share"] == pytest.approx(0.2)
    assert not any(n.op == "opaque" for n in nodes)


def test_a_piece_of_nothing_leaves_a_tensor_as_it_is() -> None:
    """Boxes of a level that none belongs to are written to no place."""

    class Levels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.first(x)
            level = (x.sum(-1) > 1e9).nonzero()[:, 0]
            y[level] = self.second(x[level])
            return self.head(y.relu())

    (report,) = initlint.check(Levels, inputs=torch.randn(4, 8)).models
    assert (report.facts.status, report.facts.reason) == ("analysed", "")


def test_a_handler_that_fails_costs_one_op_and_not_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    from initlint.probe import normalise as module

    def fails(builder: object, call: object) -> object:
        raise KeyError("form")

    monkeypatch.setattr(module, "HANDLERS", {**module.HANDLERS, "tanh": fails})
    nodes, _ = traced(Call(lambda s, x: torch.relu(torch.tanh(x))), torch.randn(X))
    assert ops(nodes) == ["opaque", "activation"]
    assert "KeyError" in str(nodes[1].attrs["why"])
