"""Forward and backward rule of each op against a simulation of the op on random signals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from signal_graphs import parameter

from initlint.facts import ModelFacts, Node, Operator
from initlint.signal.moments import Grad, State, state
from initlint.signal.scene import Scene
from initlint.signal.table import OPS

torch = pytest.importorskip("torch")
F = torch.nn.functional
pytestmark = pytest.mark.usefixtures("one_thread")


BATCH, POSITIONS, CHANNELS = 16, 36, 48


@dataclass(frozen=True)
class Mix:
    """Second moments of what all share, of what differs by sample, by position, and by both; and a common mean."""

    shared: float = 0.0
    sample: float = 0.0
    position: float = 0.0
    both: float = 1.0
    mean: float = 0.0

    def state(self, kind: str = "gaussian") -> State:
        q = self.shared + self.sample + self.position + self.both + self.mean**2
        u = self.sample + self.position + self.both
        spread = 2.0 / CHANNELS
        return state(q, self.mean, self.sample + self.both, self.position + self.both, u, kind=kind, spread=spread)

    def draw(self, seed: int, batch: int = BATCH, positions: int = POSITIONS, channels: int = CHANNELS):
        g = torch.Generator().manual_seed(seed)

        def part(second, *shape):
            return math.sqrt(second) * torch.randn(*shape, generator=g, dtype=torch.float32)

        x = part(self.shared, 1, 1, channels) + part(self.sample, batch, 1, channels)
        x = x + part(self.position, 1, positions, channels) + part(self.both, batch, positions, channels)
        return x + self.mean


MIXES = [Mix(), Mix(0.5, 0.7, 0.3, 0.4), Mix(0.3, 0.2, 0.0, 0.5, mean=0.4)]


def moments(y) -> tuple[float, float, float, float]:
    """q, d, e and u of [sample, position, channel]."""
    q = float((y * y).mean())
    d = 0.5 * float(((y[1:] - y[:-1]) ** 2).mean())
    e = 0.5 * float(((y[:, 1:] - y[:, :-1]) ** 2).mean()) if y.shape[1] > 1 else 0.0
    u = 0.5 * float(((y[1:, 1:] - y[:-1, :-1]) ** 2).mean()) if y.shape[1] > 1 else d
    return q, d, e, u


def scene_of(*nodes: Node, parameters=()) -> Scene:
    return Scene(nodes, ModelFacts("M", "m", "m.py", parameters=tuple(parameters), nodes=nodes))


def rule(op: str, xs: tuple[State, ...], shape: tuple[int, ...], inputs=None, g: Grad | None = None, **attrs):
    """State and gradients that the rule of an op predicts, on one-op graph."""
    shapes = inputs or [(BATCH, POSITIONS, CHANNELS)] * len(xs)
    sources = [Node(i, "input", shape=s, channel=len(s) - 1) for i, s in enumerate(shapes)]
    node = Node(len(xs), op, tuple(range(len(xs))), shape, attrs=attrs, channel=len(shape) - 1)
    operator = attrs.pop("operator", None)
    if operator is not None:
        node = Node(len(xs), op, tuple(range(len(xs))), shape, attrs=attrs, channel=len(shape) - 1, operator=operator)
    scene = scene_of(*sources, node)
    y = OPS[op].forward(node, xs, scene)
    return y, OPS[op].backward(node, xs, y, g or Grad(1.0), scene)


def simulate(function, *mixes: Mix, draws: int = 12, positions: int = POSITIONS):
    """Mean moments of the output and mean gradient second moments at the inputs."""
    total, grads = [0.0] * 5, [0.0] * len(mixes)
    for seed in range(draws):
        torch.manual_seed(seed)
        xs = [m.draw(100 * seed + i, positions=positions).requires_grad_(True) for i, m in enumerate(mixes)]
        y = function(*xs)
        got = (*moments(y.detach()), float(y.detach().mean()))
        total = [t + v / draws for t, v in zip(total, got, strict=True)]
        (y * torch.randn_like(y)).sum().backward()
        grads = [t + float((x.grad**2).mean()) / draws for t, x in zip(grads, xs, strict=True)]
    return total, grads


def close(y: State, got: list[float], rel: float, *, parts: str = "qdeu") -> None:
    q, d, e, u, mean = got
    for name, predicted, simulated in (("q", y.q, q), ("d", y.d, d), ("e", y.e, e), ("u", y.u, u)):
        if name in parts:
            assert predicted == pytest.approx(simulated, rel=rel, abs=1e-3 * q), name
    assert y.m == pytest.approx(mean, abs=0.06 * math.sqrt(q))


SHAPE = (BATCH, POSITIONS, CHANNELS)


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("fn", ["relu", "tanh", "gelu", "sigmoid", "elu", "leaky_relu"])
def test_activation(fn, mix):
    got, grads = simulate(getattr(F, fn), mix, draws=30)
    y, (g,) = rule("activation", (mix.state(),), SHAPE, fn=fn)
    close(y, got, 0.06)
    assert g.p == pytest.approx(grads[0], rel=0.04)


@pytest.mark.parametrize("mix", MIXES)
def test_linear_from_the_actual_weights(mix):
    torch.manual_seed(1)
    w = torch.randn(64, CHANNELS, dtype=torch.float32) * 0.2 + 0.05
    b = torch.randn(64, dtype=torch.float32) * 0.3
    rows, sums = (w * w).sum(1), w.sum(1)
    operator = Operator(
        CHANNELS, 64, float(rows.mean()), float((w * w).sum(0).mean()), float(sums.mean()),
        float((sums**2).mean()), float((sums * b).mean()), float(b.mean()), float((b * b).mean()),
        width_in=CHANNELS, width_out=64,
    )  # fmt: skip
    got, grads = simulate(lambda x: x @ w.T + b, mix, draws=40)
    y, (g,) = rule("linear", (mix.state(),), (BATCH, POSITIONS, 64), operator=operator)
    close(y, got, 0.08)
    assert g.p == pytest.approx(grads[0], rel=0.03)


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_sum_of_independent_signals(mix, sign):
    other = Mix(0.2, 0.1, 0.4, 0.3, mean=0.5)
    got, _ = simulate(lambda a, b: a + sign * b, mix, other, draws=20)
    y, _ = rule("add" if sign > 0 else "sub", (mix.state(), other.state()), SHAPE)
    close(y, got, 0.05)


def test_sum_of_a_signal_with_itself_is_coherent():
    nodes = (
        Node(0, "input", shape=SHAPE, channel=2),
        Node(1, "scale", (0,), SHAPE, attrs={"factor": -0.5}, channel=2),
        Node(2, "dropout", (1,), SHAPE, attrs={"p": 0.0}, channel=2),
        Node(3, "add", (0, 2), SHAPE, channel=2),
    )
    scene = scene_of(*nodes)
    states: list[State] = [Mix(0.4, 0.3, 0.1, 0.5).state()]
    for node in nodes[1:]:
        states.append(OPS[node.op].forward(node, tuple(states[i] for i in node.inputs), scene))
    assert states[3].q == pytest.approx(0.25 * states[0].q)
    assert states[3].d == pytest.approx(0.25 * states[0].d)


@pytest.mark.parametrize("mix", MIXES)
def test_product_of_independent_signals(mix):
    other = Mix(0.2, 0.3, 0.1, 0.2, mean=0.6)
    got, grads = simulate(lambda a, b: a * b, mix, other, draws=30)
    y, sent = rule("mul", (mix.state(), other.state()), SHAPE)
    close(y, got, 0.07)
    assert [g.p for g in sent] == pytest.approx(grads, rel=0.06)


def test_square_by_isserlis():
    mix = Mix(0.2, 0.3, 0.1, 0.4, mean=0.5)
    got, _ = simulate(lambda a: a * a, mix, draws=30)
    nodes = (Node(0, "input", shape=SHAPE, channel=2), Node(1, "mul", (0, 0), SHAPE, channel=2))
    x = mix.state()
    y = OPS["mul"].forward(nodes[1], (x, x), scene_of(*nodes))
    assert y.q == pytest.approx(got[0], rel=0.06)
    assert y.m == pytest.approx(got[4], rel=0.05)


def test_gated_halves():
    mix = Mix(0.2, 0.1, 0.1, 0.6)
    got, grads = simulate(lambda x: F.glu(x, dim=-1), mix, draws=30)
    y, (g,) = rule("glu", (mix.state(),), (BATCH, POSITIONS, CHANNELS // 2), fn="sigmoid")
    close(y, got, 0.06)
    assert g.p == pytest.approx(grads[0], rel=0.04)


@pytest.mark.parametrize("mix", MIXES)
def test_dropout(mix):
    got, grads = simulate(lambda x: F.dropout(x, 0.3), mix, draws=20)
    y, (g,) = rule("dropout", (mix.state(),), SHAPE, p=0.3, kind="element")
    close(y, got, 0.06)
    assert g.p == pytest.approx(grads[0], rel=0.03)


@pytest.mark.parametrize("mix", MIXES)
def test_average_pool(mix):
    def pool(x):
        return F.avg_pool1d(x.transpose(1, 2), 4).transpose(1, 2)

    got, grads = simulate(pool, mix, draws=30)
    y, (g,) = rule("pool", (mix.state(),), (BATCH, 9, CHANNELS), kind="avg", window=4, n_in=POSITIONS, n_out=9)
    close(y, got, 0.08)
    assert g.p == pytest.approx(grads[0], rel=0.03)


@pytest.mark.parametrize("window", [4, 9])
@pytest.mark.parametrize("mix", [MIXES[0], MIXES[1]])
def test_max_pool(mix, window):
    def pool(x):
        return F.max_pool1d(x.transpose(1, 2), window).transpose(1, 2)

    got, grads = simulate(pool, mix, draws=30)
    out = POSITIONS // window
    y, (g,) = rule("pool", (mix.state(),), (BATCH, out, CHANNELS), kind="max", window=window, n_in=POSITIONS, n_out=out)
    close(y, got, 0.12)
    assert g.p == pytest.approx(grads[0], rel=0.03)


def test_max_pool_after_relu():
    # THEORY 5.4: E of the squared greatest of nine rectified Gaussians is 2.563, its C(0) .861
    y, _ = rule("pool", (Mix().state(),), (BATCH, 4, CHANNELS), kind="max", window=9, n_in=36, n_out=4, fn="relu")
    assert y.q == pytest.approx(2.563, rel=0.01)
    assert 1 - y.d / y.q == pytest.approx(0.861, abs=0.01)


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize(("over", "dim", "n"), [("position", 1, POSITIONS), ("channel", 2, CHANNELS)])
def test_mean_over_an_axis(mix, over, dim, n):
    got, grads = simulate(lambda x: x.mean(dim, keepdim=True), mix, draws=60)
    shape = (BATCH, 1, CHANNELS) if dim == 1 else (BATCH, POSITIONS, 1)
    y, (g,) = rule("reduce", (mix.state(),), shape, fn="mean", n=n, over=over)
    assert y.q == pytest.approx(got[0], rel=0.15)
    assert y.d == pytest.approx(got[1], rel=0.12)
    assert g.p == pytest.approx(grads[0], rel=0.06)


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_norm_over_channels(kind, mix):
    def function(x):
        return F.layer_norm(x, (CHANNELS,)) if kind == "layer" else F.rms_norm(x, (CHANNELS,))

    got, grads = simulate(function, mix, draws=20)
    y, (g,) = rule("norm", (mix.state(),), SHAPE, kind=kind, n=CHANNELS, channels=CHANNELS, eps=1e-5)
    close(y, got, 0.08)
    assert g.p == pytest.approx(grads[0], rel=0.05)


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("kind", ["batch", "instance", "group"])
def test_norm_over_positions(kind, mix):
    def function(x):
        z = x.transpose(1, 2)
        if kind == "batch":
            return F.batch_norm(z, None, None, training=True).transpose(1, 2)
        if kind == "instance":
            return F.instance_norm(z).transpose(1, 2)
        return F.group_norm(z, 6).transpose(1, 2)

    got, grads = simulate(function, mix, draws=20)
    n = {"batch": BATCH * POSITIONS, "instance": POSITIONS, "group": POSITIONS * CHANNELS // 6}[kind]
    y, (g,) = rule("norm", (mix.state(),), SHAPE, kind=kind, n=n, channels=CHANNELS, groups=6, eps=1e-5)
    close(y, got, 0.12)
    assert g.p == pytest.approx(grads[0], rel=0.15)


def test_epsilon_dominated_norm_is_a_linear_gain():
    x = state(1e-6, 0.0, 1e-6, 1e-6, 1e-6)
    y, _ = rule("norm", (x,), SHAPE, kind="layer", n=CHANNELS, eps=1e-5)
    assert y.q == pytest.approx(1e-6 / 1.1e-5, rel=0.03)


def test_l2_norm():
    y, _ = rule("norm", (Mix().state(),), SHAPE, kind="l2", n=64, eps=0.0)
    assert y.q == pytest.approx(1 / 64)


def test_batch_norm_in_eval_mode_is_the_identity():
    y, _ = rule("norm", (Mix(mean=0.5).state(),), SHAPE, kind="batch", n=100, eps=1e-5, training=False)
    assert y.q == pytest.approx(1.25, rel=1e-4)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("scale", [0.2, 1.0])
def test_attention(causal, scale):
    query, key, value = Mix(), Mix(), Mix(0.0, 0.3, 0.0, 0.7)
    size = scale / math.sqrt(CHANNELS)

    def function(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=size)

    got, grads = simulate(function, query, key, value, draws=20)
    y, sent = rule(
        "attention", (query.state(), key.state(), value.state()), SHAPE, head_dim=CHANNELS, heads=1,
        queries=POSITIONS, keys=POSITIONS, causal=causal, scale=size,
    )  # fmt: skip
    assert y.q == pytest.approx(got[0], rel=0.06)
    assert y.d == pytest.approx(got[1], rel=0.08)
    assert sent[2].p == pytest.approx(grads[2], rel=0.12)


def test_attention_written_by_hand_is_the_fused_one():
    q, k, v = Mix(), Mix(), Mix(0.0, 0.3, 0.0, 0.7)
    n, t = CHANNELS, POSITIONS
    nodes = (
        Node(0, "input", shape=SHAPE, channel=2),
        Node(1, "input", shape=SHAPE, channel=2),
        Node(2, "input", shape=SHAPE, channel=2),
        Node(3, "matmul", (0, 1), (BATCH, t, t), attrs={"kind": "logits", "contraction": n}, channel=2),
        Node(4, "scale", (3,), (BATCH, t, t), attrs={"factor": n**-0.5}, channel=2),
        Node(5, "softmax", (4,), (BATCH, t, t), attrs={"n": t}, channel=2),
        Node(6, "matmul", (5, 2), SHAPE, attrs={"kind": "values", "contraction": t}, channel=2),
    )
    scene = scene_of(*nodes)
    states = [q.state(), k.state(), v.state()]
    for node in nodes[3:]:
        states.append(OPS[node.op].forward(node, tuple(states[i] for i in node.inputs), scene))
    fused, _ = rule(
        "attention", (q.state(), k.state(), v.state()), SHAPE, head_dim=n, heads=10**6, queries=t, keys=t,
        causal=False, scale=n**-0.5,
    )  # fmt: skip
    assert states[6].q == pytest.approx(fused.q, rel=0.01)


def test_softmax_over_channels():
    mix = Mix(0.0, 0.0, 0.0, 1.0)
    got, grads = simulate(lambda x: x.softmax(-1), mix, draws=10)
    y, (g,) = rule("softmax", (mix.state(),), SHAPE, n=CHANNELS)
    assert y.q == pytest.approx(got[0], rel=0.05)
    assert y.m == pytest.approx(1 / CHANNELS)
    assert g.p == pytest.approx(grads[0], rel=0.1)  # approximate third moment


def test_running_sum():
    got, grads = simulate(lambda x: x.cumsum(1), Mix(), draws=20)
    y, (g,) = rule("cumsum", (Mix().state(),), SHAPE, n=POSITIONS)
    assert y.q == pytest.approx(got[0], rel=0.05)
    assert g.p == pytest.approx(grads[0], rel=0.05)


@pytest.mark.parametrize("mix", MIXES)
def test_interpolation(mix):
    def function(x):
        return F.interpolate(x.transpose(1, 2), scale_factor=2, mode="linear").transpose(1, 2)

    got, grads = simulate(function, mix, draws=30)
    shape = (BATCH, 2 * POSITIONS, CHANNELS)
    y, (g,) = rule(
        "resize", (mix.state(),), shape, mode="linear", n_in=POSITIONS, n_out=2 * POSITIONS, gain_white=0.625,
        back_white=1.25,
    )  # fmt: skip
    assert y.q == pytest.approx(got[0], rel=0.05)
    assert y.d == pytest.approx(got[1], rel=0.05)
    assert g.p == pytest.approx(grads[0], rel=0.05)


def test_concatenation_of_channels():
    a, b = Mix(), Mix(0.2, 0.3, 0.1, 0.2, mean=0.4)
    got, _ = simulate(lambda x, y: torch.cat((x, y), -1), a, b, draws=20)
    y, _ = rule(
        "cat", (a.state(), b.state()), (BATCH, POSITIONS, 2 * CHANNELS), axis="channel", sizes=[CHANNELS, CHANNELS]
    )
    close(y, got, 0.06)


def test_embedding():
    torch.manual_seed(0)
    table = torch.randn(500, CHANNELS, dtype=torch.float32)
    ids = torch.randint(0, 500, (BATCH, POSITIONS))
    q, d, e, _ = moments(table[ids])
    fact = parameter("t", (500, CHANNELS), float((table**2).mean()), float(table.mean()))
    node = Node(1, "embedding", (0,), SHAPE, attrs={"num": 500, "dim": CHANNELS}, parameters={"weight": "t"}, channel=2)
    source = Node(0, "input", shape=(BATCH, POSITIONS), attrs={"kind": "index"})
    y = OPS["embedding"].forward(node, (State(1.0, kind="index"),), scene_of(source, node, parameters=[fact]))
    assert y.q == pytest.approx(q, rel=0.02)
    assert y.d == pytest.approx(d, rel=0.03)
    assert y.e == pytest.approx(e, rel=0.03)


def test_lstm_default():
    # THEORY 5.7: H = 64, in = 32; against a simulation
    hidden, size, steps = 64, 32, 24
    torch.manual_seed(0)
    got = 0.0
    for _ in range(8):
        layer = torch.nn.LSTM(size, hidden, batch_first=True)
        with torch.no_grad():
            got += float((layer(torch.randn(64, steps, size))[0] ** 2).mean()) / 8
    third = 1 / (3 * hidden)
    y, _ = rule(
        "recurrent", (state(1.0, 0.0, 1.0, 1.0, 1.0),), (64, steps, hidden), inputs=[(64, steps, size)], cell="lstm",
        hidden=hidden, layers=1, steps=steps, second_ih=[third], second_hh=[third],
        bias_ih_gates=[[0.0, third] * 4], bias_hh_gates=[[0.0, third] * 4], input_size=[size],
    )  # fmt: skip
    assert y.q == pytest.approx(got, rel=0.06)


@pytest.mark.parametrize("cell", ["gru", "rnn_tanh"])
def test_gru_and_rnn_default(cell):
    hidden, size, steps = 64, 32, 24
    torch.manual_seed(0)
    cls = torch.nn.GRU if cell == "gru" else torch.nn.RNN
    got = back = 0.0
    for _ in range(8):
        layer = cls(size, hidden, batch_first=True)
        x = torch.randn(64, steps, size, requires_grad=True)
        out = layer(x)[0]
        got += float((out.detach() ** 2).mean()) / 8
        (out * torch.randn_like(out)).sum().backward()
        back += float((x.grad**2).mean()) / 8
    third, gates = 1 / (3 * hidden), 3 if cell == "gru" else 1
    y, sent = rule(
        "recurrent", (state(1.0, 0.0, 1.0, 1.0, 1.0),), (64, steps, hidden), inputs=[(64, steps, size)], cell=cell,
        hidden=hidden, layers=1, steps=steps, second_ih=[third], second_hh=[third],
        bias_ih_gates=[[0.0, third] * gates], bias_hh_gates=[[0.0, third] * gates], input_size=[size],
    )  # fmt: skip
    assert y.q == pytest.approx(got, rel=0.06)
    assert sent[0].p == pytest.approx(back, rel=0.2)


def test_every_op_of_the_vocabulary_has_a_rule():
    from pathlib import Path

    page = Path(__file__).resolve().parents[2] / "docs" / "ops.md"
    rows = [line.split("|")[1] for line in page.read_text().splitlines() if line.startswith("| `")]
    ops = {word.strip("` ") for row in rows for word in row.split()}
    assert len(ops) > 35
    assert ops <= set(OPS)


def test_cross_entropy_inside_forward():
    torch.manual_seed(0)
    logits = (1.5 * torch.randn(64, 10)).requires_grad_(True)
    targets = torch.randint(0, 10, (64,))
    value = F.cross_entropy(logits, targets)
    value.backward()
    y, (g,) = rule(
        "loss", (state(2.25, 0.0, 2.25, 2.25, 2.25),), (), inputs=[(64, 10)], kind="cross_entropy", classes=10
    )
    assert y.m == pytest.approx(float(value.detach()), rel=0.1)
    assert g.p == pytest.approx(float((logits.grad**2).mean()), rel=0.1)


def test_grouped_rows_of_unequal_energy_before_a_batch_norm():
    # depthwise: the scale of each channel is divided out and comes back with its weights
    torch.manual_seed(0)
    scale = torch.randn(1, 64, 1).abs() + 0.3
    x = torch.randn(32, 64, 50, requires_grad=True)
    z = x * scale
    z.retain_grad()
    y = F.batch_norm(z, None, None, training=True)
    (y * torch.randn_like(y)).sum().backward()
    energy = scale.flatten() ** 2
    harmonic = float((1.0 / energy).mean() * energy.mean())
    state_z = state(float(energy.mean()), 0.0, float(energy.mean()), float(energy.mean()), float(energy.mean()))
    nodes = (Node(0, "input", shape=(32, 50, 64), channel=2), Node(1, "norm", (0,), (32, 50, 64), channel=2,
             attrs={"kind": "batch", "n": 1600, "eps": 0.0, "training": True}))  # fmt: skip
    from dataclasses import replace

    given = replace(state_z, harmonic=harmonic)
    scene = scene_of(*nodes)
    out = OPS["norm"].forward(nodes[1], (given,), scene)
    (g,) = OPS["norm"].backward(nodes[1], (given,), out, Grad(1.0), scene)
    assert float((x.grad**2).mean()) == pytest.approx(g.through * float(energy.mean()), rel=0.03)
    assert float((z.grad**2).mean()) == pytest.approx(g.p, rel=0.03)
