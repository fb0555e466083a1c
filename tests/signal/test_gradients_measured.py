"""Mechanisms that decide where a gradient falls: predicted against a real backward on small nets, or a closed form."""

from __future__ import annotations

import math

import pytest

from initlint.options import ProbeOptions
from initlint.signal import propagate

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional
pytestmark = pytest.mark.usefixtures("one_thread")


def analysed(model, *inputs):
    from initlint.probe import pipeline

    return pipeline.analyse_live(model.train(), inputs, ProbeOptions(seed=1, measure=True))


def errors(model, *inputs) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """By module: log10 of predicted over measured standard deviations, of the outputs and of their gradients."""
    signal = propagate(analysed(model, *inputs))
    forward: dict[str, list[float]] = {}
    backward: dict[str, list[float]] = {}
    for node in signal.scene.nodes:
        got, found = node.measured, signal.built[node.index]
        if not node.module or got is None or not got.second:
            continue
        assert found.undetermined is None
        assert not found.numeric
        forward.setdefault(node.module, []).append(0.5 * math.log10(found.q / got.second))
        if got.gradient_second and found.p:
            backward.setdefault(node.module, []).append(0.5 * math.log10(found.p / got.gradient_second))
    return forward, backward


def largest(found: dict[str, list[float]], *names: str) -> float:
    return max(abs(value) for name in names or found for value in found[name])


class Token(nn.Module):
    """A class token reads the patches; heads are cut, sliced and padded as in factorised attention."""

    def __init__(self, width: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.embed, self.qkv = nn.Linear(16, width), nn.Linear(width, 3 * width, bias=False)
        self.near = nn.Linear(width // heads, width // heads, bias=False)
        self.out, self.norm, self.head = nn.Linear(width, width), nn.LayerNorm(width), nn.Linear(width, 300)

    def forward(self, x):
        x = self.embed(x)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        batch, count, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        row = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1) @ v
        beside = F.pad(self.near(v[:, :, 1:]), (0, 0, 1, 0, 0, 0))
        x = x + self.out((row + beside).transpose(1, 2).reshape(batch, count, width))
        return self.head(self.norm(x)[:, 0])


def test_the_gradient_of_a_class_token_stays_on_it():
    torch.manual_seed(0)
    forward, backward = errors(Token(), torch.randn(6, 40, 16))
    assert largest(forward) < 0.1
    # spread evenly over the tokens, the padded branch would take 40 times as much: nothing reaches it
    assert largest(backward, "out", "qkv", "embed", "norm") < 0.15
    assert "near" not in backward


class Weighed(nn.Module):
    """Three signals side by side, mixed with one weight each."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.mix, self.head = nn.Conv1d(3, 1, 1), nn.Linear(width, 500)
        with torch.no_grad():
            self.mix.weight.copy_(torch.tensor([0.05, 1.0, 0.2]).reshape(1, 3, 1))

    def forward(self, x):
        return self.head(self.mix(torch.stack([part(x) for part in self.parts], 1)).squeeze(1))


def test_few_weights_share_a_gradient_unequally():
    torch.manual_seed(0)
    model = Weighed()
    facts = analysed(model, torch.randn(16, 128))
    mix = next(node for node in facts.nodes if node.module == "mix" and node.operator is not None)
    energies = model.mix.weight.detach().flatten() ** 2
    assert mix.operator.columns == pytest.approx((energies / energies.mean()).tolist(), rel=1e-5)
    _, backward = errors(model, torch.randn(16, 128))
    assert largest(backward, "parts.0", "parts.1", "parts.2") < 0.05


class Turning(nn.Module):
    """x + W x with one and the same depthwise W."""

    def __init__(self, width: int = 96, turns: int = 5) -> None:
        super().__init__()
        self.turns = turns
        self.stem = nn.Conv2d(3, width, 1, bias=False)
        self.kernel = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.head = nn.Conv2d(width, 64, 1, bias=False)

    def forward(self, x):
        x = self.stem(x)
        for _ in range(self.turns):
            x = self.kernel(x) + x
        return self.head(x)


def test_powers_of_one_kernel_add_up():
    torch.manual_seed(0)
    model = Turning()
    forward, backward = errors(model, torch.randn(4, 3, 10, 10))
    assert abs(forward["head"][0]) < 0.1
    assert abs(backward["stem"][0]) < 0.1
    # independent kernels would give this little
    alone = 1.0 + float(model.kernel.weight.detach().square().sum((1, 2, 3)).mean())
    facts = analysed(model, torch.randn(4, 3, 10, 10))
    gains = next(node.operator.again for node in facts.nodes if node.operator is not None and node.operator.again)
    assert gains[4] > 3.0 * alone**5


def test_gains_of_a_kernel_against_its_matrix():
    from initlint.probe.operators import Geometry, repeated_gains

    torch.manual_seed(0)
    weight = torch.randn(32, 1, 3, 3) / 3
    geometry = Geometry((6, 6), (6, 6), (3, 3), (1, 1), (1, 1), (1, 1), groups=32)
    unit = torch.eye(36).reshape(36, 1, 6, 6).expand(36, 32, 6, 6)
    found, exact = unit, []
    for _ in range(3):
        found = found + F.conv2d(found, weight, padding=1, groups=32)
        exact.append(float(found.square().sum((2, 3)).mean()))
    assert repeated_gains(weight, geometry)[:3] == pytest.approx(exact, rel=0.1)
    assert repeated_gains(weight, Geometry((6, 6), (3, 3), (3, 3), (2, 2), (1, 1), (1, 1), groups=32)) == ()


class Distant(nn.Module):
    """Attention of which the weights are a mixture of a softmax of distances and one of contents."""

    def __init__(self, width: int = 64, count: int = 36) -> None:
        super().__init__()
        self.embed, self.query, self.key = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.value, self.head = nn.Linear(width, width, bias=False), nn.Linear(width, 100)
        place = torch.arange(count).float()
        self.register_buffer("near", -0.5 * (place[:, None] - place[None]) ** 2)
        self.sharp = nn.Parameter(torch.ones(1))

    def forward(self, x):
        x = self.embed(x)
        content = (self.query(x) @ self.key(x).transpose(-2, -1) * x.shape[-1] ** -0.5).softmax(-1)
        local = (self.sharp * self.near).softmax(-1).expand_as(content)
        return self.head((0.3 * content + 0.7 * local) @ self.value(x))


def test_a_softmax_that_no_input_reaches_is_known():
    torch.manual_seed(0)
    forward, backward = errors(Distant(), torch.randn(8, 36, 64))
    assert largest(forward, "head", "value") < 0.1  # distances are no Gaussian logits
    assert largest(backward, "value") < 0.1


class Gathered(nn.Module):
    """Averages of five neighbours are read by one query: it sends nearly the same gradient to all of them."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.embed, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.mix, self.head = nn.Linear(width, width), nn.Linear(width, 200)

    def forward(self, x):
        x = self.embed(x)
        scores = self.query(x[:, :1]) @ self.key(x).transpose(-2, -1) * x.shape[-1] ** -0.5
        inner = F.avg_pool1d(self.value(x).transpose(1, 2), 5, 1, 2).transpose(1, 2)
        return self.head(self.mix(scores.softmax(-1) @ inner).squeeze(1))


def test_values_of_one_query_share_their_gradient():
    torch.manual_seed(0)
    _, backward = errors(Gathered(), torch.randn(8, 50, 64))
    assert largest(backward, "value") < 0.1  # as independent gradients the averages would lose most of it


class Placed(nn.Module):
    """Sinusoids for positions, a norm, and a mean over the positions."""

    def __init__(self, width: int = 64, count: int = 24) -> None:
        super().__init__()
        angle = torch.arange(count)[:, None] * 10000.0 ** (-torch.arange(width // 2) / (width // 2))
        self.register_buffer("place", torch.cat([angle.sin(), angle.cos()], -1))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 100)
        self.embed = nn.Linear(width, width)

    def forward(self, x):
        return self.head(self.norm(0.1 * self.embed(x) + self.place).mean(1))


def test_sinusoids_are_alike_at_all_positions():
    torch.manual_seed(0)
    facts = analysed(Placed(), torch.randn(8, 24, 64))
    place = next(node for node in facts.nodes if node.op in ("parameter", "constant") and node.shape == (24, 64))
    table = Placed().place.double()
    pairs = (table.sum(0) ** 2 - (table**2).sum(0)) / (24 * 23)  # mean product of two different positions
    assert place.attrs["alike"] == pytest.approx(float(pairs.mean() / table.square().mean()), rel=1e-4)
    forward, _ = errors(Placed(), torch.randn(8, 24, 64))
    assert largest(forward, "head") < 0.1  # of a table of independent entries the mean would be far smaller


class Enlarged(nn.Module):
    """Three bilinear doublings with maps between them that treat each position by itself."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Conv2d(width, width, 1, bias=False) for _ in range(3))
        self.head = nn.Conv2d(width, 64, 3, padding=1, bias=False)

    def forward(self, x):
        for layer in self.maps:
            x = F.interpolate(layer(x), scale_factor=2, mode="bilinear", align_corners=False)
        return self.head(x)


def test_neighbouring_gradients_are_alike_behind_an_interpolation():
    torch.manual_seed(0)
    _, backward = errors(Enlarged(), torch.randn(4, 64, 6, 6))
    assert largest(backward, "maps.0", "maps.1", "maps.2") < 0.07  # as independent ones: 0.14 and 0.33 too small


def test_what_an_interpolation_sends_back_in_closed_form():
    from initlint.signal.near import gathered_back, mixed

    # the triangle 1/4 3/4 3/4 1/4 and itself two places further: 2 * 3/16 of 20/16
    gain, near = gathered_back((), 2)
    assert gain == pytest.approx(1.0)
    assert near[:2] == pytest.approx((0.3, 0.0))
    # fully alike neighbours add up: (sum of weights)^2 over the sum of squares, up to the lags that are followed
    assert gathered_back((1.0, 1.0, 1.0), 2)[0] == pytest.approx(4.0 / 1.25)
    assert mixed(((1.0, (0.4,)), (3.0, ()))) == pytest.approx((0.1, 0.0, 0.0))


class Talking(nn.Module):
    """Heads that talk (CaiT): the weights are mixed over heads after the softmax, and no longer sum to one."""

    def __init__(self, width: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.embed = heads, nn.Linear(16, width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.mix, self.head = nn.Linear(heads, heads), nn.Linear(width, 300)

    def forward(self, x):
        x = self.embed(x)
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
        weights = self.mix(weights.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.head((weights @ v).transpose(1, 2).flatten(2).mean(1))


def test_what_all_queries_weigh_alike_adds_up_at_the_values():
    torch.manual_seed(0)
    _, backward = errors(Talking(), torch.randn(4, 49, 16))
    assert largest(backward, "value") < 0.15  # as if of independent queries: 0.8 too small


class Merging(nn.Module):
    """Patches are merged (Swin), and read by attention of one packed projection before and after."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.embed, self.first = nn.Linear(16, width), nn.Linear(width, 3 * width)
        self.norm, self.merge = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)
        self.head = nn.Linear(2 * width, 300)

    def attend(self, packed):
        q, k, v = packed.reshape(*packed.shape[:2], 3, 2, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    def forward(self, x):
        x = self.embed(x)
        x = x + self.attend(self.first(x))
        batch, count, width = x.shape
        side = int(count**0.5)
        x = x.reshape(batch, side // 2, 2, side // 2, 2, width).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.head(self.merge(self.norm(x)).mean((1, 2)))


def test_the_parts_of_a_merged_patch_have_gradients_of_their_own():
    torch.manual_seed(0)
    facts = analysed(Merging(), torch.randn(4, 64, 16))
    signal = propagate(facts)
    value = [node for node in facts.nodes if node.op == "select" and node.attrs.get("rows") == [96, 144]]
    assert value
    for node in value:
        assert node.measured is not None
        off = 0.5 * math.log10(signal.built[node.index].p / node.measured.gradient_second)
        assert abs(off) < 0.1  # shared by all positions: 0.25 too large; by none: 0.5 too small


class Padded(nn.Module):
    """Windows: positions of zeros are added, and a norm of each position leaves them zero."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(16, width), nn.LayerNorm(width)
        self.body, self.head = nn.Linear(width, width, bias=False), nn.Linear(width, 10)

    def forward(self, x):
        x = F.pad(self.embed(x), (0, 0, 0, 3, 0, 3))
        x = x.reshape(x.shape[0], 1, 7, 1, 7, -1).permute(0, 1, 3, 2, 4, 5).reshape(x.shape[0], 49, -1)
        return self.head(self.body(self.norm(x)).relu())


def test_a_norm_leaves_positions_of_zeros():
    torch.manual_seed(0)
    forward, backward = errors(Padded(), torch.randn(4, 4, 4, 16))
    assert largest(forward, "norm", "body") < 0.02  # brought to unit scale on average: 0.24
    assert largest(backward, "embed") < 0.05


class Frames(nn.Module):
    """Frames are padded to a multiple of eight and put together: the last patch is zero in part, none is in whole."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.embed, self.first, self.second = nn.Linear(8 * 16, width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        x = F.pad(x, (0, 0, 0, 4))
        return self.head(self.second(self.first(self.embed(x.reshape(x.shape[0], -1, 8 * 16)))))


def test_zeros_among_the_frames_of_a_patch_are_no_position_of_zeros():
    torch.manual_seed(0)
    forward, backward = errors(Frames(), torch.randn(4, 100, 16))
    assert largest(forward) < 0.02
    assert largest(backward) < 0.05  # 1e5 too large where a norm of zeros was seen


class Paths(nn.Module):
    """Selective kernels: a softmax over two paths weighs them, one gate for each channel of either."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.one, self.two = (nn.Conv2d(3, width, 3, padding=1) for _ in range(2))
        self.gates, self.head = nn.Conv2d(width, 2 * width, 1), nn.Conv2d(width, 200, 1)

    def forward(self, x):
        both = torch.stack([self.one(x).relu(), self.two(x).relu()], 1)
        gates = self.gates(both.sum(1).mean((2, 3), keepdim=True)).unflatten(1, (2, -1)).softmax(1)
        return self.head((both * gates).sum(1).mean((2, 3), keepdim=True))


def test_what_two_paths_share_of_a_gradient_moves_no_weight_of_theirs():
    torch.manual_seed(0)
    _, backward = errors(Paths(), torch.randn(8, 3, 8, 8))
    assert largest(backward, "gates") < 0.15  # as if of independent gradients: 0.4 too large


class Shares(nn.Module):
    """Non-negative scores are divided by their sum, and a fixed table of places says what they stand for."""

    def __init__(self, places) -> None:
        super().__init__()
        self.scores = nn.Linear(64, len(places))
        self.register_buffer("places", places)

    def forward(self, x):
        x = 1.0 + 0.2 * self.scores(x).tanh()
        return (x / x.sum(-1, keepdim=True)) @ self.places


@pytest.mark.parametrize("places", [torch.linspace(1.0, 2.0, 64), torch.tensor([1.0, -1.0, 1.0, -1.0]), torch.eye(4)])
def test_shares_of_a_total_lose_what_their_gradients_have_in_common(places):
    """Kept, it would make them 0.71, 0 and 0.06 larger in log10."""
    torch.manual_seed(0)
    signal = propagate(analysed(Shares(places), torch.randn(512, 64)))
    (scores,) = (node for node in signal.scene.nodes if node.module == "scores")
    assert scores.measured is not None
    assert abs(0.5 * math.log10(signal.built[scores.index].p / scores.measured.gradient_second)) < 0.02


class Small(nn.Module):
    """A class token that starts near zero stands before the patches, a norm brings it to unit scale, and it is read."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.token = nn.Parameter(1e-4 * torch.randn(1, 1, width))
        self.embed, self.norm = nn.Linear(16, width), nn.LayerNorm(width, eps=1e-12)
        self.attend, self.head = nn.MultiheadAttention(width, 4, batch_first=True), nn.Linear(width, 10)

    def forward(self, x):
        x = self.embed(x)
        x = self.norm(torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1))
        x = x + self.attend(x, x, x)[0]
        return self.head(x[:, 0])


def test_the_gradient_of_a_small_class_token_is_not_that_of_the_patches():
    torch.manual_seed(0)
    signal = propagate(analysed(Small(), torch.randn(4, 32, 16)))
    joined = next(point for point in signal.profile if signal.scene.nodes[point.node].op == "cat")
    embedded = next(point for point in signal.profile if point.label == "embed")
    assert joined.segments == (1,)
    assert joined.energy is not None
    assert embedded.energy is not None
    assert abs(joined.energy - embedded.energy) < 0.1  # with the token's, 1e8 times as much: it is small before a norm
    assert signal.spans["gradient"].raw < 3.0  # what it takes to be one of 33 that the token reads


class Sparser(nn.Module):
    """A trunk that is rectified behind a batch norm in every block, as Xception's: it becomes sparser and sparser."""

    def __init__(self, width: int = 256, blocks: int = 10) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(32, width), nn.Linear(width, 10)
        self.branches = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(blocks))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(blocks))

    def forward(self, x):
        x = self.first(x)
        for branch, norm in zip(self.branches, self.norms, strict=True):
            x = norm(x).relu()
            x = x + branch(x)
        return self.head(x)


def test_a_trunk_that_is_rectified_behind_norms_becomes_sparser():
    torch.manual_seed(0)
    forward, backward = errors(Sparser(), torch.randn(512, 32))
    assert largest(forward, "branches.9", "head") < 0.02  # two Gaussians, for what is active and what is zero: 0.04
    assert largest(backward) < 0.06  # the same: 0.28


class Beside(nn.Module):
    """A norm of the signal itself beside norms of what layers make of it, then rectified: RepVGG and MobileOne."""

    def __init__(self, width: int = 256, blocks: int = 8) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(32, width), nn.Linear(width, 10)
        self.layers = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(blocks))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(2 * blocks))

    def forward(self, x):
        x = self.first(x).relu()
        for layer, itself, made in zip(self.layers, self.norms[::2], self.norms[1::2], strict=True):
            x = (itself(x) + made(layer(x))).relu()
        return self.head(x)


def test_a_norm_of_a_rectified_signal_beside_another():
    torch.manual_seed(0)
    forward, backward = errors(Beside(), torch.randn(512, 32))
    assert largest(forward, "layers.7") < 0.02  # as a Gaussian, the norm of the signal itself: 0.06
    assert largest(backward) < 0.06  # the same: 0.31


class ClassAttention(nn.Module):
    """After attention the small class token is brought to unit scale by itself, as in XCiT; the patches go on."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.token = nn.Parameter(1e-4 * torch.randn(1, 1, width))
        self.embed, self.norm, self.alone = nn.Linear(16, width), nn.LayerNorm(width), nn.LayerNorm(width, eps=1e-12)
        self.attend, self.head = nn.MultiheadAttention(width, 4, batch_first=True), nn.Linear(width, 10)

    def forward(self, x):
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), self.embed(x)], 1)
        y = self.norm(x)
        x = x + 1e-4 * torch.cat([self.attend(y[:, :1], y, y)[0], y[:, 1:]], 1)
        x = torch.cat([self.alone(x[:, :1]), x[:, 1:]], 1)
        return self.head(x[:, 0])


def test_a_token_that_is_normalised_by_itself_has_no_scale_to_be_judged():
    torch.manual_seed(0)
    signal = propagate(analysed(ClassAttention(), torch.randn(4, 32, 16)))
    (summed,) = (point for point in signal.profile if signal.scene.nodes[point.node].op == "add")
    assert summed.energy is not None
    assert not summed.body
    assert signal.spans["gradient"].raw < 3.0 < summed.energy
