"""Blocks that add their input: guessed widths that differ are made equal."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from initlint.probe.outcome import ProbeResult

Probe = Callable[..., list[ProbeResult]]

BLOCK = """
import torch
from torch import nn
class Block(nn.Module):
    def __init__(self, inplanes, planes, stride=1, downsample=None):
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, 1)
        self.conv2 = nn.Conv2d(planes, planes * {expansion}, 3, 1, 1)
        self.downsample = downsample
    def forward(self, x):
        residual = x
        out = torch.relu(self.conv1(x))
        out = self.conv2(out)
        if self.downsample is not None:
            residual = self.downsample(x)
        {sum}
        return torch.relu(out)
"""


@pytest.mark.parametrize(("expansion", "width"), [(1, 16), (4, 64)])
@pytest.mark.parametrize("add", ["out += residual", "out = out + residual", "out = residual + out"])
def test_guessed_widths_are_made_equal(probe_files: Probe, expansion: int, width: int, add: str) -> None:
    (result,) = probe_files("net.py", files={"net.py": BLOCK.format(expansion=expansion, sum=add)})
    (facts,) = result.models
    assert facts.trace.ran
    assert [(a.name, a.value, a.origin) for a in facts.arguments] == [
        ("inplanes", str(width), f"convention; 3 does not fit the {width} that it is added to"),
        ("planes", "16", "convention"),
    ]
    assert {p.name: p.shape for p in facts.parameters}["conv1.weight"] == (16, width, 3, 3)
    assert all(len([w for w in p.writes if w.random]) == 1 for p in facts.parameters)  # of one construction


def test_widths_that_are_given_stay(probe_files: Probe) -> None:
    code = BLOCK.format(expansion=1, sum="out += residual")
    (result,) = probe_files("net.py::Block(3, 16)", files={"net.py": code})
    (facts,) = result.models
    assert facts.status == "partial"
    assert [(a.name, a.value) for a in facts.arguments] == [("inplanes", "3"), ("planes", "16")]


def test_what_fits_is_left(probe_files: Probe) -> None:
    code = BLOCK.format(expansion=1, sum="out = out + self.skip(residual)")
    code = code.replace("self.downsample = ", "self.skip = nn.Conv2d(inplanes, planes, 1)\n        self.downsample = ")
    (result,) = probe_files("net.py", files={"net.py": code})
    (facts,) = result.models
    assert facts.trace.ran
    assert [(a.name, a.value, a.origin) for a in facts.arguments] == [
        ("inplanes", "3", "convention"),
        ("planes", "16", "convention"),
    ]
