"""Counterfactuals on long graphs: what is carried over stretches is what going through every node gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from signal_graphs import Graph

from initlint.signal import Effect, Nominal, Signal, counterfactual, propagate
from initlint.signal.stretches import TOLERANCE, Stretches
from initlint.signal.trunk import returned
from initlint.signal.verdict import distance, intent, mismatch, mistake

WIDTH, NODES = 64, 700


def chain(fn: str, gain: float, bias: float = 0.0) -> Graph:
    graph = Graph()
    x = graph.input(WIDTH)
    for layer in range(NODES // 2):
        x = graph.activation(graph.linear(x, WIDTH, gain, bias=bias, name=f"layers.{layer}"), fn)
    graph.linear(x, 10, 1.0, name="head")
    return graph


def stream(norm: bool) -> Graph:
    graph = Graph()
    x = graph.linear(graph.input(WIDTH), WIDTH, 1.0, name="stem")
    for block in range(NODES // 4):
        h = graph.norm(x) if norm else x
        h = graph.activation(graph.linear(h, WIDTH, 2.0 if norm else 0.02, name=f"blocks.{block}.up"), "relu")
        x = graph.sum(x, graph.linear(h, WIDTH, 1.0, name=f"blocks.{block}.down"))
    graph.linear(graph.norm(x), 10, 1.0, name="head")
    return graph


GRAPHS: dict[str, Callable[[], Graph]] = {
    "relu": lambda: chain("relu", 2.0),
    "shrinking relu": lambda: chain("relu", 1.99),
    "biased relu": lambda: chain("relu", 1.6, 0.1),
    "ordered tanh": lambda: chain("tanh", 0.99),
    "chaotic tanh": lambda: chain("tanh", 1.01),
    "pre-norm stream": lambda: stream(norm=True),
    "plain stream": lambda: stream(norm=False),
}


def both(name: str) -> tuple[Graph, Signal, Signal]:
    graph = GRAPHS[name]()
    slow = propagate(graph.facts())
    assert slow.stretches is None  # a graph of this size is gone through node by node
    assert slow.scene is not None
    assert slow.sweeps is not None
    outputs = returned(slow.scene, graph.facts().outputs)
    return graph, replace(slow, stretches=Stretches(slow.scene, slow.sweeps[1], slow.profile, outputs)), slow


def verdicts(effect: Effect, signal: Signal) -> list[object]:
    return [rule(effect, signal, who) for rule in (distance, mistake, mismatch, intent) for who in ("adam", "sgd")]


@pytest.mark.parametrize("name", GRAPHS)
def test_carried_over_stretches_is_the_same_as_node_by_node(name: str):
    graph, signal, slow = both(name)
    facts = graph.facts()
    names = [p.name for p in graph.parameters if p.name.endswith("weight")]
    carried = 0
    for at in (0, 1, 7, len(names) // 2, len(names) - 30, len(names) - 1):
        shape = next(p.shape for p in graph.parameters if p.name == names[at])
        for factor in (0.5, 8.0):
            changes = {names[at]: Nominal(0.0, factor / shape[1])}
            got, wanted = counterfactual(facts, signal, changes), counterfactual(facts, slow, changes)
            carried += got.touched != wanted.touched
            for part in ("forward", "dependent", "gradient", "loss", "local", "saturated"):
                assert getattr(got, part) == pytest.approx(getattr(wanted, part), abs=TOLERANCE), (names[at], part)
            assert got.dead == pytest.approx(wanted.dead, abs=0.02)
            for part, span in wanted.after.items():
                assert got.after[part].raw == pytest.approx(span.raw, abs=TOLERANCE)
            assert (got.hidden, got.head, got.branch) == (wanted.hidden, wanted.head, wanted.branch)
            assert verdicts(got, signal) == verdicts(wanted, slow)
    assert carried


def test_two_layers_far_apart_change_together():
    graph, signal, slow = both("pre-norm stream")
    changes = {f"blocks.{block}.down.weight": Nominal(0.0, 4.0 / WIDTH) for block in (3, 120)}
    got, wanted = (counterfactual(graph.facts(), one, changes) for one in (signal, slow))
    for part in ("forward", "dependent", "gradient"):
        assert getattr(got, part) == pytest.approx(getattr(wanted, part), abs=TOLERANCE)


def test_a_zero_layer_is_gone_through_node_by_node():
    graph, signal, slow = both("relu")
    changes = {"layers.200.weight": Nominal(0.0, 0.0)}
    got, wanted = (counterfactual(graph.facts(), one, changes) for one in (signal, slow))
    assert math.isfinite(got.log10)
    assert (got.forward, got.gradient) == (wanted.forward, wanted.gradient)
