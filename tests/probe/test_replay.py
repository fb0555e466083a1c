"""Builds without memory: statistics replayed from the record, operators from them, and falling back to meta."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from initlint.facts import ModelFacts, ParameterFacts, Write
from initlint.options import ProbeOptions
from initlint.probe import pipeline
from initlint.probe.budget import Budget, TooLargeError
from initlint.probe.meta_build import MixedDevicesError, MostlyMeta, emptied
from initlint.probe.replay import Replay
from initlint.signal import propagate
from initlint.theory.record import stated
from initlint.theory.sampling import compatible

LARGE = (5000, 4000)


def fact(*writes: Write, shape: tuple[int, ...] = LARGE, dtype: str = "float32") -> ParameterFacts:
    return ParameterFacts("w", "parameter", shape, dtype, "", "w", writes=writes)


def write(op: str, order: int = 0, **args: Any) -> Write:
    return Write(op, order, args)


@pytest.mark.parametrize(
    ("writes", "std"),
    [
        ((write("kaiming_normal_", mode="fan_in", nonlinearity="relu"),), math.sqrt(2 / 4000)),
        ((write("xavier_uniform_", gain=2.0),), 2 * math.sqrt(2 / 9000)),
        ((write("normal_", std=0.02), write("mul_", 1, other=0.5)), 0.01),
        ((write("trunc_normal_", std=0.02, a=-0.02, b=0.04),), None),
        ((write("uniform_", a=-0.1, b=0.1), write("normal_", 1, std=3.0)), 3.0),
    ],
)
def test_a_large_tensor_is_replayed_with_the_fans_of_its_true_shape(
    writes: tuple[Write, ...], std: float | None
) -> None:
    parameter = fact(*writes)
    stats, reason = Replay().stats(parameter)
    asked = stated(parameter)
    assert stats is not None
    assert asked is not None
    assert reason == ""
    assert stats.sampled
    assert stats.digest == "", "two draws of one law are no copies"
    assert 1 << 17 <= stats.count <= 1 << 18
    assert compatible(stats, asked)
    if std is not None:
        assert math.sqrt(stats.var) == pytest.approx(std, rel=0.015)
    assert stats.rows is not None
    assert stats.rows.count == LARGE[0]
    assert stats.rows.energy_mean == pytest.approx(LARGE[1] * asked.second, rel=0.02)


def test_writes_to_parts_show_in_chunks_and_zero_rows() -> None:
    half = Write("zeros_", 1, share=0.5, region="[0:2500]", start=0, stop=2500)
    row = Write("zero_", 2, share=1 / 5000, region="[4000]", start=4000, stop=4001)
    stats, _ = Replay().stats(fact(write("normal_", std=1.0), half, row))
    assert stats is not None
    first, second = stats.chunks["2"]
    assert first.second == 0.0
    assert second.second == pytest.approx(1.0, rel=0.01)
    assert stats.second == pytest.approx(0.5, rel=0.05)
    assert stats.rows is not None
    assert stats.rows.zeros == 2501


@pytest.mark.parametrize("shape", [(7,), (300, 200), LARGE])
def test_constants_are_exact_at_any_size(shape: tuple[int, ...]) -> None:
    stats, _ = Replay().stats(fact(write("constant_", val=0.1), shape=shape))
    assert stats is not None
    assert (stats.count, stats.minimum, stats.maximum) == (math.prod(shape), stats.mean, stats.mean)
    assert stats.mean == pytest.approx(0.1, abs=1e-8)
    assert stats.distinct == 1


@pytest.mark.parametrize("shape", [(64, 96), LARGE])
def test_orthogonal_weights_stay_orthogonal(shape: tuple[int, ...]) -> None:
    stats, _ = Replay().stats(fact(write("orthogonal_", gain=1.5), shape=shape))
    assert stats is not None
    assert stats.second == pytest.approx(1.5**2 / max(shape), rel=1e-3)
    assert stats.gram_residual is not None
    assert stats.gram_residual < 1e-4


def test_what_the_record_does_not_say_stays_unknown() -> None:
    derived = write("create", function="derived", chain=["randn", "svd"], derived=True)
    stats, reason = Replay().stats(fact(derived))
    assert stats is None
    assert "does not say" in reason
    assert Replay().stats(fact())[0] is None


def test_equal_requests_are_drawn_once() -> None:
    replay = Replay()
    first, _ = replay.stats(fact(write("normal_", std=1.0)))
    second, _ = replay.stats(fact(write("normal_", std=1.0)))
    other, _ = replay.stats(fact(write("normal_", std=2.0)))
    assert first is second
    assert other is not first


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(300, 256)
        self.layers = nn.ModuleList(nn.Linear(256, 256) for _ in range(6))
        self.scale = nn.Parameter(torch.full((256,), 0.5))
        self.drops = [rate.item() for rate in torch.linspace(0, 0.1, 6)]
        self.register_buffer("table", torch.arange(256.0).cos())
        self.head = nn.Linear(256, 300, bias=False)
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids) * self.table
        for layer in self.layers:
            x = torch.relu(layer(x)) * self.scale
        return self.head(x)


def analysed(build: Callable[[], nn.Module], device: str) -> ModelFacts:
    ids = torch.arange(32).reshape(4, 8)
    return pipeline.analyse(build, options=ProbeOptions(device=device), inputs=(ids,))


def test_propagation_on_meta_agrees_with_the_eager_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("initlint.probe.meta_build.SMALL", 1 << 12)
    eager, meta = analysed(Net, "cpu"), analysed(Net, "meta")
    assert (meta.device, meta.status) == ("meta", "analysed")
    assert [n.op for n in meta.nodes] == [n.op for n in eager.nodes]
    assert [layer.fan_in for layer in meta.layers] == [layer.fan_in for layer in eager.layers]
    table = meta.parameter("table")
    assert table is not None
    assert table.stats is not None
    assert not table.stats.sampled, "small tensors are real"
    for ours, theirs in zip(propagate(meta).built, propagate(eager).built, strict=True):
        assert ours.undetermined is None
        assert ours.q == pytest.approx(theirs.q, rel=0.3)  # another draw, seven layers of width 256
        assert ours.p == pytest.approx(theirs.p, rel=0.4)


def test_an_unknown_weight_leaves_its_operator_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("initlint.probe.meta_build.SMALL", 0)

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.linalg.qr(torch.randn(64, 64) ** 3)[0])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.weight

    facts = pipeline.analyse(Odd, options=ProbeOptions(device="meta"), inputs=(torch.randn(4, 64),))
    assert any("no statistics for weight" in note for note in facts.notes)
    assert propagate(facts).built[-1].undetermined is not None


def test_small_tensors_are_real_and_mixtures_become_meta() -> None:
    with MostlyMeta():
        small, large = torch.ones(8), torch.ones(300, 300)
        assert (small.is_meta, large.is_meta) == (False, True)
        assert (large[:8, 0] * small).is_meta
        large[0, :8].copy_(small)
        with pytest.raises(MixedDevicesError):
            small.copy_(large[0, :8])
        with pytest.raises(MemoryError):
            torch.empty(1 << 43)


def test_ties_survive_the_move_to_meta() -> None:
    model = nn.ModuleList((nn.Linear(4, 4), nn.Linear(4, 4)))
    model[1].weight = model[0].weight
    values = emptied(model)
    assert set(values) == {"0.weight", "0.bias", "1.weight", "1.bias"} - {"1.weight"} | {"1.weight"}
    assert model[0].weight is model[1].weight
    assert model[0].weight.is_meta


def test_a_model_that_will_not_fit_is_noticed_before_it_fills_the_memory() -> None:
    def build(layers: int) -> nn.Module:
        return nn.Sequential(*(nn.Linear(256, 256) for _ in range(layers)))

    def on_meta(layers: int) -> nn.Module:
        with torch.device("meta"):
            return build(layers)

    with Budget(50_000_000, lambda: on_meta(20), check=1 << 20) as budget:
        build(20)
    assert budget.size == 20 * 256 * 257 * 4
    with pytest.raises(TooLargeError) as raised, Budget(50_000_000, lambda: on_meta(400), check=1 << 20):
        build(400)
    assert raised.value.size > 42_500_000


def test_the_command_line_falls_back_to_meta(tmp_path: Any, run_cli: Callable[..., Any]) -> None:
    (tmp_path / "big.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Big(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.layers = nn.Sequential(*(nn.Linear(2048, 2048) for _ in range(60)))\n\n"
        "    def forward(self, x):\n        return self.layers(x)\n",
        "utf-8",
    )
    result = run_cli("big.py", "--no-cache", "--memory-limit", "600M", "--output-format", "json", "--exit-zero")
    (model,) = result.json()["models"]
    assert model["status"] == "analysed", model["reason"]
    assert all(layer["std"] == pytest.approx(1 / math.sqrt(3 * 2048), rel=0.02) for layer in model["layers"])
