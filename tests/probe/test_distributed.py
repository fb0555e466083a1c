"""Models sharded over two local processes: moments of the whole, copied shards, replicas that differ."""

from __future__ import annotations

import math
import os
import pickle
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import initlint
from initlint.probe import distributed

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(48, 129)  # 65 and 64 rows
        self.norm = nn.LayerNorm(129)
        self.last = nn.Linear(129, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.norm(self.first(x))))


def _sharded(kind: str, rank: int) -> nn.Module:
    """The model of one process: "right", "same_seed" (each fills its own shard alike), "replicas" (one differs)."""
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(0)
    model = Net()
    if kind == "replicas":
        torch.manual_seed(rank)
        model.register_buffer("table", torch.randn(64))
    fully_shard(model.first)
    fully_shard(model)
    if kind == "same_seed":
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.manual_seed(0)
                nn.init.normal_(parameter.to_local(), std=0.05)  # type: ignore[operator]
    return model


def _process(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    results: dict[str, Any] = {}
    for kind in ("right", "same_seed", "replicas"):
        model = _sharded(kind, rank)
        before = [p.to_local().clone() for p in model.parameters()]  # type: ignore[operator]
        run = initlint.check(model, inputs=torch.randn(4, 48))
        same = all(torch.equal(a, p.to_local()) for a, p in zip(before, model.parameters(), strict=True))  # type: ignore[operator]
        facts = run.models[0].facts
        results[kind] = {
            "found": {f.code: f.parameters for f in run.findings},
            "stats": {p.name: p.stats for p in facts.parameters},
            "status": (facts.status, facts.reason, facts.notes, facts.device),
            "gains": {n.label: n.operator.gain for n in facts.nodes if n.operator is not None},
            "untouched": same,
        }
    Path(folder, f"{rank}.pickle").write_bytes(pickle.dumps(results))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    import torch.multiprocessing as processes

    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes.spawn(_process, (port, str(folder)), nprocs=2)
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(2)]


@pytest.mark.slow
def test_the_moments_are_those_of_the_whole(results: list[dict[str, Any]]) -> None:
    torch.manual_seed(0)
    whole = Net()
    for result in results:
        right = result["right"]
        assert right["status"][0] == "analysed", right["status"]
        assert right["status"][3] == "cpu"
        assert right["untouched"]
        assert "IL411" not in right["found"]
        for name, tensor in whole.named_parameters():
            stats, values = right["stats"][name], tensor.detach().double()
            assert stats.count == values.numel()
            assert stats.second == pytest.approx(float(values.square().mean()), rel=1e-6)
            assert stats.mean == pytest.approx(float(values.mean()), abs=1e-7)
            assert (stats.minimum, stats.maximum) == (float(values.min()), float(values.max()))
        gain = float(whole.first.weight.detach().double().square().sum(1).mean())
        assert right["gains"]["first"] == pytest.approx(gain, rel=1e-5)
    assert results[0]["right"]["stats"] == results[1]["right"]["stats"], "all processes come to the same result"


@pytest.mark.slow
def test_shards_from_one_seed_and_differing_replicas_are_found(results: list[dict[str, Any]]) -> None:
    for result in results:
        assert set(result["same_seed"]["found"]["IL411"]) == {"first.weight", "last.weight"}
        assert result["replicas"]["found"]["IL411"] == ("table",)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ([(0, 5, 7), (1, 6, 8)], ""),
        ([(0, 5, 7), (1, 6, 7)], "identical_shards"),
        ([(0, 5, 0), (1, 6, 0)], ""),  # constants
        ([(0, 5, 7), (0, 5, 7)], ""),
        ([(0, 5, 7), (0, 6, 8)], "differing_replicas"),
        ([(0, 5, 7), (1, 6, 8), (0, 5, 7), (1, 6, 8)], ""),  # hybrid: replicated and sharded
    ],
)
def test_what_copies_mean(keys: list[tuple[int, ...]], expected: str) -> None:
    assert distributed._replica(keys) == expected


def test_a_plain_copy_has_the_structure_without_the_values() -> None:
    model = Net()
    model.last.register_forward_hook(lambda *_: None)
    copy = distributed.plain_copy(model)
    assert type(copy) is Net
    assert copy.first.weight.is_meta
    assert copy.first.weight.shape == model.first.weight.shape
    assert len(copy.last._forward_hooks) == 1
    assert not model.first.weight.is_meta
    assert math.isfinite(float(model.first.weight.detach().sum()))
