"""Counts of fans and formulas in the wrong place, from literals."""

from __future__ import annotations

import math

import pytest

from initlint.facts import Layer, Write
from initlint.theory.misapplied import misapplied
from initlint.theory.miscounts import by_hand, counts, of_call, written_shape
from initlint.theory.torch_init import normal, uniform


def layer(
    kind: str = "matmul", *, fan_in: float = 64, fan_out: float = 64, layout: str = "out_in", **more: object
) -> Layer:
    return Layer("w", kind, (0,), "w", fan_in=fan_in, fan_out=fan_out, layout=layout, **more)  # type: ignore[arg-type]


def call(op: str, **more: object) -> Write:
    return Write(op, 0, **more)  # type: ignore[arg-type]


def test_xavier_on_a_stack_counts_the_stack() -> None:
    stack = layer(fan_in=64, fan_out=8, layout="stacked_in_out", stack=4)
    found = of_call(stack, (4, 64, 8), call("xavier_uniform_"))
    assert found is not None
    assert (found.used, found.right) == (64 * 8 + 4 * 8, 64 + 8)


def test_xavier_on_each_matrix_of_a_stack_is_right() -> None:
    stack = layer(fan_in=64, fan_out=8, layout="stacked_in_out", stack=4)
    single = call("xavier_uniform_", share=0.25, region="[0]", start=0, stop=1)
    assert written_shape(single, (4, 64, 8)) == (64, 8)
    assert of_call(stack, (4, 64, 8), single) is None


def test_kaiming_on_in_out_is_wrong_forward_and_right_backward() -> None:
    product = layer("linear", fan_in=512, fan_out=32, layout="in_out")
    wrong = of_call(product, (512, 32), call("kaiming_normal_", args={"mode": "fan_in"}))
    assert wrong is not None
    assert (wrong.used, wrong.right) == (32, 512)
    assert of_call(product, (512, 32), call("kaiming_normal_", args={"mode": "fan_out"})) is None


@pytest.mark.parametrize(("count", "wrong"), [(9 * 32, True), (9, False), (9 * 32 / 32, False)])
def test_depthwise_by_hand(count: float, wrong: bool) -> None:
    depthwise = layer("conv", fan_in=9, fan_out=9, groups=32, torch_fans=(9, 288))
    found = by_hand(depthwise, (32, 1, 3, 3), 2 / count)
    assert (found is not None) == wrong
    if found is not None:
        assert (found.reason, found.right) == ("grouped_fan", 9)


def test_backward_mode_of_a_transposed_convolution_is_right() -> None:
    transposed = layer("conv_transpose", fan_in=4 * 144, fan_out=16 * 48, torch_fans=(48 * 16, 144 * 16))
    assert by_hand(transposed, (144, 48, 4, 4), 2 / (16 * 48)) is None
    found = by_hand(transposed, (144, 48, 4, 4), 2 / (16 * 144))
    assert found is not None
    assert found.right == 4 * 144


def test_a_std_of_one_is_no_formula() -> None:
    assert by_hand(layer("linear", fan_in=220, fan_out=1, layout="in_out", torch_fans=(1, 220)), (220, 1), 1.0) is None


FORMS = [
    (normal(0, 2 / 52), "variance_as_std", 2 / 52),
    (normal(0, (2 / 52) ** 0.25), "misapplied_formula", 2 / 52),
    (normal(0, math.sqrt(6 / 52)), "misapplied_formula", 2 / 52),
    (normal(0, math.sqrt(2)), "misapplied_formula", 2 / 52),
    (uniform(-6 / 136, 6 / 136), "variance_as_std", 2 / 136),
    (uniform(-math.sqrt(2 / 52), math.sqrt(2 / 52)), "misapplied_formula", 2 / 52),
]


@pytest.mark.parametrize(("asked", "reason", "variance"), FORMS)
def test_formula_in_the_wrong_place(asked: object, reason: str, variance: float) -> None:
    found = misapplied(layer("linear", fan_in=52, fan_out=84), (84, 52), asked)  # type: ignore[arg-type]
    assert found is not None
    assert found.reason == reason
    assert math.isclose(found.variance, variance)


@pytest.mark.parametrize(
    "asked",
    [
        normal(0, math.sqrt(2 / 48)), normal(0, math.sqrt(1 / 48)), normal(0, 0.02), normal(0, math.sqrt(2 / 144)),
        uniform(-math.sqrt(6 / 48), math.sqrt(6 / 48)), uniform(-(48**-0.5), 48**-0.5), uniform(-1 / 48, 1 / 48),
    ],
)  # fmt: skip
def test_formula_in_its_place(asked: object) -> None:
    assert misapplied(layer("linear", fan_in=48, fan_out=96), (96, 48), asked) is None  # type: ignore[arg-type]


def test_counts_are_products_and_sums_of_axes() -> None:
    assert counts((4, 64, 8), 32.0)
    assert counts((4, 64, 8), 72.0)
    assert not counts((4, 64, 8), 100.0)


GLOROT = 2 / (52 + 84)
BEHIND_GAINS = [
    (normal(0, 5 / 3 * math.sqrt(2 / 52 + 84)), "misapplied_formula", 25 / 9 * GLOROT),
    (normal(0, math.sqrt(2) * math.sqrt(2 / 52 + 84)), "misapplied_formula", 2 * GLOROT),
    (uniform(-5 / 3 * math.sqrt(6 / 84 + 52), 5 / 3 * math.sqrt(6 / 84 + 52)), "misapplied_formula", 25 / 9 * GLOROT),
    (normal(0, 5 / 3 * GLOROT), "variance_as_std", 25 / 9 * GLOROT),
    (normal(0, math.sqrt(2) / 52), "variance_as_std", 2 / 52),
    (normal(0, 5 / 3 * GLOROT**0.25), "misapplied_formula", 25 / 9 * GLOROT),
    (normal(0, 5 / 3 * math.sqrt(6 / (52 + 84))), "misapplied_formula", 25 / 9 * GLOROT),
    (uniform(-5 / 3 * GLOROT * 3, 5 / 3 * GLOROT * 3), "variance_as_std", 25 / 9 * GLOROT),
    (uniform(-5 / 3 * math.sqrt(GLOROT), 5 / 3 * math.sqrt(GLOROT)), "misapplied_formula", 25 / 9 * GLOROT),
    (uniform(-5 / 3 / math.sqrt(52), 5 / 3 / math.sqrt(52)), "misapplied_formula", 25 / 9 / 52),
]


@pytest.mark.parametrize(("asked", "reason", "variance"), BEHIND_GAINS)
def test_formula_behind_a_gain(asked: object, reason: str, variance: float) -> None:
    found = misapplied(layer("linear", fan_in=52, fan_out=84), (84, 52), asked)  # type: ignore[arg-type]
    assert found is not None
    assert (found.reason, found.variance) == (reason, pytest.approx(variance))


@pytest.mark.parametrize(
    "std",
    [
        5 / 3 * math.sqrt(GLOROT),
        math.sqrt(2 * GLOROT),
        math.sqrt(2 / (1 + 0.01**2)) * math.sqrt(1 / 52),
    ],
)
def test_a_gain_in_its_place(std: float) -> None:
    assert misapplied(layer("linear", fan_in=52, fan_out=84), (84, 52), normal(0, std)) is None


def test_roots_of_powers_of_two_tell_no_gain() -> None:
    assert misapplied(layer("linear", fan_in=256, fan_out=256), (256, 256), normal(0, math.sqrt(2) / 256)) is None


def conv(inputs: int, reached: int) -> Layer:
    return layer("conv", fan_in=8.5 * inputs, fan_out=8.5 * reached, torch_fans=(9 * inputs, 9 * reached))


@pytest.mark.parametrize(("shape", "wrong"), [((32, 12, 3, 3), True), ((32, 32, 1, 1), False)])
def test_all_axes_of_a_kernel_added(shape: tuple[int, ...], wrong: bool) -> None:
    taps = shape[2] * shape[3]
    kernel = layer("conv", fan_in=shape[1] * taps, fan_out=shape[0] * taps, torch_fans=(shape[1] * taps, 32 * taps))
    found = by_hand(kernel, shape, 2 / sum(shape))
    assert (found is not None) == wrong
    if found is not None:
        assert (found.reason, found.right) == ("fan_axis", (12 + 32) * 9 / 2)


def test_a_sum_that_is_a_product_as_well_tells_nothing() -> None:
    kernel = layer("conv", fan_in=8 * 16, fan_out=16 * 16, torch_fans=(8 * 16, 16 * 16))
    assert sum((16, 8, 4, 4)) == 32 == 8 * 4
    found = by_hand(kernel, (16, 8, 4, 4), 2 / 32)
    assert found is not None
    assert "adds" not in found.clause


@pytest.mark.parametrize("value", [2 / 3 * 3 * 96, 2 / 96 * 3 * 3, 2 / 3 * 3 * 40])
def test_a_product_without_brackets(value: float) -> None:
    found = misapplied(conv(40, 96), (96, 40, 3, 3), normal(0, math.sqrt(value)))
    assert found is not None
    assert found.variance == pytest.approx(2 / (9 * (40 if "fan_in" in found.line else 96)))
