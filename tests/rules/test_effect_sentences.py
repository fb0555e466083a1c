"""What is said of an effect that does not show: only what is true of the model at hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from initlint import packs
from initlint.facts import ModelFacts
from initlint.findings import Finding
from initlint.rule import Context
from initlint.signal import Nominal
from initlint.signal.effect import Effect, sentence
from initlint.signal.profile import Span
from initlint.signal.scene import Scene

RULES = {rule.code: rule for rule in packs.load()}

BEFORE_NORM = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(32, 32, bias=False), nn.LayerNorm(32), nn.Linear(32, 4)
    def forward(self, x):
        return self.b(self.norm(self.a(x)))
def example_inputs():
    return (torch.randn(4, 32),)
"""
BESIDE_LARGE = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(32, 32), nn.Linear(32, 4)
    def forward(self, x):
        return self.b(40.0 * x + self.a(x))
def example_inputs():
    return (torch.randn(4, 32),)
"""
BEFORE_STEP = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(32, 32, bias=False), nn.Linear(32, 4)
    def forward(self, x):
        return self.b(x + (self.a(x) > 0.2).float())
def example_inputs():
    return (torch.randn(4, 32),)
"""
OFF_CENTRE = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.head = nn.Parameter(torch.rand(48, 24)), nn.Linear(48, 4)
    def forward(self, x):
        return self.head(torch.tanh(F.linear(x, self.w)))
def example_inputs():
    return (torch.randn(4, 24),)
"""


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (BEFORE_NORM, "a norm that follows cancels the scale"),
        (BESIDE_LARGE, "changes by less than 2 % in second moment"),
        (BEFORE_STEP, "the effect is not known behind `gt`"),
    ],
)
def test_why_nothing_shows(analyse: Callable[..., Any], source: str, said: str) -> None:
    effect = Context(analyse(source)).effect({"a.weight": Nominal(0.0, 2 / 32)})
    assert effect.hidden
    assert said in effect.sentence
    assert ("norm" in effect.sentence) == (source is BEFORE_NORM)


def test_the_std_of_a_weight_off_centre_is_no_root_mean_square(analyse: Callable[..., Any]) -> None:
    (found,) = [o for o in RULES["IL109"].check(Context(analyse(OFF_CENTRE))) if isinstance(o, Finding)]
    assert found.actual["mean"] == pytest.approx(0.5, abs=0.02)
    assert found.actual["std"] == pytest.approx(math.sqrt(1 / 12), rel=0.02)
    assert found.actual["rms"] == pytest.approx(math.sqrt(1 / 3), rel=0.02)
    assert found.expected["mean"] == 0.0
    assert found.expected["std"] == pytest.approx(math.sqrt(1 / 12), rel=0.02)


def told(parts: dict[str, float], spans: dict[str, float]) -> str:
    before = {name: Span(value, value, 0.0, -1, -1, False) for name, value in spans.items()}
    return sentence(Effect(**parts, before=before, after=before), Scene((), ModelFacts("N", "n.py::N", "n.py")))


@pytest.mark.parametrize(
    ("parts", "spans", "said"),
    [
        # the gradient's span is the one that passes 1e6
        ({"forward": -1.29, "gradient": -1.28}, {"forward": 2.6, "gradient": 6.5}, "the gradient is 19 times smaller"),
        ({"forward": -1.29, "gradient": -0.2}, {"forward": 2.6, "gradient": 6.5}, "the signal is 19 times smaller"),
        ({"forward": 0.2, "gradient": 0.02}, {"forward": 2.6, "gradient": 6.5}, "the signal is 1.6 times larger"),
        ({"forward": 0.02}, {}, "the signal is 5% larger"),
        ({"forward": -0.02}, {}, "the signal is 5% smaller"),
        ({"forward": -0.1}, {}, "the signal is 21% smaller"),
    ],
)
def test_what_is_judged_hardest_is_named_and_small_effects_in_per_cent(
    parts: dict[str, float], spans: dict[str, float], said: str
) -> None:
    assert told(parts, spans).startswith(said)
