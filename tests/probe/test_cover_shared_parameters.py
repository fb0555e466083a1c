"""Coverage of models whose parameters have several owners."""

from __future__ import annotations

import torch
from torch import nn

from initlint.probe import inputs as finding
from initlint.probe.trace import trace


class Head(nn.Module):
    """A bias that the head holds, and that the layer inside it adds."""

    def __init__(self, *, unused: bool) -> None:
        super().__init__()
        self.dense = nn.Linear(8, 8)
        self.decoder = nn.Linear(8, 5)
        self.bias = nn.Parameter(torch.zeros(5))
        self.decoder.bias = self.bias
        if unused:
            self.scale = nn.Parameter(torch.ones(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.dense(x))


def test_a_parameter_that_a_layer_reads_under_another_name_is_covered() -> None:
    model = Head(unused=False)
    traced = trace(model, finding.find(model, {}))
    assert (traced.coverage, traced.not_reached) == (1.0, ())


def test_one_that_nothing_reads_is_not() -> None:
    model = Head(unused=True)
    traced = trace(model, finding.find(model, {}))
    assert (traced.coverage, traced.not_reached) == (0.75, ("scale",))
