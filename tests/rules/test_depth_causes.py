"""What gradients explode by: the temperature of attention, norms without a residual stream, or weights."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import initlint
from initlint.depth_rule import made_by_layers
from initlint.findings import Finding, Severity
from initlint.signal import Span


class Block(nn.Module):
    def __init__(self, width: int, heads: int, factor: float, *, fused: bool) -> None:
        super().__init__()
        self.heads, self.factor, self.fused = heads, factor, fused
        self.before, self.after = nn.RMSNorm(width), nn.RMSNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.of_q, self.of_k = nn.RMSNorm(width // heads), nn.RMSNorm(width // heads)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.before(x)
        q, k, v = (m(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for m in (self.q, self.k, self.v))
        q, k = self.of_q(q), self.of_k(k)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, scale=self.factor)
        else:
            y = torch.softmax(q @ k.transpose(-2, -1) * self.factor, dim=-1) @ v
        return x + self.after(self.o(y.transpose(1, 2).flatten(-2)))


class Deep(nn.Module):
    def __init__(self, factor: float, *, fused: bool) -> None:
        super().__init__()
        self.stem = nn.Linear(48, 128)
        self.blocks = nn.Sequential(*(Block(128, 2, factor, fused=fused) for _ in range(32)))
        self.norm, self.head = nn.RMSNorm(128), nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.blocks(self.stem(x))).mean(1))


def found(factor: float, *, fused: bool) -> list[Finding]:
    run = initlint.check(lambda: Deep(factor, fused=fused), inputs=(torch.randn(4, 40, 48),), seed=0)
    assert run.models[0].facts.trace.ran
    return [f for f in run.findings if f.severity > Severity.NOTE]


@pytest.mark.parametrize("fused", [True, False])
def test_one_finding_names_the_attentions_where_gradients_explode_by_them(fused: bool) -> None:
    (finding,) = found(2.0, fused=fused)
    assert finding.code == "IL211"
    assert "gradient's second moment grows" in finding.effect
    assert finding.parameters[:2] == ("blocks.0.of_q.weight", "blocks.0.of_k.weight")


@pytest.mark.parametrize("fused", [True, False])
def test_with_the_usual_factor_depth_is_harmless(fused: bool) -> None:
    assert not found(64**-0.5, fused=fused)


class Gated(nn.Module):
    """Convolutions with batch norms and squeeze-and-excitation, without a residual stream."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 32, 1), nn.Linear(32, 10)
        self.convs = nn.ModuleList(nn.Conv2d(32, 32, 3, padding=1, bias=False) for _ in range(depth))
        self.norms = nn.ModuleList(nn.BatchNorm2d(32) for _ in range(depth))
        self.gates = nn.ModuleList(nn.Linear(32, 32) for _ in range(depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for conv, norm, gate in zip(self.convs, self.norms, self.gates, strict=True):
            x = F.relu(norm(conv(x)))
            x = x * torch.sigmoid(gate(x.mean((2, 3))))[:, :, None, None]
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize(("depth", "severity"), [(65, None), (88, Severity.NOTE)])
def test_growth_at_batch_norms_is_no_fault_of_the_gates_beside_them(depth: int, severity: Severity | None) -> None:
    run = initlint.check(lambda: Gated(depth), inputs=(torch.randn(16, 3, 8, 8),), seed=0)
    (model,) = run.models
    assert float(str(model.profile[1]["energy"])) > (6.5 if severity is None else 9.5)  # log10
    said = [(f.severity, f.parameters) for f in run.findings if f.code == "IL204"]
    assert said == ([] if severity is None else [(severity, ())])


class Denoiser(nn.Module):
    """A chain that predicts the residual of its input (Kim et al. 2016, VDSR): a stream without weights passes by."""

    def __init__(self, *, he: bool) -> None:
        super().__init__()
        convs = [nn.Conv2d(1 if i == 0 else 32, 1 if i == 15 else 32, 3, padding=1) for i in range(16)]
        self.chain = nn.Sequential(*(part for conv in convs for part in (conv, nn.ReLU())))
        for conv in convs if he else ():
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.chain[:-1](x)


@pytest.mark.parametrize(("he", "codes"), [(True, []), (False, ["IL103"])])
def test_the_depth_of_a_net_that_the_input_is_led_past(he: bool, codes: list[str]) -> None:
    run = initlint.check(lambda: Denoiser(he=he), inputs=(torch.randn(4, 1, 12, 12),), seed=0)
    assert [f.code for f in run.findings if f.severity > Severity.NOTE] == codes


class Silent(nn.Module):
    """A stream of zeros, of codes that are to be loaded: its norms divide by the root of their epsilon until then."""

    codes: torch.Tensor

    def __init__(self, *, zero: bool) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(64, 64, bias=False), nn.Linear(64, 4)
        self.register_buffer("codes", torch.zeros(16, 64) if zero else torch.randn(16, 64))
        self.norms = nn.ModuleList(nn.LayerNorm(64) for _ in range(6))
        self.layers = nn.ModuleList(nn.Linear(64, 64, bias=False) for _ in range(6))
        self.scales = nn.ParameterList(nn.Parameter(torch.full((64,), 0.01)) for _ in range(6))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.stem(F.embedding(ids, self.codes))
        for norm, layer, scale in zip(self.norms, self.layers, self.scales, strict=True):
            x = x + scale * layer(norm(x))
        return self.head(x)


def test_gradients_where_no_signal_is_are_not_judged() -> None:
    for zero in (True, False):
        run = initlint.check(lambda zero=zero: Silent(zero=zero), inputs=(torch.arange(16),), seed=0)
        assert "IL204" not in {f.code for f in run.findings if f.severity > Severity.NOTE}
        assert zero is any(u.code == "IL204" for m in run.models for u in m.undetermined)


def test_growth_behind_the_last_layer_is_that_of_units() -> None:
    # backbone, boxes in units of their anchors, boxes in pixels: 2 decades up to the last layer, 4 behind it
    points = [SimpleNamespace(node=n, q=q, energy=-q) for n, q in ((2, 0.0), (5, 2.0), (9, 6.0))]
    facts = SimpleNamespace(layers=[SimpleNamespace(nodes=(2,)), SimpleNamespace(nodes=(5,))])
    context: Any = SimpleNamespace(facts=facts, signal=SimpleNamespace(profile=points))
    for name in ("forward", "gradient"):
        assert made_by_layers(context, Span(6.0, 6.0, 0.0, 2, 9, shrinks=False), name) == 2.0
        assert made_by_layers(context, Span(2.0, 2.0, 0.0, 2, 5, shrinks=False), name) == 2.0


def test_deep_sigmoids_are_to_be_glorots_with_a_gain_of_four() -> None:
    def deep(gain: float) -> nn.Module:
        layers = [layer for _ in range(10) for layer in (nn.Linear(128, 128), nn.Sigmoid())]
        for layer in layers[::2]:
            nn.init.xavier_normal_(layer.weight, gain=gain)
            nn.init.zeros_(layer.bias)
        return nn.Sequential(*layers, nn.Linear(128, 10))

    (finding,) = [
        f for f in initlint.check(lambda: deep(1.0), inputs=(torch.randn(32, 128),)).findings if f.code == "IL203"
    ]
    assert finding.fix is not None
    assert "nn.init.xavier_normal_(" in finding.fix.snippet
    assert "gain=4" in finding.fix.snippet
    after = initlint.check(lambda: deep(4.0), inputs=(torch.randn(32, 128),)).findings
    assert not [f.code for f in after if f.severity > Severity.NOTE]
