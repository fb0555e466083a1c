"""Which schemes suit a layer, what their lines of code do, and what a weight is recognised as."""

from __future__ import annotations

import math
import re

import pytest
from test_torch_init import stats_of

from initlint.facts import Layer, ParameterFacts, Site, Write
from initlint.theory.fans import conv_fans, conv_transpose_fans, torch_fans
from initlint.theory.schemes import LayerSpec, acceptable, meant_for, nearest, recognise


def spec(shape=(256, 128), **fields) -> LayerSpec:
    fields.setdefault("fan_in", float(shape[1]))
    fields.setdefault("fan_out", float(shape[0]))
    fields.setdefault("kind", "linear")
    return LayerSpec(shape=shape, torch_fans=torch_fans(shape), **fields)


def names(layer: LayerSpec, **options) -> set[str]:
    return {scheme.name for scheme in acceptable(layer, **options)}


def suits(layer: LayerSpec, var: float) -> bool:
    best = nearest(acceptable(layer), var)
    return best is not None and abs(math.log(var / best.var)) < 0.05


def test_before_relu() -> None:
    layer = spec(activation="relu", consumer="activation")
    assert suits(layer, 2 / 128)
    assert suits(layer, 2 / 256)
    assert not suits(layer, 1 / 128 / 3)  # PyTorch's default
    assert not suits(spec((128, 128), activation="relu", consumer="activation"), 1 / 128)  # Xavier
    assert acceptable(layer)[0].call == 'nn.init.kaiming_normal_(w, mode="fan_in", nonlinearity="relu")'


def test_before_gelu_both_conventions() -> None:
    layer = spec((128, 128), activation="gelu", consumer="activation")
    assert suits(layer, 2 / 128)
    assert suits(layer, 1 / (0.425221 * 128))
    assert not suits(layer, 1 / 128)
    assert suits(spec((128, 128), activation="gelu", consumer="activation", before="norm"), 0.02**2)


def test_before_tanh() -> None:
    layer = spec((128, 128), activation="tanh", consumer="activation")
    for var in (1 / 128, 25 / 9 / 128, 1 / (0.394294 * 128)):
        assert suits(layer, var)
    assert not suits(layer, 0.3 / 128)
    assert "He fan_in normal" not in names(layer)


def test_before_selu_only_lecun() -> None:
    layer = spec(activation="selu", consumer="activation")
    assert all(scheme.var == pytest.approx(1 / 128) or scheme.family == "orthogonal" for scheme in acceptable(layer))


def test_before_leaky_relu_the_slope_counts() -> None:
    layer = spec(activation="leaky_relu", args={"negative_slope": 0.5}, consumer="activation")
    first = acceptable(layer)[0]
    assert first.var == pytest.approx(2 / 1.25 / 128)
    assert first.call == 'nn.init.kaiming_normal_(w, a=0.5, mode="fan_in", nonlinearity="leaky_relu")'


def test_sine_layers() -> None:
    hidden = spec((64, 64), activation="sin", args={"omega": 30.0}, consumer="activation", before="sin")
    assert [scheme.bound for scheme in acceptable(hidden)] == [pytest.approx(math.sqrt(6 / 64) / 30)]
    told_twice = spec((64, 64), activation="sin", args={"omega": 30.0}, pre_scale=30.0, before="sin")
    assert acceptable(told_twice)[0].bound == pytest.approx(math.sqrt(6 / 64) / 30)
    first = spec((64, 2), activation="sin", args={"omega": 30.0}, consumer="activation", before="input")
    assert [scheme.bound for scheme in acceptable(first)] == [0.5]


def test_linear_consumers_take_lecun_and_xavier() -> None:
    for consumer in ("attention", "output", "residual", "linear"):
        layer = spec(consumer=consumer)
        assert suits(layer, 1 / 128)
        assert suits(layer, 2 / 384)


def test_a_norm_takes_any_usual_scale() -> None:
    layer = spec((64, 64), consumer="norm")
    for var in (2 / 64, 1 / 64, 1 / (3 * 64), 0.02**2):
        assert suits(layer, var)


def test_zeros_are_told_only_when_asked_for() -> None:
    layer = spec(consumer="residual", branch=True)
    assert "zeros" not in names(layer)
    assert "zeros" in names(layer, zeros=True)
    assert "zeros" in names(spec(consumer="output", head=True), zeros=True)
    assert all(scheme.var > 0 for scheme in acceptable(layer))


def test_depth_scaled_residual_writers() -> None:
    layer = spec((64, 64), consumer="residual", branch=True, depth=24)
    assert suits(layer, (0.02 / math.sqrt(24)) ** 2)


def test_a_paired_layer_is_taken_as_it_is() -> None:
    layer = Layer("fc", "linear", (0,), "fc.weight", fan_in=8.0, fan_out=4.0, torch_fans=(8, 4), activation="relu")
    assert any(scheme.var == 2 / 8 for scheme in acceptable(layer))
    assert acceptable(Layer("fc", "linear", (0,), "fc.weight")) == ()


def test_embeddings_and_recurrent_weights() -> None:
    table = spec((1000, 64), kind="embedding", fan_in=1.0, fan_out=1e-3)
    assert suits(table, 1.0)
    assert suits(table, 0.02**2)
    assert suits(table, 1 / 64)
    gates = spec((4 * 32, 32), kind="recurrent")
    assert suits(gates, 1 / 96)
    assert any("orthogonal_(gate)" in scheme.call for scheme in acceptable(gates))


def test_packed_attention_projection() -> None:
    layer = spec((3 * 64, 64), kind="attention", blocks=3)
    assert suits(layer, 1 / 64)
    assert suits(layer, 0.5 / 64)


def test_gains_of_norms() -> None:
    layer = LayerSpec("norm", (64,), None, None)
    assert {(s.mean, s.var) for s in acceptable(layer)} == {(1.0, 0.0), (1.0, 4e-4)}


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "gelu", "tanh", "sigmoid", "selu", "sin", "exp", None])
@pytest.mark.parametrize("kind", ["linear", "transposed", "grouped", "up"])
def test_every_line_of_code_draws_its_variance(activation, kind) -> None:
    """The call of a scheme, executed by torch, has the variance that the scheme states."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    if kind == "grouped":
        shape, real = (64, 8, 3, 3), conv_fans(64, 64, (3, 3), stride=2, groups=8)
    elif kind == "up":
        shape, real = (64, 16, 4, 4), conv_transpose_fans(64, 16, (4, 4), stride=2)
    else:
        shape, real = (200, 90), None
    layer = LayerSpec(
        "linear",
        shape,
        real.fan_in if real else 200.0 if kind == "transposed" else 90.0,
        real.fan_out if real else 90.0 if kind == "transposed" else 200.0,
        torch_fans(shape),
        activation,
        {"negative_slope": 0.2} if activation == "leaky_relu" else {},
        "activation" if activation else None,
        before="sin" if activation == "sin" else None,
        head=activation is None,
    )
    found = acceptable(layer)
    assert found
    for scheme in found:
        weight = torch.empty(shape)
        exec(scheme.call, {"nn": torch.nn, "w": weight})
        assert weight.var().item() == pytest.approx(scheme.var, rel=0.06), scheme.call
        if scheme.bound is not None:
            assert weight.abs().max().item() == pytest.approx(scheme.bound, rel=0.01)


def test_wrong_fans_are_not_hidden_in_a_kaiming_call() -> None:
    """Where PyTorch miscounts the fan, the line says the number."""
    up = conv_transpose_fans(512, 24, (4, 4), stride=2)
    layer = LayerSpec("conv_transpose", (512, 24, 4, 4), up.fan_in, up.fan_out, (384, 8192), "relu", {}, "activation")
    first = acceptable(layer)[0]
    assert first.var == pytest.approx(2 / 2048)
    assert re.fullmatch(r"nn\.init\.normal_\(w, std=\(2 / 2048\) \*\* 0\.5\)", first.call)


def test_convolutions_take_the_fans_of_their_interior_too() -> None:
    """He's scheme as PyTorch calls it is right, whatever padding and stride take away."""
    exact = conv_fans(64, 128, (3, 3), (4, 4), stride=2, padding=1)
    layer = LayerSpec("conv", (128, 64, 3, 3), exact.fan_in, exact.fan_out, (576, 1152), "relu", {}, "activation")
    assert exact.fan_in < 576 * 0.8
    for var in (2 / 576, 2 / 1152, 2 / exact.fan_in):
        assert suits(layer, var)
    assert acceptable(layer)[0].call == 'nn.init.kaiming_normal_(w, mode="fan_in", nonlinearity="relu")'
    depthwise = LayerSpec("conv", (64, 1, 3, 3), 9.0, 9.0, (9, 576), "relu", {}, "activation", groups=64)
    assert not suits(depthwise, 2 / 576)
    assert suits(depthwise, 2 / 9)


def test_meant_for() -> None:
    shape = (128, 128)
    assert "relu" in meant_for(Write("kaiming_normal_", 0, {"nonlinearity": "relu"}), shape)
    assert "tanh" not in meant_for(Write("kaiming_normal_", 0, {"nonlinearity": "relu"}), shape)
    assert "gelu" in meant_for(Write("kaiming_normal_", 0, {}), shape)
    assert meant_for(Write("kaiming_uniform_", 0, {"a": math.sqrt(5)}), shape) == frozenset()
    assert "tanh" in meant_for(Write("xavier_normal_", 0, {}), shape)
    assert "relu" not in meant_for(Write("xavier_normal_", 0, {}), shape)
    assert "relu" in meant_for(Write("xavier_normal_", 0, {"gain": math.sqrt(2)}), shape)
    assert "relu" in meant_for(Write("orthogonal_", 0, {"gain": 1.4142}), shape)
    assert meant_for(Write("normal_", 0, {"std": 0.02}), shape, spec(shape)) == frozenset()
    assert "relu" in meant_for(Write("normal_", 0, {"std": math.sqrt(2 / 128)}), shape, spec(shape))
    assert "selu" in meant_for(Write("normal_", 0, {"std": math.sqrt(1 / 128)}), shape, spec(shape))


def drawn(op: str, args=None, origin="user", shape=(256, 128), recorded=True, factor=1.0) -> ParameterFacts:
    """A parameter that torch drew with that call."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(5)
    tensor = getattr(torch.nn.init, op)(torch.empty(shape), **(args or {})) * factor
    writes = (Write(op, 0, args or {}, Site("model.py", 3), origin=origin),) if recorded else ()
    return ParameterFacts("w", "parameter", shape, "float32", "", "w", writes=writes, stats=stats_of(tensor))


def test_recognises_the_default() -> None:
    found = recognise(drawn("kaiming_uniform_", {"a": math.sqrt(5)}, origin="torch"), spec(activation="relu"))
    assert found.text == "kaiming_uniform_(a=sqrt(5)), PyTorch's default, never re-initialised"
    assert (found.status, found.default) == ("confirmed", True)


def test_recognises_a_called_scheme() -> None:
    found = recognise(drawn("kaiming_normal_", {"mode": "fan_out", "nonlinearity": "relu"}), spec(activation="relu"))
    assert (found.text, found.status) == ("kaiming_normal_(fan_out, relu)", "confirmed")
    assert found.scheme.name == "He fan_out normal"
    assert not found.default


def test_a_record_that_the_values_contradict() -> None:
    found = recognise(drawn("xavier_normal_", factor=2.0), spec(activation="tanh"))
    assert found.status == "contradicted"
    assert "but the values have" in found.text


def test_values_alone() -> None:
    layer = spec((256, 512), activation="relu")
    found = recognise(drawn("kaiming_normal_", {"nonlinearity": "relu"}, recorded=False, shape=(256, 512)), layer)
    assert (found.status, found.scheme.name) == ("inferred", "He fan_in normal")
    tiny = recognise(drawn("kaiming_normal_", {}, recorded=False, shape=(4, 3)), spec((4, 3), activation="relu"))
    assert tiny.status == "ambiguous"
    odd = recognise(drawn("normal_", {"std": 7.0}, recorded=False), spec(activation="relu"))
    assert odd.status == "unknown"
    zero = recognise(drawn("zeros_", recorded=False), spec(activation="relu"))
    assert zero.text == "zeros"


def test_loaded_weights_are_not_judged() -> None:
    fact = ParameterFacts("w", "parameter", (4, 4), "float32", "", "w", provenance="loaded")
    assert recognise(fact, None).text == "loaded from a checkpoint"
