"""Images of the size whose patches fill a table of positions."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from initlint.probe import inputs as finding


class Patches(nn.Module):
    """Patches behind a convolutional stem, and a learnt position for each."""

    def __init__(self, places: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.GELU(), nn.Conv2d(8, 8, 8, 8))
        self.places = nn.Parameter(torch.zeros(1, places * places, 8))
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        return self.head((tokens + self.places).mean(1))


@pytest.mark.parametrize("places", [7, 11, 13])
def test_patches_fill_the_table_of_positions(places: int) -> None:
    found = finding.find(Patches(places), {})
    assert tuple(found.args[0].shape[2:]) == (16 * places, 16 * places)
    assert found.recording is not None
