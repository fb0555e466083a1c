"""Published results on signal propagation, from literal graphs: each with its number, its source and a tolerance.

Analytic numbers are met to rounding of what is printed; where a paper gives a measurement, the tolerance is its spread.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from signal_graphs import Graph, parameter, plain

from initlint.facts import Node, Operator, Plain
from initlint.signal import Moments, Signal, propagate
from initlint.signal.diagnostics import class_bias, largest_share
from initlint.signal.moments import State, state
from initlint.signal.recurrent import Bias, Cell, Run, lags, run, transition
from initlint.theory import activations


def of(graph: Graph, op: str, signal: Signal | None = None) -> list[Moments]:
    """Moments of all nodes of one op."""
    found = signal or propagate(graph.facts())
    return [m for n, m in zip(graph.nodes, found.built, strict=True) if n.op == op]


def layers(graph: Graph) -> list[Moments]:
    """Moments of the pre-activations of a plain net, the head left out."""
    return of(graph, "linear")[:-1]


def correlated(graph: Graph, c: float) -> Graph:
    """The graph with inputs of correlation ``c`` between samples."""
    first = graph.nodes[0]
    graph.nodes[0] = replace(first, attrs={**first.attrs, "correlation": c})
    return graph


# -- He et al. 2015, Delving Deep into Rectifiers, arXiv:1502.01852 --------------------------------------------------


def test_he_2015_vgg_b_with_std_001_loses_the_gradient():
    # section 2.2: with sigma = .01 instead of .059, .042, .029, .021 the gradient from conv10 to conv2 is 1 / 1.7e4
    # of what it is; the exact product of 1 / (5.9 4.2^2 2.9^2 2.1^4) is 1 / 17023 (a ratio of standard deviations)
    stds = (0.059, 0.042, 0.042, 0.029, 0.029, 0.021, 0.021, 0.021, 0.021)

    def gradient(scale: list[float]) -> float:
        graph = Graph()
        x = graph.input(64)
        for factor in scale:
            x = graph.activation(graph.linear(x, 64, 2.0 * factor), "relu")
        graph.linear(x, 10, 1.0)
        return propagate(graph.facts()).built[0].p

    ratio = gradient([(0.01 / std) ** 2 for std in stds]) / gradient([1.0] * len(stds))
    assert math.sqrt(1.0 / ratio) == pytest.approx(17023, rel=1e-3)


@pytest.mark.parametrize(("depth", "power"), [(22, -22), (30, -30)])
def test_he_2015_xavier_halves_gradients_as_it_halves_signals(depth, power):
    # section 2.2: 22 layers converge slowly, 30 stall: 2^-22 and 2^-30 of the second moment
    signal = propagate(plain(depth, 1.0).facts())
    he = propagate(plain(depth, 2.0).facts())
    assert math.log2(signal.built[0].p / he.built[0].p) == pytest.approx(power, abs=1e-6)


# -- Glorot and Bengio 2010 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gain", "published"),
    # section 4.2.1: std of tanh activations over five layers, standard U(-1/sqrt n, 1/sqrt n) and normalised init;
    # analytic values for inputs of unit variance, three figures
    [(1 / 3, (0.460, 0.250, 0.141, 0.081, 0.047)), (1.0, (0.628, 0.486, 0.408, 0.358, 0.322))],
)
def test_glorot_2010_tanh_activations(gain, published):
    found = [math.sqrt(m.q) for m in of(plain(5, gain, "tanh"), "activation")]
    assert found == pytest.approx(published, abs=1e-3)


@pytest.mark.parametrize(
    ("gain", "second", "singular"),
    # section 4.2.1: mean singular value of a layer's Jacobian near .5 (standard) and .8 (normalised); 8 / (3 pi) is
    # the mean singular value of a square Gaussian matrix (quarter-circle law)
    [(1 / 3, 1e-8, 0.490), (1.0, 1e-8, 0.849), (1 / 3, 0.09, 0.455), (1.0, 0.25, 0.719)],
)
def test_glorot_2010_jacobian_singular_values(gain, second, singular):
    graph = Graph()
    x = graph.activation(graph.input(256, second=second), "tanh")
    graph.linear(x, 256, gain)
    jacobian = propagate(graph.facts()).built[0].p  # over a unit gradient at the output
    # values by quadrature of tanh'^2 at that std of the input: z -> 0, .3 and .5
    assert 8 / (3 * math.pi) * math.sqrt(jacobian) == pytest.approx(singular, rel=2e-3)


# -- Poole et al. 2016, Schoenholz et al. 2017 (arXiv:1611.01232), Xiao et al. 2018 (arXiv:1806.05393) ---------------

PHASES = [
    # weight variance, q*, chi_1 and, where it is below 1, c*; bias variance .05 (THEORY 7, rows 5 and 6)
    (1.0, 0.1936, 0.7590, None),
    (1.3, 0.3153, 0.8802, None),
    (1.5, 0.4180, 0.9386, None),
    (1.761, 0.5701, 1.0000, None),
    (2.0, 0.7218, 1.0477, 0.7441),
    (2.5, 1.0640, 1.1335, 0.4468),
    (25 / 9, 1.2641, 1.1764, 0.3537),
]


@pytest.mark.parametrize(("weight", "q", "chi", "c"), PHASES)
def test_schoenholz_2017_fixed_points(weight, q, chi, c):
    pre = layers(correlated(plain(150, weight, "tanh", bias=0.05), 0.9))
    assert pre[-1].q == pytest.approx(q, rel=3e-3)
    assert pre[-2].p / pre[-1].p == pytest.approx(chi, rel=3e-3)
    if c is not None:
        assert pre[-1].correlation == pytest.approx(c, abs=4e-3)


@pytest.mark.parametrize(("weight", "scale"), [(1.0, 3.6), (1.3, 7.8), (1.5, 15.8)])
def test_schoenholz_2017_depth_scale_in_the_ordered_phase(weight, scale):
    # xi_c: what differs between inputs falls by e over this many layers; c* = 1
    pre = layers(plain(60, weight, "tanh", bias=0.05))
    rate = pre[-1].dependent / pre[-2].dependent
    assert -1 / math.log(rate) == pytest.approx(scale, rel=0.03)


@pytest.mark.parametrize(
    ("weight", "c_star", "scale"), [(2.0, 0.7441, 25.2), (2.5, 0.4468, 11.8), (25 / 9, 0.3537, 10.0)]
)
def test_schoenholz_2017_depth_scale_in_the_chaotic_phase(weight, c_star, scale):
    found = [m.correlation for m in layers(correlated(plain(600, weight, "tanh", bias=0.05), 0.9))]
    assert found[-1] == pytest.approx(c_star, abs=4e-3)
    away = [abs(c - found[-1]) for c in found[round(3 * scale) : round(5 * scale)]]  # close enough to be linear
    assert (1 - len(away)) / math.log(away[-1] / away[0]) == pytest.approx(scale, rel=0.05)


@pytest.mark.parametrize(("weight", "scale"), [(1.0, 3.6), (1.5, 15.8), (2.0, 21.5), (2.5, 8.0), (25 / 9, 6.2)])
def test_schoenholz_2017_gradient_depth_scale(weight, scale):
    pre = layers(plain(60, weight, "tanh", bias=0.05))
    assert 1 / abs(math.log(pre[-2].p / pre[-1].p)) == pytest.approx(scale, rel=0.03)


def test_gain_five_thirds_of_tanh_is_chaotic():
    # calculate_gain("tanh") squared, no bias: gradients grow 1.2098-fold per layer, 45-fold in 20 layers
    pre = layers(plain(60, 25 / 9, "tanh"))
    assert pre[-1].q == pytest.approx(1.1785, rel=2e-3)
    assert pre[-2].p / pre[-1].p == pytest.approx(1.2098, rel=2e-3)


def test_xiao_2018_thousands_of_layers_at_the_critical_point():
    # delta-orthogonal weights at (sigma_w^2, sigma_b^2) = (1.7610, .05): q* = .5700 and chi_1 = 1 to 1e-4, so that
    # the gradient keeps its scale to a factor e over 10,000 layers; here 4,000
    signal = propagate(plain(4000, 1.7610, "tanh", bias=0.05, orthogonal=True).facts())
    assert signal.built[-3].q == pytest.approx(0.5700, abs=2e-3)
    body = [p.energy for p in signal.profile if p.body and p.energy is not None]
    assert max(body) - min(body) < 1.0


def test_orthogonal_weights_leave_less_to_chance():
    # per layer, 3 E f'^4 / (E f'^2)^2 - 1 over the width for Gaussian weights (Hanin and Nica 2020), 2 less without
    # their own fluctuations: nothing for a linear layer
    noise = {}
    for orthogonal in (True, False):
        for fn in ("tanh", "identity"):
            signal = propagate(plain(100, 1.7610, fn, orthogonal=orthogonal).facts())
            noise[orthogonal, fn] = max(p.noise_p for p in signal.profile if p.body) ** 2
    per_layer = 2 / 256 / math.log(10) ** 2
    assert noise[True, "identity"] < 0.05 * noise[False, "identity"]
    assert noise[False, "tanh"] - noise[True, "tanh"] == pytest.approx(100 * per_layer, rel=0.05)


# -- Klambauer et al. 2017, Self-Normalizing Neural Networks, arXiv:1706.02515 ---------------------------------------


@pytest.mark.parametrize("second", [0.8, 1.0, 1.5])
def test_klambauer_2017_selu_returns_to_zero_mean_and_unit_variance(second):
    graph = Graph()
    x = graph.input(256, second=second)
    for _ in range(50):
        x = graph.activation(graph.linear(x, 256, 1.0), "selu")
    graph.linear(x, 10)
    last = of(graph, "activation")[-1]
    # theorem 1: (mean, variance) = (0, 1) attracts; Q' = .78 at each layer leaves 5e-6 of a deviation after 50
    assert (last.m, last.q) == pytest.approx((0.0, 1.0), abs=1e-4)


# -- Yang et al. 2019, A Mean Field Theory of Batch Normalization, arXiv:1902.08129 ----------------------------------


def test_yang_2019_batch_norm_explodes_gradients_by_pi_over_pi_minus_one():
    graph = Graph(batch=8192)
    x = graph.input(64)
    for _ in range(20):
        x = graph.norm(graph.linear(graph.activation(x, "relu"), 64, 2.0), "batch", n=8192)
    norms = of(graph, "norm")
    per_layer = (norms[5].p / norms[15].p) ** 0.1
    assert per_layer == pytest.approx(math.pi / (math.pi - 1), rel=5e-3)  # 1.467; measured 1.4706


# -- Martens et al. 2021, Rapid Training of Deep Neural Networks without Skips, arXiv:2110.01765 ---------------------


def test_martens_2021_slope_of_the_correlation_map_of_a_rectifier():
    # the code's constant 1.466942206924: C'(1) = E f'^2 / Var f of a ReLU brought to zero mean, at most
    relu = plain(1, 1.0, "relu")
    pre, post = of(relu, "linear")[0], of(relu, "activation")[0]
    slope = 0.5 / (post.q - post.m**2) * pre.q
    assert slope == pytest.approx(1.466942206924, rel=1e-9)
    assert slope == pytest.approx(math.pi / (math.pi - 1), rel=1e-12)


# -- Karras et al. 2024, EDM2, arXiv:2312.02696 ----------------------------------------------------------------------


def test_karras_2024_magnitude_preserving_silu():
    found = of(plain(1, 1.0, "silu"), "activation")[0]
    assert math.sqrt(found.q) == pytest.approx(0.596, abs=5e-4)  # the published code divides by .596


# -- Bingham and Miikkulainen 2023, AutoInit, arXiv:2109.08958 -------------------------------------------------------


@pytest.mark.parametrize("fn", ["relu", "tanh", "gelu", "silu", "elu"])
def test_bingham_2023_weights_by_the_moments_that_come_in_give_unit_variance(fn):
    # weights of variance 1 / (fan_in (mu^2 + var)) of what the activation hands on: q = 1 at every layer
    graph, second = Graph(), activations.moments(fn, None, 0.0, 1.0).second
    x = graph.linear(graph.input(256), 256, 1.0)
    for _ in range(20):
        x = graph.linear(graph.activation(x, fn), 256, 1.0 / second)
    assert [m.q for m in of(graph, "linear")] == pytest.approx([1.0] * 21, rel=1e-3)


# -- Hayou et al. 2019, On the Impact of the Activation Function, arXiv:1902.06853 -----------------------------------


@pytest.mark.parametrize(("depth", "differs"), [(30, 0.0295), (400, 2.60e-4)])
def test_hayou_2019_relu_correlation_converges_like_one_over_depth_squared(depth, differs):
    # 1 - c ~ 9 pi^2 / (2 L^2): 2.78e-4 asymptotically at L = 400, 2.60e-4 when iterated from c = 0
    found = layers(plain(depth, 2.0))[-1]
    assert found.dependent / found.q == pytest.approx(differs, rel=0.03)
    if depth >= 400:
        assert found.dependent / found.q == pytest.approx(9 * math.pi**2 / (2 * depth**2), rel=0.1)


@pytest.mark.parametrize(("depth", "slope"), [(20, 0.1814), (50, 0.4305), (100, 0.5704)])
def test_zhang_2022_tailored_leaky_relu_keeps_inputs_apart(depth, slope):
    # Deep Learning without Shortcuts, arXiv:2203.08120: the slope for which c(0) = .9 after L plain layers
    graph = Graph()
    x = graph.input(256)
    for _ in range(depth):
        x = graph.activation(graph.linear(x, 256, 2 / (1 + slope**2)), "leaky_relu", negative_slope=slope)
    assert propagate(graph.facts()).built[x].correlation == pytest.approx(0.9, abs=2e-3)


# -- Brock et al. 2021, arXiv:2101.08692 and 2102.06171 --------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "published"),
    # gammas of the published code, themselves sampled: .03 to .09 % above the quadrature
    [
        ("relu", 1.713959),
        ("gelu", 1.701504),
        ("silu", 1.788129),
        ("tanh", 1.593912),
        ("sigmoid", 4.803835),
        ("softplus", 1.920332),
        ("elu", 1.271600),
        ("selu", 1.000852),
        ("softsign", 2.338853),
        ("leaky_relu", 1.705903),
    ],
)
def test_brock_2021_gammas(fn, published):
    assert activations.centred_gain(fn) == pytest.approx(published, rel=1.5e-3)


def standardised(graph: Graph, source: int, width: int = 256) -> int:
    """A scaled weight-standardised layer: rows of zero sum and unit energy."""
    operator = Operator(width, width, 1.0, 1.0, width_in=width, width_out=width)
    name = f"ws{len(graph.nodes)}"
    graph.parameters.append(parameter(f"{name}.weight", (width, width), 1 / width))
    return graph.put(
        Node(len(graph.nodes), "linear", (source,), graph.nodes[source].shape, operator=operator,
             parameters={"weight": f"{name}.weight"}, label=name, channel=1)
    )  # fmt: skip


def norm_free(graph: Graph, x: int, beta: float, alpha: float, *, transition: bool) -> int:
    """x + alpha f(x / beta); at a transition the shortcut is a projection of the normalised input."""
    shape = graph.nodes[x].shape
    assert shape is not None

    def active(source: int) -> int:
        return graph.add(
            "scale", graph.activation(source, "relu"), shape=shape, factor=activations.centred_gain("relu")
        )

    h = active(graph.add("scale", x, shape=shape, factor=1 / beta))
    shortcut = standardised(graph, h) if transition else x
    f = standardised(graph, active(standardised(graph, h)))
    return graph.sum(shortcut, graph.add("scale", f, shape=shape, factor=alpha))


def test_brock_2021_variance_grows_by_alpha_squared_and_resets_at_transitions():
    # equations 1 to 3: Var(x_l+1) = Var(x_l) + alpha^2, and 1 + alpha^2 after a transition
    alpha, graph = 0.5, Graph()
    x, expected = graph.input(256), 1.0
    for block in range(12):
        transition = block in (4, 8)
        x = norm_free(graph, x, expected**0.5, alpha, transition=transition)
        expected = (1.0 if transition else expected) + alpha**2
        found = propagate(graph.facts(x)).built[x]
        assert found.q == pytest.approx(expected, rel=1e-2)  # the means of both summands differ from 0 by chance only


def test_batch_normed_residual_net_grows_by_one_per_block():
    # De and Smith 2020, arXiv:2002.10444: pre-activation batch norm; 7.16 +- .2 measured after 6 blocks, 7 in theory
    graph = Graph(batch=4096)
    x = graph.input(256)
    for _ in range(6):
        h = graph.activation(graph.norm(x, "batch", n=4096), "relu")
        x = graph.sum(x, graph.linear(h, 256, 2.0))
    assert propagate(graph.facts(x)).built[x].q == pytest.approx(7.0, rel=0.02)


# -- Radford et al. 2019 (GPT-2) -------------------------------------------------------------------------------------


def gpt2(blocks: int, *, scaled: bool, dim: int = 768, tokens: int = 64) -> tuple[Graph, int]:
    """The residual stream of GPT-2 with N(0, .02^2) weights, and with 1 / sqrt(2 N) on what writes into it."""
    graph = Graph()
    ids = graph.put(Node(0, "input", (), (8, tokens), "int64", {"kind": "index"}, label="ids", channel=None))
    shape = (8, tokens, dim)
    graph.parameters += [parameter("wte.weight", (50257, dim), 0.0004), parameter("wpe", (tokens, dim), 0.0004)]
    table: dict[str, Plain] = {"num": 50257, "dim": dim}
    x = graph.put(
        Node(1, "embedding", (ids,), shape, attrs=table, parameters={"weight": "wte.weight"}, label="wte", channel=2)
    )
    position = graph.put(
        Node(2, "parameter", (), (1, tokens, dim), attrs={"second": 0.0004, "mean": 0.0},
             parameters={"value": "wpe"}, label="wpe", channel=2, batch=None)
    )  # fmt: skip
    x = graph.sum(x, position)
    var = 0.0004
    writer = var / (2 * blocks) if scaled else var
    for _ in range(blocks):
        h = graph.norm(x)
        q, k, v = (graph.linear(h, dim, dim * var) for _ in range(3))
        a = graph.add(
            "attention", q, k, v, shape=shape, heads=12, head_dim=64, queries=tokens, keys=tokens, causal=True
        )
        x = graph.sum(x, graph.linear(a, dim, dim * writer))
        h = graph.activation(graph.linear(graph.norm(x), 4 * dim, dim * var), "gelu")
        x = graph.sum(x, graph.linear(h, dim, 4 * dim * writer))
    return graph, x


@pytest.mark.parametrize(
    ("blocks", "scaled", "published"), [(12, True, 0.0900), (48, True, 0.0928), (12, False, 2.37), (48, False, 9.95)]
)
def test_gpt2_residual_stream(blocks, scaled, published):
    # d = 768, T = 64: independent of N when scaled, linear in N otherwise. Numbers of the full T x T token covariance;
    # averages over tokens, as propagated here, lose up to 10 % of the second moment (.023 decades of std)
    graph, x = gpt2(blocks, scaled=scaled)
    assert propagate(graph.facts(x)).built[x].q == pytest.approx(published, rel=0.11)


def test_gpt2_initial_cross_entropy():
    # tied head N(0, .02^2) on a layer norm: logits of variance 768 * .0004;
    # ln 50257 + .1536 = 10.978 (nanoGPT: 10.9 to 11)
    graph, x = gpt2(2, scaled=True)
    graph.linear(graph.norm(x), 50257, 768 * 0.0004, name="head")
    loss = propagate(graph.facts()).init_loss
    assert loss is not None
    assert loss.expected == pytest.approx(10.825, abs=1e-3)
    assert loss.predicted == pytest.approx(10.978, abs=5e-3)


# -- Francazi et al. 2024, Initial Guessing Bias, arXiv:2306.00809 ---------------------------------------------------


@pytest.mark.parametrize(
    ("rho", "shares"),
    # correlation of logits between inputs: expected largest share of 2, 10 and 100 classes
    [
        (1 / math.pi, (0.69, 0.33, 0.14)),
        (0.5, (0.75, 0.43, 0.23)),
        (0.9, (0.90, 0.73, 0.61)),
        (0.97, (0.94, 0.85, 0.78)),
    ],
)
def test_francazi_2024_table(rho, shares):
    found = [largest_share(rho / (1 - rho), classes) for classes in (2, 10, 100)]
    assert found == pytest.approx(shares, abs=0.015)


def test_francazi_2024_one_rectified_layer_of_two_classes():
    # std of the share of class 0: Var Phi(sqrt(gamma) z) = asin(rho) / (2 pi); theory .2273, measured .2241
    bias = class_bias(propagate(plain(1, 2.0).facts()))
    assert bias is not None
    rho = bias.gamma / (1 + bias.gamma)
    assert math.sqrt(math.asin(rho) / (2 * math.pi)) == pytest.approx(0.2273, abs=2e-3)


def test_francazi_2024_ten_rectified_layers_and_odd_functions():
    deep = class_bias(propagate(two_classes(10, 2.0, "relu").facts()))
    odd = class_bias(propagate(two_classes(10, 1.0, "tanh").facts()))
    assert deep is not None
    assert odd is not None
    assert deep.largest == pytest.approx(0.88, abs=0.015)  # measured .86
    assert odd.largest == pytest.approx(0.5, abs=1e-6)  # odd functions of centred data favour no class


def two_classes(depth: int, gain: float, fn: str) -> Graph:
    graph = Graph()
    x = graph.input(256)
    for _ in range(depth):
        x = graph.activation(graph.linear(x, 256, gain), fn)
    graph.linear(x, 2, 1.0)
    return graph


# -- Hanin and Rolnick 2018, How to Start Training, arXiv:1803.01719 -------------------------------------------------


@pytest.mark.parametrize(("width", "depth", "measured"), [(50, 5, 0.598), (100, 5, 0.276), (400, 20, 0.282)])
def test_hanin_2018_noise_law(width, depth, measured):
    # Var(q_L) / E[q_L]^2 = (1 + 5 / n)^L - 1; of a log-normal variable that is exp(Var ln q) - 1
    assert (1 + 5 / width) ** depth - 1 == pytest.approx(measured, rel=0.03)
    last = of(plain(depth, 2.0, width=width), "activation")[-1]
    assert math.expm1(last.noise_q**2) == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("widths", [(64,) * 8, (16, 64, 256, 16, 64, 256)])
def test_hanin_2018_noise_is_the_sum_of_reciprocal_widths(widths):
    graph = Graph()
    x = graph.input(256)
    for width in widths:
        x = graph.activation(graph.linear(x, width, 2.0), "relu")
    graph.linear(x, 10)
    last = of(graph, "activation")[-1]
    assert last.noise_q**2 == pytest.approx(sum(5 / width for width in widths), rel=0.1)


# -- recurrent layers at torch's default U(-1/sqrt H, 1/sqrt H) ------------------------------------------------------


def cell(kind: str, inputs: int = 128, hidden: int = 256, forget: float = 0.0) -> Cell:
    """Two biases of variance 1 / (3 H) each."""
    default = 1 / (3 * hidden)
    both, one = Bias(0.0, 2 * default), Bias(0.0, default)
    gates = {"lstm": (both, Bias(forget, 2 * default), both, both), "gru": (both, both, one, one)}
    return Cell(kind, hidden, inputs, default, default, gates.get(kind, (both,)))


def settled(layer: Cell, steps: int = 64) -> Run:
    x: State = state(1.0, 0.0, 1.0, 1.0, 1.0)
    return run(layer, x, steps)


def test_rnn_gradient_factor_per_step():
    # Pascanu et al. 2013: E tanh'^2 / 3 per step = .2456 (H = 256, 128 inputs); .2459 measured
    layer = cell("rnn_tanh")
    same, factor, fresh = transition(layer, settled(layer))
    assert (same, fresh) == (0.0, 0.0)
    assert factor == pytest.approx(0.2456, abs=5e-4)
    assert settled(layer).hidden.q == pytest.approx(0.1593, rel=0.02)  # .1602 measured


def test_gru_gradient_factor_per_step():
    # over 6 steps, the same matrices at each: .3285 in theory, .3301 measured
    layer = cell("gru")
    assert lags(*transition(layer, settled(layer)), 7)[6] ** (1 / 6) == pytest.approx(0.3285, rel=0.02)


@pytest.mark.parametrize(("forget", "published"), [(0.0, 0.308), (1.0, 0.5815), (3.0, 0.932)])
def test_lstm_gradient_factor_per_step_of_the_cell(forget, published):
    # over 6 steps of the cell state: measured .3065, .5806 and .934 with a forget bias of 0, 1 and 3; of the first step
    # the gradient passes the forget gate alone
    spread = (2 if forget == 0 else 1) / (3 * 256)
    layer = cell("lstm", forget=forget)
    layer = replace(layer, biases=tuple(Bias(bias.mean, spread) for bias in layer.biases))
    # with a bias of 3 the cell grows for some hundred steps, and its factor falls: .944 after 6 steps, .931 after 20
    done = settled(layer, 20)
    gate = activations.moments("sigmoid", {}, forget, done.gates[1].v).second
    through = gate * lags(*transition(layer, done), 6)[5]
    assert through ** (1 / 6) == pytest.approx(published, rel=0.02)


def test_the_same_matrix_at_each_step_adds_up_coherently():
    # THEORY 5.7: sum over k of C(T, k)^2 d^(2 (T - k)) a^k, 7.0 times what fresh matrices give (d = .5, a = .02, T = 8)
    tied = lags(0.5, 0.02, 0.0, 9)[8]
    fresh = (0.25 + 0.02) ** 8
    assert tied / fresh == pytest.approx(7.0, rel=0.02)
