"""Counterfactual effects, what starts at zero, the trunk, and the severity table."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from signal_graphs import Graph, parameter, plain

from initlint.facts import Node
from initlint.findings import Severity
from initlint.signal import Effect, Nominal, Span, counterfactual, propagate
from initlint.signal.effect import fold
from initlint.signal.trunk import trunk
from initlint.signal.verdict import depth, distance, intent, mismatch, mistake


def weights(graph: Graph, gain: float) -> dict[str, Nominal]:
    return {p.name: Nominal(0.0, gain / p.shape[1]) for p in graph.parameters if p.name.startswith("layers.")}


def test_the_effect_is_that_of_a_full_propagation():
    graph, better = plain(12, 1.0), plain(12, 2.0)
    facts = graph.facts()
    signal, wanted = propagate(facts), propagate(better.facts())
    effect = counterfactual(facts, signal, weights(graph, 2.0))
    assert effect.forward == pytest.approx(math.log10(2.0**-12), rel=1e-3)
    assert effect.gradient == pytest.approx(math.log10(2.0**-11), rel=0.05)
    assert effect.after["forward"].raw == pytest.approx(wanted.spans["forward"].raw, abs=1e-6)
    assert effect.after["gradient"].raw == pytest.approx(wanted.spans["gradient"].raw, abs=1e-6)
    assert not effect.hidden
    assert "shrinks" in effect.sentence
    assert "layers" in effect.sentence


def test_the_profile_names_the_layer_that_is_off():
    graph = plain(12, 2.0)
    graph.nodes[9] = replace(
        graph.nodes[9], operator=replace(graph.nodes[9].operator, gain=2e-4, back=2e-4, total_second=2e-4)
    )
    signal = propagate(graph.facts())
    assert signal.culprits[0].label == graph.nodes[9].label
    assert signal.culprits[0].forward == pytest.approx(-4.0, abs=0.1)


def test_a_norm_hides_the_scale():
    graph = Graph()
    x = graph.input(64)
    for layer in range(6):
        x = graph.activation(graph.norm(graph.linear(x, 64, 1e-3, name=f"layers.{layer}")), "relu")
    graph.linear(x, 10, 1.0)
    facts = graph.facts()
    effect = counterfactual(facts, propagate(facts), weights(graph, 2.0))
    assert effect.hidden
    assert mistake(effect, propagate(facts)) is Severity.NOTE


def test_re_propagation_stops_at_a_norm():
    graph = Graph()
    x = graph.input(64)
    for layer in range(40):
        x = graph.activation(graph.norm(graph.linear(x, 64, 1.0, name=f"layers.{layer}"), "rms"), "relu")
    facts = graph.facts()
    signal = propagate(facts)
    effect = counterfactual(facts, signal, {"layers.20.weight": Nominal(0.0, 2 / 64)})
    assert effect.touched < 12


def test_a_group_of_a_large_graph_costs_a_small_part_of_a_propagation(
    lines_run: Callable[[Callable[[], object]], int],
) -> None:
    graph = Graph()
    x = graph.input(64)
    for layer in range(2000):
        x = graph.activation(graph.norm(graph.linear(x, 64, 1.0, name=f"layers.{layer}"), "rms"), "relu")
    facts = graph.facts()
    signal = propagate(facts)
    changed = {"layers.1000.weight": Nominal(0.0, 2 / 64)}
    counterfactual(facts, signal, changed)  # what all groups share is worked out once
    # Only spans over the whole profile are left to sum: a few lines a node, where a propagation runs hundreds.
    assert lines_run(lambda: counterfactual(facts, signal, changed)) < lines_run(lambda: propagate(facts)) / 50


def test_zero_weights_cut_the_signal():
    graph = plain(4, 2.0)
    graph.nodes[3] = replace(
        graph.nodes[3], operator=replace(graph.nodes[3].operator, gain=0.0, back=0.0, total_second=0.0)
    )
    graph.parameters[1] = parameter("layers.1.weight", (256, 256), 0.0)
    facts = graph.facts()
    signal = propagate(facts)
    effect = counterfactual(facts, signal, {"layers.1.weight": Nominal(0.0, 2 / 256)})
    assert effect.forward < -100
    assert mistake(effect, signal) is Severity.ERROR


def test_a_zero_branch_is_opened_and_silent():
    graph = Graph()
    x = graph.input(64)
    for block in range(8):
        h = graph.activation(graph.linear(x, 64, 2.0, name=f"b{block}.a"), "relu")
        y = graph.linear(h, 64, 0.0, name=f"b{block}.b")
        x = graph.sum(x, y)
    graph.linear(x, 10, 0.0, name="head")
    signal = propagate(graph.facts())
    assert signal.built[x].q == pytest.approx(1.0)
    assert 1.0 < signal.opened[x].q < 3.0
    assert signal.opened[1].p > 0.0
    assert signal.built[1].p == 0.0
    assert depth(signal.spans) is None


def test_layer_scale_on_the_only_path_is_opened():
    # a class token that sees the patches through a LayerScale of 1e-6 only (CaiT)
    graph = Graph()
    x = graph.linear(graph.input(64), 64, 1.0, name="embed")
    graph.parameters.append(parameter("gamma", (64,), 1e-12, 1e-6, distinct=1))
    graph.parameters.append(parameter("token", (64,), 1.0))
    gamma = graph.put(Node(len(graph.nodes), "parameter", (), (64,), parameters={"value": "gamma"}, batch=None))
    token = graph.put(Node(len(graph.nodes), "parameter", (), (64,), parameters={"value": "token"}, batch=None))
    branch = graph.add("mul", graph.norm(x), gamma, shape=(8, 64))
    out = graph.add("add", branch, token, shape=(8, 64))
    graph.linear(graph.norm(out), 10, 1.0, name="head")
    signal = propagate(graph.facts())
    assert signal.built[out].dependent == pytest.approx(1e-12, rel=0.1)
    assert signal.opened[out].dependent == pytest.approx(1e-2, rel=0.1)
    assert depth(signal.spans) is None


def test_trunk_of_a_residual_net():
    graph = Graph()
    stem = graph.linear(graph.input(32), 32)
    branch = graph.linear(stem, 32)
    total = graph.sum(stem, branch)
    head = graph.linear(total, 10)
    signal = propagate(graph.facts())
    assert signal.trunk == (0, stem, total, head)


def test_trunk_ignores_conditions_and_auxiliary_outputs():
    graph = Graph()
    image, time_step = graph.input(32), graph.input(8)
    condition = graph.linear(time_step, 32)
    first = graph.linear(image, 32)
    aux = graph.linear(first, 5)
    second = graph.linear(graph.sum(first, condition), 32)
    head = graph.linear(second, 10)
    facts = graph.facts(head, aux)
    signal = propagate(facts)
    assert first in signal.trunk
    assert second in signal.trunk
    assert condition not in signal.trunk
    assert aux not in signal.trunk
    assert trunk(signal.scene, facts.outputs) == signal.trunk


def test_class_head_loss():
    graph = Graph()
    graph.linear(graph.input(128), 512, 128.0, name="head")  # unit-variance weights: a tied N(0, 1) table
    signal = propagate(graph.facts())
    assert signal.init_loss is not None
    assert signal.init_loss.expected == pytest.approx(math.log(512))
    assert signal.init_loss.predicted > 5 * math.log(512)
    assert signal.classes == 512
    assert signal.logit_second == pytest.approx(128.0)


def test_loss_of_gpt2_at_initialisation():
    # THEORY 7, row 16: ln 50257 + .1536 = 10.978
    graph = Graph()
    graph.linear(graph.norm(graph.input(768)), 50257, 768 * 0.02**2, name="head")
    loss = propagate(graph.facts()).init_loss
    assert loss is not None
    assert loss.predicted == pytest.approx(10.978, abs=2e-3)


def test_weight_norm_gain_counts_and_its_direction_does_not():
    graph = plain(3, 2.0)
    for name, shape in (("g", (256, 1)), ("v", (256, 256))):
        graph.parameters.append(parameter(f"layers.0.weight_{name}", shape, 1.0))
    graph.parameters[0] = replace(
        graph.parameters[0], generated=True, sources=("layers.0.weight_g", "layers.0.weight_v"), origin="weight_norm"
    )
    facts = graph.facts()
    signal = propagate(facts)
    assert counterfactual(facts, signal, {"layers.0.weight_v": Nominal(0.0, 9.0)}).hidden
    effect = counterfactual(facts, signal, {"layers.0.weight_g": Nominal(0.0, 100.0)})
    assert effect.forward == pytest.approx(-2.0, abs=0.01)


def test_changes_that_nothing_reads_have_no_effect():
    facts = plain(3, 2.0).facts()
    effect = counterfactual(facts, propagate(facts), {"nowhere": Nominal(0.0, 1.0)})
    assert effect.hidden
    assert effect.log10 == 0.0


# -- the severity table --------------------------------------------------------------------------


def made(value: float, wanted: float = 0.0, **more: object) -> Effect:
    before = {"forward": Span(value, value, 0.0, 0, 1), "gradient": Span(), "dependent": Span()}
    after = {"forward": Span(wanted, wanted, 0.0, 0, 1), "gradient": Span(), "dependent": Span()}
    return replace(Effect(forward=value, log10=value, local=value, before=before, after=after), **more)


@pytest.fixture(scope="module")
def healthy():
    return propagate(plain(3, 2.0).facts())


@pytest.mark.parametrize(
    ("value", "sgd", "adam"),
    [
        (3.9, Severity.NOTE, Severity.NOTE),
        (4.1, Severity.WARNING, Severity.NOTE),
        (6.1, Severity.ERROR, Severity.WARNING),
        (9.1, Severity.ERROR, Severity.ERROR),
    ],
)
def test_distance(value, sgd, adam, healthy):
    assert distance(made(value), healthy, "sgd") is sgd
    assert distance(made(value), healthy, "adam") is adam


def test_distance_only_counts_what_the_values_bring_about(healthy):
    assert distance(made(9.5, wanted=9.4), healthy) is Severity.NOTE


@pytest.mark.parametrize(
    ("effect", "expected"),
    [
        (made(0.2), Severity.NOTE),
        (made(0.4), Severity.WARNING),
        (made(-0.4, head=True), Severity.NOTE),
        (made(0.4, head=True), Severity.WARNING),
        (made(-0.4, branch=True), Severity.NOTE),
        (made(5.0, hidden=True), Severity.NOTE),
        (made(2.9), Severity.WARNING),
        (made(3.1), Severity.ERROR),  # 1e3 costs accuracy, and a proven mistake is nobody's choice
        (made(3.1, wanted=2.5), Severity.WARNING),  # a factor below 10 is harmless
        (made(3.5, wanted=3.1), Severity.WARNING),  # no better with the values expected
        (made(9.5), Severity.ERROR),
        (made(0.4, dead=0.7), Severity.ERROR),
        (made(0.4, saturated=0.8), Severity.ERROR),
        (made(0.4, loss=10.0), Severity.ERROR),
    ],
)
def test_mistake(effect, expected, healthy):
    assert mistake(effect, healthy) is expected


def test_a_mistake_that_turns_the_direction_counts_from_end_to_end(healthy):
    turned = {"forward": Span(2.5, 2.5, 0.0, 0, 1, shrinks=False), "gradient": Span(), "dependent": Span()}
    assert mistake(replace(made(3.1), after=turned), healthy) is Severity.ERROR


@pytest.mark.parametrize(("value", "expected"), [(1.9, Severity.NOTE), (2.1, Severity.WARNING), (9.5, Severity.ERROR)])
def test_mismatch(value, expected, healthy):
    assert mismatch(made(value), healthy) is expected


def test_intent(healthy):
    assert intent(made(0.05), healthy) is Severity.NOTE
    assert intent(made(0.05), healthy, matters=True) is Severity.WARNING
    assert intent(made(0.5), healthy) is Severity.WARNING
    assert intent(made(9.5), healthy) is Severity.ERROR


def test_unrolled_time_is_a_warning_at_most():
    graph = Graph()
    x = graph.input(64)
    for _ in range(30):
        x = graph.activation(graph.linear(x, 64, 1 / 3, name="layers.cell"), "tanh")
    graph.linear(x, 10, 1.0)
    facts = graph.facts()
    signal = propagate(facts)
    effect = counterfactual(facts, signal, {"layers.cell.weight": Nominal(0.0, 1.5 / 64)})
    assert signal.steps == 30
    assert depth(signal.spans) is Severity.ERROR
    assert distance(effect, signal) is Severity.WARNING


@pytest.mark.parametrize(("second", "zeros"), [(0.0, True), (4e-4, False)])
def test_a_zero_token_is_opened(second: float, zeros: bool):
    # a class token of zeros: the norm behind it divides by its epsilon until the first step (YOLOS)
    graph = Graph()
    x = graph.linear(graph.input(16, 64), 64, 1.0, name="embed")
    graph.parameters.append(parameter("token", (64,), second, distinct=1 if zeros else 64))
    token = graph.put(Node(len(graph.nodes), "parameter", (), (1, 64), parameters={"value": "token"}, batch=None))
    spread = graph.add("reshape", token, shape=(8, 1, 64))
    x = graph.add("cat", spread, x, shape=(8, 17, 64), axis="position")
    for block in range(2):
        h = graph.linear(graph.norm(x), 64, 1.0, name=f"{block}.up")
        x = graph.sum(x, graph.linear(h, 64, 0.5, name=f"{block}.down"))
    graph.linear(graph.norm(x), 10, 1.0, name="head")
    signal = propagate(graph.facts())
    assert (signal.built[spread].p > 1e3) is zeros
    assert signal.spans["gradient"].value < 3.0
    assert signal.spans["dependent"].value < 1.0
    assert depth(signal.spans) is None


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "3.2"), (1.9999, "1.0e2"), (2.1, "1.3e2"), (37.997, "9.9e37"), (37.9999, "1.0e38")]
)
def test_a_ratio_reads_with_one_digit_before_the_point(value: float, text: str):
    assert fold(value) == fold(-value) == text
