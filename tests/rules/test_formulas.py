"""Fans miscounted and formulas misapplied, as code writes them, beside siblings that are right."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import initlint
from initlint.findings import Severity

Init = Callable[[Any], object]


class PerHead(nn.Module):
    """Projections stacked over heads, in and out."""

    def __init__(self, init: Init, dim: int = 64, heads: int = 8) -> None:
        super().__init__()
        self.into = nn.Parameter(torch.empty(heads, dim, dim // heads))
        self.out = nn.Parameter(torch.empty(heads, dim // heads, dim))
        init(self.into)
        init(self.out)
        self.head = nn.Linear(dim, 5)

    def forward(self, x: Tensor) -> Tensor:
        z = torch.einsum("btd,hdk->bthk", x, self.into)
        return self.head(torch.relu(torch.einsum("bthk,hkd->btd", z, self.out)))


class Experts(nn.Module):
    """Two matrices for each expert."""

    def __init__(self, init: Init, count: int = 8, dim: int = 56, wide: int = 80) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, count)
        self.up, self.down = nn.Parameter(torch.empty(count, dim, wide)), nn.Parameter(torch.empty(count, wide, dim))
        init(self.up)
        init(self.down)
        self.head = nn.Linear(dim, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.einsum("bd,edf->ebf", x, self.up).relu()
        return self.head(torch.einsum("ebd,be->bd", torch.bmm(h, self.down), self.gate(x).softmax(-1)))


class Bases(nn.Module):
    """Relation matrices that are mixtures of a few bases."""

    def __init__(self, init: Init) -> None:
        super().__init__()
        self.basis, self.mix = nn.Parameter(torch.empty(4, 48, 48)), nn.Parameter(torch.empty(6, 4))
        init(self.basis)
        nn.init.xavier_uniform_(self.mix)
        self.head = nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.einsum("ni,rio->rno", x, torch.einsum("rb,bio->rio", self.mix, self.basis))
        return self.head(torch.relu(h.mean(0)))


class Products(nn.Module):
    """x @ w with weights stored (in, out)."""

    def __init__(self, init: Init, wide: int = 512, narrow: int = 32) -> None:
        super().__init__()
        self.down, self.up = nn.Parameter(torch.empty(wide, narrow)), nn.Parameter(torch.empty(narrow, wide))
        init(self.down)
        init(self.up)
        self.head = nn.Linear(wide, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(torch.relu(x @ self.down) @ self.up))


def depthwise(init: Init, groups: int = 32) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU()]
    for _ in range(5):
        deep, point = nn.Conv2d(32, 32, 3, padding=1, groups=groups, bias=False), nn.Conv2d(32, 32, 1, bias=False)
        init(deep)
        nn.init.kaiming_normal_(point.weight)
        layers += [deep, nn.ReLU(), point, nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5))


def decoder(init: Init) -> nn.Module:
    layers: list[nn.Module] = []
    for a, b in ((144, 48), (48, 24), (24, 16)):
        up = nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False)
        init(up)
        layers += [up, nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(16, 3, 3, padding=1))


def mlp(init: Init, act: Callable[[], nn.Module] = nn.ReLU, widths: tuple[int, ...] = (40, 96, 64, 88, 56, 72)) -> Any:
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        linear = nn.Linear(a, b)
        init(linear)
        nn.init.zeros_(linear.bias)
        layers += [linear, act()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 5))


def clips(init: Init, kernel: tuple[int, ...] = (3, 3, 3)) -> nn.Module:
    """Plain convolutions of clips; of images where the kernel has two axes."""
    conv: Any = nn.Conv3d if len(kernel) == 3 else nn.Conv2d
    layers: list[nn.Module] = []
    for a, b in ((3, 16), (16, 24), (24, 32)):
        layers += [conv(a, b, kernel, padding=tuple(k // 2 for k in kernel)), nn.ReLU()]
        init(layers[-2])
        nn.init.zeros_(layers[-2].get_parameter("bias"))
    pool: nn.Module = nn.AdaptiveAvgPool3d(1) if len(kernel) == 3 else nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*layers, pool, nn.Flatten(), nn.Linear(32, 5))


class Cell(nn.Module):
    """An LSTM with weights (in, 4 H), unrolled by hand."""

    def __init__(self, init: Init, size: int = 12, hidden: int = 48) -> None:
        super().__init__()
        self.hidden = hidden
        self.into, self.within = (
            nn.Parameter(torch.empty(size, 4 * hidden)),
            nn.Parameter(torch.empty(hidden, 4 * hidden)),
        )
        self.bias = nn.Parameter(torch.zeros(4 * hidden))
        init(self.into)
        init(self.within)
        self.head = nn.Linear(hidden, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.shape[0], self.hidden)
        for t in range(x.shape[1]):
            i, f, g, o = (x[:, t] @ self.into + h @ self.within + self.bias).chunk(4, dim=-1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.head(h)


def each_gate(call: Init) -> Init:
    return lambda w: [call(gate) for gate in w.data.chunk(4, 1)]


def efficient(init: Init) -> nn.Module:
    model = mlp(lambda m: nn.init.kaiming_normal_(m.weight))
    init(model[-1])
    return model


def _tensor(of: Any) -> Tensor:
    return of if isinstance(of, Tensor) else of.weight


def normal(std: Callable[[Any], float]) -> Init:
    return lambda m: nn.init.normal_(_tensor(m), 0.0, std(m))


def uniform(bound: Callable[[Any], float]) -> Init:
    return lambda m: nn.init.uniform_(_tensor(m), -bound(m), bound(m))


def shifted(m: nn.Linear) -> object:
    bound = m.in_features**-0.5
    return nn.init.normal_(m.weight, -bound, bound)


def each(call: Init) -> Init:
    def init(stack: Tensor) -> None:
        for index in range(len(stack)):
            call(stack[index])

    return init


BATCH = {
    "PerHead": (4, 6, 64), "Experts": (16, 56), "Bases": (20, 48), "Products": (8, 512),
    "Cell": (4, 6, 12), "clips": (2, 3, 8, 12, 12), "depthwise": (2, 3, 16, 16),
    "decoder": (2, 144, 6, 6), "mlp": (16, 40),
}  # fmt: skip

#: what it is -> (builder, code, parameter that is named)
WRONG: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "xavier on heads": (lambda: PerHead(nn.init.xavier_uniform_), "IL106", "out"),
    "experts as inputs": (lambda: Experts(normal(lambda w: math.sqrt(2 / (8 * w.shape[1])))), "IL106", "up"),
    "bound by the number of experts": (lambda: Experts(uniform(lambda w: len(w) ** -0.5)), "IL106", "up"),
    "xavier on bases": (lambda: Bases(nn.init.xavier_uniform_), "IL106", "basis"),
    "fan of the outputs": (lambda: Products(normal(lambda w: math.sqrt(2 / w.shape[1]))), "IL106", "down"),
    "all groups, out": (lambda: depthwise(normal(lambda m: math.sqrt(2 / (9 * m.out_channels)))), "IL105", "2.weight"),
    "all groups, in": (lambda: depthwise(normal(lambda m: math.sqrt(2 / (9 * m.in_channels))), 4), "IL105", "2.weight"),
    "stride left out": (lambda: decoder(normal(lambda m: math.sqrt(2 / (16 * m.in_channels)))), "IL106", "0.weight"),
    "bound without root": (
        lambda: mlp(uniform(lambda m: 6 / (m.in_features + m.out_features)), nn.Tanh), "IL108", "0.weight",
    ),
    "divided by the fan": (lambda: mlp(lambda m: m.weight.data.normal_().div_(m.in_features)), "IL108", "0.weight"),
    "root of the root": (lambda: mlp(normal(lambda m: (2 / m.in_features) ** 0.25)), "IL112", "0.weight"),
    "bound as std": (lambda: mlp(normal(lambda m: math.sqrt(6 / m.in_features))), "IL112", "0.weight"),
    "std as bound": (lambda: mlp(uniform(lambda m: math.sqrt(2 / m.in_features))), "IL112", "0.weight"),
    "sum without brackets": (
        lambda: mlp(normal(lambda m: math.sqrt(2 / m.in_features + m.out_features)), nn.Tanh), "IL112", "0.weight",
    ),
    "truncated, std as mean": (lambda: mlp(lambda m: nn.init.trunc_normal_(m.weight, 0.02)), "IL109", "0.weight"),
    "gain alone": (lambda: mlp(normal(lambda m: nn.init.calculate_gain("relu"))), "IL112", "0.weight"),
    "std as mean": (lambda: mlp(lambda m: nn.init.normal_(m.weight, 0.02)), "IL109", "0.weight"),
    "bounds as moments": (lambda: mlp(shifted), "IL109", "0.weight"),
    "outputs in PyTorch's bound": (lambda: mlp(uniform(lambda m: m.weight.size(0) ** -0.5)), "IL106", "0.weight"),
    "two axes of three": (
        lambda: clips(normal(lambda m: math.sqrt(2 / (m.kernel_size[0] * m.kernel_size[1] * m.out_channels)))),
        "IL106", "2.weight",
    ),
    "two axes of three, inputs": (
        lambda: clips(normal(lambda m: math.sqrt(2 / (math.prod(m.kernel_size[:2]) * m.in_channels))), (5, 5, 5)),
        "IL106", "2.weight",
    ),
    "one axis of two": (
        lambda: clips(normal(lambda m: math.sqrt(2 / (m.kernel_size[0] * m.out_channels))), (5, 5)),
        "IL106", "2.weight",
    ),
    "bound of an image's kernel": (
        lambda: clips(normal(lambda m: math.sqrt(6 / m.weight[0].numel())), (3, 3)), "IL112", "0.weight",
    ),
    "gates side by side": (lambda: Cell(nn.init.xavier_uniform_), "IL107", "into"),
    "orthogonal gates side by side": (lambda: Cell(nn.init.orthogonal_), "IL302", "within"),
}  # fmt: skip

RIGHT: dict[str, Callable[[], nn.Module]] = {
    "heads by dim": lambda: PerHead(normal(lambda w: 64**-0.5)),
    "experts by dim": lambda: Experts(normal(lambda w: math.sqrt(2 / w.shape[1]))),
    "each expert": lambda: Experts(each(lambda w: nn.init.kaiming_normal_(w.T))),
    "each basis": lambda: Bases(each(nn.init.xavier_uniform_)),
    "fan of the inputs": lambda: Products(normal(lambda w: math.sqrt(2 / w.shape[0]))),
    "fan_out of (in, out)": lambda: Products(lambda w: nn.init.kaiming_normal_(w, mode="fan_out")),
    "own group": lambda: depthwise(normal(lambda m: math.sqrt(2 * m.groups / (9 * m.out_channels)))),
    "stride counted": lambda: decoder(normal(lambda m: math.sqrt(2 / (4 * m.in_channels)))),
    "He's backward mode": lambda: decoder(normal(lambda m: math.sqrt(2 / (16 * m.out_channels)))),
    "He normal": lambda: mlp(normal(lambda m: math.sqrt(2 / m.in_features))),
    "He uniform": lambda: mlp(uniform(lambda m: math.sqrt(6 / m.in_features))),
    "Glorot": lambda: mlp(uniform(lambda m: math.sqrt(6 / (m.in_features + m.out_features))), nn.Tanh),
    "EfficientNet's head": lambda: efficient(uniform(lambda m: m.out_features**-0.5)),
    "DDPG": lambda: mlp(uniform(lambda m: m.in_features**-0.5)),
    "all taps": lambda: clips(normal(lambda m: math.sqrt(2 / (m.out_channels * math.prod(m.kernel_size))))),
    "all taps of an image": lambda: clips(normal(lambda m: math.sqrt(2 / m.weight[0].numel())), (5, 5)),
    "each gate": lambda: Cell(each_gate(nn.init.xavier_uniform_)),
    "each gate orthogonal": lambda: Cell(each_gate(nn.init.orthogonal_)),
    "a cell by its hidden size": lambda: Cell(uniform(lambda w: 48**-0.5)),
    "0.05 is 2 / 40 by chance": lambda: mlp(normal(lambda m: 0.05), widths=(40, 40, 40)),
}


def four_times(build: Callable[[], nn.Module], at: int) -> nn.Module:
    net = build()
    with torch.no_grad():
        net[at].weight.mul_(4)  # type: ignore[index]
    return net


def chance_third(layers: int = 3) -> nn.Module:
    """sqrt(2 / (9 out)) with kernels of 27 taps is (3 * 2 / fan_out) ** 0.5 as well."""
    net: list[nn.Module] = []
    for a, b in itertools.pairwise((3, 24, 24, 32)[: layers + 1]):
        conv = nn.Conv3d(a, b, 3, padding=1)
        n = conv.kernel_size[0] * conv.kernel_size[1] * conv.out_channels
        conv.weight.data.normal_(0, math.sqrt(2.0 / n))
        net += [conv, nn.ReLU()]
    return nn.Sequential(*net, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(32, 5))


def sixteen() -> nn.Module:
    """16 / sqrt(128) is sqrt(2), ReLU's gain, and its root is in the line."""
    net = mlp(lambda m: None, nn.Tanh, (128,) * 5)
    for m in net:
        if isinstance(m, nn.Linear):
            nn.init.normal_(m.weight, std=16 / math.sqrt(m.in_features))
    return net


#: One number that equals a formula by chance is no evidence: 4 / sqrt(128) is (2 / 128) ** 0.25.
CHANCE: dict[str, Callable[[], Any]] = {
    "four times LeCun": lambda: initlint.check(
        lambda: four_times(lambda: mlp(normal(lambda m: m.in_features**-0.5), nn.SELU, (128,) * 5), 4),
        inputs=(torch.randn(16, 128),),
    ),
    "a gain of four": lambda: initlint.check(
        lambda: mlp(normal(lambda m: 4 / math.sqrt(m.in_features)), nn.Tanh, (128,) * 5), inputs=(torch.randn(16, 128),)
    ),
    "a gain of sixteen, which leaves the root of two": lambda: initlint.check(sixteen, inputs=(torch.randn(16, 128),)),
    "an axis of three taps": lambda: initlint.check(chance_third, inputs=(torch.randn(2, 3, 4, 8, 8),)),
}


@pytest.mark.parametrize("name", CHANCE)
def test_coincidence_is_no_cause(name: str) -> None:
    found = CHANCE[name]()
    assert found.models
    assert not [f.message for f in found.findings if f.code in ("IL108", "IL112")]


def check(build: Callable[[], nn.Module]) -> Any:
    torch.manual_seed(0)
    kind = type(build()).__name__
    if kind == "Sequential":
        first = build()[0]  # type: ignore[index]
        kind = "mlp" if isinstance(first, nn.Linear) else "decoder" if hasattr(first, "output_padding") else "depthwise"
        kind = "clips" if isinstance(first, nn.Conv3d) else kind
        kind = "depthwise" if isinstance(first, nn.Conv2d) else kind
    return initlint.check(build, inputs=(torch.randn(BATCH[kind]),), seed=0)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_formula_is_named(name: str) -> None:
    build, code, parameter = WRONG[name]
    found = [f for f in check(build).findings if f.code == code and f.severity >= Severity.WARNING]
    assert any(parameter in f.parameters for f in found)
    assert all(f.fix for f in found)


@pytest.mark.parametrize("name", RIGHT)
def test_right_formula_is_silent(name: str) -> None:
    assert not [f.message for f in check(RIGHT[name]).findings if f.severity >= Severity.WARNING]


def test_a_norm_behind_the_next_layer_hides_the_count() -> None:
    def separable() -> nn.Module:
        layers: list[nn.Module] = []
        for channels in (3, 32, 32):
            deep = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
            nn.init.kaiming_normal_(deep.weight, mode="fan_out")
            layers += [deep, nn.Conv2d(channels, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5))

    found = [f for f in initlint.check(separable, inputs=(torch.randn(2, 3, 16, 16),)).findings if f.code == "IL105"]
    assert found
    assert all(f.severity == Severity.NOTE for f in found)


def by_outputs(linear: nn.Linear) -> tuple[float, float]:
    count = linear.weight.size(0)
    limit = 1 / math.sqrt(count)
    return -limit, limit


def std_as_bound(linear: nn.Linear) -> tuple[float, float]:
    count = linear.weight.size(1)
    limit = math.sqrt(2 / count)
    return -limit, limit


class Wide(nn.Module):
    """Layers that are drawn in a line each, with bounds from one helper."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(8, 400), nn.Linear(400, 300), nn.Linear(300, 2)
        self.reset()

    def reset(self) -> None:
        self.first.weight.data.uniform_(*by_outputs(self.first))
        self.second.weight.data.uniform_(*by_outputs(self.second))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))))


class Narrow(Wide):
    """The same with a std in the bound's place."""

    def reset(self) -> None:
        self.first.weight.data.uniform_(*std_as_bound(self.first))
        self.second.weight.data.uniform_(*std_as_bound(self.second))


@pytest.mark.parametrize(("build", "code", "line"), [(Wide, "IL106", "count = "), (Narrow, "IL112", "limit = ")])
def test_one_finding_at_the_line_of_the_helper(build: type[nn.Module], code: str, line: str) -> None:
    result = initlint.check(build, inputs=(torch.randn(16, 8),), seed=0)
    (found,) = [f for f in result.findings if f.code == code]
    assert found.parameters == ("first.weight", "second.weight")
    assert found.site is not None
    assert found.site.text.startswith(line)
    assert len([place for place in found.related if place.role == "used here"]) == 2


class Block(nn.Module):
    """Attention whose projections are kernels of three axes, and a perceptron, over a residual stream."""

    def __init__(self, init: Init, dim: int = 128, heads: int = 8, wide: int = 256) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(dim), nn.LayerNorm(dim)])
        self.value = nn.Parameter(torch.empty(dim, heads, dim // heads))
        self.out = nn.Parameter(torch.empty(heads, dim // heads, dim))
        self.up, self.down = nn.Parameter(torch.empty(dim, wide)), nn.Parameter(torch.empty(wide, dim))
        for weight in (self.value, self.out, self.up, self.down):
            init(weight)

    def forward(self, x: Tensor) -> Tensor:
        v = torch.einsum("btd,dhk->bthk", self.norms[0](x), self.value)
        x = x + torch.einsum("bthk,hkd->btd", v, self.out)
        return x + nn.functional.gelu(self.norms[1](x) @ self.up) @ self.down


class Blocks(nn.Module):
    def __init__(self, init: Init, depth: int = 3) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(init) for _ in range(depth)))
        self.head = nn.Linear(128, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x))


def _as_keras_reads(weight: Any) -> None:
    around = math.prod(weight.shape[:-2])
    limit = math.sqrt(6.0 / (around * (weight.shape[-2] + weight.shape[-1])))
    weight.data.uniform_(-limit, limit)


def test_kernels_of_three_axes_read_as_a_convolution() -> None:
    """The stds of the two writers differ by sqrt(3) over three blocks: by the fans, and not for depth (IL306)."""
    report = initlint.check(lambda: Blocks(_as_keras_reads), inputs=(torch.randn(4, 20, 128),), seed=0)
    found = {f.code: f for f in report.findings if f.code in ("IL106", "IL306")}
    assert set(found) == {"IL106"}
    assert "reads (128, 8, 16) as a kernel of 128 taps from 8 to 16 channels" in found["IL106"].message


class LinearAttention(nn.Module):
    """Values divided by their number before they are summed, and multiplied by it behind the sum, as LoFTR does."""

    def __init__(self, dim: int = 64) -> None:
        super().__init__()
        self.query, self.key, self.value, self.head = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        for layer in (self.query, self.key, self.value, self.head):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        q, k = (nn.functional.elu(layer(x)) + 1 for layer in (self.query, self.key))
        among = x.size(1)
        z = 1 / (torch.einsum("nld,nd->nl", q, k.sum(1)) + 1e-6)
        mixed = torch.einsum("nsd,nsv->ndv", k, self.value(x) / among)
        return self.head(torch.einsum("nld,ndv,nl->nlv", q, mixed, z) * among)


def test_factors_around_a_product_leave_the_scale_alone() -> None:
    report = initlint.check(LinearAttention, inputs=(torch.randn(4, 256, 64),), seed=0)
    layer = next(layer for layer in report.models[0].facts.layers if layer.name == "value")
    assert layer.pre_scale == pytest.approx(1 / 256)
    assert not {"IL101", "IL503"} & {f.code for f in report.findings}
