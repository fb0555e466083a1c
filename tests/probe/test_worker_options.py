"""Options that change what is built: a checkpoint's weights, further builds, the meta device."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from initlint.probe.outcome import ProbeResult

Probe = Callable[..., list[ProbeResult]]

NET = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.scale = nn.Parameter(torch.ones(2))
    def forward(self, x):
        return self.fc(x) * self.scale
"""


def state() -> dict[str, torch.Tensor]:
    return {"fc.weight": torch.full((2, 3), 7.0), "fc.bias": torch.full((2,), 5.0), "extra": torch.zeros(1)}


def write_safetensors(path: Path, tensors: dict[str, torch.Tensor], padding: str = "") -> None:
    header, data = {}, b""
    for name, tensor in tensors.items():
        raw = tensor.numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode() + padding.encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.mark.parametrize("kind", ["safetensors", "odd.safetensors", "pt", "nested.pt", "index.json"])
def test_weights_of_a_checkpoint(probe_files: Probe, tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"weights.{kind}"
    if kind.endswith("safetensors"):
        write_safetensors(file, state(), " " if kind.startswith("odd") else "")
    elif kind == "index.json":
        write_safetensors(tmp_path / "shard.safetensors", state())
        file.write_text(json.dumps({"weight_map": dict.fromkeys(state(), "shard.safetensors")}))
    else:
        prefixed = {f"module.{name}": tensor for name, tensor in state().items()}
        torch.save({"model_state_dict": prefixed, "epoch": 3} if kind == "nested.pt" else state(), file)
    (result,) = probe_files("net.py", files={"net.py": NET}, weights=(file.name,))
    (facts,) = result.models
    assert facts.loaded
    values = {p.name: p.stats.mean for p in facts.parameters if p.stats is not None}
    assert values == {"fc.weight": 7.0, "fc.bias": 5.0, "scale": 1.0}
    assert any("1 tensors are not in the checkpoint: scale" in note for note in facts.notes)
    assert any("extra" in note for note in facts.notes)


def test_a_pickle_that_would_run_code_is_refused(probe_files: Probe, tmp_path: Path) -> None:
    torch.save({"fc.weight": Path("x")}, tmp_path / "bad.pt")
    (result,) = probe_files("net.py", files={"net.py": NET}, weights=("bad.pt",))
    (missing,) = result.not_analysed
    assert "weights_only" in missing.reason
    (result,) = probe_files("net.py", files={"net.py": NET}, weights=("absent.safetensors",))
    assert "cannot be read" in result.not_analysed[0].reason


def test_builds_under_one_seed_are_compared(probe_files: Probe) -> None:
    code = NET.replace("torch.ones(2)", "torch.tensor(list(__import__('os').urandom(2))).float() + torch.rand(2)")
    (result,) = probe_files("net.py", files={"net.py": code}, thorough=True)
    same = next(rebuild for rebuild in result.models[0].rebuilds if rebuild.kind == "same_seed")
    assert same.differing == ("scale",)
    assert same.reason == ""


def test_what_only_the_constructor_writes_is_lost_on_meta(probe_files: Probe) -> None:
    code = NET.replace("def forward", "    nn.init.constant_(self.fc.bias, 3.0)\n    def forward")
    (result,) = probe_files("net.py", files={"net.py": code}, thorough=True)
    meta = next(rebuild for rebuild in result.models[0].rebuilds if rebuild.kind == "meta")
    assert meta.lost == ("scale",)
    assert meta.changed == ("fc.bias",)
    assert not meta.own  # only torch's layers have reset functions


def test_a_model_with_a_reset_function_of_its_own_is_meant_for_meta(probe_files: Probe) -> None:
    own = NET.replace(
        "    def forward", "    def reset_parameters(self):\n        nn.init.ones_(self.scale)\n    def forward"
    )
    (result,) = probe_files("net.py", files={"net.py": own}, thorough=True)
    meta = next(rebuild for rebuild in result.models[0].rebuilds if rebuild.kind == "meta")
    assert meta.own
    assert meta.lost == ()


def test_no_further_builds_without_thorough(probe_files: Probe) -> None:
    (result,) = probe_files("net.py", files={"net.py": NET})
    assert result.models[0].rebuilds == ()


def test_the_meta_device(probe_files: Probe) -> None:
    (result,) = probe_files("net.py", files={"net.py": NET}, device="meta")
    (facts,) = result.models
    assert facts.device == "meta"
    assert [(p.name, p.shape) for p in facts.parameters] == [("scale", (2,)), ("fc.weight", (2, 3)), ("fc.bias", (2,))]


def test_a_default_device_left_behind_by_user_code_is_redirected(probe_files: Probe) -> None:
    code = NET.replace("class Net", 'torch.set_default_device("cuda")\nclass Net')
    (result,) = probe_files("net.py", files={"net.py": code})
    (facts,) = result.models
    assert facts.status == "analysed", facts.reason
    assert facts.device == "cpu"
    assert any("redirected to the CPU" in note for note in facts.notes)
    assert result.not_analysed == ()
