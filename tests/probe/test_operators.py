"""Operators against the dense matrix of the map, which a run on unit vectors gives exactly."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from initlint.facts import Operator
from initlint.probe import operators
from initlint.probe.operators import Geometry


def dense(module: nn.Module, shape: tuple[int, ...]) -> torch.Tensor:
    """The matrix (outputs, inputs) of a linear map on inputs of ``shape`` (without batch)."""
    count = int(torch.tensor(shape).prod())
    eye = torch.eye(count, dtype=torch.float64).reshape(count, *shape)
    with torch.no_grad():
        zero = module(torch.zeros(1, *shape, dtype=torch.float64))
        out = module(eye) - zero
    return out.flatten(1).t()


def geometry(module: nn.Module, shape: tuple[int, ...]) -> Geometry:
    out = module(torch.zeros(1, *shape, dtype=torch.float64)).shape
    spatial = len(shape) - 1
    padding = module.padding
    if padding == "same":
        padding = tuple(d * (k - 1) // 2 for d, k in zip(module.dilation, module.kernel_size, strict=True))
    return Geometry(
        size=shape[-spatial:],
        size_out=tuple(out[-spatial:]),
        kernel=module.kernel_size,
        stride=module.stride,
        padding=padding,
        dilation=module.dilation,
        groups=module.groups,
        zeros=module.padding_mode == "zeros",
    )


def check(operator: Operator, matrix: torch.Tensor, bias: torch.Tensor | None, positions_out: int) -> None:
    totals = matrix.sum(1)
    assert operator.gain == pytest.approx(float(matrix.square().sum(1).mean()), rel=1e-9)
    assert operator.back == pytest.approx(float(matrix.square().sum(0).mean()), rel=1e-9)
    assert operator.total_mean == pytest.approx(float(totals.mean()), rel=1e-7, abs=1e-10)
    if bias is not None:
        full = bias.detach().repeat_interleave(positions_out)
        assert operator.bias_mean == pytest.approx(float(bias.detach().mean()), rel=1e-9)
        assert operator.bias_second == pytest.approx(float(bias.detach().square().mean()), rel=1e-9)
        assert operator.total_bias == pytest.approx(float((totals * full).mean()), rel=1e-7, abs=1e-10)


CONVOLUTIONS = [
    (nn.Conv1d(3, 5, 3, padding=1), (3, 9)),
    (nn.Conv1d(4, 6, 4, stride=2, groups=2), (4, 11)),
    (nn.Conv2d(3, 4, 3, padding=1), (3, 6, 5)),
    (nn.Conv2d(4, 8, 3, padding=2, dilation=2, groups=4), (4, 7, 7)),
    (nn.Conv2d(2, 3, (1, 5), padding=(0, 2), stride=(1, 2), bias=False), (2, 3, 8)),
    (nn.Conv2d(2, 3, 3, padding="same"), (2, 2, 2)),
    (nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (2, 4, 4)),
    (nn.Conv3d(2, 2, 3, padding=1), (2, 3, 4, 3)),
]


@pytest.mark.parametrize(("module", "shape"), CONVOLUTIONS)
def test_convolution_is_exact_at_the_borders(module: nn.Module, shape: tuple[int, ...]) -> None:
    module = module.double()
    operator = operators.conv_operator(module.weight, module.bias, geometry(module, shape))
    matrix = dense(module, shape)
    check(operator, matrix, module.bias, matrix.shape[0] // module.out_channels)
    assert operator.total_second == pytest.approx(float(matrix.sum(1).square().mean()), rel=1e-7)


@pytest.mark.parametrize(("module", "shape"), CONVOLUTIONS)
def test_fans_count_pairs(module: nn.Module, shape: tuple[int, ...]) -> None:
    """With unit weights the gain is the number of inputs that reach an output."""
    ones = torch.ones_like(module.weight, dtype=torch.float64)
    operator = operators.conv_operator(ones, None, geometry(module.double(), shape))
    assert operator.fan_in == pytest.approx(operator.gain, rel=1e-12)
    assert operator.fan_out == pytest.approx(operator.back, rel=1e-12)


TRANSPOSED = [
    (nn.ConvTranspose1d(4, 6, 4, stride=2, padding=1), (4, 7)),
    (nn.ConvTranspose1d(4, 2, 3, groups=2), (4, 5)),
    (nn.ConvTranspose2d(3, 2, 3, stride=2, output_padding=1), (3, 4, 5)),
    (nn.ConvTranspose2d(4, 4, 3, padding=1, groups=2, dilation=2), (4, 5, 5)),
]


@pytest.mark.parametrize(("module", "shape"), TRANSPOSED)
def test_transposed_convolution(module: nn.Module, shape: tuple[int, ...]) -> None:
    module = module.double()
    operator = operators.conv_transpose_operator(module.weight, module.bias, geometry(module, shape))
    matrix = dense(module, shape)
    check(operator, matrix, module.bias, matrix.shape[0] // module.out_channels)
    assert operator.total_second == pytest.approx(float(matrix.sum(1).square().mean()), rel=1e-7)


def test_depthwise_gain_has_a_fan_of_nine() -> None:
    module = nn.Conv2d(16, 16, 3, groups=16, padding=1)
    operator = operators.conv_operator(module.weight, None, Geometry(None, None, (3, 3), (1, 1), (1, 1), (1, 1), 16))
    assert (operator.fan_in, operator.fan_out) == (9.0, 9.0)
    assert operators.torch_fans(module.weight.shape) == (9, 144)


@pytest.mark.parametrize("transpose", [False, True])
def test_linear_of_any_layout(transpose: bool) -> None:
    weight, bias = torch.randn(7, 11), torch.randn(7)
    view = weight.t().contiguous().t() if transpose else weight
    operator = operators.linear_operator(view, bias)
    rows = weight.double()
    assert operator.gain == pytest.approx(float(rows.square().sum(1).mean()), rel=1e-6)
    assert operator.back == pytest.approx(float(rows.square().sum(0).mean()), rel=1e-6)
    assert operator.total_second == pytest.approx(float(rows.sum(1).square().mean()), rel=1e-5)
    assert (operator.fan_in, operator.fan_out) == (11.0, 7.0)


def test_row_form_predicts_a_layer_with_a_mean() -> None:
    """q = gain v + m^2 total_second + 2 m total_bias + bias_second, exactly, for independent channels."""
    torch.manual_seed(0)
    weight, bias = torch.randn(32, 64, dtype=torch.float64) * 0.1 + 0.05, torch.randn(32, dtype=torch.float64)
    operator = operators.linear_operator(weight, bias)
    m, v = 0.7, 1.3
    exact = (weight.square().sum(1) * v + (m * weight.sum(1) + bias).square()).mean()
    q = operator.gain * v + m * m * operator.total_second + 2 * m * operator.total_bias + operator.bias_second
    assert q == pytest.approx(float(exact), rel=1e-12)


def test_orthogonal_matrices_are_told_apart() -> None:
    square = nn.init.orthogonal_(torch.empty(24, 24))
    tall = nn.init.orthogonal_(torch.empty(40, 24))
    assert operators.linear_operator(square, None).orthogonal
    assert operators.linear_operator(tall, None).orthogonal
    assert not operators.linear_operator(torch.randn(24, 24), None).orthogonal
    assert not operators.linear_operator(torch.zeros(24, 24), None).orthogonal


def test_stacked_and_bilinear() -> None:
    weight = torch.randn(3, 5, 4, dtype=torch.float64)
    stacked = operators.stacked_operator(weight, None)
    assert (stacked.fan_in, stacked.fan_out) == (4.0, 5.0)
    assert stacked.gain == pytest.approx(float(weight.square().sum(2).mean()))
    bilinear = operators.bilinear_operator(torch.randn(6, 3, 4), None)
    assert (bilinear.fan_in, bilinear.fan_out) == (12.0, 24.0)


def test_effective_weight_is_what_forward_multiplies_with() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 8)
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8, bias=False)).eval()
    assert torch.allclose(F.linear(x, operators.effective(layer, "weight")), layer(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old = nn.utils.weight_norm(nn.Linear(8, 8, bias=False))
    with torch.no_grad():
        old.weight_g.mul_(3.0)  # the attribute is stale until the next forward
    assert torch.allclose(F.linear(x, operators.effective(old, "weight")), old(x), atol=1e-6)


def test_effective_weight_leaves_the_power_iteration_alone() -> None:
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8)).train()
    before = layer.parametrizations.weight[0]._u.clone()
    operators.effective(layer, "weight")
    assert torch.equal(before, layer.parametrizations.weight[0]._u)
    assert layer.parametrizations.weight.training


def test_meta_weights_get_fans_and_later_moments() -> None:
    bare = operators.meta_operator(64.0, 32.0, (64, 32))
    filled = operators.nominal_operator(bare, second=2 / 64)
    assert filled.gain == pytest.approx(2.0)
    assert filled.back == pytest.approx(1.0)


def test_power_iterations_of_the_older_spectral_norm_leave_the_module_alone() -> None:
    module = nn.utils.spectral_norm(nn.Linear(16, 12))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = operators.effective(module, "weight")
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    module(torch.randn(1, 16))  # iterates once
    assert found is not None
    assert torch.allclose(found, module.weight)
    module.eval()
    module(torch.randn(1, 16))
    assert torch.allclose(operators.effective(module, "weight"), module.weight)
