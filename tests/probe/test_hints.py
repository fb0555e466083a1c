"""Hints for what could not be built: each is something that helps, or there is none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from initlint.probe.outcome import ProbeResult

Probe = Callable[..., list[ProbeResult]]

CODE = """
from torch import nn
class Whole(nn.Module):
    def __init__(self, reader, writer, device):
        super().__init__()
        self.reader = reader
        self.writer = writer
    def forward(self, x):
        return self.writer(self.reader(x))
class Planned(nn.Module):
    def __init__(self, plan):
        super().__init__()
        self.act = TABLE[plan.kind]
        self.fc = nn.Linear(plan.width, plan.width)
TABLE = {"relu": nn.ReLU()}
class Loaded(nn.Module):
    def __init__(self, width=4, path="weights/absent.bin"):
        super().__init__()
        self.fc = nn.Linear(width, width)
        with open(path) as file:
            self.text = file.read()
class Around(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.fc = nn.Linear(width, width)
        with open("weights/absent.bin") as file:
            self.text = file.read()
class Heads(nn.Module):
    def __init__(self, classes=3, anchors=()):
        super().__init__()
        self.fc = nn.Linear(classes, len(anchors[0]))
class Broken(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.fc = nn.Linear(width, 4)
        raise OSError("never")
class Typed(nn.Module):
    def __init__(self, text: str):
        super().__init__()
        self.fc = nn.Linear(3, SIZES[text.lower()])
SIZES = {"a": 1}
"""


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("Whole", "Write a small factory function in net.py that returns it, and name that instead."),
        ("Planned", "Write a small factory function in net.py that returns it, and name that instead."),
        ("Loaded", "initlint 'net.py::Loaded(path=...)' with a file that is there."),
        ("Around", "The file is looked for from the working directory: run initlint where it is."),
        ("Heads", "initlint 'net.py::Heads(anchors=...)'"),
        ("Broken", ""),
        ("Broken(8)", ""),
        ("Heads(anchors=())", ""),
    ],
)
def test_a_hint_is_something_that_helps(probe_files: Probe, target: str, hint: str) -> None:
    (result,) = probe_files(f"net.py::{target}", files={"net.py": CODE})
    (missing,) = result.not_analysed
    assert missing.hint == hint


def test_an_argument_that_can_be_typed_is_named(probe_files: Probe) -> None:
    (result,) = probe_files("net.py::Typed", files={"net.py": CODE})
    (missing,) = result.not_analysed
    assert missing.hint == "initlint 'net.py::Typed(text=...)'"


BESIDE = """
from torch import nn
class Net(nn.Module):
    def __init__(self, path="net.txt"):
        super().__init__()
        self.first = nn.Linear(2, 3)
        with open(path) as file:
            self.fc = nn.Linear(5, int(file.read()))
        nn.init.normal_(self.fc.weight)
    def forward(self, x):
        return self.fc(x)
"""


def test_a_file_beside_the_model_is_found(probe_files: Probe) -> None:
    (result,) = probe_files("models/net.py::Net", files={"models/net.py": BESIDE, "models/net.txt": "7"})
    (facts,) = result.models
    shapes = {p.name: p.shape for p in facts.parameters}
    assert shapes["fc.weight"] == (7, 5)
    note = "built with models as the working directory: net.txt lies there, beside the model's file"
    assert [n for n in facts.notes if "working directory" in n] == [note]
    weight = next(p for p in facts.parameters if p.name == "fc.weight")
    assert [write.site.line for write in weight.writes if write.site is not None][-1] == 9
    assert len(weight.writes) == 2  # the default and what comes after it: the build that was given up left nothing


def test_a_file_in_the_working_directory_comes_first(probe_files: Probe) -> None:
    files = {"models/net.py": BESIDE, "models/net.txt": "7", "net.txt": "3"}
    (result,) = probe_files("models/net.py::Net", files=files)
    assert {p.name: p.shape for p in result.models[0].parameters}["fc.weight"] == (3, 5)
    assert not any("working directory" in note for note in result.models[0].notes)


def test_a_file_that_is_nowhere_is_missed_as_before(probe_files: Probe) -> None:
    (result,) = probe_files("models/net.py::Net", files={"models/net.py": BESIDE})
    (entry,) = result.not_analysed
    assert "No such file or directory: 'net.txt'" in entry.reason
