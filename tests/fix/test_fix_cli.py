"""--diff, --fix and --unsafe-fixes from the command line, on real models."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MODEL = '''import torch
from torch import nn


class Net(nn.Module):
    """Twelve tanh layers with Kaiming's gain, a padding row that is lost, and a comment without effect."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(20, 32, padding_idx=0)
        self.body = nn.Sequential(*[m for _ in range(12) for m in (nn.Linear(32, 32), nn.ReLU())])
        self.head = nn.Linear(32, 4)  # initlint: ignore[IL002]
        nn.init.normal_(self.tokens.weight, std=1.0)
        for m in self.body:
            if isinstance(m, nn.Linear):
                nn.init.xavier_normal_(m.weight)  # the wrong one
                nn.init.zeros_(m.bias)

    def forward(self, ids):
        return self.head(self.body(self.tokens(ids).mean(1)))


def example_inputs():
    return (torch.randint(0, 20, (4, 6)),)
'''
HELPER = """from torch import nn


def init(m):
    if isinstance(m, nn.Linear):
        nn.init.xavier_normal_(m.weight)
        nn.init.zeros_(m.bias)
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(MODEL)
    return path


@pytest.mark.slow
def test_diff_then_safe_then_all(run_cli: Callable[..., Any], model: Path) -> None:
    shown = run_cli("net.py", "--diff", "--no-cache")
    assert shown.code == 1
    assert model.read_text() == MODEL, "--diff changes nothing"
    assert [path.name for path in model.parent.glob("*.py")] == ["net.py"], "the copy is gone"
    assert '+                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")  # the wrong one' in shown.out
    assert "+        self.tokens.weight.data[self.tokens.padding_idx].zero_()" in shown.out
    patched = model.with_name("patched.py")
    patched.write_text(MODEL)
    if shutil.which("patch"):
        subprocess.run(["patch", "-s", str(patched)], input=shown.out, text=True, check=True)
        assert "kaiming_normal_" in patched.read_text()
    patched.unlink()

    safe = run_cli("net.py", "--fix", "--no-cache")
    assert safe.code == 1
    assert model.read_text() == MODEL.replace("  # initlint: ignore[IL002]", "")
    assert "fixed IL901" in safe.out
    assert "apply with --unsafe-fixes" in safe.out

    fixed = run_cli("net.py", "--fix", "--unsafe-fixes", "--no-cache", "--output-format", "json")
    assert fixed.code == 0, fixed.out
    assert not {"IL104", "IL304"} & {finding["code"] for finding in fixed.json()["findings"]}
    assert 'kaiming_normal_(m.weight, nonlinearity="relu")  # the wrong one' in model.read_text()


@pytest.mark.slow
def test_plain_check_plans_and_does_not_verify(run_cli: Callable[..., Any], model: Path) -> None:
    done = run_cli("net.py", "--no-cache", "--output-format", "json", "--select", "IL104")
    (finding,) = done.json()["findings"]
    assert finding["fix"]["applicability"] == "unsafe"
    assert finding["fix"]["verified"] is False
    (edit,) = finding["fix"]["edits"]
    line = MODEL.split("\n").index("                nn.init.xavier_normal_(m.weight)  # the wrong one") + 1
    assert (edit["file"], edit["start"], edit["end"]) == ("net.py", line, line)


@pytest.mark.slow
def test_an_init_function_in_another_file(run_cli: Callable[..., Any], model: Path) -> None:
    folder = model.parent / "pkg"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "helper.py").write_text(HELPER)
    body = MODEL.partition("        nn.init.normal_")[0].replace("(nn.Module):", "(nn.Module):", 1)
    tail = MODEL.partition("\n    def forward")[2]
    source = f"{body}        self.body.apply(init)\n\n    def forward{tail}".replace(
        "\n\n\nclass", "\nfrom .helper import init\n\n\nclass", 1
    )
    (folder / "net.py").write_text(source)
    done = run_cli("pkg/net.py", "--fix", "--unsafe-fixes", "--no-cache", "--select", "IL104")
    assert done.code == 0, done.out + done.err
    assert 'kaiming_normal_(m.weight, nonlinearity="relu")' in (folder / "helper.py").read_text()
    assert (folder / "net.py").read_text() == source
    assert sorted(path.name for path in model.parent.rglob("*.py")) == ["__init__.py", "helper.py", "net.py", "net.py"]
