"""Checkpoints read one tensor at a time: sharded safetensors and torch files, for real models and those on meta."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from initlint.errors import ProbeError
from initlint.facts import TensorStats
from initlint.probe.weights import load_into

SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(512, 512)
        self.last = nn.Linear(512, 512)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))
"""


def save_safetensors(path: Path, tensors: dict[str, torch.Tensor], pad: int = 0) -> None:
    """A file of that format; ``pad`` spaces more in the header shift the data to odd addresses."""
    header, data = {}, b""
    names = {torch.float32: "F32", torch.bfloat16: "BF16"}
    for name, tensor in tensors.items():
        raw = tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        header[name] = {
            "dtype": names[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode() + b" " * pad
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def model() -> nn.Module:
    net: dict[str, Any] = {}
    exec(SOURCE, net)
    made: nn.Module = net["Net"]()
    return made


def sharded(folder: Path, tensors: dict[str, torch.Tensor], form: str) -> Path:
    """A checkpoint of two shards and their index."""
    names, shards = list(tensors), {}
    for i, part in enumerate((names[:2], names[2:])):
        file = folder / f"part-{i}.{form}"
        if form == "safetensors":
            save_safetensors(file, {n: tensors[n] for n in part}, pad=i)
        else:
            torch.save({n: tensors[n] for n in part}, file)
        shards |= dict.fromkeys(part, file.name)
    index = folder / f"model.{form}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": shards}), "utf-8")
    return index


@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_shards_are_copied_into_a_real_model(tmp_path: Path, form: str) -> None:
    tensors = {n: torch.randn_like(p) for n, p in model().named_parameters()}
    index = sharded(tmp_path, tensors, form)
    target = model()
    assert load_into(target, (str(index if form == "safetensors" else index.parent),), "") == []
    for name, parameter in target.named_parameters():
        assert torch.equal(parameter.detach(), tensors[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_on_meta_gets_statistics_only(tmp_path: Path, dtype: torch.dtype) -> None:
    with torch.device("meta"):
        target = model()
    tensors = {f"module.{n}": torch.randn(p.shape, dtype=dtype) * 0.5 for n, p in target.named_parameters()}
    index = sharded(tmp_path, tensors, "safetensors")
    found: dict[str, TensorStats] = {}
    assert load_into(target, (index.name,), str(tmp_path), found) == []
    assert all(p.is_meta for p in target.parameters())
    assert set(found) == {"first.weight", "first.bias", "last.weight", "last.bias"}
    values = tensors["module.last.weight"].double()
    assert found["last.weight"].second == pytest.approx(float(values.square().mean()), rel=1e-5)
    assert not found["last.weight"].sampled


def test_one_tensor_at_a_time(tmp_path: Path) -> None:
    size, count = 1 << 22, 16  # 16 tensors of 16 MB
    file = tmp_path / "large.safetensors"
    save_safetensors(file, {f"{i}.weight": torch.full((size // 1024, 1024), float(i + 1)) for i in range(count)})
    with torch.device("meta"):
        target = nn.Sequential(*(nn.Linear(1024, size // 1024, bias=False) for _ in range(count)))
    found: dict[str, TensorStats] = {}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    load_into(target, (str(file),), "", found)
    assert [found[f"{i}.weight"].mean for i in range(count)] == [i + 1.0 for i in range(count)]
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 5 * size * 4, "at most a few tensors are in memory at a time"


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "cut.safetensors"
    save_safetensors(file, {"first.weight": torch.randn(512, 512)})
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ProbeError, match="does not lie inside"):
        load_into(model(), (str(file),), "")


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return (print, ("run",))


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"first.weight": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ProbeError, match="weights_only"):
        load_into(model(), (str(tmp_path / "evil.pt"),), "")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_command_line_judges_the_loaded_weights(tmp_path: Path, run_cli: Callable[..., Any], device: str) -> None:
    (tmp_path / "net.py").write_text(SOURCE, "utf-8")
    tensors = {n: torch.randn(p.shape) * 0.25 for n, p in model().named_parameters()}
    index = sharded(tmp_path, tensors, "safetensors")
    options = ["--weights", str(index), "--device", device, "--no-cache", "--output-format", "json", "--exit-zero"]
    (report,) = run_cli("net.py", *options).json()["models"]
    assert report["status"] == "analysed", report["reason"]
    stds = {layer["name"]: layer["std"] for layer in report["layers"]}
    assert stds == {"first": pytest.approx(0.25, rel=0.01), "last": pytest.approx(0.25, rel=0.01)}
