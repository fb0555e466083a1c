"""Verdicts on the profile: residual nets have culprits, dips one direction, and no verdict hangs on the draw."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from signal_graphs import Graph, plain

from initlint.facts import Measured, ModelFacts, Write
from initlint.signal import confirmed, propagate


def residual(depth: int, gain: float) -> Graph:
    """x + W2 relu(W1 x), with a head and no stem: no layer of a block lies on the trunk."""
    graph = Graph()
    x = graph.input(64)
    for block in range(depth):
        h = graph.activation(graph.linear(x, 64, 2.0, name=f"{block}.fc1"), "relu")
        x = graph.sum(x, graph.linear(h, 64, gain, name=f"{block}.fc2"))
    graph.linear(x, 10, 0.01, name="head")
    return graph


def test_growth_of_a_residual_net_is_put_down_to_its_branches():
    signal = propagate(residual(30, 1.0).facts())
    span = signal.spans["forward"]
    assert not span.shrinks
    assert span.raw == pytest.approx(30 * math.log10(2), abs=0.05)
    blamed = {c.label for c in signal.culprits if c.forward > 0.1}
    assert blamed == {f"{block}.{layer}" for block in range(30) for layer in ("fc1", "fc2")}


def test_the_head_of_a_residual_net_without_a_stem_is_not_judged():
    signal = propagate(residual(6, 0.01).facts())
    assert not signal.profile[-1].judged
    assert signal.forward_span < 0.1
    assert signal.gradient_span < 0.1


@pytest.mark.parametrize("end", [0.9, 1.1])
def test_a_dip_shrinks_whichever_end_is_higher(end):
    graph = Graph()
    x = graph.input(64)
    for gain in (1e-8, end * 1e8):
        x = graph.linear(x, 64, gain)
    graph.linear(x, 10)
    assert propagate(graph.facts()).spans["forward"].shrinks


def test_an_exact_zero_on_the_trunk_has_no_scale():
    graph = Graph()
    x = graph.input(64)
    y = graph.linear(x, 64, 1.0)
    zero = graph.add("scale", y, shape=(8, 64), factor=0.0)
    graph.linear(graph.sum(x, zero), 10)
    assert propagate(graph.facts()).forward_span < 1.0


def recorded(depth: int, gain: float, luck: float) -> ModelFacts:
    """A plain net whose record says N(0, gain / n), drawn ``luck`` times as large in the second moment."""
    facts = plain(depth, gain * luck, width=256).facts()
    write = Write("normal_", 0, {"mean": 0.0, "std": math.sqrt(gain / 256)}, random=True)
    parameters = tuple(replace(p, writes=(write,)) if "layers" in p.name else p for p in facts.parameters)
    return replace(facts, parameters=parameters)


def test_confirmed_draws_count_with_their_nominal_moments():
    lucky, unlucky = recorded(20, 2.0, 1.006), recorded(20, 2.0, 0.994)
    assert len(confirmed(lucky)) == 20
    by_draw = [propagate(f).spans["forward"].raw for f in (lucky, unlucky)]
    verdicts = [propagate(f, confirmed(f)).spans["forward"].raw for f in (lucky, unlucky)]
    assert by_draw[0] != pytest.approx(by_draw[1], abs=1e-3)
    assert verdicts[0] == pytest.approx(verdicts[1], abs=1e-9)


@pytest.mark.parametrize(("scale", "told"), [(1.0, True), (1.2, False)])
def test_a_weight_norm_applied_after_the_draw_leaves_it_confirmed(scale: float, told: bool):
    facts = recorded(1, 2.0, 1.0)
    (direction,) = (p for p in facts.parameters if p.name in confirmed(facts))
    assert direction.stats is not None
    second = direction.stats.second * scale
    computed = replace(
        direction,
        name="computed",
        generated=True,
        origin="weight_norm",
        sources=(direction.name,),
        writes=(),
        stats=replace(direction.stats, second=second, var=second),
    )
    known = confirmed(replace(facts, parameters=(*facts.parameters, computed)))
    assert (known.get("computed") == known[direction.name]) is told


def test_values_that_the_record_cannot_give_are_taken_as_they_are():
    assert confirmed(recorded(20, 2.0, 16.0)) == {}


def test_what_is_known_of_the_actual_weights_is_not_found_out_again():
    facts = recorded(5, 2.0, 1.002)
    names = confirmed(facts)
    assert propagate(facts, names, propagate(facts)).spans == propagate(facts, names).spans


def test_what_rules_miss_of_the_measured_forward_is_taken_off_a_span():
    graph = plain(24, 0.2, "relu", width=256)
    sound = propagate(graph.facts())
    assert sound.spans["forward"].value > 12
    for at, node in enumerate(graph.nodes):
        if node.op in ("linear", "activation"):  # a run in which nothing shrinks: the rules must be wrong
            graph.nodes[at] = replace(node, measured=Measured(second=1.0, mean=0.0))
    doubted = propagate(graph.facts())
    # the factor 1/2 of each ReLU is within the accuracy that is asked of a rule, but twenty-four of them are not
    assert doubted.spans["forward"].value < 1.0
    assert doubted.spans["forward"].raw == pytest.approx(sound.spans["forward"].raw)
    assert doubted.spans["forward"].doubt > 12


def test_small_misses_that_add_up_are_taken_off_as_well():
    graph = plain(40, 0.8, "relu", width=1024)  # the second moment falls by 0.4 a layer
    shrunk = propagate(graph.facts()).spans["forward"]
    assert shrunk.value > 6
    for gain, seen in ((1.0, False), (0.4, True)):
        second = 1.0
        for at, node in enumerate(graph.nodes):
            if node.op == "linear":
                second *= gain
                graph.nodes[at] = replace(node, measured=Measured(second=second, mean=0.0))
        span = propagate(graph.facts()).spans["forward"]
        assert (span.value > 6) is seen
        assert (span.doubt > 6) is not seen


def test_what_data_is_turned_into_before_any_weight_is_no_layer():
    graph = Graph()
    t = graph.input(64, second=1e6)
    waves = graph.activation(graph.add("scale", t, shape=(8, 64), factor=0.5), "sin")
    x = graph.linear(graph.activation(graph.linear(waves, 64, 2.0), "relu"), 64)
    signal = propagate(graph.facts(x))
    assert signal.profile[0].node == waves
    assert signal.spans["forward"].raw < 1.0


def test_a_temperature_on_the_output_is_common_to_all_gradients():
    spans = []
    for factor in (1.0, 1e-4):
        graph = Graph()
        x = graph.input(64)
        for _ in range(4):
            x = graph.activation(graph.linear(x, 64, 2.0), "relu")
        y = graph.activation(x, "tanh")
        graph.add("scale", y, shape=graph.nodes[y].shape, factor=factor)
        spans.append(propagate(graph.facts()).spans["gradient"].raw)
    assert spans[0] == pytest.approx(spans[1])


def test_a_span_over_an_unknown_part_of_the_trunk_is_no_verdict():
    for op in ("activation", "unheard_of"):
        graph = Graph()
        x = graph.input(64)
        for _ in range(12):
            x = graph.linear(x, 64, 0.1)
        y = graph.add(op, x, shape=graph.nodes[x].shape, fn="tanh")
        for _ in range(12):
            y = graph.linear(graph.norm(y), 64, 0.1)
        graph.linear(y, 10)
        span = propagate(graph.facts()).spans["gradient"]
        assert span.raw > 8
        assert (span.value > 6) == (op == "activation")


def test_the_draw_of_a_standard_input_moves_no_verdict():
    def ends(second: float, mean: float) -> tuple[float, float]:
        graph = Graph(batch=32)
        x = graph.input(16, second=second, mean=mean, correlation=0.02, positions=-0.01)
        graph.linear(graph.linear(x, 64, 1e-3), 4)
        facts = graph.facts()
        return propagate(facts, {}).profile[-1].q, propagate(facts).profile[-1].q

    drawn, again = ends(0.9, 0.05), ends(1.1, -0.1)
    assert drawn[0] == again[0]
    assert again[1] - drawn[1] == pytest.approx(math.log10(1.1 / 0.9), abs=1e-3)


@pytest.mark.parametrize("given", [{"second": 0.33, "mean": 0.5}, {"second": 1.0, "mean": 0.0, "correlation": 0.6}])
def test_an_input_that_is_not_standard_stays_as_it_was_given(given):
    graph = Graph(batch=32)
    graph.linear(graph.linear(graph.input(16, **given), 64), 4)
    facts = graph.facts()
    assert propagate(facts, {}).built[0] == propagate(facts).built[0]


def test_a_few_numbers_say_too_little_of_their_law():
    graph = Graph(batch=4)
    graph.linear(graph.linear(graph.input(16, second=0.9), 64), 4)
    assert propagate(graph.facts(), {}).built[0].q == pytest.approx(0.9)


def test_what_is_looked_up_in_a_table_is_no_signal_that_grows():
    graph = Graph()
    ids = graph.input(16, kind="index", second=1.0, mean=0.5)
    prompt = graph.input(4, kind="index", second=400.0, mean=12.0)
    both = graph.add("cat", ids, prompt, shape=(8, 20))
    table = graph.add("embedding", both, shape=(8, 20, 64), second=1.0)
    graph.linear(graph.linear(table, 64), 10)
    signal = propagate(graph.facts())
    assert [point.node for point in signal.profile][:1] == [table]
    assert signal.spans["dependent"].raw < 0.1
    assert signal.profile[0].q == pytest.approx(0.0)
