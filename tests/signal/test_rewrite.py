"""Functions, norms and softmax written from primitives become the one op that they are."""

from __future__ import annotations

import pytest
from signal_graphs import Graph

from initlint.signal import propagate
from initlint.signal.rewrite import fuse


def through(build) -> tuple[Graph, int]:
    graph = Graph()
    x = graph.linear(graph.input(64), 64, 1.0)
    return graph, build(graph, x)


def times(graph: Graph, a: int, b: int) -> int:
    return graph.add("mul", a, b, shape=(8, 64))


@pytest.mark.parametrize(
    ("name", "build", "second"),
    [
        ("silu", lambda g, x: times(g, x, g.activation(x, "sigmoid")), 0.355776),
        ("mish", lambda g, x: times(g, x, g.activation(g.activation(x, "softplus"), "tanh")), 0.452342),
        ("square", lambda g, x: times(g, x, x), 3.0),
        ("relu_squared", lambda g, x: g.activation(g.activation(x, "relu"), "square"), 1.5),
        (
            "hardswish",
            lambda g, x: times(
                g, x, g.add("scale", g.activation(g.add("shift", x, shape=(8, 64), value=3.0), "relu6"),
                            shape=(8, 64), factor=1 / 6)
            ),
            0.331567,
        ),
    ],
)  # fmt: skip
def test_activation_from_primitives(name, build, second):
    graph, last = through(build)
    node = fuse(graph.nodes)[last]
    assert node.op == "activation"
    assert node.attrs["fn"] == name
    assert propagate(graph.facts()).built[last].q == pytest.approx(second, rel=2e-4)


def test_gelu_from_primitives():
    def build(g: Graph, x: int) -> int:
        cube = g.activation(x, "pow", exponent=3.0)
        inner = g.sum(x, g.add("scale", cube, shape=(8, 64), factor=0.044715))
        gate = g.activation(g.add("scale", inner, shape=(8, 64), factor=(2 / 3.141592653589793) ** 0.5), "tanh")
        half = g.add("scale", x, shape=(8, 64), factor=0.5)
        return times(g, half, g.add("shift", gate, shape=(8, 64), value=1.0))

    graph, last = through(build)
    assert fuse(graph.nodes)[last].attrs["fn"] == "gelu_tanh"


def test_an_unnamed_function_gets_a_table():
    def build(g: Graph, x: int) -> int:
        return g.activation(g.add("scale", g.activation(x, "square"), shape=(8, 64), factor=-1.0), "exp")

    graph, last = through(build)
    node = fuse(graph.nodes)[last]
    assert node.attrs["fn"] == "callable"
    # E exp(-2 z^2) = 5^-1/2
    assert propagate(graph.facts()).built[last].q == pytest.approx(5**-0.5, rel=2e-3)


def test_skip_around_an_activation_is_one_function():
    graph, last = through(lambda g, x: g.sum(x, g.activation(x, "relu")))
    # (2 z)^2 / 2 + z^2 / 2
    assert propagate(graph.facts()).built[last].q == pytest.approx(2.5, rel=1e-3)


def test_a_sum_of_two_layers_is_left_alone():
    graph, _ = through(lambda g, x: g.sum(g.linear(x, 64), g.linear(x, 64)))
    assert fuse(graph.nodes) == tuple(graph.nodes)


def reduce(graph: Graph, source: int, fn: str) -> int:
    return graph.add("reduce", source, shape=(8, 1), fn=fn, n=64, over="channel", keepdim=True)


def test_rms_norm_from_primitives():
    def build(g: Graph, x: int) -> int:
        mean = g.add("shift", reduce(g, g.activation(x, "square"), "mean"), shape=(8, 1), value=1e-6)
        return times(g, x, g.activation(mean, "rsqrt"))

    graph, last = through(build)
    node = fuse(graph.nodes)[last]
    assert (node.op, node.attrs["kind"], node.attrs["n"], node.attrs["eps"]) == ("norm", "rms", 64.0, 1e-6)
    assert propagate(graph.facts()).built[last].q == pytest.approx(1.0, rel=1e-3)


def test_layer_norm_from_primitives():
    def build(g: Graph, x: int) -> int:
        centred = g.add("sub", x, reduce(g, x, "mean"), shape=(8, 64))
        var = g.add("shift", reduce(g, g.activation(centred, "square"), "mean"), shape=(8, 1), value=1e-5)
        return g.add("div", centred, g.activation(var, "sqrt"), shape=(8, 64))

    graph, last = through(build)
    node = fuse(graph.nodes)[last]
    assert (node.op, node.attrs["kind"], node.inputs) == ("norm", "layer", (1,))


def test_l2_norm_from_primitives():
    graph, last = through(lambda g, x: g.add("div", x, reduce(g, x, "norm"), shape=(8, 64)))
    assert fuse(graph.nodes)[last].attrs["kind"] == "l2"
    assert propagate(graph.facts()).built[last].q == pytest.approx(1 / 64, rel=1e-3)


def test_softmax_from_primitives():
    def build(g: Graph, x: int) -> int:
        low = g.add("sub", x, reduce(g, x, "max"), shape=(8, 64))
        top = g.activation(low, "exp")
        return g.add("div", top, reduce(g, top, "sum"), shape=(8, 64))

    graph, last = through(build)
    node = fuse(graph.nodes)[last]
    assert (node.op, node.inputs, node.attrs["n"]) == ("softmax", (1,), 64.0)


def test_max_pool_sees_the_gaussian_before_its_activation():
    graph = Graph()
    x = graph.activation(graph.input(16, 8, 8), "relu")
    pool = graph.add("pool", x, shape=(8, 16, 4, 4), kind="max", window=4, n_in=64, n_out=16)
    assert fuse(graph.nodes)[pool].inputs == (0,)
    # THEORY 5.4: relu and 2 x 2 max
    assert propagate(graph.facts()).built[pool].q == pytest.approx(1.544, rel=0.01)
