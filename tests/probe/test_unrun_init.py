"""Init functions that are applied to a model only after its construction: said, and no verdict on what they replace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from initlint.api import check

NET = """\
import torch
from torch import nn


def fresh(module):
    if isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(module.bias)


def freeze(module):
    for parameter in module.parameters():
        parameter.requires_grad = False


class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        layers = [layer for _ in range(30) for layer in (nn.Linear(64, 64), nn.ReLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(64, 10))

    def forward(self, x):
        return self.layers(x)
"""
SCRIPT = """

if __name__ == "__main__":
    model = Deep().to("cpu")
    {call}
"""
TRAINER = """

class Trainer:
    def __init__(self):
        self.net = Deep()
        self.prepare()

    def prepare(self):
        self.net.apply(fresh)
"""
FACTORY = """

def build():
    model = Deep()
    model.apply(fresh)
    return model
"""
DEPTH = ["IL103", "IL203", "IL204", "IL205"]


def run(path: Path, text: str, target: str = "") -> Any:
    path.write_text(text, "utf-8")
    return check(f"{path}{target}", select=[*DEPTH, "IL301"])


def deep(result: Any) -> Any:
    return next(report for report in result.models if report.facts.name == "Deep")


def test_a_default_that_nobody_replaces_is_reported(tmp_path: Path) -> None:
    result = run(tmp_path / "net.py", NET)
    assert result.findings
    assert not deep(result).facts.unrun


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        (SCRIPT.format(call="model.apply(fresh)"), "model.apply(fresh)"),
        (SCRIPT.format(call="fresh(model.layers[0])"), "fresh(model.layers[0])"),
        (TRAINER, "self.net.apply(fresh)"),
    ],
)
def test_a_call_outside_of_the_constructor_is_named(tmp_path: Path, rest: str, said: str) -> None:
    result = run(tmp_path / "net.py", NET + rest)
    facts = deep(result).facts
    line = next(number for number, text in enumerate((NET + rest).split("\n"), 1) if said in text)
    assert facts.unrun[0].endswith(f"net.py:{line}")
    assert said in facts.notes[0]
    assert "::build'" in facts.notes[1]
    assert not result.findings
    assert any("was not run" in entry.reason for entry in deep(result).undetermined)


def test_other_files_are_not_searched_for_what_is_known_of_a_model_would_depend_on_them(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("", "utf-8")
    (tmp_path / "train.py").write_text("from net import Deep, fresh\nmodel = Deep()\nmodel.apply(fresh)\n", "utf-8")
    assert not deep(run(tmp_path / "net.py", NET)).facts.unrun


@pytest.mark.parametrize(
    "rest", [SCRIPT.format(call="model.apply(freeze)"), SCRIPT.format(call="nn.Linear(2, 2).apply(fresh)")]
)
def test_what_initialises_nothing_or_another_model_is_not_meant(tmp_path: Path, rest: str) -> None:
    result = run(tmp_path / "net.py", NET + rest)
    assert not deep(result).facts.unrun
    assert result.findings


def test_the_factory_of_the_hint_checks_what_is_trained(tmp_path: Path) -> None:
    result = run(tmp_path / "net.py", NET + FACTORY, "::build")
    (report,) = result.models
    assert not report.facts.unrun
    assert not result.findings
    weight = report.facts.parameter("layers.0.weight")
    assert weight.last.op == "kaiming_normal_"
