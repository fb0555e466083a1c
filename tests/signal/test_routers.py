"""Mixtures of experts that dispatch and combine by masks: what routers choose, measured and simulated."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from initlint.options import ProbeOptions
from initlint.signal import propagate
from initlint.signal.moments import state
from initlint.signal.ranked import largest

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional
pytestmark = pytest.mark.usefixtures("one_thread")

EXPERTS, PLACES = 4, 20


class Mixture(nn.Module):
    """Each token goes to its best expert, into the next free place (GShard; Switch Transformers)."""

    def __init__(self, dim: int = 64, hidden: int = 128) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, EXPERTS, bias=False)
        nn.init.normal_(self.gate.weight, std=0.5)
        self.w1 = nn.Parameter(torch.randn(EXPERTS, dim, hidden) * dim**-0.5)
        self.w2 = nn.Parameter(torch.randn(EXPERTS, hidden, dim) * hidden**-0.5)
        self.head = nn.Linear(dim, 10)

    def forward(self, x):
        best, index = self.gate(x).softmax(-1).topk(1, dim=-1)
        mask = F.one_hot(index.squeeze(-1), EXPERTS).float()
        place = (mask.cumsum(1) - mask) * mask
        mask = mask * (place < PLACES).float()
        kept = best.squeeze(-1) * mask.sum(-1)
        slot = F.one_hot(place.sum(-1).long(), 64)[..., :PLACES]
        combine = kept[..., None, None] * mask[..., None] * slot[..., None, :]
        dispatch = combine.bool().to(combine)
        inputs = torch.einsum("bnd,bnec->becd", x, dispatch)
        hidden = torch.einsum("becd,edh->bech", inputs, self.w1).relu()
        outputs = torch.einsum("bech,ehd->becd", hidden, self.w2)
        return self.head(torch.einsum("becd,bnec->bnd", outputs, combine))


def test_masks_are_known_and_the_best_of_a_router_is_more_than_its_mean():
    from initlint.probe import pipeline

    torch.manual_seed(0)
    facts = pipeline.analyse_live(Mixture(), (torch.randn(2, 64, 64),), ProbeOptions(seed=1, measure=True))
    signal = propagate(facts)
    layers = {facts.nodes[i].label: i for i in range(len(facts.nodes)) if facts.nodes[i].op in ("linear", "matmul")}
    assert len(layers) >= 3
    for index in layers.values():
        got, moments = facts.nodes[index].measured, signal.built[index]
        assert got is not None
        assert not moments.numeric
        assert abs(0.5 * math.log10(moments.q / got.second)) < 0.15


@pytest.mark.parametrize(("spread", "total", "kept"), [(0.5, 8, 2), (2.0, 8, 2), (4.0, 16, 1), (1.0, 64, 6)])
def test_the_largest_of_a_softmax(spread: float, total: int, kept: int):
    draw = random.Random(5)
    best: list[float] = []
    row = 0.0
    for _ in range(3000):
        parts = [math.exp(spread * draw.gauss(0.0, 1.0)) for _ in range(total)]
        whole = sum(parts)
        chosen = sorted((part / whole for part in parts), reverse=True)
        row += sum(p * p for p in chosen) / 3000
        best += chosen[:kept]
    x = state(row / total, 1 / total, kind="weights")

    y = largest(replace(x, share=row), total, kept)
    assert y.m == pytest.approx(sum(best) / len(best), rel=0.06)
    assert y.q == pytest.approx(sum(b * b for b in best) / len(best), rel=0.12)


def test_the_largest_of_gaussian_scores():
    y = largest(state(5.0, 1.0, 4.0, 4.0), 8, 2)  # N(1, 4): means of the two largest of eight 1.42 and 0.85
    assert y.m == pytest.approx(1.0 + 2.0 * (1.4236 + 0.8522) / 2, rel=0.05)


class Interpolated(nn.Module):
    """Positions read off a table between its rows: a bag of four with the weights of an interpolation."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(64, 32))
        self.head = nn.Linear(32, 10)

    def forward(self, x, places, shares):
        return self.head(x + F.embedding_bag(places, self.table, mode="sum", per_sample_weights=shares))


def test_entries_of_a_bag_may_be_weighed():
    from initlint.probe import pipeline

    torch.manual_seed(0)
    inputs = torch.randn(16, 32), torch.randint(0, 64, (16, 4)), torch.rand(16, 4).softmax(-1)
    facts = pipeline.analyse_live(Interpolated(), inputs, ProbeOptions(seed=1, measure=True))
    signal = propagate(facts)
    bag = next(node for node in facts.nodes if node.op == "embedding")
    assert bag.measured is not None
    assert abs(0.5 * math.log10(signal.built[bag.index].q / bag.measured.second)) < 0.05  # a plain sum of four: 0.6
