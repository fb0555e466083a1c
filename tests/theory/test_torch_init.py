"""What a recorded call asks for, against what PyTorch's call of that name really draws."""

from __future__ import annotations

import math

import pytest

from initlint.facts import ParameterFacts, TensorStats, Write
from initlint.theory.record import stated
from initlint.theory.sampling import compatible
from initlint.theory.torch_init import calculate_gain, requested, truncated


def stats_of(tensor) -> TensorStats:
    """Statistics as the probe measures them."""
    values = tensor.detach().double().flatten()
    mean, var = values.mean().item(), values.var(unbiased=False).item()
    kurtosis = ((values - mean) ** 4).mean().item() / var**2 if var else None
    residual = None
    if tensor.dim() >= 2:
        matrix = tensor.detach().double().reshape(tensor.shape[0], -1)
        matrix = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
        gram = matrix @ matrix.T
        energy = gram.diagonal().mean()
        residual = (gram / energy - gram.new_tensor(1.0) * gram.new_ones(gram.shape[0]).diag()).abs().max().item()
    second = values.pow(2).mean().item()
    return TensorStats(
        values.numel(), mean, second, var, kurtosis, values.min().item(), values.max().item(), gram_residual=residual
    )


CALLS = [
    ("kaiming_uniform_", {"a": math.sqrt(5)}),
    ("kaiming_normal_", {"nonlinearity": "relu", "mode": "fan_out"}),
    ("kaiming_normal_", {"a": 0.2}),
    ("kaiming_uniform_", {"nonlinearity": "tanh"}),
    ("kaiming_normal_", {"nonlinearity": "linear"}),
    ("xavier_uniform_", {}),
    ("xavier_normal_", {"gain": 1.7}),
    ("normal_", {"std": 0.02}),
    ("normal_", {"mean": 1.0, "std": 0.3}),
    ("uniform_", {"a": -0.3, "b": 0.1}),
    ("uniform_", {}),
    ("trunc_normal_", {}),
    ("trunc_normal_", {"std": 0.02}),
    ("trunc_normal_", {"mean": 0.5, "std": 2.0, "a": -1.0, "b": 3.0}),
    ("orthogonal_", {"gain": 1.4}),
    ("constant_", {"val": 0.3}),
    ("zeros_", {}),
    ("ones_", {}),
    ("sparse_", {"sparsity": 0.4, "std": 0.5}),
    ("eye_", {}),
]


@pytest.mark.parametrize(("op", "args"), CALLS)
@pytest.mark.parametrize("shape", [(60, 80), (90, 30), (32, 8, 3, 3)])
def test_torch_draws_what_the_record_asks_for(op, args, shape) -> None:
    torch = pytest.importorskip("torch")
    if op in ("sparse_", "eye_") and len(shape) != 2:
        pytest.skip("defined for matrices")
    torch.manual_seed(3)
    tensor = getattr(torch.nn.init, op)(torch.empty(shape), **args)
    asked = requested(Write(op, 0, args), shape)
    assert asked is not None
    stats = stats_of(tensor)
    assert compatible(stats, asked)
    assert stats.second == pytest.approx(asked.second, rel=0.15, abs=1e-12)
    if asked.bound_high is not None:
        assert stats.maximum <= asked.bound_high * (1 + 1e-6) + 1e-12
    # a draw of twice the size is told apart
    if asked.std > 0:
        assert not compatible(stats_of(tensor * 2), asked)


@pytest.mark.parametrize(("shape", "groups"), [((8, 8, 3, 3), 1), ((8, 4, 3, 3), 2), ((6, 10, 5), 1)])
def test_dirac(shape, groups) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.nn.init.dirac_(torch.empty(shape), groups)
    asked = requested(Write("dirac_", 0, {"groups": groups}), shape)
    assert asked is not None
    assert asked.mean == pytest.approx(tensor.mean().item(), rel=1e-6)
    assert asked.second == pytest.approx(tensor.pow(2).mean().item(), rel=1e-6)


def test_unknown_calls_are_not_guessed() -> None:
    for write in (
        Write("copy_", 0),
        Write("create", 0, {"function": "empty"}),
        Write("create", 0, {"function": "derived"}),
        Write("bernoulli_", 0),
        Write("kaiming_normal_", 0, {"nonlinearity": "gelu"}),  # PyTorch raises
    ):
        assert requested(write, (4, 4)) is None
    assert requested(Write("xavier_normal_", 0), (4,)) is None


def test_factories() -> None:
    assert requested(Write("create", 0, {"function": "randn"}), (4,)).std == 1.0
    assert requested(Write("create", 0, {"function": "randn", "mean": 0.0, "std": 0.02}), (4,)).std == 0.02
    uniform = requested(Write("create", 0, {"function": "rand", "mean": 0, "std": 0.577, "low": -1, "high": 1}), (4,))
    assert (uniform.family, uniform.bound_low, uniform.bound_high) == ("uniform", -1, 1)
    assert requested(Write("create", 0, {"function": "full", "val": 0.5}), (4,)).mean == 0.5
    assert requested(Write("create", 0, {"function": "zeros"}), (4,)).second == 0.0


def test_gain_is_that_of_torch() -> None:
    torch = pytest.importorskip("torch")
    for name, param in (("relu", None), ("leaky_relu", 0.2), ("leaky_relu", None), ("tanh", None), ("selu", None)):
        assert calculate_gain(name, param) == pytest.approx(torch.nn.init.calculate_gain(name, param))
    for name in ("linear", "conv2d", "conv_transpose1d", "sigmoid"):
        assert calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))
    assert calculate_gain("gelu") is None
    with pytest.raises(ValueError, match="gelu"):
        torch.nn.init.calculate_gain("gelu")


def test_truncation_shrinks_the_std() -> None:
    assert truncated(0.0, 1.0, -2.0, 2.0).std == pytest.approx(0.87962566, abs=1e-8)
    assert truncated(0.0, 0.02, -2.0, 2.0).std == 0.02


def parameter(*writes: Write, shape=(64, 32)) -> ParameterFacts:
    return ParameterFacts("w", "parameter", shape, "float32", "", "w", writes=writes)


def test_arithmetic_after_a_draw() -> None:
    draw = Write("normal_", 0, {"mean": 0.0, "std": 1.0})
    assert stated(parameter(draw, Write("mul_", 1, {"other": 0.02}))).std == pytest.approx(0.02)
    assert stated(parameter(draw, Write("div_", 1, {"other": -4.0}))).std == pytest.approx(0.25)
    shifted = stated(parameter(draw, Write("add_", 1, {"other": 3.0})))
    assert (shifted.mean, shifted.std) == (3.0, 1.0)
    assert stated(parameter(draw, Write("mul_", 1, {}))) is None
    assert stated(parameter(draw, Write("clamp_", 1, {"min": -0.1, "max": 0.1}))) is None
    assert stated(parameter(draw, Write("zero_", 1))).second == 0.0


def test_home_made_truncated_normal() -> None:
    """uniform_, erfinv_, mul_, add_, clamp_: how libraries wrote trunc_normal_ before PyTorch had it."""
    edge = math.erf(2 / math.sqrt(2))
    found = stated(
        parameter(
            Write("uniform_", 0, {"a": -edge, "b": edge}),
            Write("erfinv_", 1),
            Write("mul_", 2, {"other": 0.02 * math.sqrt(2)}),
            Write("add_", 3, {"other": 0.0}),
            Write("clamp_", 4, {"min": -0.04, "max": 0.04}),
        )
    )
    assert found.family == "truncated"
    assert found.std == pytest.approx(0.02 * 0.87962566, rel=1e-6)


def test_writes_to_parts() -> None:
    whole = Write("normal_", 0, {"std": 1.0})
    row = Write("fill_", 1, {"val": 0.0}, share=0.25, region="[0:16]", start=0, stop=16)
    assert stated(parameter(whole, row)).second == pytest.approx(0.75)
    assert stated(parameter(whole, Write("copy_", 1, share=0.25, region="[0:16]"))) is None


def test_blocks_that_cover_everything_replace_the_first_draw() -> None:
    """Orthogonal gate by gate: what the constructor drew before is gone."""
    gates = [
        Write(
            "orthogonal_",
            k + 1,
            {"gain": 1.0},
            share=0.25,
            region="[...]",
            start=16 * k,
            stop=16 * k + 16,
        )
        for k in range(4)
    ]
    found = stated(parameter(Write("uniform_", 0, {"a": -1, "b": 1}), *gates))
    assert found.second == pytest.approx(1 / 32)
    assert found.structured
    assert found.family == "blocks"
    halves = [
        Write("normal_", k, {"std": 1.0 + k}, share=0.5, region="[...]", start=32 * k, stop=32 * k + 32) for k in (0, 1)
    ]
    assert stated(parameter(*halves)).second == pytest.approx(2.5)


def test_scaled_schemes_of_a_part_take_the_shape_of_the_part() -> None:
    part = Write("xavier_uniform_", 0, share=1 / 3, region="[0:32]", start=0, stop=32)
    assert requested(part, (96, 32)).var == pytest.approx(2 / 64)


def test_values_without_a_record() -> None:
    unknown = ParameterFacts(
        "w", "parameter", (4, 4), "float32", "", "w", writes=(Write("ones_", 0),), provenance="unknown"
    )
    assert stated(unknown) is None
