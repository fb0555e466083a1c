"""Outputs that the model itself reads on: hidden states returned beside the prediction."""

from __future__ import annotations

from dataclasses import replace

import pytest
from signal_graphs import Graph, parameter

from initlint.facts import Node
from initlint.signal import propagate


def model(head_gain: float, *, returned: bool) -> tuple[Graph, tuple[int, ...]]:
    """Layers of unit gain, hidden states, and three head layers of one gain."""
    graph = Graph()
    x = graph.input(64)
    for layer in range(4):
        x = graph.linear(x, 64, 1.0, name=f"body.{layer}")
    hidden = x
    for layer in range(3):
        x = graph.linear(x, 64, head_gain, name=f"head.{layer}")
    return graph, (x, hidden) if returned else (x,)


@pytest.mark.parametrize("gain", [1e-3, 1.0, 2.0])
def test_an_output_on_the_way_to_the_prediction_is_no_growth_of_the_gradient(gain: float) -> None:
    graph, outputs = model(gain, returned=True)
    both = propagate(graph.facts(*outputs))
    graph, outputs = model(gain, returned=False)
    alone = propagate(graph.facts(*outputs))
    assert both.spans["gradient"].raw == pytest.approx(alone.spans["gradient"].raw, abs=0.02)
    assert [p.energy for p in both.profile] == pytest.approx([p.energy for p in alone.profile], abs=0.02)


def test_growth_in_the_layers_before_such_an_output_still_counts() -> None:
    graph = Graph()
    x = graph.input(64)
    for layer in range(8):
        x = graph.linear(x, 64, 10.0, name=f"body.{layer}")
    hidden = x
    x = graph.linear(graph.linear(x, 64, 1.0, name="neck"), 10, 1.0, name="head")
    assert propagate(graph.facts(x, hidden)).spans["gradient"].raw > 6.5


def looked_up(second: float) -> tuple[Graph, int]:
    """Places between 0 and 1 weigh the rows of a table in which they are looked up; a net of unit gain reads them."""
    graph = Graph()
    x = graph.input(3)
    place = graph.add("stop", x, shape=(8, 3), name="long")
    graph.parameters.append(parameter("table", (100, 3), second))
    rows = graph.put(
        Node(len(graph.nodes), "embedding", (place,), (8, 3), parameters={"weight": "table"}, label="table", channel=1)
    )
    features = graph.add("mul", rows, x, shape=(8, 3))
    for layer in range(3):
        features = graph.linear(features, 64, 1.0, name=f"net.{layer}")
    return graph, features


def test_the_profile_starts_behind_tables_in_which_the_data_is_looked_up() -> None:
    graph, end = looked_up(1e-8)
    signal = propagate(graph.facts(end))
    assert signal.profile[0].q < -7.0
    assert signal.spans["forward"].raw < 1.0


def met(by: str, small: float = 1e-4, beside: str = "input") -> tuple[Graph, int]:
    """Features of a standard deviation of 1e-4 meet something of unit scale halfway through the net."""
    graph = Graph()
    x = graph.input(64)
    x = graph.linear(x, 64, small**2, name="net.0")
    if beside == "layer":
        other = graph.linear(graph.input(64), 64, 1.0, name="tower")
    else:
        other = graph.input(64)
    x = graph.add(by, x, other, shape=(8, 128 if by == "cat" else 64))
    for layer in (1, 2, 3):
        x = graph.linear(x, 64, 1.0, name=f"net.{layer}")
    return graph, x


@pytest.mark.parametrize("by", ["cat", "add"])
def test_another_input_that_joins_is_no_growth(by: str) -> None:
    graph, end = met(by)
    signal = propagate(graph.facts(end))
    small, *others = [point for point in signal.profile if point.label.startswith("net")]
    assert all(abs(point.q - small.q) < 0.5 for point in others)
    assert all(abs(point.dependent - small.dependent) < 0.5 for point in others)
    assert [point.part for point in signal.profile if point.part] == [(1,)]


def test_what_a_tower_of_layers_brings_in_is_growth() -> None:
    graph, end = met("add", beside="layer")
    small, *others = [point for point in propagate(graph.facts(end)).profile if point.label.startswith("net")]
    assert all(point.q - small.q > 7.5 for point in others)


def test_frames_laid_out_as_samples_are_parts_of_one() -> None:
    """Energy is that of one sample that the model was given: [B, T, c] to [B T, c] and back is no layer."""
    graph = Graph(batch=4)
    x = graph.linear(graph.input(16, 64), 64, 1.0, name="first")
    x = graph.add("reshape", x, shape=(64, 64), kind="view")
    x = graph.linear(x, 64, 1.0, name="frames")
    x = graph.add("reshape", x, shape=(4, 16, 64), kind="view")
    end = graph.linear(x, 64, 1.0, name="head")
    signal = propagate(graph.facts(end))
    energies = [point.energy for point in signal.profile if point.energy is not None]
    assert max(energies) - min(energies) < 0.1


@pytest.mark.parametrize("fixed", [True, False])
def test_a_fixed_map_of_what_the_last_layer_says_is_no_layer(fixed: bool) -> None:
    """Shares of bins are small; the centres of the bins, which bring them to their unit, are nothing to be trained."""
    graph = Graph()
    x = graph.input(64)
    for layer in range(3):
        x = graph.linear(x, 64, 1.0, name=f"net.{layer}")
    x = graph.add("scale", x, shape=(8, 64), factor=1e-4)
    x = graph.linear(x, 64, 1e8, name="centres")
    if fixed:
        graph.nodes[x] = replace(graph.nodes[x], attrs=graph.nodes[x].attrs | {"fixed": True})
    raw = propagate(graph.facts(x)).spans["forward"].raw
    assert raw < 1.0 if fixed else raw > 7.5
