"""Fans by running the layers: the second moments that come out are F var(w) and B var(w)."""

from __future__ import annotations

import itertools

import pytest

from initlint.theory import fans
from initlint.theory.fans import Fans


def measured_fans(layer, shape, weight="weight") -> Fans:
    """Exact fans of a linear layer: with all weights 1 an output is the number of inputs that it sums over.

    The weight is one for every (output, input, tap); running on unit inputs counts pairs, whatever the axes.
    """
    import torch

    layer = layer.double()
    with torch.no_grad():
        getattr(layer, weight).fill_(1.0)
    x = torch.ones(1, *shape, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    return Fans(y.mean().item(), x.grad.mean().item())


CONVOLUTIONS = [
    # in, out, kernel, stride, padding, dilation, groups, size
    (4, 6, (3,), 1, 1, 1, 1, (7,)),
    (4, 6, (3,), 2, 0, 1, 2, (8,)),
    (3, 8, (3, 3), 1, 1, 1, 1, (2, 7)),
    (8, 8, (3, 3), 2, 1, 1, 8, (9, 9)),
    (8, 4, (5, 2), (2, 1), (2, 0), (1, 2), 2, (11, 6)),
    (4, 4, (3, 3), 1, 2, 2, 1, (8, 8)),
    (2, 6, (2, 2, 2), 2, 0, 1, 1, (4, 6, 5)),
    (2, 4, (7, 7), 4, 3, 1, 1, (13, 13)),
    (2, 2, (3, 3), 1, "same", 1, 1, (5, 5)),
    (2, 2, (4,), 1, "same", 1, 1, (5,)),
    (2, 2, (3,), 1, "valid", 1, 1, (5,)),
]


@pytest.mark.parametrize(("cin", "cout", "kernel", "stride", "padding", "dilation", "groups", "size"), CONVOLUTIONS)
def test_conv_counts_pairs(cin, cout, kernel, stride, padding, dilation, groups, size) -> None:
    nn = pytest.importorskip("torch.nn")
    cls = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(kernel) - 1]
    layer = cls(cin, cout, kernel, stride, padding, dilation, groups, bias=False)
    expected = measured_fans(layer, (cin, *size))
    found = fans.conv_fans(cin, cout, kernel, size, stride=stride, padding=padding, dilation=dilation, groups=groups)
    assert (found.fan_in, found.fan_out) == pytest.approx((expected.fan_in, expected.fan_out), rel=1e-12)


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
def test_conv_with_real_values_in_the_padding(mode) -> None:
    nn = pytest.importorskip("torch.nn")
    layer = nn.Conv2d(3, 5, 3, padding=1, bias=False, padding_mode=mode)
    expected = measured_fans(layer, (3, 4, 4))
    found = fans.conv_fans(3, 5, (3, 3), (4, 4), padding=1, padding_mode=mode)
    assert (found.fan_in, found.fan_out) == pytest.approx((expected.fan_in, expected.fan_out))


TRANSPOSED = [
    # in, out, kernel, stride, padding, output_padding, dilation, groups, size
    (4, 6, (3,), 1, 0, 0, 1, 1, (7,)),
    (6, 4, (4, 4), 2, 1, 0, 1, 1, (4, 5)),
    (6, 4, (3, 3), 2, 1, 1, 1, 2, (4, 4)),
    (4, 4, (3,), 3, 2, 1, 2, 4, (5,)),
    (2, 4, (2, 3, 2), 2, 0, 0, 1, 1, (3, 2, 4)),
]


@pytest.mark.parametrize(
    ("cin", "cout", "kernel", "stride", "padding", "extra", "dilation", "groups", "size"), TRANSPOSED
)
def test_transposed_conv_counts_pairs(cin, cout, kernel, stride, padding, extra, dilation, groups, size) -> None:
    nn = pytest.importorskip("torch.nn")
    cls = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[len(kernel) - 1]
    layer = cls(cin, cout, kernel, stride, padding, extra, groups, False, dilation)
    expected = measured_fans(layer, (cin, *size))
    found = fans.conv_transpose_fans(
        cin,
        cout,
        kernel,
        size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        output_padding=extra,
        groups=groups,
    )
    assert (found.fan_in, found.fan_out) == pytest.approx((expected.fan_in, expected.fan_out), rel=1e-12)


def test_interior_is_the_limit_of_large_maps() -> None:
    exact = fans.conv_fans(8, 4, (3, 3), (3000, 3000), stride=2, padding=1, groups=2)
    interior = fans.conv_fans(8, 4, (3, 3), stride=2, padding=1, groups=2)
    assert interior == Fans(4 * 9, 2 * 9 / 4)
    assert (exact.fan_in, exact.fan_out) == pytest.approx((interior.fan_in, interior.fan_out), rel=2e-3)
    up = fans.conv_transpose_fans(8, 4, (4, 4), stride=2)
    assert up == Fans(8 * 16 / 4, 4 * 16)


def test_pairs_are_the_definition() -> None:
    """#{(o, t): 0 <= o s - p + t d < H}, by enumeration."""
    for size, kernel, stride, padding, dilation in itertools.product(
        (5, 7, 10), (1, 2, 3), (1, 2, 3), (0, 1, 2), (1, 2)
    ):
        found = fans.pairs_conv(size, kernel, stride, padding, dilation)
        inside = sum(
            0 <= o * stride - padding + t * dilation < size for o in range(found.outputs) for t in range(kernel)
        )
        assert found.count == inside


def test_a_kernel_that_does_not_fit() -> None:
    with pytest.raises(fans.FanError):
        fans.pairs_conv(3, 5)


EINSUMS = [
    ("bi,oi->bo", ((3, 4), (5, 4))),
    ("bi,io->bo", ((3, 4), (4, 5))),
    ("bthd,hde->bthe", ((2, 3, 4, 5), (4, 5, 6))),
    ("bthd,hde->bte", ((2, 3, 4, 5), (4, 5, 6))),
    ("ni,rio->rno", ((7, 3), (4, 3, 5))),
    ("...i,oi->...o", ((2, 3, 4), (5, 4))),
    ("bi,i->b", ((3, 4), (4,))),
    ("bij,ik->bjk", ((2, 3, 4), (3, 5))),
]


@pytest.mark.parametrize(("equation", "shapes"), EINSUMS)
def test_einsum_counts(equation, shapes) -> None:
    torch = pytest.importorskip("torch")
    x = torch.ones(*shapes[0], dtype=torch.float64, requires_grad=True)
    w = torch.ones(*shapes[1], dtype=torch.float64)
    y = torch.einsum(equation, x, w)
    y.sum().backward()
    found = fans.einsum_fans(equation, shapes, 1)
    assert (found.fan_in, found.fan_out) == pytest.approx((y.mean().item(), x.grad.mean().item()))


def test_einsum_shapes_that_do_not_fit() -> None:
    with pytest.raises(fans.FanError):
        fans.einsum_fans("bi,io->bo", ((2, 3),), 1)
    with pytest.raises(fans.FanError):
        fans.einsum_fans("bi,io->bo", ((2, 3), (3, 4, 5)), 1)


def test_bilinear_scale() -> None:
    """q_out = F var q1 q2, measured on 20,000 outputs."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    layer = torch.nn.Bilinear(6, 10, 100, bias=False)
    torch.nn.init.normal_(layer.weight, std=0.3)
    y = layer(torch.randn(2000, 6), 2.0 * torch.randn(2000, 10))
    assert y.pow(2).mean().item() == pytest.approx(fans.bilinear_fans(6, 10, 100).fan_in * 0.09 * 4.0, rel=0.1)


def test_embedding_scale() -> None:
    assert fans.embedding_fans(100) == Fans(1.0, 0.01)
    assert fans.embedding_fans(100, 8, "sum").fan_in == 8
    assert fans.embedding_fans(100, 8, "mean").fan_in == 1 / 8


@pytest.mark.parametrize("shape", [(3, 4), (8, 2, 3, 3), (5, 6, 7), (4, 1, 3)])
def test_torch_fans(shape) -> None:
    torch = pytest.importorskip("torch")
    assert fans.torch_fans(shape) == torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))


def test_torch_fans_of_a_vector() -> None:
    assert fans.torch_fans((7,)) is None
