"""Trained weights are not asked for, whoever's call or default would."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from initlint.probe.downloads import asks
from initlint.probe.outcome import ProbeResult

Probe = Callable[..., list[ProbeResult]]

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, width, {argument}):
        super().__init__()
        if {name} is not None and {name} is not False:
            raise OSError("no network")
        self.layer = nn.Linear(width, width)
    def forward(self, x):
        return self.layer(x)
"""


def given(results: list[ProbeResult]) -> dict[str, tuple[str, str]]:
    (result,) = results
    (facts,) = result.models
    return {argument.name: (argument.value, argument.origin) for argument in facts.arguments}


@pytest.mark.parametrize(
    ("argument", "value", "instead"),
    [
        ("pretrained=False", "True", "False"),
        ("use_pretrained=False", "True", "False"),
        ("pretrained_backbone=None", "'imagenet'", "None"),
        ("weights=None", "'DEFAULT'", "None"),
    ],
)
def test_from_call_sites(probe_files: Probe, argument: str, value: str, instead: str) -> None:
    name = argument.partition("=")[0]
    files = {
        "net.py": NET.format(argument=argument, name=name),
        "train.py": f"from net import Net\nnet = Net(6, {name}={value})\n",
    }
    site = "call site train.py:2"
    assert given(probe_files("net.py", files=files)) == {
        "width": ("6", site),
        name: (instead, f"{site} gives {value}; trained weights are left out"),
    }


@pytest.mark.parametrize("argument", ["pretrained=True", "encoder_weights='imagenet'"])
def test_from_defaults(probe_files: Probe, argument: str) -> None:
    name, _, value = argument.partition("=")
    found = given(probe_files("net.py", files={"net.py": NET.format(argument=argument, name=name)}))
    instead = "False" if value == "True" else "None"
    assert found == {
        name: (instead, f"default gives {value}; trained weights are left out"),
        "width": ("16", "convention"),
    }


def test_what_the_user_asks_for_stands(probe_files: Probe) -> None:
    code = NET.format(argument="pretrained=False", name="pretrained")
    for target, options in (
        ("net.py::Net(6, pretrained=True)", {}),
        ("net.py", {"arguments": {"Net": {"pretrained": True}}}),
    ):
        (result,) = probe_files(target, files={"net.py": code}, **options)
        assert "no network" in result.not_analysed[0].reason


def test_weights_that_are_numbers_are_no_trained_ones(probe_files: Probe) -> None:
    code = NET.format(argument="weights=None", name="weights").replace("raise OSError", "print").replace('"no', '"the')
    files = {"net.py": code, "train.py": "from net import Net\nnet = Net(6, weights=[1.0, 2.0])\n"}
    assert given(probe_files("net.py", files=files))["weights"] == ("[1.0, 2.0]", "call site train.py:2")


def test_how_something_is_weighted_is_no_checkpoint() -> None:
    assert not asks("weights", "uniform")
    assert not asks("weights", [1.0, 2.0])
    assert asks("weights", "IMAGENET1K_V1")
    assert asks("backbone_weights", "checkpoints/base.pth")
