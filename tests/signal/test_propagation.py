"""Plain, residual and normalised stacks against theory (THEORY 6 and 7) and published results."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
from signal_graphs import Graph, plain

from initlint.facts import ModelFacts, Node, ParameterFacts, TensorStats
from initlint.signal import propagate


def seconds(graph: Graph, op: str) -> list[float]:
    signal = propagate(graph.facts())
    return [m.q for n, m in zip(graph.nodes, signal.built, strict=True) if n.op == op]


def test_he_relu_is_flat():
    q = seconds(plain(30, 2.0), "linear")
    assert all(value == pytest.approx(2.0, rel=1e-9) for value in q[:-1])


def test_he_relu_gradient_is_flat_and_its_spans_are_nothing():
    signal = propagate(plain(30, 2.0).facts())
    assert signal.forward_span < 0.31
    assert signal.gradient_span < 0.31


def test_xavier_before_relu_halves_at_each_layer():
    q = seconds(plain(22, 1.0), "linear")
    assert q[21] / q[0] == pytest.approx(2.0**-21, rel=1e-9)  # He et al. 2015, section 2.2


@pytest.mark.parametrize(("depth", "published"), [(22, 2.4e-7), (30, 9.3e-10)])
def test_he_2015_depth_ratios(depth, published):
    q = seconds(plain(depth, 1.0), "activation")
    assert q[-1] / 1.0 == pytest.approx(published, rel=0.02)


def test_tanh_critical_point_of_xiao_2018():
    graph = plain(60, 1.7610, "tanh", bias=0.05)
    signal = propagate(graph.facts())
    pre = [m for n, m in zip(graph.nodes, signal.built, strict=True) if n.op == "linear"][:-1]
    assert pre[-1].q == pytest.approx(0.5701, abs=2e-3)
    chi = (pre[-2].p / pre[-1].p, pre[-3].p / pre[-2].p)
    assert chi == pytest.approx((1.0, 1.0), abs=3e-3)


@pytest.mark.parametrize(("weight", "q", "chi"), [(1.0, 0.1936, 0.7590), (1.5, 0.4180, 0.9386), (2.5, 1.0640, 1.1335)])
def test_tanh_fixed_points_of_schoenholz_2017(weight, q, chi):
    graph = plain(60, weight, "tanh", bias=0.05)
    signal = propagate(graph.facts())
    pre = [m for n, m in zip(graph.nodes, signal.built, strict=True) if n.op == "linear"][:-1]
    assert pre[-1].q == pytest.approx(q, rel=3e-3)
    assert pre[-2].p / pre[-1].p == pytest.approx(chi, rel=3e-3)


@pytest.mark.parametrize(("weight", "c"), [(2.0, 0.7441), (2.5, 0.4468)])
def test_tanh_correlation_fixed_points(weight, c):
    graph = plain(150, weight, "tanh", bias=0.05)
    graph.nodes[0] = graph.nodes[0].__class__(
        **{
            **{f: getattr(graph.nodes[0], f) for f in graph.nodes[0].__slots__},
            "attrs": {"kind": "float", "second": 1.0, "correlation": 0.9},
        }
    )
    signal = propagate(graph.facts())
    pre = [m for n, m in zip(graph.nodes, signal.built, strict=True) if n.op == "linear"][:-1]
    assert pre[-1].correlation == pytest.approx(c, abs=4e-3)


def test_selu_fixed_point():
    graph = plain(50, 1.0, "selu")
    signal = propagate(graph.facts())
    post = [m for n, m in zip(graph.nodes, signal.built, strict=True) if n.op == "activation"]
    assert post[-1].q == pytest.approx(1.0, abs=1e-6)
    assert post[-1].m == pytest.approx(0.0, abs=1e-6)
    pre = [m for n, m in zip(graph.nodes, signal.built, strict=True) if n.op == "linear"]
    assert pre[0].p / pre[1].p == pytest.approx(1.071575, rel=1e-4)


def test_default_relu_net_goes_constant_not_silent():
    # THEORY 6.3.1: n = 512, L = 20: q = 7.8e-4 (bias floor), input-dependent part 1e-15.8
    graph = plain(20, 1 / 3, width=512, bias=1 / (3 * 512))
    signal = propagate(graph.facts())
    pre = [m for n, m in zip(graph.nodes, signal.built, strict=True) if n.op == "linear"][19]
    assert pre.q == pytest.approx(7.8e-4, rel=0.02)
    assert math.log10(pre.dependent) == pytest.approx(-15.80, abs=0.05)
    assert signal.dependent_span > 12


def test_relu_correlation_decays_as_hayou_2019():
    graph = plain(400, 2.0)
    signal = propagate(graph.facts())
    pre = [m for n, m in zip(graph.nodes, signal.built, strict=True) if n.op == "linear"][399]
    assert pre.dependent / pre.q == pytest.approx(2.60e-4, rel=0.03)


def test_delta_orthogonal_at_ten_thousand_layers():
    graph = plain(5000, 1.0, "tanh", orthogonal=True)
    signal = propagate(graph.facts())
    assert all(math.isfinite(m.q) and math.isfinite(m.p) for m in signal.built)
    # q falls like 1/L near the critical line: polynomial, far from the thresholds
    assert signal.forward_span < 4.5
    assert signal.gradient_span < 4.5


def test_deep_default_net_stays_in_range():
    signal = propagate(plain(2000, 1 / 3, width=64).facts())
    assert all(math.isfinite(m.q) and math.isfinite(m.p) for m in signal.built)
    assert signal.dependent_span > 100


@pytest.mark.parametrize("depth", [6, 10])
def test_plain_residual_doubles_at_each_block(depth):
    graph = Graph()
    x = graph.input(256)
    for _ in range(depth):
        h = graph.activation(graph.linear(x, 256, 2.0), "relu")
        x = graph.sum(x, graph.linear(h, 256, 1.0))
    signal = propagate(graph.facts())
    # branch gain 1 in second moment: (2 q) E relu^2 = q
    assert signal.built[x].q == pytest.approx(2.0**depth, rel=1e-6)
    assert signal.built[0].p == pytest.approx(2.0**depth, rel=1e-6)


def test_pre_norm_residual_grows_linearly():
    graph = Graph()
    x = graph.input(512)
    for _ in range(10):
        h = graph.activation(graph.linear(graph.norm(x), 512, 2.0), "relu")
        x = graph.sum(x, graph.linear(h, 512, 1.0))
    signal = propagate(graph.facts())
    assert signal.built[x].q == pytest.approx(11.0, rel=0.01)
    # gradient at the input: product of 1 + 1/q_l = 11 (THEORY 5.6)
    assert signal.built[0].p == pytest.approx(11.0, rel=0.05)


def test_post_norm_residual_keeps_the_gradient():
    graph = Graph()
    x = graph.input(512)
    for _ in range(10):
        h = graph.activation(graph.linear(x, 512, 2.0), "relu")
        x = graph.norm(graph.sum(x, graph.linear(h, 512, 1.0)))
    signal = propagate(graph.facts())
    assert signal.built[0].p ** 0.1 == pytest.approx(1.0, abs=0.03)


def test_batch_norm_gradient_factor_of_yang_2019():
    graph = Graph(batch=4096)
    x = graph.input(64)
    for _ in range(12):
        x = graph.norm(graph.linear(graph.activation(x, "relu"), 64, 2.0), "batch", n=4096)
    signal = propagate(graph.facts())
    norms = [m for n, m in zip(graph.nodes, signal.built, strict=True) if n.op == "norm"]
    assert norms[3].p / norms[4].p == pytest.approx(math.pi / (math.pi - 1), rel=0.01)


def test_spans_are_taken_beyond_chance():
    narrow = propagate(plain(30, 1.7, width=16).facts())
    wide = propagate(plain(30, 1.7, width=1024).facts())
    assert wide.spans["forward"].raw == pytest.approx(narrow.spans["forward"].raw, rel=0.05)
    assert wide.forward_span > narrow.forward_span
    assert narrow.spans["forward"].noise > 4 * wide.spans["forward"].noise


def test_finite_width_noise_of_hanin_and_rolnick():
    # Var(q_L) / E[q_L]^2 = (1 + 5/n)^L - 1 = .61 for n = 50, L = 5: the log's variance is near 5 L / n
    signal = propagate(plain(5, 2.0, width=50).facts())
    last = [m for n, m in zip(plain(5, 2.0, width=50).nodes, signal.built, strict=True) if n.op == "activation"][-1]
    assert last.noise_q**2 == pytest.approx(5 * 5 / 50, rel=0.1)


def test_functions_of_the_inputs_alone_do_not_differ_from_seed_to_seed():
    # one number for each sample (a noise level): its energy differs between samples, and is the same for every seed
    graph = Graph()
    level = graph.activation(graph.input(1), "relu")
    drawn = graph.activation(graph.linear(level, 64, 2.0), "relu")
    signal = propagate(graph.facts())
    assert signal.built[level].noise_q == 0.0
    assert 0.0 < signal.built[drawn].noise_q ** 2 < 0.2  # 2 / n of the layer, 5 / n of what the function passes on


def test_linear_cost(lines_run: Callable[[Callable[[], object]], int]) -> None:
    def lines(depth: int) -> int:
        facts = plain(depth, 2.0, width=64).facts()
        return lines_run(lambda: propagate(facts))

    propagate(plain(50, 2.0, width=64).facts())  # what is kept after the first time is not of the graph
    assert math.log(lines(4000) / lines(500)) / math.log(8) < 1.1


def test_without_a_graph_there_is_nothing_to_say():

    signal = propagate(ModelFacts("M", "m", "m.py"))
    assert signal.built == ()
    assert signal.forward_span == 0.0


def test_weights_that_hold_nan_make_what_follows_unknown() -> None:
    graph = Graph()
    hidden = graph.linear(graph.input(16), 32)
    broken = graph.linear(hidden, 32, gain=math.nan, name="broken")
    facts = graph.facts(broken)
    built = propagate(facts).built
    assert built[hidden].undetermined is None
    assert built[hidden].q == pytest.approx(1.0)
    assert "NaN" in (built[broken].undetermined or "")


def test_a_bare_parameter_that_nobody_wrote_counts_as_one_and_not_as_zero() -> None:
    graph = Graph()
    hidden = graph.linear(graph.input(16), 32)
    scale = graph.put(Node(len(graph.nodes), "parameter", (), (1,), label="scale", parameters={"value": "scale"}))
    scaled = graph.add("mul", hidden, scale, shape=(8, 32))
    facts = graph.facts(scaled)
    nothing = TensorStats(0, 0.0, 0.0, 0.0, None, 0.0, 0.0, nans=1)
    unwritten = ParameterFacts("scale", "parameter", (1,), "float32", "", "scale", uninitialised=1.0, stats=nothing)
    built = propagate(dataclasses.replace(facts, parameters=(*facts.parameters, unwritten))).built
    assert built[scale].q == 1.0
    assert built[scaled].q == pytest.approx(1.0)
    assert built[hidden].p > 0
