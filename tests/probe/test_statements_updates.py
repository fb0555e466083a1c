"""What is added to a parameter from the model's other tensors is no initialisation that should have run."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from test_statements_record import record_of

BODY = """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.down = nn.Parameter(torch.zeros(4, 4))

    def delta(self):
        return self.down @ self.down

    def change(self):
        with torch.no_grad():
            {}

    def forward(self, x):
        return self.fc(x)
"""


def targets(folder: Path, statement: str) -> list[str]:
    text = textwrap.indent(statement, " " * 12).lstrip()
    return [s.target for s in record_of(folder, BODY.format(text)).statements if s.site.function == "Model.change"]


@pytest.mark.parametrize(
    "statement",
    [
        "self.fc.weight.data += self.delta()",
        "self.fc.weight.data -= 0.5 * self.down",
        "self.fc.weight.add_(self.down)",
        "self.fc.weight.data = self.fc.weight.data + self.down",
        "self.fc.weight.copy_(self.down + self.fc.weight)",
        "more = self.down.t() @ self.down\nself.fc.weight.data += more",
    ],
)
def test_updates_are_no_initialisation(tmp_path: Path, statement: str) -> None:
    assert targets(tmp_path, statement) == []


@pytest.mark.parametrize(
    "statement",
    [
        "self.fc.bias.data += 1.0",
        "self.fc.weight.data += 0.1 * torch.randn(4, 4)",
        "self.fc.weight.data += torch.eye(self.fc.in_features)",
        "self.fc.weight.data *= 0.1",
        "self.fc.weight.data = self.down",
        "self.fc.weight.copy_(self.down)",
    ],
)
def test_others_may_be(tmp_path: Path, statement: str) -> None:
    (target,) = targets(tmp_path, statement)
    assert target.startswith("self.fc.")
