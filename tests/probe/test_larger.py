"""Guessed sizes that a constructor refuses, or makes nothing of, give way to larger ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from initlint.facts import ModelFacts
from initlint.probe.outcome import ProbeResult

Probe = Callable[..., list[ProbeResult]]

PLAIN = """
import torch
from torch import nn

class Tower(nn.Module):
    def __init__(self, depth, width):
        super().__init__()
        {check}
        self.stem = nn.Linear(12, width)
        self.rest = nn.{kind}(*[{layers}])
        for layer in self.rest:
            nn.init.zeros_(layer.bias)
    def forward(self, x):
        x = self.stem(x).relu()
        for layer in self.rest:
            x = layer(x).relu()
        return x
"""
BLOCKS = "[nn.Linear(width, width) for _ in range((depth - {0}) // {1})]"


def only(results: list[ProbeResult]) -> ModelFacts:
    (result,) = results
    (facts,) = result.models
    return facts


def arguments(facts: ModelFacts) -> dict[str, tuple[str, str]]:
    return {argument.name: (argument.value, argument.origin) for argument in facts.arguments}


@pytest.mark.parametrize(("less", "step", "depth"), [(2, 6, 8), (4, 6, 10), (4, 3, 8), (2, 9, 11), (1, 2, 3)])
def test_a_depth_that_leaves_no_block_is_replaced(probe_files: Probe, less: int, step: int, depth: int) -> None:
    code = PLAIN.format(check="pass", kind="ModuleList", layers=BLOCKS.format(less, step)[1:-1]).replace("(*[", "([")
    facts = only(probe_files("net.py", files={"net.py": code}))
    assert arguments(facts)["depth"] == (str(depth), "convention; 2 left rest empty")
    assert "rest.0.weight" in {p.name for p in facts.parameters}


def test_a_depth_that_is_refused_is_replaced(probe_files: Probe) -> None:
    table = "count = {18: 1, 34: 2}[depth]"
    code = PLAIN.format(check="count = TABLE[depth]", kind="Sequential", layers="nn.Linear(width, width)")
    code = code.replace("class Tower", "TABLE = {18: 1, 34: 2}\n\nclass Tower")
    assert table not in code
    facts = only(probe_files("net.py", files={"net.py": code}))
    assert arguments(facts)["depth"] == ("18", "convention; 2 was refused")


def test_attempts_that_were_given_up_leave_no_trace_in_the_record(probe_files: Probe) -> None:
    code = PLAIN.format(check="pass", kind="ModuleList", layers=BLOCKS.format(2, 6)[1:-1]).replace("(*[", "([")
    code = code.replace("super().__init__()", "super().__init__()\n        nn.init.ones_(torch.empty(3))", 1)
    guessed, given = probe_files("net.py", "net.py::Tower(8, 16)", files={"net.py": code})
    (first,), (second,) = guessed.models, given.models
    assert arguments(first)["width"][0] == "16"
    assert first.parameters == second.parameters
    assert first.modules == second.modules
    assert first.statements == second.statements


def test_an_empty_container_that_does_not_hang_on_the_depth_changes_nothing(probe_files: Probe) -> None:
    code = PLAIN.format(check="self.shortcut = nn.Sequential()", kind="ModuleList", layers="").replace(
        "(*[])", "([nn.Linear(width, width) for _ in range(depth)])"
    )
    guessed, given = probe_files("net.py", "net.py::Tower(2, 16)", files={"net.py": code})
    (first,), (second,) = guessed.models, given.models
    assert arguments(first)["depth"] == ("2", "convention")
    assert first.parameters == second.parameters
    assert first.statements == second.statements


GROUPS = """
from torch import nn
class Block(nn.Module):
    def __init__(self, {names}):
        super().__init__()
        self.norm = nn.GroupNorm({groups}, channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
    def forward(self, x):
        return self.conv(self.norm(x).relu())
"""


@pytest.mark.parametrize(("groups", "channels"), [(32, 32), (48, 96), (64, 64)])
def test_channels_that_do_not_divide_are_replaced(probe_files: Probe, groups: int, channels: int) -> None:
    code = GROUPS.format(names="channels, kernel_size", groups=groups)
    facts = only(probe_files("net.py", files={"net.py": code}))
    assert arguments(facts)["channels"] == (str(channels), "convention; 3 was refused")
    assert arguments(facts)["kernel_size"][1].startswith("convention")
    assert facts.status == "analysed"


def test_what_no_size_satisfies_is_said_as_it_was(probe_files: Probe) -> None:
    code = GROUPS.format(names="channels", groups=7)
    (result,) = probe_files("net.py", files={"net.py": code})
    (missing,) = result.not_analysed
    assert "num_channels (3) must be divisible by num_groups (7)" in missing.reason


def test_what_somebody_gave_is_not_replaced(probe_files: Probe) -> None:
    code = GROUPS.format(names="channels", groups=32)
    (result,) = probe_files("net.py", files={"net.py": code}, arguments={"Block": {"channels": 5}})
    (missing,) = result.not_analysed
    assert "num_channels (5)" in missing.reason


def test_a_norm_that_is_asked_for_suits_the_layers(probe_files: Probe) -> None:
    code = """
    from torch import nn
    class Conv(nn.Module):
        def __init__(self, norm):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3), norm(8), nn.ReLU())
        def forward(self, x):
            return self.body(x)
    class Dense(nn.Module):
        def __init__(self, norm):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(3, 8), norm(8), nn.ReLU())
        def forward(self, x):
            return self.body(x)
    """
    (result,) = probe_files("net.py", files={"net.py": code})
    assert {f.name: arguments(f)["norm"][0] for f in result.models} == {
        "Conv": "nn.BatchNorm2d",
        "Dense": "nn.LayerNorm",
    }
    assert {f.status for f in result.models} == {"analysed"}


EXPERTS = """
from dataclasses import dataclass
import torch
from torch import nn

@dataclass(frozen=True)
class Config:
    n_embd: int = 64
    n_expert: int = 0
    per_token: int = 0
    padding: int = 0

class Experts(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        {check}
        self.gate = nn.Linear(config.n_embd, config.n_expert, bias=False)
        self.experts = nn.ModuleList(nn.Linear(config.n_embd, config.n_embd) for _ in range(config.n_expert))
        self.config = config

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights, chosen = torch.topk(self.gate(x) + self.config.padding, self.config.per_token)
        return sum(weights[..., :1] * expert(x) for expert in self.experts)
"""


def test_zeros_of_a_configuration_that_leave_nothing_are_replaced(probe_files: Probe) -> None:
    facts = only(probe_files("net.py", files={"net.py": EXPERTS.format(check="pass")}))
    value, origin = arguments(facts)["config"]
    assert value == "Config(n_embd=64, n_expert=4, per_token=2, padding=0)"
    assert origin == "defaults of Config, but n_expert=4 and per_token=2: 0 left gate.weight empty"
    assert {p.name: p.shape for p in facts.parameters}["gate.weight"] == (4, 64)
    assert facts.trace.ran


def test_a_model_that_stays_without_an_element_is_not_analysed(probe_files: Probe) -> None:
    check = "assert config.n_expert == 0"
    (result,) = probe_files("net.py", files={"net.py": EXPERTS.format(check=check)})
    assert not result.models
    (missing,) = result.not_analysed
    given = "config=Config(n_embd=64, n_expert=0, per_token=0, padding=0)"
    assert missing.reason == f"built with {given} its parameters have no elements: gate.weight is [0, 64]"
