"""Policies of a team and ready-made ones: expressions, selection by structure, and what they report."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initlint import packs
from initlint.errors import ConfigError
from initlint.expressions import evaluate
from initlint.findings import Finding, Undetermined
from initlint.policies import PRESETS, parse, preset
from initlint.roles import blocks, numbers, roles
from initlint.rule import Context, Settings

RULE = next(rule for rule in packs.load() if rule.code == "IL320")

GPT = """
class Block(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.mix = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.widen, self.narrow = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
    def forward(self, x):
        q, k, v = self.qkv(self.n1(x)).chunk(3, dim=-1)
        x = x + self.mix(F.scaled_dot_product_attention(q, k, v, is_causal=True))
        return x + self.narrow(F.gelu(self.widen(self.n2(x))))
class Net(nn.Module):
    def __init__(self, d=64, depth=3):
        super().__init__()
        self.table, self.places = nn.Embedding(100, d), nn.Parameter(torch.zeros(16, d))
        self.stack = nn.ModuleList([Block(d) for _ in range(depth)])
        self.last, self.out = nn.LayerNorm(d), nn.Linear(d, 100, bias=False)
        self.out.weight = self.table.weight
        nn.init.normal_(self.places, std=0.02)
        for m in self.modules():
            if isinstance(m, (nn.Linear, nn.Embedding)):
                nn.init.normal_(m.weight, std=0.02)
                if getattr(m, "bias", None) is not None:
                    nn.init.zeros_(m.bias)
        for block in self.stack:
            for m in ({scaled}):
                nn.init.normal_(m.weight, std=0.02 / math.sqrt(2 * depth))
    def forward(self, ids):
        x = self.table(ids) + self.places[: ids.shape[1]]
        for block in self.stack:
            x = block(x)
        return self.out(self.last(x))
def example_inputs():
    return (torch.randint(0, 100, (2, 16)),)
"""


HELD = """
class Config:
    def __init__(self):
        self.spread = 0.04

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.wanted, self.config = 0.04, Config()
        self.first, self.second = nn.Linear(32, 64), nn.Linear(64, 8)
        for layer in (self.first, self.second):
            nn.init.normal_(layer.weight, std=self.wanted)
    def forward(self, x):
        return self.second(F.relu(self.first(x)))
def example_inputs():
    return (torch.randn(4, 32),)
"""


@pytest.fixture
def gpt(analyse: Callable[..., Any]) -> Callable[[str], Any]:
    return lambda scaled="block.mix, block.narrow": analyse(GPT.replace("{scaled}", scaled), name="Net")


def said(facts: Any, **settings: Any) -> list[Finding]:
    return [o for o in RULE.check(Context(facts, Settings(**settings))) if isinstance(o, Finding)]


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.02 / sqrt(2 * n_layer)", 0.02 / 24**0.5), ("2 ** -3", 0.125), ("max(1, log(e))", 1.0), ("-pi", -math.pi)],
)
def test_expressions_have_values(text: str, value: float) -> None:
    assert evaluate(text, {"n_layer": 12}) == pytest.approx(value)


@pytest.mark.parametrize(
    "text",
    ["__import__('os')", "n_layer.real", "9 ** 9 ** 9", "1 / 0", "[1][0]", "x", "sqrt(-1)", "1 +", "lambda: 1", "True"],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        evaluate(text, {"n_layer": 12})


@given(st.text(max_size=60))
def test_no_text_does_anything_but_fail(text: str) -> None:
    try:
        value = evaluate(text, {})
    except ConfigError:
        value = 0.0
    assert math.isfinite(value)


@pytest.mark.parametrize(
    "table",
    [
        {"std": "0.02 / layers"},
        {"stdev": 0.02},
        {"distribution": "gaussian"},
        {"role": "writer", "std": 1.0},
        {"parameters": "*"},
        {"distribution": "constant"},
        {"std": True},
        {"std": 0.1, "kind": 3},
    ],
)
def test_malformed_tables_are_errors(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        parse(table)


@pytest.mark.parametrize(
    ("std", "reported"),
    [
        ("model.wanted", False),
        ("2 * model.wanted", True),
        ("model.config.spread", False),
        ("model.config.spread / 2", True),
    ],
)
def test_expressions_use_numbers_that_the_model_holds(analyse: Callable[..., Any], std: str, reported: bool) -> None:
    facts = analyse(HELD, name="Net")
    assert bool(said(facts, policies=({"kind": "linear", "role": "weight", "std": std},))) is reported


def test_a_number_that_the_model_does_not_hold_is_named(analyse: Callable[..., Any]) -> None:
    rule = RULE.check(Context(analyse(HELD, name="Net"), Settings(policies=({"std": "model.depht"},))))
    reasons = {o.reason for o in rule if isinstance(o, Undetermined)}
    assert any("model.depht" in reason for reason in reasons)


def test_presets_are_well_formed_and_sourced() -> None:
    assert set(PRESETS) == {"gpt2", "bert", "vit", "t5", "llama", "resnet", "siren"}
    assert all(policy.source for name in PRESETS for policy in preset(name))
    with pytest.raises(ConfigError):
        preset("gpt5")


def test_roles_come_from_structure(gpt: Callable[..., Any]) -> None:
    facts = gpt()
    context = Context(facts)
    found = {p.name: roles(context, p) for p in facts.parameters}
    assert {"residual-writer", "weight"} <= found["stack.0.mix.weight"]
    assert {"residual-writer", "weight"} <= found["stack.2.narrow.weight"]
    assert "residual-writer" not in found["stack.1.widen.weight"]
    assert {"embedding", "tied", "head"} <= found["table.weight"]
    assert found["places"] == {"position"}
    assert "gain" in found["last.weight"]
    assert "bias" in found["last.bias"]
    names = numbers(context, facts.parameter("stack.0.widen.weight"))
    assert (names["n_layer"], names["width"], names["fan_in"]) == (3, 64, 64)
    assert blocks(facts) == 3


def test_gpt2_as_published_is_silent(gpt: Callable[..., Any]) -> None:
    assert not said(gpt(), presets=("gpt2",))


def test_scaling_the_wrong_matrix_is_two_findings(gpt: Callable[..., Any]) -> None:
    found = said(gpt("block.mix, block.widen"), presets=("gpt2",))
    assert {n.split(".")[2] for f in found for n in f.parameters} == {"narrow", "widen"}
    assert all(f.site is not None and f.fix is not None for f in found)


def test_own_tables_come_before_presets(gpt: Callable[..., Any]) -> None:
    table = {"parameters": "*.narrow.weight", "distribution": "normal", "std": 0.05}
    found = said(gpt(), policies=(table,), presets=("gpt2",))
    assert [sorted(f.parameters) for f in found] == [[f"stack.{i}.narrow.weight" for i in range(3)]]
    assert found[0].expected["std"] == 0.05


@pytest.mark.parametrize(
    ("table", "reported"),
    [
        ({"std": 0.02, "distribution": "normal"}, False),
        ({"std": 0.02, "distribution": "uniform"}, True),
        ({"std": 0.02, "mean": 0.0}, False),
        ({"std": 0.021}, True),  # the record is exact, however small the difference
        ({"std": 0.021, "tolerance": 0.1}, False),
        ({"distribution": "orthogonal"}, True),
        ({"value": 0.0}, True),
    ],
)
def test_distributions(gpt: Callable[..., Any], table: dict[str, Any], reported: bool) -> None:
    assert bool(said(gpt(), policies=({"parameters": "*.widen.weight", **table},))) is reported


def test_a_broken_table_is_undetermined_and_not_fine(gpt: Callable[..., Any]) -> None:
    outcomes = list(RULE.check(Context(gpt(), Settings(policies=({"std": "fan_inn"},)))))
    assert [type(o) for o in outcomes] == [Undetermined]


def test_without_configuration_there_is_nothing_to_say(gpt: Callable[..., Any]) -> None:
    assert not list(RULE.check(Context(gpt())))
