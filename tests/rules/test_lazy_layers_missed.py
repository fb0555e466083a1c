"""An init function that passes over lazy layers which have no weights yet: they keep PyTorch's default for good."""

from __future__ import annotations

from pathlib import Path

import pytest

import initlint
from initlint.findings import Severity

MODEL = """
import torch
from torch import nn
from torch.nn.parameter import is_lazy


def init(m):
    if GUARD:
        return
    if isinstance(m, nn.Linear):
        nn.init.kaiming_normal_(m.weight, nonlinearity="relu")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.LazyLinear(32), nn.LazyLinear(32), nn.Linear(32, 4)
        BUILD

    def forward(self, x):
        return self.last(torch.relu(self.second(torch.relu(self.first(x)))))


def example_inputs():
    return (torch.randn(4, 8),)
"""
GUARDS = (
    "any(is_lazy(p) for p in m.parameters(recurse=False))",
    "isinstance(m, nn.Linear) and is_lazy(m.weight)",
    "isinstance(m, nn.modules.lazy.LazyModuleMixin) and m.has_uninitialized_params()",
)
RUN = "self(torch.zeros(1, 8))"


def found(folder: Path, guard: str, build: str) -> list[initlint.Finding]:
    path = folder / "net.py"
    path.write_text(MODEL.replace("GUARD", guard).replace("BUILD", build), "utf-8")
    return [f for f in initlint.check(str(path)).findings if f.severity >= Severity.WARNING]


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("build", ["self.apply(init)", f"self.apply(init); {RUN}"])
def test_before_the_first_run(tmp_path: Path, guard: str, build: str) -> None:
    (finding,) = found(tmp_path, guard, build)
    assert (finding.code, finding.severity) == ("IL403", Severity.WARNING)
    assert finding.parameters == ("first.weight", "second.weight")
    assert finding.site is not None
    assert "self.apply(init)" in finding.site.text
    assert "lazy layer without weights" in finding.message


@pytest.mark.parametrize("guard", GUARDS)
def test_after_the_first_run(tmp_path: Path, guard: str) -> None:
    assert found(tmp_path, guard, f"{RUN}; self.apply(init)") == []
