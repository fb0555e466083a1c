"""Sequences that are guessed: as long as the code needs, and small where an item says how often something repeats."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from initlint.probe.outcome import ProbeResult

Probe = Callable[..., list[ProbeResult]]

NET = """
from typing import List
from torch import nn

def stage(width, reps):
    return nn.Sequential(*[nn.Linear(width, width) for _ in range(reps)])

class Stage(nn.Module):
    def __init__(self, width, many=1):
        super().__init__()
        self.layers = nn.Sequential(*([nn.Linear(width, width)] * many))
    def forward(self, x):
        return self.layers(x)

class Net(nn.Module):
    def __init__(self, {arguments}):
        super().__init__()
        layers = []
        {body}
        self.layers = nn.Sequential(*layers)
    def step(self, width, how_often):
        return [nn.Linear(width, width) for _ in range(1, how_often)]
    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x
"""


def chosen(results: list[ProbeResult]) -> dict[str, str]:
    (result,) = results
    (facts,) = [facts for facts in result.models if facts.name == "Net"]
    return {argument.name: argument.value for argument in facts.arguments}


@pytest.mark.parametrize(
    "body",
    [
        "for a, b in zip(foo, bar): layers += [nn.Linear(b, b) for _ in range(a)]",
        "for i in range(len(foo)): layers += [nn.Linear(bar[i], bar[i]) for _ in range(foo[i])]",
        "for i, b in enumerate(bar): layers.append(stage(b, foo[i]))",
        "for i, b in enumerate(bar): layers.append(Stage(b, many=foo[i]))",
        "for a, b in zip(foo, bar): layers += self.step(b, a)",
        "for a, b in zip(foo, bar): layers += [nn.Linear(b, b)] * a",
        "self.foo = foo; layers += [nn.Linear(bar[j], bar[j]) for j in range(2) for _ in range(self.foo[j])]",
    ],
)
def test_items_that_say_how_often_are_small(probe_files: Probe, body: str) -> None:
    code = NET.format(arguments="foo, bar", body=body)
    assert chosen(probe_files("net.py::Net", files={"net.py": code})) == {"foo": "[2, 2]", "bar": "[16, 32]"}


def test_annotated_sequences_too(probe_files: Probe) -> None:
    body = "for a, b in zip(foo, bar): layers += [nn.Linear(b, b) for _ in range(a)]"
    code = NET.format(arguments="foo: List[int], bar: List[int]", body=body)
    assert chosen(probe_files("net.py::Net", files={"net.py": code})) == {"foo": "[2, 2]", "bar": "[16, 32]"}


@pytest.mark.parametrize(
    ("arguments", "body", "expected"),
    [
        ("foo", "layers += [stage(8, foo[0]), stage(8, foo[3])]", {"foo": "[2, 2, 2, 2]"}),
        ("foo", "layers += [nn.Linear(foo[k], foo[k]) for k in range(3)]", {"foo": "[16, 32, 64]"}),
        (
            "foo, bar",
            "for i in range(len(foo)): layers += [nn.Linear(bar[i], bar[i + 1]) for _ in range(foo[i])][:1]",
            {"foo": "[2, 2]", "bar": "[16, 32, 64]"},
        ),
        ("foo", "for a, b in zip(foo[:-1], foo[1:]): layers.append(nn.Linear(a, b))", {"foo": "[16, 32]"}),
        ("foo, bar=(8, 8, 8)", "for a, b in zip(foo, bar): layers += [stage(b, a)]", {"foo": "[2, 2, 2]"}),
        ("foo", "layers.append(stage(8, foo))", {"foo": "2"}),
    ],
)
def test_as_many_as_the_code_needs(probe_files: Probe, arguments: str, body: str, expected: dict[str, str]) -> None:
    code = NET.format(arguments=arguments, body=body)
    assert chosen(probe_files("net.py::Net", files={"net.py": code})) == expected
