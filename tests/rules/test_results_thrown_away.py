"""Statements that compute something for a parameter and throw it away, and the same calls whose result is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import initlint
from initlint import packs
from initlint.findings import Finding, Severity
from initlint.rule import Context

IL405 = next(rule for rule in packs.load() if rule.code == "IL405")

HEAD = """
import torch
import torch.nn.functional as F
from torch import nn


class Tables(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 24)
        self.others = nn.ModuleList([nn.Embedding(50, 24) for _ in range(2)])
        self.fc, self.head = nn.Linear(24, 24), nn.Linear(24, 4)

    def forward(self, x):
        h = self.table(x) + self.others[0](x) + self.others[1](x)
        return self.head(torch.relu(self.fc(h)))


def example_inputs():
    return (torch.arange(32),)
"""
FUNCTIONS = """
import math


def fan(tensor):
    return tensor.shape[1] if tensor.dim() > 1 else len(tensor)


def truncated(tensor, std=0.02):
    values = torch.randn_like(tensor)
    return torch.fmod(values, 2.0) * std


def scaled(tensor):
    return torch.empty_like(tensor).normal_(0, 1 / math.sqrt(fan(tensor)))


def smaller(tensor):
    return tensor * 0.1


def in_place(tensor, std=0.02):
    values = torch.randn_like(tensor) * std
    tensor.data.copy_(values)
    return values


def through_a_view(tensor):
    flat = tensor.data.view(-1)
    flat.copy_(torch.randn_like(flat) * 0.1)
    return flat * 1.0


def through_another(tensor):
    return filled(tensor) * 1.0


def filled(tensor):
    return nn.init.constant_(tensor, 0.1)
"""
CLASS = """

class Model{number}(Tables):
    def __init__(self):
        super().__init__()
        vectors = torch.randn(50, 24) * 0.3
{lines}
"""

LOST = {
    "self.table.from_pretrained(vectors)": ["table.weight"],
    "if vectors is not None:\n    self.table.from_pretrained(vectors, freeze=False)": ["table.weight"],
    "for table in self.others:\n    table.from_pretrained(vectors)": ["others.0.weight", "others.1.weight"],
    "for m in self.modules():\n    if isinstance(m, nn.Embedding):\n        m.from_pretrained(vectors)": [
        "others.0.weight",
        "others.1.weight",
        "table.weight",
    ],
    "self.others[1].from_pretrained(vectors)": ["others.1.weight"],
    "table = nn.Embedding(50, 24)\ntable.from_pretrained(vectors)\nself.table = table": ["table.weight"],
    "self.fc.weight.clone().normal_(0, 0.02)": ["fc.weight"],
    "self.fc.weight.detach().clone().mul_(0.1)": ["fc.weight"],
    "torch.zeros_like(self.head.weight)": ["head.weight"],
    "torch.randn_like(self.fc.weight)": ["fc.weight"],
    "self.fc.weight.new_zeros(24, 24)": ["fc.weight"],
    "F.normalize(self.fc.weight, dim=1)": ["fc.weight"],
    "self.fc.weight.data * 0.1": ["fc.weight"],
    "0.1 * self.fc.weight": ["fc.weight"],
    "nn.init.zeros_(self.head.weight.clone())": ["head.weight"],
    "truncated(self.fc.weight)": ["fc.weight"],
    "scaled(tensor=self.fc.weight)": ["fc.weight"],
    "smaller(self.head.weight)": ["head.weight"],
    "for table in self.others:\n    truncated(table.weight, std=0.1)": ["others.0.weight", "others.1.weight"],
    "with torch.no_grad():\n    for m in self.modules():\n        if isinstance(m, nn.Linear):\n"
    "            scaled(m.weight)": ["fc.weight", "head.weight"],
}
KEPT = (
    "self.table = nn.Embedding.from_pretrained(vectors)",
    "self.table = self.table.from_pretrained(vectors, freeze=False)",
    "self.table.weight = nn.Embedding.from_pretrained(vectors, freeze=False).weight",
    "table = self.table.from_pretrained(vectors)\nself.table = table",
    "self.others = nn.ModuleList([table.from_pretrained(vectors) for table in self.others])",
    "for i, table in enumerate(self.others):\n    self.others[i] = table.from_pretrained(vectors)",
    "start = self.fc.weight.clone().normal_(0, 0.2)\nself.fc.weight.data.copy_(start)",
    "self.fc.weight.data.copy_(F.normalize(self.fc.weight, dim=1) * 2)",
    "self.fc.weight.data *= 0.9",
    "with torch.no_grad():\n    self.fc.weight.mul_(0.9)",
    "self.fc.weight.detach().mul_(0.9)",
    "self.fc.weight.detach().normal_(0, 0.2)",
    "self.fc.weight = nn.Parameter(torch.randn_like(self.fc.weight) * 0.2)",
    "print(self.fc.weight.abs().mean())",
    "in_place(self.fc.weight)",
    "through_a_view(self.fc.weight)",
    "through_another(self.head.weight)",
    "self.fc.weight = nn.Parameter(truncated(self.fc.weight, 0.2))",
    "self.fc.weight.data.copy_(scaled(self.fc.weight))",
    "fan(self.fc.weight)",
)


def judge(pieces: list[str], folder: Path) -> dict[str, list[tuple[Severity, list[str]]]]:
    """What is found in a model with each of these pieces of code in its constructor."""
    classes = [
        CLASS.format(number=n, lines="\n".join("        " + line for line in lines.splitlines()))
        for n, lines in enumerate(pieces)
    ]
    (folder / "model.py").write_text(HEAD + FUNCTIONS + "".join(classes))
    run = initlint.check(folder / "model.py", select=["IL405"])
    analysed = {report.facts.name for report in run.models}
    found: dict[str, list[tuple[Severity, list[str]]]] = {}
    for number, lines in enumerate(pieces):
        assert f"Model{number}" in analysed
        own = [f for f in run.findings if f.model.endswith(f"::Model{number}")]
        found[lines] = [(f.severity, sorted(f.parameters)) for f in own]
    return found


def test_thrown_away(tmp_path: Path) -> None:
    assert judge(list(LOST), tmp_path) == {lines: [(Severity.WARNING, names)] for lines, names in LOST.items()}


def test_kept(tmp_path: Path) -> None:
    assert judge(list(KEPT), tmp_path) == {lines: [] for lines in KEPT}


def test_values_that_arrive_by_other_means(tmp_path: Path) -> None:
    piece = "self.table.from_pretrained(vectors)\nself.table.weight.data.copy_(vectors)"
    assert judge([piece], tmp_path) == {piece: [(Severity.NOTE, ["table.weight"])]}


def test_a_function_of_the_projects_own_is_told_as_such(tmp_path: Path) -> None:
    code = CLASS.format(number=0, lines="        truncated(self.fc.weight)")
    (tmp_path / "model.py").write_text(HEAD + FUNCTIONS + code)
    (finding,) = initlint.check(tmp_path / "model.py::Model0", select=["IL405"]).findings
    assert "returns a new tensor, which nothing keeps" in finding.message
    assert finding.site is not None
    assert finding.site.text == "truncated(self.fc.weight)"


GATES = """
def init_gates(rnn):
    for name, param in rnn.named_parameters():
        if name.startswith("weight_hh"):
            gates = param.data{copied}.chunk(3, dim=0)
            for gate in gates:
                nn.init.orthogonal_(gate)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(16, 32, batch_first=True), nn.Linear(32, 4)
        init_gates(self.rnn)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])

def example_inputs():
    return (torch.randn(2, 6, 16),)
"""


def test_gates_of_a_copy_are_told_where_the_copy_is_written(analyse: Callable[..., Any]) -> None:
    facts = analyse(GATES.format(copied=".clone()"), inputs=None)
    (finding,) = [o for o in IL405.check(Context(facts)) if isinstance(o, Finding)]
    assert (finding.severity, finding.parameters) == (Severity.WARNING, ("rnn.weight_hh_l0",))
    assert finding.site is not None
    assert "orthogonal_" in finding.site.text
    assert not list(IL405.check(Context(analyse(GATES.format(copied=""), inputs=None))))
