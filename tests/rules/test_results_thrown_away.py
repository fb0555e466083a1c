"""Statements that compute something for a parameter and throw it away, and the same calls whose result is kept."""

from __future__ import annotations

from pathlib import Path

import initlint
from initlint.findings import Severity

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
)


def judge(pieces: list[str], folder: Path) -> dict[str, list[tuple[Severity, list[str]]]]:
    """What is found in a model with each of these pieces of code in its constructor."""
    classes = [
        CLASS.format(number=n, lines="\n".join("        " + line for line in lines.splitlines()))
        for n, lines in enumerate(pieces)
    ]
    (folder / "model.py").write_text(HEAD + "".join(classes))
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
