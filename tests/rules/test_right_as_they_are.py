"""Designs that look like faults and are none, each beside the fault that it looks like."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import initlint
from initlint.diagnosis import suspects
from initlint.findings import Severity

Found = dict[str, Severity]


def judged(make: Callable[[], nn.Module], inputs: tuple[torch.Tensor, ...]) -> Found:
    """The worst severity of each rule that speaks."""
    run = initlint.check(make, inputs=inputs, seed=0)
    assert run.models[0].facts.trace.ran
    found: Found = {}
    for finding in run.findings:
        found[finding.code] = max(finding.severity, found.get(finding.code, Severity.NOTE))
    return found


def loud(found: Found) -> list[str]:
    return sorted(code for code, severity in found.items() if severity > Severity.NOTE)


class Quantised(nn.Module):
    """VQ-VAE with codes of 1 / K (van den Oord et al. 2017), read by a product with places made one-hot."""

    def __init__(self, *, codes: float = 1.0, by_product: bool = True) -> None:
        super().__init__()
        self.by_product = by_product
        self.encoder = nn.Sequential(nn.Conv2d(3, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 16, 3, padding=1))
        self.codes = nn.Embedding(256, 16)
        self.codes.weight.data.uniform_(-codes / 256, codes / 256)
        self.decoder = nn.Sequential(nn.ConvTranspose2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 3, 3, padding=1))
        self.apply(self._init)

    @staticmethod
    def _init(module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.encoder(x).permute(0, 2, 3, 1)
        flat = z.reshape(-1, 16)
        table = self.codes.weight
        far = (flat**2).sum(1, keepdim=True) + (table**2).sum(1) - 2 * flat @ table.t()
        nearest = far.argmin(1)
        one_hot = torch.zeros(len(flat), 256).scatter_(1, nearest.unsqueeze(1), 1)
        chosen = (one_hot @ table if self.by_product else self.codes(nearest)).view(z.shape)
        return self.decoder((z + (chosen - z).detach()).permute(0, 3, 1, 2))


@pytest.mark.parametrize("by_product", [True, False])
def test_small_codes(by_product: bool) -> None:
    images = (torch.randn(4, 3, 16, 16),)
    assert loud(judged(lambda: Quantised(by_product=by_product), images)) == []
    assert "IL333" in loud(judged(lambda: Quantised(codes=16384.0, by_product=by_product), images))


class Steered(nn.Module):
    """A copy of the first layers is added through a layer of zeros (ControlNet), or is a second half of the net."""

    def __init__(self, *, shut: bool) -> None:
        super().__init__()
        self.shut = shut
        self.first = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16))
        self.copied, self.hint = copy.deepcopy(self.first), nn.Linear(4, 16)
        self.gate, self.head = nn.Linear(16, 16), nn.Linear(16, 2)
        if shut:
            nn.init.zeros_(self.gate.weight)
            nn.init.zeros_(self.gate.bias)

    def forward(self, x: torch.Tensor, hint: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        return self.head(h + self.gate(self.copied(x + self.hint(hint) if self.shut else h)))


class Sided(nn.Module):
    """A layer and its copy that read the same input, the copy behind a layer of zeros, or each behind one."""

    def __init__(self, *, both: bool) -> None:
        super().__init__()
        self.both = both
        self.first = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16))
        self.copied = copy.deepcopy(self.first)
        self.gate, self.other, self.head = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 2)
        for gate in (self.gate, self.other):
            nn.init.zeros_(gate.weight)
            nn.init.zeros_(gate.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        return self.head((self.other(h) if self.both else h) + self.gate(self.copied(x)))


def test_a_copy_of_one_input_behind_zeros_that_the_original_does_not_pass() -> None:
    inputs = (torch.randn(8, 16),)
    assert judged(lambda: Sided(both=False), inputs)["IL006"] == Severity.NOTE
    assert judged(lambda: Sided(both=True), inputs)["IL006"] == Severity.ERROR


def test_a_copy_behind_zeros() -> None:
    inputs = (torch.randn(8, 16), torch.randn(8, 4))
    assert judged(lambda: Steered(shut=True), inputs)["IL006"] == Severity.NOTE
    assert judged(lambda: Steered(shut=False), inputs)["IL006"] > Severity.NOTE


class Tied(nn.Module):
    """One table of unit variance for tokens and logits, which T5 divides by the root of the width."""

    def __init__(self, *, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.table, self.norm = nn.Embedding(64, 128), nn.RMSNorm(128)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.norm(self.table(ids)) @ self.table.weight.t() * self.factor


def test_logits_that_are_divided_by_the_root_of_the_width() -> None:
    ids = (torch.randint(0, 64, (4, 12)),)
    assert "IL305" not in judged(lambda: Tied(factor=128**-0.5), ids)
    assert judged(lambda: Tied(factor=1.0), ids)["IL305"] > Severity.NOTE


class Slices(nn.Module):
    """A kernel over depth as one convolution for each of its slices, whose outputs are added."""

    def __init__(self, inside: int, outside: int, *, summed: bool) -> None:
        super().__init__()
        self.summed = summed
        self.slices = nn.ModuleList(nn.Conv2d(inside, outside, 3, padding=1, bias=False) for _ in range(3))
        self.reset(inside * 27)

    def reset(self, fan_in: int) -> None:
        bound = math.sqrt(6.0 / fan_in)
        for conv in self.slices:
            nn.init.uniform_(conv.weight, -bound, bound)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frames = [conv(x[:, :, i]) for i, conv in enumerate(self.slices)]
        return F.relu(sum(frames) if self.summed else torch.stack(frames, 2).amax(2))


class Sliced(nn.Module):
    def __init__(self, *, summed: bool) -> None:
        super().__init__()
        self.first, self.second = Slices(1, 16, summed=summed), Slices(16, 32, summed=summed)
        self.head = nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        return self.head(self.second(torch.stack([h, h.roll(1, 2), h.roll(1, 3)], 2)).mean((2, 3)))


@pytest.mark.parametrize("summed", [True, False])
def test_slices_that_are_added(summed: bool) -> None:
    run = initlint.check(lambda: Sliced(summed=summed), inputs=(torch.randn(4, 1, 3, 12, 12),), seed=0)
    reasons = {s.reason for s in suspects(run.models[0].facts) if s.layer.kind == "conv"}
    assert ("misapplied_formula" in reasons) is not summed


class Spectrogram(nn.Module):
    """Log-mel features by fixed filters in front of a small net."""

    def __init__(self, *, layers: int = 3, std: float | None = None) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(400))
        self.register_buffer("filters", torch.rand(201, 40))
        self.body = nn.ModuleList(nn.Linear(40, 40) for _ in range(layers))
        for layer in self.body:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if std is not None:
                nn.init.normal_(layer.weight, std=std)

    def forward(self, wav: torch.Tensor) -> torch.Tensor:
        power = torch.stft(wav, 400, 160, window=self.window, return_complex=True).abs() ** 2
        x = torch.log(power.transpose(1, 2) @ self.filters + 1e-6)
        x = (x - x.mean((1, 2), keepdim=True)) / (x.std((1, 2), keepdim=True) + 1e-5)
        for layer in self.body:
            x = F.relu(layer(x))
        return x.mean(1)


def test_features_of_fixed_filters_are_no_layers() -> None:
    wav = (torch.randn(4, 3200),)
    assert loud(judged(Spectrogram, wav)) == []
    assert loud(judged(lambda: Spectrogram(layers=12, std=0.01), wav))


class Summed(nn.Module):
    """The row of a bag's padding is never summed, that of a table is read."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.table, self.head = kind(30, 8, padding_idx=0), nn.Linear(8, 2)
        nn.init.normal_(self.table.weight)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        found = self.table(ids)
        return self.head(found if found.dim() == 2 else found.mean(1))


def test_the_padding_of_a_bag() -> None:
    ids = (torch.randint(1, 30, (4, 6)),)
    assert "IL304" not in judged(lambda: Summed(nn.EmbeddingBag), ids)
    assert "IL304" in judged(lambda: Summed(nn.Embedding), ids)


class Placed(nn.Module):
    def __init__(self, **how: float) -> None:
        super().__init__()
        self.patches, self.places = nn.Linear(12, 32), nn.Parameter(torch.zeros(1, 16, 32))
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 5)
        nn.init.trunc_normal_(self.places, **how)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.patches(x) + self.places).mean(1))


def test_a_std_in_the_place_of_the_mean_of_a_table() -> None:
    patches = (torch.randn(4, 16, 12),)
    assert judged(lambda: Placed(mean=0.02), patches)["IL109"] == Severity.WARNING
    assert "IL109" not in judged(lambda: Placed(std=0.02), patches)


FLOW = """
import torch
from torch import nn


def init(m):
    if isinstance(m, nn.Linear):
        nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
        nn.init.zeros_(m.bias)
        if {test}:
            nn.init.zeros_(m.weight)


class Flow(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.ModuleList([nn.Linear(4, 32) for _ in range(4)])
        self.last = nn.ModuleList([nn.Linear(32, 8) for _ in range(4)])
        for layer in self.last:
            layer.{mark} = True
        self.apply(init)

    def forward(self, x):
        a, b = x.chunk(2, 1)
        for first, last in zip(self.first, self.last):
            s, t = last(torch.relu(first(a))).chunk(2, 1)
            a, b = b * torch.exp(s) + t, a
        return torch.cat([a, b], 1)


def example_inputs():
    return (torch.randn(16, 8),)
"""


@pytest.mark.parametrize(
    ("test", "mark", "wrong"),
    [
        ('hasattr(m, "zero_init")', "init_zero", True),
        ('getattr(m, "is_last", False)', "last", False),
        ('getattr(m, "zero_init", False)', "zero_inti", True),
        ('hasattr(m, "zero_init")', "zero_init", False),
        ('hasattr(m, "frozen")', "init_zero", False),
    ],
)
def test_a_mark_under_another_name(tmp_path: Any, test: str, mark: str, wrong: bool) -> None:
    (tmp_path / "flow.py").write_text(FLOW.format(test=test, mark=mark))
    run = initlint.check(tmp_path / "flow.py", select=["IL402"])
    assert run.models[0].facts.trace.ran
    found = [(f.severity > Severity.NOTE, f.parameters[0]) for f in run.findings]
    assert found == ([(True, "last.0.weight")] if wrong else [])


class Normed(nn.Module):
    """Scales that are learned as logarithms and start at zero (ActNorm): a factor of one, not a closed branch."""

    def __init__(self, depth: int = 6) -> None:
        super().__init__()
        self.scales = nn.ParameterList(nn.Parameter(torch.zeros(8)) for _ in range(depth))
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(depth))
        self.register_buffer("mask", torch.arange(8) % 2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for scale, layer in zip(self.scales, self.layers, strict=True):
            x = x * torch.exp(scale) + layer(x * self.mask) * (1 - self.mask)
        return x


def test_the_logarithm_of_a_scale() -> None:
    assert loud(judged(Normed, (torch.randn(16, 8),))) == []


class Pixels(nn.Module):
    """Images of a range of 255, which a fixed layer gives back (EDSR), or a trained one."""

    def __init__(self, *, fixed: bool) -> None:
        super().__init__()
        self.body, self.back = nn.Linear(16, 3), nn.Linear(3, 3)
        nn.init.normal_(self.back.weight, std=60.0)
        self.back.requires_grad_(not fixed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.back(self.body(x))


def test_a_fixed_map_to_pixels_has_no_loss() -> None:
    x = (torch.randn(8, 16),)
    assert "IL209" not in judged(lambda: Pixels(fixed=True), x)
    assert judged(lambda: Pixels(fixed=False), x)["IL209"] > Severity.NOTE


class Squeezed(nn.Module):
    """Gates behind a signal that comes in large, at PyTorch's default or drawn so wide."""

    def __init__(self, *, std: float | None) -> None:
        super().__init__()
        self.gate, self.head = nn.Linear(64, 64), nn.Linear(64, 3)
        if std is not None:
            nn.init.normal_(self.gate.weight, std=std)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x if self.gate.weight.std() > 1 else 200.0 * x
        return self.head(x * torch.sigmoid(self.gate(x)))


def test_saturation_of_gates_at_their_default() -> None:
    x = (torch.randn(8, 64),)
    assert judged(lambda: Squeezed(std=None), x)["IL207"] == Severity.WARNING
    assert judged(lambda: Squeezed(std=15.0), x)["IL207"] == Severity.ERROR


class Pooled(nn.Module):
    """A window far wider than the map, which is cut to it (Hugging Face's EfficientNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 32, 3, padding=1), nn.AvgPool2d(320, ceil_mode=True)
        self.head = nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.conv(x)).flatten(1))


def test_a_window_wider_than_the_map() -> None:
    run = initlint.check(Pooled, inputs=(torch.randn(16, 3, 7, 7),), measure=True, seed=0)
    conv = run.models[0].rows[0].signal
    assert conv.gradient_std == pytest.approx(conv.measured_gradient_std, rel=0.2)
    assert next(n.attrs["window"] for n in run.models[0].facts.nodes if n.op == "pool") == 49


class Choosing(nn.Module):
    """Features chosen by a softmax of U(0, 1) (Popov et al. 2019), the same for U(-0.5, 0.5), or by the draw itself."""

    def __init__(self, *, chosen: bool) -> None:
        super().__init__()
        self.chosen = chosen
        self.select, self.head = nn.Parameter(torch.rand(32, 24)), nn.Linear(24, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(x @ (self.select.softmax(0) if self.chosen else self.select)))


def test_the_mean_of_what_goes_through_a_softmax() -> None:
    inputs = (torch.randn(8, 32),)
    assert loud(judged(lambda: Choosing(chosen=True), inputs)) == []
    assert "IL109" in loud(judged(lambda: Choosing(chosen=False), inputs))


class RandomFeatures(nn.Module):
    """Scores of sqrt(2 / D) cos(W x + b) with fixed W and b: N(0, 1) is what suits them (Rahimi and Recht 2007)."""

    def __init__(self, factor: float, features: int = 1024) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(20, 64), nn.LayerNorm(64)
        self.register_buffer("frequencies", torch.randn(64, features) / 8)
        self.register_buffer("phases", 2 * math.pi * torch.rand(features))
        self.factor, self.scores = factor, nn.Linear(features, 10, bias=False)
        nn.init.normal_(self.scores.weight)

    def forward(self, x: torch.Tensor) -> Any:
        features = torch.cos(self.norm(self.first(x)) @ self.frequencies + self.phases)
        return self.scores(self.factor * features)


def test_scores_of_random_features() -> None:
    inputs = (torch.randn(16, 20),)
    assert loud(judged(lambda: RandomFeatures((2 / 1024) ** 0.5), inputs)) == []
    assert loud(judged(lambda: RandomFeatures(1.0), inputs)) == ["IL209"]


class Controlled(nn.Module):
    """A frozen net and a trained copy of it that a hint enters and leaves through layers of zeros (ControlNet)."""

    def __init__(self, *, zeros: bool = True) -> None:
        super().__init__()
        self.trunk = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(3))
        self.copy = copy.deepcopy(self.trunk)
        self.trunk.requires_grad_(False)
        self.enter = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 16, 3, padding=1))
        self.leave = nn.ModuleList(nn.Conv2d(16, 16, 1) for _ in range(3))
        self.out = nn.Conv2d(16, 4, 3, padding=1)
        for layer in (self.enter[-1], *self.leave) if zeros else ():
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor, hint: torch.Tensor) -> Any:
        h, c = x, x + self.enter(hint)
        for layer, other, leave in zip(self.trunk, self.copy, self.leave, strict=True):
            h, c = h + F.silu(layer(h)), c + F.silu(other(c))
            h = h + leave(c)
        return self.out(h)


def test_zeros_in_line_take_nothing_for_good() -> None:
    inputs = (torch.randn(2, 16, 8, 8), torch.randn(2, 3, 8, 8))
    assert loud(judged(Controlled, inputs)) == []


def test_a_copy_of_a_default_is_one() -> None:
    torch.manual_seed(0)
    facts = initlint.check(Controlled, inputs=(torch.randn(2, 16, 8, 8), torch.randn(2, 3, 8, 8))).models[0].facts
    reasons = {s.parameter.name: s.reason for s in suspects(facts)}
    copies = {name.removeprefix("copy."): reason for name, reason in reasons.items() if name.startswith("copy.")}
    assert set(copies.values()) <= {"default"}


class Rotation(nn.Module):
    """exp of a skew-symmetric matrix, which holds angles: not the size of the rotation (Lezcano-Casado 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.angles = nn.Parameter(torch.zeros(64, 64))
        with torch.no_grad():
            self.angles[::2, 1::2] = torch.diag(torch.rand(32))
        self.last = nn.Linear(64, 4)

    def forward(self, x: torch.Tensor) -> Any:
        upper = self.angles.triu(1)
        return self.last(torch.tanh(x @ torch.linalg.matrix_exp(upper - upper.t())))


def test_angles_of_a_rotation() -> None:
    found = judged(Rotation, (torch.randn(16, 64),))
    assert not {"IL005", "IL101"} & found.keys()
