"""Signal, responsible-use and adapter rules beyond their own examples: what they must not say, and configuration."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from initlint import packs
from initlint.findings import Finding, Severity
from initlint.rule import Context, Rule, Settings

RULES = {rule.code: rule for rule in packs.load()}
OURS = ["IL207", "IL208", "IL209", "IL210", "IL211", "IL212", "IL310", "IL314"]
OURS += ["IL501", "IL502", "IL503", "IL504", "IL505", "IL506"]

MLP = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(32, 64), nn.{activation}(), nn.Linear(64, 64), nn.{activation}())
        self.head = nn.Linear(64, {classes})
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.{init}
                nn.init.constant_(m.bias, {bias})
        {more}
    def forward(self, x):
        return self.head(self.body(x))
def example_inputs():
    return (torch.randn(4, 32),)
"""


def mlp(
    activation: str = "ReLU",
    init: str = "kaiming_normal_(m.weight)",
    bias: float = 0.0,
    classes: int = 5,
    more: str = "pass",
) -> str:
    return MLP.format(activation=activation, init=init, bias=bias, classes=classes, more=more)


def said(facts: Any, code: str, settings: Settings | None = None) -> list[Finding]:
    rule: Rule = RULES[code]
    return [o for o in rule.check(Context(facts, settings)) if isinstance(o, Finding)]


@pytest.mark.parametrize("activation", ["ReLU", "Tanh", "Sigmoid", "GELU", "SELU"])
def test_small_nets_hear_no_warning(analyse: Callable[..., Any], activation: str) -> None:
    facts = analyse(mlp(activation, "xavier_normal_(m.weight)"))
    loud = [f for code in OURS for f in said(facts, code) if f.severity > Severity.NOTE]
    assert not loud


@pytest.mark.parametrize(("gain", "severity"), [(1.0, None), (4.0, Severity.WARNING), (30.0, Severity.ERROR)])
def test_saturation_grows_with_the_gain(analyse: Callable[..., Any], gain: float, severity: Severity | None) -> None:
    found = said(analyse(mlp("Tanh", f"xavier_normal_(m.weight, gain={gain})")), "IL207")
    assert [f.severity for f in found] == ([] if severity is None else [severity])
    assert all("body.0.weight" in f.parameters and "head.weight" not in f.parameters for f in found)


@pytest.mark.parametrize(("bias", "dead"), [(0.0, False), (0.5, False), (-0.2, False), (-6.0, True)])
def test_dead_units_need_a_negative_shift(analyse: Callable[..., Any], bias: float, dead: bool) -> None:
    found = said(analyse(mlp(bias=bias)), "IL208")
    assert bool(found) == dead
    assert all(f.severity is Severity.ERROR and set(f.parameters) <= {"body.0.bias", "body.2.bias"} for f in found)


def test_depth_alone_is_no_dead_unit(analyse: Callable[..., Any]) -> None:
    facts = analyse("""
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(64, 64) for _ in range(24)])
        for m in self.layers:
            nn.init.kaiming_normal_(m.weight)
            nn.init.zeros_(m.bias)
    def forward(self, x):
        for m in self.layers:
            x = F.relu(m(x))
        return x
""")
    assert not said(facts, "IL208")


@pytest.mark.parametrize(("std", "severity"), [(0.01, None), (3.0, Severity.WARNING), (40.0, Severity.ERROR)])
def test_the_head_is_blamed_for_large_logits(
    analyse: Callable[..., Any], std: float, severity: Severity | None
) -> None:
    found = said(analyse(mlp(more=f"nn.init.normal_(self.head.weight, std={std})")), "IL209")
    assert [(f.severity, f.parameters) for f in found] == ([] if severity is None else [(severity, ("head.weight",))])


def test_a_tied_table_is_left_to_its_own_rule(analyse: Callable[..., Any]) -> None:
    facts = analyse("""
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(64, 512)
        self.norm = nn.LayerNorm(512)
        self.head = nn.Linear(512, 64, bias=False)
        self.head.weight = self.table.weight
    def forward(self, ids):
        return self.head(self.norm(self.table(ids)))
def example_inputs():
    return (torch.randint(0, 64, (2, 8)),)
""")
    assert said(facts, "IL305")
    assert not said(facts, "IL209")


@pytest.mark.parametrize(("dtype", "found"), [("float16", True), ("float32", False)])
def test_range_is_that_of_the_models_own_dtype(analyse: Callable[..., Any], dtype: str, found: bool) -> None:
    facts = analyse(
        f"""
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(64, 64) for _ in range(6)])
        for m in self.layers:
            nn.init.normal_(m.weight)
        self.to(torch.{dtype})
    def forward(self, x):
        for m in self.layers:
            x = F.relu(m(x))
        return x
""",
        inputs=None,
    )
    assert bool(said(facts, "IL210")) is found


@pytest.mark.parametrize(("head_dim", "factor", "found"), [(64, 1.0, True), (64, 0.125, False), (2, 1.0, False)])
def test_attention_needs_its_factor_when_heads_are_wide(
    analyse: Callable[..., Any], head_dim: int, factor: float, found: bool
) -> None:
    facts = analyse(
        f"""
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear({head_dim}, {head_dim}) for _ in range(3))
        for m in (self.q, self.k, self.v):
            nn.init.xavier_uniform_(m.weight)
    def forward(self, x):
        w = torch.softmax(self.q(x) @ self.k(x).transpose(-2, -1) * {factor}, dim=-1)
        return w @ self.v(x)
def example_inputs():
    return (torch.randn(2, 16, {head_dim}),)
""",
        inputs=None,
    )
    outcome = said(facts, "IL211")
    assert bool(outcome) is found
    assert all({"q.weight", "k.weight"} <= set(f.parameters) for f in outcome)


@pytest.mark.parametrize(("factor", "found"), [("1.0", True), ("0.125", False)])
def test_a_mask_of_infinities_silences_nothing(analyse: Callable[..., Any], factor: str, found: bool) -> None:
    facts = analyse(
        f"""
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(64, 64) for _ in range(3))
        for m in (self.q, self.k, self.v):
            nn.init.xavier_uniform_(m.weight)
        self.register_buffer("mask", torch.full((16, 16), float("-inf")).triu(1))
    def forward(self, x):
        w = torch.softmax(self.q(x) @ self.k(x).transpose(-2, -1) * {factor} + self.mask, dim=-1)
        return w @ self.v(x)
def example_inputs():
    return (torch.randn(2, 16, 64),)
""",
        inputs=None,
    )
    assert bool(said(facts, "IL211")) is found


ADAPTER = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        {stem}
        self.norm = nn.LayerNorm(32)
        self.down, self.up = nn.Linear(32, 64), nn.Linear(64, 32)
        {init}
    def forward(self, x):
        {before}
        return x + {factor} * self.up(F.relu(self.down({inner})))
def example_inputs():
    return (torch.randn(2, 8, 32),)
"""
KAIMING = "[nn.init.kaiming_normal_(m.weight) for m in (self.down, self.up)]"
FROZEN = "self.stem = nn.Linear(32, 32).requires_grad_(False)"


@pytest.mark.parametrize(
    ("change", "severity"),
    [
        ({"factor": "1.0"}, Severity.ERROR),  # a strength that is not turned down
        ({"factor": "0.1"}, None),
        ({"factor": "1.0", "init": "pass"}, None),  # PyTorch's default is small
        ({"factor": "1.0", "inner": "self.norm(x)"}, None),  # an ordinary pre-norm block
        ({"factor": "1.0", "stem": "self.stem = nn.Linear(32, 32)", "before": "x = self.stem(x)"}, None),  # a net
        (
            {
                "factor": "1.0",
                "stem": FROZEN,
                "before": "x = self.stem(x)",
                "init": f"{KAIMING}; self.up.weight.data.mul_(2)",
            },
            Severity.ERROR,
        ),
    ],
)
def test_adapters_are_told_from_blocks(
    analyse: Callable[..., Any], change: dict[str, str], severity: Severity | None
) -> None:
    parts = {"stem": "pass", "init": KAIMING, "before": "pass", "inner": "x", **change}
    found = said(analyse(ADAPTER.format(**parts)), "IL310")
    assert [f.severity for f in found] == ([] if severity is None else [severity])


def test_priors_are_compared_with_the_bias(analyse: Callable[..., Any]) -> None:
    plain, rare = analyse(mlp(classes=2)), Settings(class_priors=(0.995, 0.005))
    aware = analyse(mlp(classes=2, more="self.head.bias.data.copy_(torch.tensor([0.995, 0.005]).log())"))
    assert [f.parameters for f in said(plain, "IL502", rare)] == [("head.bias",)]
    assert said(plain, "IL502", rare)[0].severity is Severity.WARNING
    assert said(plain, "IL502", Settings(class_priors=(0.95, 0.05)))[0].severity is Severity.NOTE
    assert not said(aware, "IL502", rare)
    assert not said(plain, "IL502", Settings(class_priors=(0.6, 0.4)))
    assert not said(plain, "IL502", Settings(class_priors=(0.9, 0.05, 0.05)))  # another number of classes
    assert not said(plain, "IL502")


@pytest.mark.parametrize("code", [c for c in OURS if c.startswith("IL50") and c != "IL502"])
def test_responsible_rules_only_note(code: str) -> None:
    assert RULES[code].severity is Severity.NOTE


def test_healthy_files_stay_without_warnings(shared: Any, run_cli: Callable[..., Any]) -> None:
    file = shared / "classics" / "m12_resnet_good.py"
    result = run_cli(f"{file}::Model", "--select", ",".join(OURS), "--no-cache", cwd=file.parent)
    assert result.code == 0


SQUEEZED = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.gate = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16, 16)
        nn.init.normal_(self.conv.weight)
        nn.init.normal_(self.gate.weight)
    def forward(self, x):
        y = self.conv(x)
        return y * torch.sigmoid(self.gate(y.mean((2, 3))))[..., None, None]
def example_inputs():
    return (torch.randn(2, 3, 8, 8),)
"""


def test_a_mean_over_unknown_positions_says_nothing_of_saturation(analyse: Callable[..., Any]) -> None:
    facts = analyse(SQUEEZED)
    shapeless = tuple(replace(node, shape=None, measured=None) for node in facts.nodes)
    rule = RULES["IL207"]
    assert not list(rule.check(Context(replace(facts, nodes=shapeless), None)))
    # without the mean in between the scale is known all the same
    plain = analyse(mlp("Tanh", "normal_(m.weight)"))
    shapeless = tuple(replace(node, shape=None, measured=None) for node in plain.nodes)
    assert list(rule.check(Context(replace(plain, nodes=shapeless), None)))


def test_the_loss_of_a_tied_table_is_given_beside_the_expected_one(analyse: Callable[..., Any]) -> None:
    facts = analyse(TIED)
    (found,) = said(facts, "IL305")
    assert found.actual["loss"] > found.expected["loss"] == pytest.approx(math.log(100), rel=1e-3)


TIED = """
class Bigram(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.norm = nn.Embedding(100, 256), nn.LayerNorm(256)
        self.head = nn.Linear(256, 100, bias=False)
        self.head.weight = self.table.weight
    def forward(self, ids):
        return self.head(self.norm(self.table(ids)))
def example_inputs():
    return (torch.randint(0, 100, (2, 6)),)
"""
