"""Functions that make a model of a class: called where the class cannot be built, or is drawn anew after that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from initlint.facts import ModelFacts
from initlint.probe.outcome import ProbeResult

Probe = Callable[..., list[ProbeResult]]

HEAD = """
import torch
from torch import nn
"""
# Its argument is an object that no convention provides.
HARD = """
class Net(nn.Module):
    def __init__(self, make, num_classes):
        super().__init__()
        self.body = make(8, 16).layer
        self.head = nn.Linear(16, num_classes)
    def forward(self, x):
        return self.head(self.body(x))
class Made:
    def __init__(self, a, b):
        self.layer = nn.Linear(a, b)
"""
EASY = """
class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.head = nn.Linear(width, width)
    def forward(self, x):
        return self.head(x)
class Other(Net):
    pass
def draw(net, std):
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0.0, std)
def fresh(net, std=0.5):
    draw(net, std)
    return net
"""


def only(results: list[ProbeResult]) -> ModelFacts:
    (result,) = results
    (facts,) = result.models
    return facts


def test_a_class_that_cannot_be_built_is_seen_through_a_function(probe_files: Probe) -> None:
    make = """
def pick(kind):
    return {"a": Made}[kind]
def net18(num_classes, kind="a", pretrained=False):
    net = Net(pick(kind), num_classes)
    if pretrained:
        net.load_state_dict(torch.hub.load_state_dict_from_url("https://x.y/z"))
    return net
"""
    (result,) = probe_files("net.py", files={"net.py": HEAD + HARD + make})
    (facts,) = result.models
    assert (facts.name, facts.target) == ("net18", "net.py::net18")
    assert [(a.name, a.value, a.origin) for a in facts.arguments] == [("num_classes", "10", "convention")]
    assert facts.notes[-1].startswith("Net by itself: ")
    assert not result.not_analysed


@pytest.mark.parametrize(
    "body",
    [
        "train(net)",
        "net.load_state_dict(torch.load('x.pt'))",
        "open('made', 'w')",
        "fit(net, classes)",  # of who knows where
        "net(torch.zeros(4, 8)).sum().backward()",
    ],
)
def test_functions_that_do_more_are_not_called(probe_files: Probe, tmp_path: Path, body: str) -> None:
    code = f"""
from elsewhere import fit
def train(net):
    open("made", "w")
def pick(kind):
    return {{"a": Made}}[kind]
def net18(classes):
    net = Net(pick("a"), classes)
    {body}
    return net
"""
    (result,) = probe_files("net.py", files={"net.py": HEAD + HARD + code})
    assert not result.models
    (missing,) = result.not_analysed
    assert missing.target == "net.py::Net"
    assert "net18" not in missing.hint
    assert not (tmp_path / "made").exists()


def test_a_function_that_draws_the_weights_anew_is_called(probe_files: Probe) -> None:
    make = """
def build(width, kind):
    if kind == "net":
        net = Net(width)
    elif kind == "other":
        net = Other(width)
    else:
        raise NotImplementedError(kind)
    return fresh(net)
"""
    (result,) = probe_files("net.py", files={"net.py": HEAD + EASY + make})
    assert not [what for what in result.not_analysed if not what.harmless]
    found = {facts.target: facts for facts in result.models}
    assert set(found) == {"net.py::build(kind='net', width=16)", "net.py::build(kind='other', width=16)"}
    for facts in found.values():
        assert [write.op for p in facts.parameters for write in p.writes][-1] == "normal_"
        assert not facts.unrun
    again = only(probe_files("net.py::build(kind='other', width=16)", files={}))
    assert again.target == "net.py::build(kind='other', width=16)"


def test_a_class_that_builds_and_is_only_made_stays(probe_files: Probe) -> None:
    make = """
def build(width):
    return Net(width)
"""
    facts = only(probe_files("net.py", files={"net.py": HEAD + EASY.replace("class Other(Net):\n    pass", "") + make}))
    assert facts.name == "Net"


def test_the_hint_names_the_function(probe_files: Probe) -> None:
    make = """
def net18(classes, thing):
    return Net(thing.made(8), classes)
"""
    (result,) = probe_files("net.py", files={"net.py": HEAD + HARD + make})
    (missing,) = result.not_analysed
    assert missing.target == "net.py::Net"
    assert missing.hint == "initlint 'net.py::net18(classes=..., thing=...)'"
