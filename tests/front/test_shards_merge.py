"""Three shards of a repository, joined, say what one run says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

MODEL = """
import torch
from torch import nn

class Net{i}(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
        {extra}

    def forward(self, x):
        return self.layers(x){use}
"""


def without_seconds(document: dict[str, Any]) -> dict[str, Any]:
    document["summary"].pop("seconds")
    return document


def test_three_shards_joined_are_one_run(tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    for i in range(5):
        odd = i % 2
        extra = "self.scale = nn.Parameter(torch.empty(2))" if odd else "pass"
        folder = tmp_path / "models" / f"part{i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"net{i}.py").write_text(MODEL.format(i=i, extra=extra, use=" * self.scale" if odd else ""), "utf-8")
    (tmp_path / "models" / "needs.py").write_text(
        "from torch import nn\n\n\nclass Needs(nn.Module):\n    def __init__(self, thing):\n"
        "        super().__init__()\n        self.fc = nn.Linear(thing.size, 2)\n",
        "utf-8",
    )
    common = ("models", "--no-cache", "--exit-zero")
    assert run_cli(*common, "--output", "json=whole.json").code == 0
    whole = json.loads((tmp_path / "whole.json").read_text("utf-8"))
    sizes = []
    for part in (1, 2, 3):
        assert run_cli(*common, "--shard", f"{part}/3", "--output", f"json=part{part}.json").code == 0
        sizes.append(json.loads((tmp_path / f"part{part}.json").read_text("utf-8"))["summary"]["models"])
    merged = run_cli("merge", "part3.json", "part1.json", "part2.json")
    assert merged.code == 1, "errors in any shard fail the whole"
    assert sum(sizes) == whole["summary"]["models"] >= 5
    assert max(sizes) < sum(sizes), "the work is divided"
    assert whole["summary"]["errors"] >= 2
    assert without_seconds(merged.json()) == without_seconds(whole)
