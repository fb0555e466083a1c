"""What a finding says of members that differ, and an edit at a line that writes other layers as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from initlint.api import check

DECODER = """\
import torch
from torch import nn


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.start = nn.Linear(16, 96 * 16)
        self.up = nn.Sequential(
            nn.ConvTranspose2d(96, 24, 4, 2), nn.ReLU(), nn.ConvTranspose2d(24, 24, 4, 4), nn.ReLU(),
            nn.ConvTranspose2d(24, 2, 4, 1),
        )
        for m in self.modules():
            if isinstance(m, (nn.Linear, nn.ConvTranspose2d)):
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
                nn.init.zeros_(m.bias)

    def forward(self, z):
        return self.up(torch.relu(self.start(z)).view(-1, 96, 4, 4))
"""


def _only(path: Path) -> Any:
    run = check(path, select=["IL106"])
    (finding,) = run.findings
    return finding


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("decoder") / "decoder.py"
    path.write_text(DECODER, "utf-8")
    return _only(path)


def test_members_that_differ_are_told_apart(found: Any) -> None:
    assert found.expected["of"] == found.actual["of"] == "up.2.weight"  # 24 x 16 counted where 24 are summed
    assert found.actual["std"] / found.expected["std"] == pytest.approx(0.25, rel=0.01)
    assert "4x too small a std" in found.message
    assert "x the std expected" in found.message  # the last layer is too large
    assert "scheme" not in found.expected


def test_the_edit_holds_for_every_layer_that_the_line_writes(found: Any) -> None:
    import torch

    assert found.fix.snippet.splitlines()[0] == "if isinstance(m, nn.ConvTranspose2d):"
    assert found.fix.snippet.splitlines()[-1].strip() == 'nn.init.kaiming_normal_(m.weight, nonlinearity="relu")'
    lines = DECODER.split("\n")
    (edit,) = found.fix.edits
    lines[edit.start - 1 : edit.end] = edit.text.split("\n")
    space: dict[str, Any] = {}
    exec(compile("\n".join(lines), "decoder.py", "exec"), space)
    torch.manual_seed(0)
    model = space["Decoder"]()
    assert model.start.weight.std().item() == pytest.approx((2 / 16) ** 0.5, rel=0.05)
    for layer in model.up[::2]:
        taps = layer.kernel_size[0] ** 2 / layer.stride[0] ** 2
        assert layer.weight.std().item() == pytest.approx((2 / (layer.in_channels * taps)) ** 0.5, rel=0.1)
    # the outputs at the edges sum fewer products; else two layers keep the scale
    x = torch.randn(200, 16)
    with torch.no_grad():
        hidden = torch.relu(model.start(x)).view(-1, 96, 4, 4)
        inner = model.up[2](model.up[1](model.up[0](hidden)))
    assert 0.4 < inner.square().mean().item() / hidden.square().mean().item() < 2.5


def test_a_line_for_one_kind_is_rewritten_in_place(tmp_path: Path) -> None:
    path = tmp_path / "decoder.py"
    path.write_text(DECODER.replace("(nn.Linear, nn.ConvTranspose2d)", "nn.ConvTranspose2d"), "utf-8")
    finding = _only(path)
    assert finding.fix.snippet.startswith("nn.init.normal_(m.weight, std=(2 * m.stride[0]")
