"""Statistics of tensors against direct computation, on both the exact and the blockwise path."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from initlint.facts import TensorStats
from initlint.probe import measure_matrix
from initlint.probe.measure import BATCH, EXACT_LIMIT, measure, measure_all
from initlint.probe.measure_scan import boundaries

LARGE = (400, 300)  # above EXACT_LIMIT and above what is counted exactly
MEDIUM = (90, 70)  # a little above EXACT_LIMIT


def stats_of(tensor: torch.Tensor, groups: int = 1) -> TensorStats:
    found = measure(tensor, groups)
    assert found is not None
    return found


@pytest.mark.parametrize("shape", [(20, 30), LARGE, (5, 6, 3, 3), (60, 40, 7, 7), (70000,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_moments(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = (torch.randn(shape) * 0.1 + 0.03).to(dtype)
    stats, exact = stats_of(x), x.double()
    assert stats.count == x.numel()
    assert stats.mean == pytest.approx(float(exact.mean()), rel=1e-4)
    assert stats.second == pytest.approx(float(exact.square().mean()), rel=1e-5)
    assert stats.var == pytest.approx(float(exact.var(correction=0)), rel=1e-5)
    assert (stats.minimum, stats.maximum) == (float(exact.min()), float(exact.max()))
    centred = exact - exact.mean()
    kurtosis = float(centred.pow(4).mean() / centred.square().mean() ** 2)
    assert stats.kurtosis == pytest.approx(kurtosis, abs=0.2)  # 4 standard errors of the sample
    assert stats.distinct is None
    assert stats.nans == stats.infs == stats.zeros == 0


@pytest.mark.parametrize("shape", [(24, 18), LARGE, (12, 9, 3, 3), (90, 90, 3, 3)])
def test_units_along_every_axis(shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    x = torch.randn(shape)
    stats = stats_of(x)
    for units, axis in ((stats.rows, 0), (stats.columns, 1), (stats.last, x.ndim - 1)):
        if units is None:
            assert axis == x.ndim - 1 == 1
            continue
        flat = x.double().transpose(0, axis).flatten(1)
        energies, totals = flat.square().sum(1), flat.sum(1)
        assert units.count == shape[axis]
        assert units.energy_mean == pytest.approx(float(energies.mean()), rel=1e-5)
        assert units.energy_min == pytest.approx(float(energies.min()), rel=1e-5)
        assert units.energy_max == pytest.approx(float(energies.max()), rel=1e-5)
        assert units.energy_var == pytest.approx(float(energies.var(correction=0)), rel=1e-3)
        assert units.total_mean == pytest.approx(float(totals.mean()), rel=1e-3, abs=1e-3)
        assert units.total_second == pytest.approx(float(totals.square().mean()), rel=1e-4)
        assert units.duplicates == 0


@pytest.mark.parametrize("shape", [(24, 18), LARGE])
def test_equal_and_zero_slices(shape: tuple[int, int]) -> None:
    x = torch.randn(shape)
    x[5] = x[2]
    x[7] = x[2]
    x[9] = 0.0
    stats = stats_of(x)
    assert stats.rows is not None
    assert (stats.rows.duplicates, stats.rows.zeros) == (2, 1)
    assert stats.zero_slices == (9,)
    assert stats.zeros == shape[1]
    x = torch.randn(shape)
    x[:, 3] = x[:, 1]
    assert stats_of(x).columns.duplicates == 1


def test_equal_sums_are_no_duplicates() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    assert stats_of(x).rows.duplicates == 1


def test_rows_of_equal_values_in_the_vector_tail_are_found() -> None:
    """Reductions treat the last columns of a row differently; equal rows must agree all the same."""
    for width in (7, 31, 257):
        x = torch.randn(500, width)
        x[499] = x[0]
        assert stats_of(x).rows.duplicates == 1


@pytest.mark.parametrize("shape", [(8, 8), LARGE, (9,), (70000,)])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.5])
def test_constant_tensors(shape: tuple[int, ...], value: float) -> None:
    stats = stats_of(torch.full(shape, value))
    assert (stats.distinct, stats.mean, stats.second, stats.var) == (1, value, value * value, 0.0)
    assert stats.kurtosis is None
    assert stats.zeros == (math.prod(shape) if value == 0 else 0)
    if len(shape) == 2:
        assert stats.rows.duplicates == shape[0] - 1
        assert stats.rows.zeros == (shape[0] if value == 0 else 0)


def test_few_distinct_values() -> None:
    assert stats_of(torch.randint(0, 2, (50, 40)).float()).distinct == 2
    assert stats_of(torch.randint(0, 3, LARGE).float()).distinct == 3
    assert stats_of(torch.eye(16)).distinct == 2


@pytest.mark.parametrize("shape", [(20, 20), LARGE])
def test_values_that_are_not_finite_are_counted_and_left_out(shape: tuple[int, int]) -> None:
    x = torch.ones(shape)
    x[0, 0], x[1, 1], x[2, 2] = math.nan, math.inf, -math.inf
    stats = stats_of(x)
    assert (stats.nans, stats.infs, stats.count) == (1, 2, math.prod(shape) - 3)
    assert (stats.mean, stats.var) == (1.0, 0.0)


def test_all_nan_and_empty() -> None:
    assert stats_of(torch.full((3, 3), math.nan)).count == 0
    assert stats_of(torch.empty(0, 4)).count == 0


def test_subnormals() -> None:
    assert stats_of(torch.tensor([1e-40, 1.0, 0.0])).subnormals == 1


def test_nothing_to_measure() -> None:
    assert measure(torch.empty(3, 3, device="meta")) is None
    assert measure(nn.LazyLinear(4).weight) is None


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8, torch.complex64])
def test_other_dtypes(dtype: torch.dtype) -> None:
    x = torch.tensor([[1, 0], [1, 1]]).to(dtype)
    stats = stats_of(x)
    assert stats.count == (8 if dtype.is_complex else 4)
    assert stats.maximum == 1.0


@pytest.mark.parametrize("rows", [12, 480])
def test_chunks_of_axis_zero(rows: int) -> None:
    torch.manual_seed(2)
    x = torch.cat([torch.randn(rows // 4, 200) * s for s in (1.0, 2.0, 3.0, 4.0)])
    stats = stats_of(x, groups=6)
    assert set(stats.chunks) == {"2", "3", "4", "6"}
    for chunk, part in zip(stats.chunks["4"], x.double().chunk(4), strict=True):
        assert chunk.mean == pytest.approx(float(part.mean()), abs=1e-5)
        assert chunk.second == pytest.approx(float(part.square().mean()), rel=1e-5)
        assert (chunk.minimum, chunk.maximum) == (float(part.min()), float(part.max()))


def test_chunks_of_a_bias() -> None:
    bias = torch.cat([torch.zeros(8), torch.ones(8), torch.zeros(16)])
    assert [c.mean for c in stats_of(bias).chunks["4"]] == [0.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("shape", [(4, 20, 30), (8, 128, 128)])
def test_experts(shape: tuple[int, int, int]) -> None:
    x = torch.randn(shape)
    x[2] *= 3
    for chunk, part in zip(stats_of(x).experts, x.double(), strict=True):
        assert chunk.second == pytest.approx(float(part.square().mean()), rel=1e-5)
    same = nn.init.orthogonal_(torch.empty(16, 16)).repeat(4, 1, 1)
    assert all(c.gram_residual < 1e-5 for c in stats_of(same).experts)


@pytest.mark.parametrize("shape", [(12, 12), (12, 40), (40, 12), (300, 300), (300, 500), (500, 300)])
def test_orthogonal(shape: tuple[int, int]) -> None:
    stats = stats_of(nn.init.orthogonal_(torch.empty(shape), gain=1.7))
    assert stats.gram_residual < 1e-5
    assert stats_of(torch.randn(shape)).gram_residual > 1e-2


def test_unit_rows_that_are_not_orthogonal() -> None:
    x = nn.functional.normalize(torch.randn(300, 400), dim=1)
    assert stats_of(x).gram_residual > 0.1


def test_orthogonal_gates_of_a_packed_matrix() -> None:
    packed = torch.cat([nn.init.orthogonal_(torch.empty(64, 64)) for _ in range(4)])
    stats = stats_of(packed)
    assert all(c.gram_residual < 1e-5 for c in stats.chunks["4"])


def test_singular_values_and_diagonal() -> None:
    x = torch.diag(torch.tensor([3.0, 2.0, 0.5]))
    stats = stats_of(x)
    assert stats.spectral_norm == pytest.approx(3.0)
    assert stats.singular_min == pytest.approx(0.5)
    assert stats.diagonal == pytest.approx(5.5 / 3)


@pytest.mark.parametrize("shape", [(128, 128), (96, 40), (40, 96, 3, 3), (1000, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_largest_singular_value_of_larger_matrices(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    columns = math.prod(shape[1:])
    spiked = torch.randn(shape[0], 1) @ torch.randn(1, columns) + 0.5 * torch.randn(shape[0], columns)
    stats = stats_of(spiked.reshape(shape).to(dtype))
    assert stats.spectral_norm == pytest.approx(float(torch.linalg.matrix_norm(spiked, 2)), rel=0.01)


@pytest.mark.parametrize(
    "made",
    [
        lambda: torch.randn(512, 512),
        lambda: torch.randn(300, 80, 3, 3),
        lambda: nn.init.orthogonal_(torch.empty(256, 128)),
        lambda: nn.init.sparse_(torch.empty(128, 256), 0.9),
        lambda: torch.eye(200),
        lambda: torch.zeros(128, 128),
    ],
)
def test_rows_that_share_nothing_are_not_iterated_on(made: Callable[[], torch.Tensor]) -> None:
    torch.manual_seed(0)
    assert stats_of(made()).spectral_norm is None


def test_matrices_too_large_to_iterate_on_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_matrix, "POWER_LIMIT", 1000)
    assert stats_of(torch.rand(128, 128)).spectral_norm is None


def test_measuring_draws_nothing_from_the_generator() -> None:
    torch.manual_seed(0)
    first = torch.rand(128, 128)
    state = torch.get_rng_state()
    assert stats_of(first).spectral_norm is not None
    assert torch.equal(torch.get_rng_state(), state)


def test_histogram_counts_every_value() -> None:
    histogram = stats_of(torch.rand(50, 20)).histogram
    assert sum(histogram.counts) == 1000
    assert len(histogram.edges) == len(histogram.counts) + 1


@pytest.mark.parametrize("shape", [(6, 5), LARGE, (3, EXACT_LIMIT)])
def test_digest_tells_contents_apart(shape: tuple[int, int]) -> None:
    torch.manual_seed(3)
    x = torch.randn(shape)
    digest = stats_of(x).digest
    assert stats_of(x.clone()).digest == digest
    changed = x.clone()
    changed[-1, -1] = torch.nextafter(changed[-1, -1], torch.tensor(9.0))
    assert stats_of(changed).digest != digest
    assert stats_of(x.reshape(shape[1], shape[0])).digest != digest
    assert stats_of(x.flip(0)).digest != digest


def test_the_tensor_is_left_alone() -> None:
    x = torch.randn(LARGE)
    before = x.clone()
    stats_of(x)
    assert torch.equal(x, before)


def test_views_and_strides() -> None:
    x = torch.randn(50, 40)
    assert stats_of(x.t()).rows.energy_mean == pytest.approx(float(x.double().square().sum(0).mean()), rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 5))
def test_any_small_shape(rows: int, columns: int, repeated: int) -> None:
    torch.manual_seed(rows * 41 + columns)
    x = torch.randn(rows, columns)
    count = min(repeated, rows - 1)
    x[:count] = x[rows - 1] if count else x[:count]
    stats = stats_of(x)
    expected = rows - int(torch.unique(x, dim=0).shape[0])
    assert stats.rows.duplicates == expected
    assert stats.second == pytest.approx(float(x.double().square().mean()))


def test_blocks_never_cross_the_border_of_a_part() -> None:
    blocks = boundaries(120, 5000, (2, 3, 4))
    assert blocks[0][0] == 0
    assert blocks[-1][1] == 120
    for border in (30, 40, 60, 80, 90):
        assert any(stop == border for _, stop in blocks)
    assert all(a[1] == b[0] for a, b in pairwise(blocks))


@pytest.mark.parametrize("orthogonal", [True, False])
def test_orthogonality_of_many_rows(orthogonal: bool) -> None:
    """The columns of a tall random matrix have nearly equal energies: these cannot tell it from an orthogonal one."""
    torch.manual_seed(0)
    x = torch.randn(20_000, 64)
    stats = stats_of(nn.init.orthogonal_(x) if orthogonal else x)
    exact = x.double().t() @ x.double()
    residual = float((exact / exact.diagonal().mean() - torch.eye(64)).abs().max())
    assert stats.gram_residual is not None
    if orthogonal:
        assert stats.gram_residual < 1e-4
    else:
        assert 1e-2 < stats.gram_residual <= residual * 1.001, "a lower bound"


def test_tensors_of_one_shape_are_measured_together_as_each_alone() -> None:
    torch.manual_seed(4)
    usual = [torch.randn(LARGE) * s for s in (0.1, 1.0, 10.0)]
    repeated, gone = usual[0].clone(), usual[1].clone()
    repeated[7], repeated[9] = repeated[2], 0.0
    gone[3, 5] = math.nan
    shaped = [torch.randn(MEDIUM), torch.randn(9), torch.randn(20, 30, 3, 3), torch.full(LARGE, 0.5), torch.arange(9)]
    tensors = [*usual, repeated, gone, *shaped, torch.randn(LARGE).t(), torch.empty(0, 4)]
    given = [(tensor, 1) for tensor in tensors]
    assert measure_all([*given, (None, 1), (torch.empty(3, 3, device="meta"), 1)]) == [
        *map(measure, tensors),
        None,
        None,
    ]
    assert measure_all(given)[3].rows.duplicates == 1


def test_more_tensors_than_a_batch_holds() -> None:
    tensors = [torch.full((80, 80), float(i)) for i in range(BATCH + 5)]
    tensors[3] = torch.randn(80, 80)
    found = measure_all([(tensor, 1) for tensor in tensors])
    assert [stats.mean for stats in found if stats.distinct == 1] == [float(i) for i in range(BATCH + 5) if i != 3]


@pytest.mark.parametrize("rows", [200, 20_000])
def test_a_repeated_row_among_many_tensors(rows: int) -> None:
    """Both ways of looking for equal keys: of few rows, and of so many that integers are sorted by their digits."""
    torch.manual_seed(5)
    tensors = [torch.randn(rows, 33) for _ in range(4)]
    tensors[2][rows - 1] = tensors[2][0]
    found = measure_all([(tensor, 1) for tensor in tensors])
    assert [stats.rows.duplicates for stats in found] == [0, 0, 1, 0]


def test_a_stray_zero_is_counted_in_a_tensor_of_middle_size() -> None:
    x = torch.rand(250, 250) + 0.5
    x[123, 45] = 0.0
    assert stats_of(x).zeros == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_histogram_of_a_sample_is_that_of_the_whole(dtype: torch.dtype) -> None:
    torch.manual_seed(6)
    x = torch.rand(600, 768).to(dtype)
    histogram = stats_of(x).histogram
    total = sum(histogram.counts)
    assert total > 5000
    assert histogram.edges[0] == float(x.min())
    assert histogram.edges[-1] == float(x.max())
    assert all(abs(count / total - 1 / 24) < 0.012 for count in histogram.counts)  # 5 standard errors of a bin


def test_a_maximum_below_zero_is_found() -> None:
    x = -torch.rand(LARGE) - 0.5
    assert (stats_of(x).minimum, stats_of(x).maximum) == (float(x.min()), float(x.max()))


def test_rows_of_a_table_of_positions_are_compared() -> None:
    table = torch.randn(1, 9, 96).repeat(1, 8, 1)
    stats = measure(table)
    assert stats is not None
    assert stats.columns is not None
    assert (stats.columns.count, stats.columns.duplicates) == (72, 63)
