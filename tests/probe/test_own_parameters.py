"""Models that say themselves what their parameters are (MAML), and do not take the arguments of the method."""

from __future__ import annotations

from typing import Any

LEARNER = """
import torch
from torch import nn
from torch.nn import functional as F
class Learner(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.vars = nn.ParameterList([nn.Parameter(torch.ones(width, 8)), nn.Parameter(torch.zeros(width))])
        nn.init.kaiming_normal_(self.vars[0])
    def parameters(self):
        return self.vars
    def forward(self, x, vars=None):
        weight, bias = self.vars if vars is None else vars
        return F.relu(F.linear(x, weight, bias))
class Meta(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.head = Learner(), nn.Linear(16, 3)
    def forward(self, x):
        fast = list(self.net.parameters())
        return self.head(self.net(x, fast))
def example_inputs():
    return (torch.randn(4, 8),)
"""


def test_a_list_of_parameters_in_place_of_an_iterator(probe_files: Any) -> None:
    (result,) = probe_files("model.py::Meta", files={"model.py": LEARNER})
    (facts,) = result.models
    assert (facts.status, facts.trace.ran) == ("analysed", True)
    assert {layer.weight for layer in facts.layers} == {"net.vars.0", "head.weight"}
