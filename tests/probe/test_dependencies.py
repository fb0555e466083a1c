"""What an analysis turns out to depend on, as the cache must know it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from initlint.cache import Cache, Entry, key_of
from initlint.facts import ModelFacts
from initlint.probe.outcome import ProbeResult

MODEL = """
import json, os
from pathlib import Path
from torch import nn
import helper
try:
    import absent_here
except ImportError:
    absent_here = None

HERE = Path(__file__).parent


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        width = int(os.environ.get("NET_WIDTH", "4")) + ("NET_EXTRA" in os.environ)
        if (HERE / "sizes").is_dir():
            width += len(os.listdir(HERE / "sizes"))
        try:
            width += json.loads((HERE / "extra.json").read_text())
        except FileNotFoundError:
            pass
        self.first = nn.Linear(width, helper.WIDTH)

    def forward(self, x):
        return self.first(x)
"""

PLAIN = """
from torch import nn


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(2, 2))
"""


def test_what_was_read_and_what_was_looked_for(probe_files: Callable[..., list[ProbeResult]], tmp_path: Path) -> None:
    files = {"model.py": MODEL, "helper.py": "WIDTH = 3", "sizes/one.txt": ""}
    (result,) = probe_files("model.py", files=files)
    assert result.models[0].status == "analysed"
    inside = f"{tmp_path}/"  # a module might also lie elsewhere on the path
    found = {path.removeprefix(inside): digest for path, digest in result.dependencies if path.startswith(inside)}
    assert {name for name, digest in found.items() if digest} == {"model.py", "helper.py", "sizes/"}
    assert {name for name, digest in found.items() if not digest} == {
        "extra.json",
        "absent_here.py",
        "absent_here/__init__.py",
    }
    assert ("absent_here", "") in result.packages
    assert set(result.variables) == {"NET_WIDTH", "NET_EXTRA"}, "libraries ask for many more"


def test_a_plain_model_depends_on_its_file_alone(probe_files: Callable[..., list[ProbeResult]]) -> None:
    (result,) = probe_files("plain.py", files={"plain.py": PLAIN})
    assert [Path(path).name for path, _ in result.dependencies] == ["plain.py"]
    assert result.variables == ()


def test_folders_and_variables_must_stay_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from initlint.files import listing_digest

    folder = tmp_path / "sizes"
    folder.mkdir()
    key, entry = key_of({}), Entry((ModelFacts("Net", "m.py::Net", "m.py"),))
    monkeypatch.delenv("NET_WIDTH", raising=False)

    def fresh() -> Cache:
        return Cache(tmp_path / ".initlint_cache", tmp_path)

    fresh().put(key, entry, [(f"{folder}/", listing_digest(folder))], (), ["NET_WIDTH"])
    assert fresh().get(key) == entry
    monkeypatch.setenv("NET_WIDTH", "")
    assert fresh().get(key) is None, "set to nothing is not the same as not set"
    monkeypatch.delenv("NET_WIDTH")
    (folder / "one.txt").write_text("")
    assert fresh().get(key) is None
    (folder / "one.txt").unlink()
    (folder / "__pycache__").mkdir()
    assert fresh().get(key) == entry, "Python's own folder is none of the project's"
