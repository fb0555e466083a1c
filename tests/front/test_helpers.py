"""The helpers of conftest.py do what other tests rely on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def test_analyse_gives_facts_with_places(analyse: Callable[..., Any]) -> None:
    facts = analyse(
        """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(4, 4)
                nn.init.ones_(self.fc.weight)
            def forward(self, x):
                return F.relu(self.fc(x))
        """
    )
    weight = facts.parameter("fc.weight")
    assert facts.status == "analysed"
    assert weight.last.op == "ones_"
    assert weight.last.site.text == "nn.init.ones_(self.fc.weight)"
    assert facts.layers[0].activation == "relu"
