"""What the oracle answers about live ops."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from initlint.probe.inputs import describe
from initlint.probe.oracle import response, response_of, table, table_of
from initlint.probe.trace import trace


@pytest.mark.parametrize("shape", [(321,), (4, 16, 32), (2, 3)])
@pytest.mark.parametrize("func", [torch.relu, F.mish, lambda x: x * torch.sigmoid(1.702 * x), lambda x: x.square()])
def test_elementwise_callables_have_a_table(func, shape):
    samples = table(func, shape)
    assert samples is not None
    x = torch.tensor(samples["x"], requires_grad=True)
    y = func(x)
    (dy,) = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(y, torch.tensor(samples["y"]), rtol=1e-4, atol=1e-4)
    assert torch.allclose(dy, torch.tensor(samples["dy"]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "func",
    [
        lambda x: F.softmax(x, -1),
        lambda x: x.flip(0),
        lambda x: x.cumsum(0),
        lambda x: x - x.mean(),
        lambda x: x.sum(),
        lambda x: x * torch.linspace(1, 2, x.shape[-1]),
        lambda x: x * torch.randn_like(x),
    ],
    ids=["softmax", "flip", "cumsum", "centred", "sum", "per place", "random"],
)
@pytest.mark.parametrize("shape", [(321,), (4, 16, 32)])
def test_other_callables_have_none(func, shape):
    assert table(func, shape) is None


def test_half_lines_are_kept():
    samples = table(torch.log)
    assert samples is not None
    assert min(samples["x"]) > 0


def test_the_response_of_a_linear_layer_is_its_gain():
    torch.manual_seed(0)
    layer = nn.Linear(256, 256, bias=False)
    nn.init.normal_(layer.weight, std=math.sqrt(2 / 256))
    answer = response(layer, (torch.randn(32, 256),))
    assert answer is not None
    for scale, second, back in zip(answer.scales, answer.second, answer.back[0], strict=True):
        assert second / (scale**2 * answer.q_in[0]) == pytest.approx(2.0, rel=0.05)
        assert back == pytest.approx(2.0, rel=0.05)


def test_each_operand_has_its_own_back():
    answer = response(torch.where, (torch.rand(8, 16) > 0.25, torch.randn(8, 16), torch.randn(8, 16)), scales=(1.0,))
    assert answer is not None
    assert answer.back[0] == ()
    assert answer.back[1][0] + answer.back[2][0] == pytest.approx(1.0, rel=0.6)


def test_ops_that_raise_or_return_indices_have_no_response():
    assert response(torch.argmax, (torch.randn(4, 4),)) is None
    assert response(torch.linalg.cholesky, (-torch.eye(3),)) is None


def test_nodes_of_a_traced_graph_can_be_asked():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(16, 16)

        def forward(self, x):
            return torch.linalg.vector_norm(F.mish(self.fc(x)), dim=-1)

    model = Model()
    traced = trace(model, describe(model, (torch.randn(4, 16),), {}, "x"))
    by_name = {n.name: n for n in traced.graph.nodes}
    samples = table_of(traced, by_name["mish"])
    assert samples is not None
    assert samples["y"][0] == pytest.approx(0.0, abs=1e-5)
    assert table_of(traced, by_name["linalg_vector_norm"]) is None
    answer = response_of(traced, by_name["linalg_vector_norm"])
    assert answer is not None
    assert answer.second[-1] / answer.second[3] == pytest.approx(100.0, rel=0.01)
