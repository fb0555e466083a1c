"""Inputs of models that take their images apart by a pattern of einops: the pattern says what they are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from initlint.probe.inputs import find
from initlint.probe.inputs_failed import Failed
from initlint.probe.inputs_patterns import by_pattern
from initlint.probe.inputs_wants import Guess
from initlint.probe.standins_einops import Rearrange

PATCHES = "b c (h p1) (w p2) -> b (h w) (p1 p2 c)"


class Shifted(nn.Module):
    """Five shifted images side by side, then patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Sequential(
            Rearrange(PATCHES, p1=8, p2=8), nn.LayerNorm(5 * 3 * 64), nn.Linear(5 * 3 * 64, 16)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        moved = [torch.roll(x, by, -1) for by in (1, -1, 2, -2)]
        return self.patches(torch.cat([x, *moved], 1))


def patched(pattern: str, features: int, **sizes: int) -> nn.Module:
    return nn.Sequential(Rearrange(pattern, **sizes), nn.Linear(features, 16), nn.GELU(), nn.Linear(16, 16))


@pytest.mark.parametrize(
    ("model", "channels", "axes"),
    [
        (patched(PATCHES, 192, p1=8, p2=8), 3, 4),
        (patched(PATCHES, 16, p1=4, p2=4), 1, 4),
        (patched("b c (f pf) (h p1) (w p2) -> b f (h w) (pf p1 p2 c)", 384, pf=2, p1=8, p2=8), 3, 5),
        (Shifted(), 3, 4),
    ],
)
def test_images_and_clips_of_patches(model: nn.Module, channels: int, axes: int) -> None:
    found = find(model)
    assert not found.notes
    (facts,) = found.facts
    assert (len(facts.shape), facts.shape[1]) == (axes, channels)
    assert min(facts.shape[-2:]) >= 16  # two patches and more along each axis


def test_the_words_of_the_library_are_understood() -> None:
    # einops 0.8: a function says all of it
    text = (
        f' Error while processing rearrange-reduction pattern "{PATCHES}".\n Input tensor shape: '
        "torch.Size([4, 16, 192]). Additional info: {'p1': 8, 'p2': 8}.\n "
        "Wrong shape: expected 4 dims. Received 3-dim tensor."
    )
    failed = Failed({"x": Guess("tokens", (4, 16, 192))}, RuntimeError(text), None, torch.fx.Graph())
    assert [fix["x"].shape for fix in by_pattern(failed, nn.Module())] == [(4, 3, 32, 32)]


def test_a_tensor_inside_is_not_the_argument() -> None:
    text = 'pattern "b (h w) c -> b c h w".\n Input tensor shape: [4, 63, 64]. Additional info: {}.\n no square'
    failed = Failed({"x": Guess("image", (4, 3, 32, 32))}, RuntimeError(text), None, torch.fx.Graph())
    assert list(by_pattern(failed, nn.Module())) == []
