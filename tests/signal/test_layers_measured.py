"""Whole blocks, traced and measured: what is predicted at each layer against a real forward and backward."""

from __future__ import annotations

import math

import pytest

from initlint.options import ProbeOptions
from initlint.signal import propagate
from initlint.signal.order import softmax_energy, softmax_slip

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional
pytestmark = pytest.mark.usefixtures("one_thread")


def compared(model, *inputs) -> dict[str, tuple[float, float]]:
    """By module: log10 of the standard deviation, predicted over measured, of the output and of its gradient."""
    from initlint.probe import pipeline

    facts = pipeline.analyse_live(model.train(), inputs, ProbeOptions(seed=1, measure=True))
    signal = propagate(facts)
    found = {}
    for node in signal.scene.nodes:
        got, moments = node.measured, signal.built[node.index]
        if not node.module or node.op in ("reshape", "identity") or got is None or not got.second:
            continue
        assert moments.undetermined is None
        assert not moments.numeric
        back = math.nan
        if got.gradient_second and moments.p:
            back = 0.5 * math.log10(moments.p / got.gradient_second)
        found[node.module] = (0.5 * math.log10(moments.q / got.second), back)
    return found


def off(found: dict[str, tuple[float, float]], which: int, *names: str) -> float:
    """The largest error at these modules; at all of them without names."""
    chosen = [found[name][which] for name in names] if names else [row[which] for row in found.values()]
    return max(abs(value) for value in chosen if not math.isnan(value))


class Depthwise(nn.Module):
    """Inverted bottlenecks: each ends in a batch norm, and the last feeds a global average."""

    def __init__(self, width: int = 64, depth: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [
                nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
                nn.BatchNorm2d(width),
                nn.SiLU(),
            ]
            layers += [nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width)]
        self.body, self.head = nn.Sequential(nn.BatchNorm2d(width), *layers), nn.Linear(width, 200)

    def forward(self, x):
        return self.head(self.body(self.stem(x)).mean((2, 3)))


def test_batch_norm_takes_a_gradients_batch_mean_once():
    torch.manual_seed(0)
    found = compared(Depthwise(), torch.randn(3, 3, 12, 12))
    assert off(found, 1) < 0.1  # the mean taken again at each norm: 0.3 and more at the stem


class Residual(nn.Module):
    """Blocks with the activation on the trunk."""

    def __init__(self, width: int = 64, depth: int = 8, zero: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2 * depth))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(2 * depth))
        self.head = nn.Linear(width, 200)
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        for norm in self.norms[1::2] if zero else ():
            nn.init.zeros_(norm.weight)

    def forward(self, x):
        x = self.stem(x)
        for i in range(0, len(self.convs), 2):
            y = self.norms[i](self.convs[i](x)).relu()
            x = (x + self.norms[i + 1](self.convs[i + 1](y))).relu()
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("zero", [False, True])
def test_a_rectified_trunk_is_no_gaussian(zero):
    torch.manual_seed(0)
    found = compared(Residual(zero=zero), torch.randn(8, 3, 12, 12))
    assert off(found, 0, *(name for name in found if name.startswith("convs"))) < 0.04
    assert off(found, 1, "stem.0", "stem.1") < 0.06  # taken as Gaussian: 0.1, with closed branches 0.6


class Pooled(nn.Module):
    def __init__(self, gate: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 48, 3, padding=1), nn.Conv2d(8, 48, 3, padding=1)
        self.norm = nn.BatchNorm2d(96)
        self.gate = nn.Conv2d(96, 96, 1) if gate else None
        self.head = nn.Conv2d(96, 64, 1)

    def forward(self, x):
        y = self.norm(torch.cat((self.a(x), self.b(x)), 1)).relu()
        if self.gate is not None:
            y = y * self.gate(y.mean((2, 3), keepdim=True)).sigmoid()
        else:
            y = torch.cat((y, y), 1)[:, :96]
        return self.head(F.max_pool2d(y, 2))


@pytest.mark.parametrize("gate", [False, True])
def test_the_greatest_of_a_rectified_signal(gate):
    torch.manual_seed(0)
    found = compared(Pooled(gate), torch.randn(8, 8, 16, 16))
    assert off(found, 0, "head") < 0.02  # of a Gaussian with its mean and variance: 0.05
    assert off(found, 1, "norm", "a", "b") < 0.05  # a winner is active: half the gradient else, 0.15
    if gate:
        assert off(found, 1, "gate") < 0.05


class Unequal(nn.Module):
    """Channels as they are beside channels of a hundredth of their scale."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch = nn.Conv2d(8, 64, 1), nn.Conv2d(32, 32, 3, padding=1)
        nn.init.normal_(self.branch.weight, std=1e-3)
        self.norm, self.head = nn.BatchNorm2d(64), nn.Conv2d(64, 64, 1)

    def forward(self, x):
        a, b = self.stem(x).chunk(2, 1)
        return self.head(self.norm(torch.cat((a, self.branch(b)), 1)))


def test_a_batch_norm_over_channels_of_unequal_scale():
    torch.manual_seed(0)
    found = compared(Unequal(), torch.randn(8, 8, 12, 12))
    assert off(found, 1, "branch", "stem") < 0.04


def test_a_batch_norm_over_channels_of_one_weight_each():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.scale = nn.Conv2d(8, 128, 1), nn.Conv2d(128, 128, 1, groups=128, bias=False)
            self.norm, self.head = nn.BatchNorm2d(128), nn.Conv2d(128, 64, 1)

        def forward(self, x):
            return self.head(self.norm(self.scale(self.stem(x))))

    torch.manual_seed(0)
    found = compared(Scaled(), torch.randn(8, 8, 12, 12))
    assert off(found, 1, "stem") < 0.06  # the weights undo what they did
    assert off(found, 1, "scale") < 0.2  # the smallest of them decides: 0.5 and more as if they were of a kind


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, std: float, *, causal: bool = False, channels: bool = False) -> None:
        super().__init__()
        self.heads, self.causal, self.channels = heads, causal, channels
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        for layer, scale in ((self.q, std), (self.k, std), (self.v, 1.0), (self.o, 1.0)):
            nn.init.normal_(layer.weight, std=scale / math.sqrt(width))

    def forward(self, x):
        batch, tokens, width = x.shape
        q, k, v = (f(x).view(batch, tokens, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        if self.channels:
            logits = q.transpose(-2, -1) @ k * 0.1
            y = (logits.softmax(-1) @ v.transpose(-2, -1)).transpose(-2, -1)
        elif self.causal:
            bias = torch.ones(tokens, tokens, dtype=torch.bool).tril()
            mask = torch.where(bias, torch.zeros(1), torch.full((1,), -math.inf))
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            y = F.scaled_dot_product_attention(q, k, v)
        return self.o(y.transpose(1, 2).reshape(batch, tokens, width))


@pytest.mark.parametrize(
    ("tokens", "width", "std"),
    [
        (256, 32, 1.0),  # many keys for the channels: their common part reaches the queries (0.4 without)
        (32, 128, 1.0),
        (64, 256, 1.8),  # logits of standard deviation 3: hardly anything passes the softmax back (0.2 without)
    ],
)
def test_gradients_of_queries_and_keys(tokens, width, std):
    torch.manual_seed(0)
    found = compared(Attention(width, 4, std), torch.randn(4, tokens, width))
    assert off(found, 0, "o") < 0.05
    assert off(found, 1, "q", "k", "v") < 0.08


def test_a_mask_that_is_computed():
    torch.manual_seed(0)
    found = compared(Attention(64, 4, 1.0, causal=True), torch.randn(8, 32, 64))
    assert off(found, 0, "o") < 0.03  # attention to all keys: 0.15
    assert off(found, 1, "q", "k", "v") < 0.08


def test_attention_between_channels():
    torch.manual_seed(0)
    found = compared(Attention(64, 4, 0.3, channels=True), torch.randn(4, 256, 64))
    assert off(found, 0, "o") < 0.06
    assert off(found, 1, "v", "o") < 0.06


def test_windows_that_reach_beyond_the_map():
    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 128, 3, padding=1), nn.Conv2d(128, 128, 1)

        def forward(self, x):
            return self.head(F.max_pool2d(self.stem(x), 9, 1, 4))

    torch.manual_seed(0)
    found = compared(Pyramid(), torch.randn(16, 3, 6, 6))
    assert off(found, 0, "head") < 0.03  # the greatest of 81, where there are 36: 0.05


class Leaning(nn.Module):
    """Blocks that move half of the way to what a branch makes of the signal: x + (f(x) - x) / 2."""

    def __init__(self, width: int = 128, depth: int = 4) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(32, width), nn.Linear(width, 100)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.branches = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.share = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x):
        x = self.stem(x)
        for norm, branch in zip(self.norms, self.branches, strict=True):
            x = x + self.share * (branch(norm(x)) - x)
        return self.head(x)


def test_a_signal_that_is_taken_off_a_sum_again():
    torch.manual_seed(0)
    found = compared(Leaning(), torch.randn(64, 32))
    assert off(found, 0, "head") < 0.03  # as if the two x were strangers: 0.25
    assert off(found, 1, "stem") < 0.05


def test_what_is_left_of_an_average_less_the_signal():
    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 64, 1), nn.Conv2d(64, 64, 1)

        def forward(self, x):
            y = self.stem(x)
            return self.head(y + (F.avg_pool2d(y, 3, 1, 1, count_include_pad=False) - y))

    torch.manual_seed(0)
    found = compared(Mixer(), torch.randn(8, 3, 24, 24))
    assert off(found, 0, "head") < 0.04  # nothing at all where the average is taken for its common part
    assert off(found, 1, "stem") < 0.04


def test_a_parameter_whose_mean_is_not_quite_zero_is_no_mask():
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.place = nn.Parameter(torch.empty(1, 512)), nn.Parameter(torch.empty(1, 512))
            nn.init.normal_(self.first, -1e-7, 0.02)
            nn.init.normal_(self.place, -1e-7, 0.02)
            self.layer = nn.Linear(512, 512)

        def forward(self, x):
            return self.layer(x * 1e-3 + (self.first + self.place))

    torch.manual_seed(0)
    found = compared(Tokens(), torch.randn(4, 512))
    assert off(found, 0, "layer") < 0.02


@pytest.mark.parametrize(("sigma", "count"), [(0.5, 5), (1.0, 16), (3.3, 64), (8.0, 16)])
def test_what_passes_a_softmax_back(sigma, count):
    g = torch.Generator().manual_seed(0)
    a = torch.softmax(sigma * torch.randn(100_000, count, generator=g, dtype=torch.float64), -1)
    energy = (a * a).sum(-1, keepdim=True)
    assert softmax_energy(sigma, count) == pytest.approx(float(energy.mean()), rel=0.01)
    assert softmax_slip(sigma, count) == pytest.approx(float((a * a * (1 - 2 * a + energy)).sum(-1).mean()), rel=0.01)


class Pieces(nn.Module):
    """Attention whose keys are put together from two projections."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.norm, self.q, self.k = nn.LayerNorm(64), nn.Linear(64, 96), nn.Linear(64, 64)
        self.rot, self.v, self.o = nn.Linear(64, 8), nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x):
        h, (b, t, _) = self.norm(x), x.shape
        q, k, v = (layer(h).view(b, t, 4, -1).transpose(1, 2) for layer in (self.q, self.k, self.v))
        rot = self.rot(h).view(b, t, 1, 8).transpose(1, 2).expand(-1, 4, -1, -1)
        if self.how == "cat":
            keys = torch.cat((k, rot), -1)
        elif self.how == "copied":
            keys = k.new_empty(b, 4, t, 24)
            keys[..., :16].copy_(k)
            keys[..., 16:].copy_(rot)
        else:
            keys = torch.empty(b, 4, t, 24)
            keys[..., :16] = k
            keys[..., 16:] = rot
        y = F.scaled_dot_product_attention(q, keys, v)
        return x + self.o(y.transpose(1, 2).reshape(b, t, 64))


@pytest.mark.parametrize("how", ["copied", "assigned"])
def test_memory_filled_piece_by_piece_is_what_was_written(how):
    torch.manual_seed(0)
    joined, x = Pieces("cat"), torch.randn(4, 16, 64)
    filled = Pieces(how)
    filled.load_state_dict(joined.state_dict())
    one, other = compared(joined, x), compared(filled, x)
    assert set(other) == set(one)
    for name in ("q", "k", "rot", "v"):
        assert other[name] == pytest.approx(one[name], abs=1e-6)
        assert abs(one[name][1]) < 0.1


def test_what_is_written_into_a_tensor_takes_its_whole_gradient():
    class Overwritten(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(64, 64), nn.Linear(64, 16), nn.Linear(64, 64)

        def forward(self, x):
            y = self.a(x).clone()
            y[:, :16] = self.b(x)
            return self.head(y)

    torch.manual_seed(0)
    assert off(compared(Overwritten(), torch.randn(256, 64)), 1) < 0.05


def test_codes_that_are_returned_and_looked_up_are_no_part_of_the_depth():
    class Codec(nn.Module):
        """The integers in the middle have a scale of their own, and no gradient comes back through them."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16))
            self.register_buffer("codebook", 0.01 * torch.randn(256, 16))
            self.decoder = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64))

        def forward(self, x):
            codes = torch.cdist(self.encoder(x), self.codebook).argmin(-1)
            return self.decoder(F.embedding(codes.reshape(-1), self.codebook)), codes

    from initlint.probe import pipeline

    torch.manual_seed(0)
    signal = propagate(pipeline.analyse_live(Codec(), (torch.randn(64, 64),), ProbeOptions(seed=1)))
    table = next(node.index for node in signal.scene.nodes if node.op == "embedding")
    assert signal.profile
    assert all(point.node >= table for point in signal.profile)
    assert signal.gradient_span < 1.0
