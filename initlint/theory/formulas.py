"""The formulas of initialisation schemes.

Variances use the effective fans of ``fans.py``. Each scheme carries the line of code that produces it
with PyTorch's own fan rule: ``kaiming_normal_`` only where PyTorch counts right, an explicit ``normal_``
elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import field, replace

from initlint.facts import Layer, Plain
from initlint.records import dataclass
from initlint.theory import activations
from initlint.theory.torch_init import calculate_gain

RELU_LIKE = frozenset(
    [
        "relu",
        "leaky_relu",
        "prelu",
        "rrelu",
        "relu6",
        "threshold",
        "elu",
        "celu",
        "gelu",
        "gelu_tanh",
        "quick_gelu",
        "silu",
        "mish",
        "softplus",
        "hardswish",
        "relu_squared",
        "log1p_relu",
        "snake",
        "clamp",
    ]
)
TANH_LIKE = frozenset(
    ["tanh", "softsign", "arctan", "erf", "hardtanh", "asinh", "tanhshrink", "softshrink", "hardshrink"]
)
SIGMOID_LIKE = frozenset(["sigmoid", "hardsigmoid", "logsigmoid"])
LINEAR_LIKE = frozenset({"identity"})
#: Smooth rectifiers: self-consistent gain and He's are both in use.
SMOOTH = frozenset(["gelu", "gelu_tanh", "quick_gelu", "silu", "mish", "hardswish", "elu", "celu", "softplus", "snake"])
ANY: frozenset[str] = frozenset()

HE = "He et al. 2015, eq. 10 and 14"
GLOROT = "Glorot & Bengio 2010, eq. 12 and 16"
LECUN = "LeCun et al. 1998, section 4.6"
SELU = "Klambauer et al. 2017, eq. 14"
SIREN = "Sitzmann et al. 2020, section 3.2"
SAXE = "Saxe et al. 2014"
GPT2 = "Radford et al. 2019, section 2.3"
#: Standard deviations that transformers and GANs use whatever the width.
TRANSFORMER_STD = 0.02


@dataclass(frozen=True, slots=True)
class Scheme:
    """A recipe for the values of one weight.

    ``std`` and ``var`` are about ``mean``; ``suits`` names the activations it is derived for (empty: none in
    particular). ``template`` is the line of code with ``{w}`` in the place of the weight.
    """

    name: str
    family: str  # normal uniform truncated orthogonal constant zeros dirac identity sparse
    var: float
    template: str
    source: str
    suits: frozenset[str] = ANY
    mean: float = 0.0
    bound: float | None = None
    number: bool = False  # a number of its own, whatever the fans: N(0, 0.02)

    @property
    def backward(self) -> bool:
        """Whether it goes by fan_out alone, which keeps gradients and not the signal."""
        return "fan_out" in self.name

    @property
    def std(self) -> float:
        """Standard deviation about the mean."""
        return math.sqrt(self.var)

    @property
    def call(self) -> str:
        """The line of code for a weight called ``w``."""
        return self.line("w")

    def line(self, weight: str) -> str:
        """The line of code for a weight of that name (``self.fc.weight``)."""
        return self.template.replace("{w}", weight)


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """What decides which schemes suit a layer; see ``facts.Layer`` for the fields."""

    kind: str
    shape: tuple[int, ...]
    fan_in: float | None
    fan_out: float | None
    torch_fans: tuple[int, int] | None = None
    activation: str | None = None
    args: Mapping[str, Plain] = field(default_factory=dict)
    consumer: str | None = None
    before: str | None = None
    branch: bool = False
    head: bool = False
    blocks: int = 1
    stack: int = 1
    pre_scale: float = 1.0
    depth: int | None = None  # number of residual branches of the model, where known
    groups: int = 1

    def __hash__(self) -> int:
        return hash((self.kind, self.shape, self.fan_in, self.fan_out, self.activation, self.consumer))

    @classmethod
    def from_layer(cls, layer: Layer, shape: Iterable[int] | None = None, depth: int | None = None) -> LayerSpec:
        """The specification of a paired layer with a weight of that shape.

        Without a shape it is (out, in) by PyTorch's fans; unknown for convolutions, which have taps.
        """
        if shape is None:
            taps = layer.torch_fans is None or layer.kind in ("conv", "conv_transpose")
            shape = () if taps or layer.torch_fans is None else reversed(layer.torch_fans)
        # what a product scales, another factor may scale back (linear attention: / n before the sum, * n behind it)
        undone = layer.consumer == "gate" and layer.activation is None
        return cls(
            layer.kind,
            tuple(shape),
            layer.fan_in,
            layer.fan_out,
            layer.torch_fans,
            layer.activation,
            layer.activation_args,
            layer.consumer,
            layer.before,
            layer.branch,
            layer.head,
            max(1, len(layer.blocks)),
            layer.stack,
            1.0 if undone else layer.pre_scale,
            depth,
            layer.groups,
        )

    @property
    def interior(self) -> LayerSpec | None:
        """A convolution with the fans of its interior: padding and stride left out, groups counted.

        That is how He's scheme is written and called everywhere; ``None`` for other layers.
        """
        if self.kind != "conv" or self.torch_fans is None:
            return None
        fans = float(self.torch_fans[0]), self.torch_fans[1] / self.groups
        return None if fans == (self.fan_in, self.fan_out) else replace(self, fan_in=fans[0], fan_out=fans[1])

    @property
    def omega(self) -> float:
        """Factor between the layer and the core of its activation (SIREN's omega_0)."""
        inner = self.args.get("omega", 1.0)
        own = float(inner) if isinstance(inner, (int, float)) else 1.0
        # the same factor may be told twice, by the pairing and by the activation's argument
        return own if own == self.pre_scale else own * self.pre_scale


def unique(schemes: Iterable[Scheme]) -> tuple[Scheme, ...]:
    """Without those of the same family and moments as an earlier one."""
    found: dict[tuple[str, float, float], Scheme] = {}
    for scheme in schemes:
        found.setdefault((scheme.family, float(f"{scheme.var:.9g}"), scheme.mean), scheme)
    return tuple(found.values())


def he(spec: LayerSpec, activation: str, args: Mapping[str, Plain]) -> tuple[Scheme, ...]:
    """He fan_in and fan_out with the slope of a leaky rectifier."""
    slope = _slope(activation, args)
    factor = 2.0 / (1.0 + slope * slope)
    nonlinearity = ("leaky_relu", slope) if slope else ("relu", None)
    both: list[Scheme] = []
    for mode in ("fan_in", "fan_out"):
        both += pair(spec, f"He {mode}", factor, mode, HE, RELU_LIKE, nonlinearity)
    return tuple(both)


def lecun(spec: LayerSpec, source: str = LECUN, suits: frozenset[str] | None = None) -> tuple[Scheme, ...]:
    """Variance 1 / F."""
    meant = LINEAR_LIKE | TANH_LIKE | {"selu"} if suits is None else suits
    return pair(spec, "LeCun", 1.0, "fan_in", source, meant, ("linear", None))


def xavier(
    spec: LayerSpec,
    gain: float = 1.0,
    name: str = "Xavier",
    source: str = GLOROT,
    suits: frozenset[str] = LINEAR_LIKE | TANH_LIKE | SIGMOID_LIKE,
) -> tuple[Scheme, ...]:
    """Variance gain^2 2 / (F + B)."""
    fans = (spec.fan_in or 0.0) + (spec.fan_out or 0.0)
    if not fans:
        return ()
    var = gain * gain * 2.0 / fans
    torch = sum(spec.torch_fans) if spec.torch_fans else 0
    said = "" if gain == 1.0 else ', gain=nn.init.calculate_gain("tanh")' if gain == 5.0 / 3.0 else f", gain={gain:g}"
    lines: tuple[str, str] | None = None
    if _same(torch, fans) and spec.pre_scale == 1.0:
        lines = (f"nn.init.xavier_normal_({{w}}{said})", f"nn.init.xavier_uniform_({{w}}{said})")
    return _both(name, var / spec.pre_scale**2, f"{2 * gain * gain:g}", fans, spec, lines, source, suits)


def self_consistent(spec: LayerSpec, activation: str) -> tuple[Scheme, ...]:
    """Variance 1 / (F E f(z)^2): keeps the second moment at 1."""
    gain = activations.gain(activation, spec.args)
    if not math.isfinite(gain):
        return ()
    name = f"self-consistent({activation})"
    return pair(spec, name, gain * gain, "fan_in", f"1 / (fan_in E {activation}(z)^2)", frozenset({activation}), None)


def siren(spec: LayerSpec) -> tuple[Scheme, ...]:
    """Sine layers: U(+-1/F) for the first, U(+-sqrt(6/F)/omega) for hidden ones."""
    omega, fan_in = abs(spec.omega) or 1.0, spec.fan_in or 1.0
    suits = frozenset({"sin"})
    first = Scheme(
        "SIREN first layer",
        "uniform",
        1.0 / (3.0 * fan_in * fan_in),
        f"nn.init.uniform_({{w}}, -1 / {fan_in:g}, 1 / {fan_in:g})",
        SIREN,
        suits,
        bound=1.0 / fan_in,
    )
    bound = math.sqrt(6.0 / fan_in) / omega
    rate = "" if omega == 1.0 else f" / {omega:g}"
    hidden = Scheme(
        "SIREN",
        "uniform",
        bound * bound / 3.0,
        f"nn.init.uniform_({{w}}, -(6 / {fan_in:g}) ** 0.5{rate}, (6 / {fan_in:g}) ** 0.5{rate})",
        SIREN,
        suits,
        bound=bound,
    )
    if spec.before == "input":
        # a first layer sets the frequencies: 1/F by the authors' code, and Fourier features of any scale
        return (first,)
    if omega > 3.0:
        return (hidden,)
    return (hidden, *self_consistent(spec, "sin"), *lecun(spec), *xavier(spec))


def orthogonal(spec: LayerSpec, *gains: float) -> tuple[Scheme, ...]:
    """Orthogonal matrices with these gains: variance gain^2 / max(rows, columns)."""
    if len(spec.shape) < 2 or 0 in spec.shape:
        return ()
    rows = spec.shape[0]
    columns = math.prod(spec.shape) // rows
    found = []
    for gain in gains:
        root = math.sqrt(2.0)
        said = "" if gain == 1.0 else ", gain=2 ** 0.5" if math.isclose(gain, root) else f", gain={gain:.4g}"
        suits = RELU_LIKE if math.isclose(gain, root) else LINEAR_LIKE | TANH_LIKE | {"selu"}
        found.append(
            Scheme(
                f"orthogonal(gain={gain:.4g})",
                "orthogonal",
                gain * gain / max(rows, columns),
                f"nn.init.orthogonal_({{w}}{said})",
                SAXE,
                suits,
            )
        )
    return tuple(found)


def fixed_normal(std: float, source: str, name: str | None = None) -> Scheme:
    """N(0, std^2) whatever the fans."""
    line = f"nn.init.normal_({{w}}, std={std:.4g})"
    return Scheme(name or f"N(0, {std:.4g})", "normal", std * std, line, source, ANY, number=name is None)


def zeros(source: str) -> Scheme:
    """All zero, by intent."""
    return Scheme("zeros", "zeros", 0.0, "nn.init.zeros_({w})", source, ANY, bound=0.0)


def _slope(activation: str, args: Mapping[str, Plain]) -> float:
    if activation not in ("leaky_relu", "prelu", "rrelu"):
        return 0.0
    return activations.bind(activation, args).slope(-1.0)


def pair(
    spec: LayerSpec,
    name: str,
    factor: float,
    mode: str,
    source: str,
    suits: frozenset[str],
    nonlinearity: tuple[str, float | None] | None,
) -> tuple[Scheme, ...]:
    """Normal and uniform with variance ``factor`` / fan."""
    fan = spec.fan_in if mode == "fan_in" else spec.fan_out
    if not fan:
        return ()
    lines = _kaiming_lines(spec, fan, mode, factor, nonlinearity) if nonlinearity is not None else None
    return _both(name, factor / fan / spec.pre_scale**2, f"{factor:.4g}", fan, spec, lines, source, suits)


def _kaiming_lines(
    spec: LayerSpec, fan: float, mode: str, factor: float, nonlinearity: tuple[str, float | None]
) -> tuple[str, str] | None:
    """The ``kaiming_*`` calls that give this variance, if PyTorch counts one of its fans as ``fan``."""
    gain = calculate_gain(*nonlinearity)
    if gain is None or spec.torch_fans is None or spec.pre_scale != 1.0 or not _same(gain * gain, factor):
        return None
    modes = ("fan_in", "fan_out")
    for index in sorted((0, 1), key=lambda i: modes[i] != mode):  # its own mode first
        if _same(spec.torch_fans[index], fan):
            slope = "" if nonlinearity[1] is None else f", a={nonlinearity[1]:g}"
            call = f'({{w}}{slope}, mode="{modes[index]}", nonlinearity="{nonlinearity[0]}")'
            return f"nn.init.kaiming_normal_{call}", f"nn.init.kaiming_uniform_{call}"
    return None


def _both(
    name: str,
    var: float,
    numerator: str,
    fan: float,
    spec: LayerSpec,
    lines: tuple[str, str] | None,
    source: str,
    suits: frozenset[str],
) -> tuple[Scheme, ...]:
    bound = math.sqrt(3.0 * var)
    if lines is None:
        scale = "" if spec.pre_scale == 1.0 else f" / {spec.pre_scale:g}"
        root = f"({numerator} / {fan:.6g}) ** 0.5{scale}"
        wide = f"(3 * {numerator} / {fan:.6g}) ** 0.5{scale}"
        lines = (f"nn.init.normal_({{w}}, std={root})", f"nn.init.uniform_({{w}}, -{wide}, {wide})")
    return (
        Scheme(f"{name} normal", "normal", var, lines[0], source, suits),
        Scheme(f"{name} uniform", "uniform", var, lines[1], source, suits, bound=bound),
    )


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-6)
