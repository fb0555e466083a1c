"""Agents that return a sampled action beside its log-probability and a value."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from initlint import packs
from initlint.findings import Finding
from initlint.rule import Context
from initlint.signal.spread import sensitivity

RULES = {rule.code: rule for rule in packs.load()}

ACTOR = """
def init(layer, gain):
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer
class Player(nn.Module):
    def __init__(self):
        super().__init__()
        first, second = init(nn.Linear(30, 128), 2**0.5), init(nn.Linear(128, 128), 2**0.5)
        self.body = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
        self.policy = init(nn.Linear(128, 6), 0.01)
        self.value = init(nn.Linear(128, 1), 1.0)
    def forward(self, x):
        hidden = self.body(x)
        choice = torch.distributions.Categorical(logits=self.policy(hidden))
        action = choice.sample()
        return action, choice.log_prob(action), choice.entropy(), self.value(hidden)
def example_inputs():
    return (torch.randn(4, 30),)
"""


def test_a_small_policy_head_magnifies_no_noise(analyse: Callable[..., Any]) -> None:
    context = Context(analyse(ACTOR))
    for code in ("IL503", "IL101", "IL205", "IL203"):
        assert not [o for o in RULES[code].check(context) if isinstance(o, Finding)], code


def test_the_trunk_ends_where_a_gradient_starts(analyse: Callable[..., Any]) -> None:
    facts = analyse(ACTOR)
    path = [facts.nodes[index] for index in Context(facts).signal.trunk]
    assert not [node for node in path if node.op == "stop"]
    assert [node.index for node in path if node.op == "log_softmax"]


def test_logits_less_their_log_sum_are_a_log_softmax(analyse: Callable[..., Any]) -> None:
    facts = analyse(ACTOR)
    (found,) = [node for node in facts.nodes if node.op == "log_softmax"]
    assert facts.nodes[found.inputs[0]].module == "policy"
    layer = next(layer for layer in facts.layers if layer.weight == "policy.weight")
    assert layer.consumer == "softmax"
    assert layer.head


def test_noise_gain_is_that_of_the_jacobian(analyse: Callable[..., Any]) -> None:
    """The scale of a head divides out: the gain is that of the layers before it, as autograd gives it."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(30, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 6))
    for layer, gain in zip(body[::2], (2**0.5, 2**0.5, 0.01), strict=True):
        nn.init.orthogonal_(layer.weight, gain)
        nn.init.zeros_(layer.bias)
    x = torch.randn(200, 30)
    jacobians = [torch.autograd.functional.jacobian(body, row) for row in x]
    energy = torch.stack([j.square().sum() for j in jacobians]).mean()
    differs = body(x).var(0).sum()
    source = ACTOR.replace(
        "return action, choice.log_prob(action), choice.entropy(), self.value(hidden)", "return self.policy(hidden)"
    )
    signal = Context(analyse(source)).signal
    assert signal.scene is not None
    assert signal.sweeps is not None
    first, last = signal.profile[0].node, signal.profile[-1].node
    found = sensitivity(signal.scene, signal.sweeps[1].states, signal.sweeps[1].grads, first, last)
    assert found == pytest.approx(math.log10((energy / differs).item()), abs=0.15)
