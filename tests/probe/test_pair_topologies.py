"""Layers paired with what consumes them, on small models of every common shape."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from normalise_helper import layers
from torch import nn

from initlint.facts import Layer
from initlint.probe import symbolic


def by_name(model: nn.Module, *inputs: Any) -> dict[str, Layer]:
    return {layer.name: layer for layer in layers(model, *inputs)}


class Residual(nn.Module):
    def __init__(self, projection: bool = False) -> None:
        super().__init__()
        self.conv1, self.bn1 = (
            nn.Conv2d(8, 16 if projection else 8, 3, padding=1),
            nn.BatchNorm2d(16 if projection else 8),
        )
        wide = 16 if projection else 8
        self.conv2, self.bn2 = nn.Conv2d(wide, wide, 3, padding=1), nn.BatchNorm2d(wide)
        self.short = nn.Conv2d(8, 16, 1) if projection else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.short(x))


@pytest.mark.parametrize("projection", [False, True])
def test_residual_block(projection: bool) -> None:
    found = by_name(nn.Sequential(nn.Conv2d(3, 8, 1), Residual(projection)), torch.randn(4, 3, 6, 6))
    assert found["1.conv1"].consumer == "norm"
    assert found["1.bn1"].activation == "relu"
    assert (found["1.bn2"].consumer, found["1.bn2"].branch) == ("residual", True)
    assert found["1.bn2"].path == ("add",)
    if projection:
        assert (found["1.short"].consumer, found["1.short"].branch) == ("residual", False)


class PreNorm(nn.Module):
    """A decoder block with packed projections and attention written out."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.ln1, self.ln2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)
        self.fc, self.out, self.drop = nn.Linear(16, 64), nn.Linear(64, 16), nn.Dropout(0.1)
        self.register_buffer("mask", torch.ones(5, 5).tril().bool())

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (t.view(2, 5, 4, 4).transpose(1, 2) for t in self.qkv(x).split(16, dim=-1))
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            logits = (q @ k.transpose(-2, -1)) / math.sqrt(4)
            weights = self.drop(logits.masked_fill(~self.mask, float("-inf")).softmax(-1))
            y = weights @ v
        return self.proj(y.transpose(1, 2).reshape(2, 5, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.drop(self.attend(self.ln1(x)))
        return x + self.out(F.gelu(self.fc(self.ln2(x))))


@pytest.mark.parametrize("fused", [True, False])
def test_decoder_block(fused: bool) -> None:
    found = by_name(PreNorm(fused), torch.randn(2, 5, 16))
    qkv = found["qkv"]
    assert qkv.consumer == "attention"
    assert [(b.name, b.start, b.stop) for b in qkv.blocks] == [("q", 0, 16), ("k", 16, 32), ("v", 32, 48)]
    assert qkv.before == "norm"
    assert (found["proj"].consumer, found["proj"].branch) == ("residual", True)
    assert found["proj"].before == "attention" if fused else "matmul"
    assert found["fc"].activation == "gelu"
    assert (found["out"].branch, found["out"].before) == (True, "gelu")


class Separate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))
        self.qn = nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = (self.qn(self.q(x)) @ self.k(x).mT).softmax(-1)
        return self.o(a @ self.v(x))


def test_separate_projections_have_roles() -> None:
    found = by_name(Separate(), torch.randn(2, 5, 8))
    assert (found["k"].consumer, found["k"].role) == ("attention", "key")
    assert (found["v"].consumer, found["v"].role) == ("attention", "value")
    assert found["q"].consumer == "norm"
    assert (found["qn"].consumer, found["qn"].role) == ("attention", "query")
    assert found["o"].head


def test_multihead_attention_module() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn, self.ln = nn.MultiheadAttention(16, 4, batch_first=True), nn.LayerNorm(16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.ln(x + self.attn(x, x, x, need_weights=False)[0])

    found = by_name(Model(), torch.randn(2, 5, 16))
    packed = found["attn.in_proj_weight"]
    assert (packed.kind, [b.name for b in packed.blocks]) == ("attention", ["q", "k", "v"])
    assert packed.torch_fans == (16, 48)
    assert (found["attn.out_proj"].consumer, found["attn.out_proj"].branch) == ("residual", True)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda a, b: F.silu(a) * b, "swiglu"),
        (lambda a, b: b * F.gelu(a), "geglu"),
        (lambda a, b: torch.sigmoid(a) * b, "glu"),
        (lambda a, b: F.relu(a) * b, "reglu"),
    ],
)
def test_gated_units_of_two_layers(function: Any, name: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.up, self.down = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(12, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.down(function(self.gate(x), self.up(x)))

    found = by_name(Model(), torch.randn(4, 8))
    assert (found["up"].consumer, found["up"].activation, found["up"].role) == ("gate", name, "value")
    assert found["gate"].activation == {"swiglu": "silu", "geglu": "gelu", "glu": "sigmoid", "reglu": "relu"}[name]
    assert found["down"].before == "gate"


@pytest.mark.parametrize("by_chunk", [True, False])
def test_gated_unit_of_one_layer(by_chunk: bool) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(8, 24), nn.Linear(12, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if by_chunk:
                a, b = self.up(x).chunk(2, dim=-1)
                return self.down(a * torch.sigmoid(b))
            return self.down(F.glu(self.up(x), -1))

    up = by_name(Model(), torch.randn(4, 8))["up"]
    assert (up.consumer, up.activation) == ("activation", "glu")


def test_squeeze_and_excitation_is_a_gate() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.down, self.up = nn.Conv2d(3, 8, 3), nn.Linear(8, 4), nn.Linear(4, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.relu(self.conv(x))
            gate = torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3))))))
            return x * gate[:, :, None, None]

    found = by_name(Model(), torch.randn(2, 3, 8, 8))
    assert (found["up"].consumer, found["up"].activation) == ("gate", "sigmoid")
    assert found["down"].activation == "relu"
    assert found["down"].before == "relu"


def test_scaled_sine_and_constant_factors() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 8), nn.Linear(8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(torch.sin(30.0 * self.a(x)))

    found = by_name(Model(), torch.randn(4, 2))
    assert (found["a"].activation, found["a"].pre_scale) == ("sin", 30.0)
    assert found["b"].head


def test_through_reshapes_dropout_pooling_and_concatenation() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.other, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(72, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a = F.max_pool2d(F.dropout(self.conv(x), 0.1), 2)
            b = F.avg_pool2d(self.other(x), 2)
            return self.fc(F.elu(torch.cat([a, b], 1)).flatten(1))

    found = by_name(Model(), torch.randn(2, 3, 8, 8))
    assert found["conv"].activation == found["other"].activation == "elu"
    assert found["conv"].path[-1] == "elu"
    assert found["fc"].before == "elu"


def test_recurrent_weights_and_gates() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.gru, self.fc = (
                nn.LSTM(4, 8, batch_first=True),
                nn.GRU(8, 6, batch_first=True),
                nn.Linear(6, 2),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y, _ = self.gru(self.lstm(x)[0])
            return self.fc(y[:, -1])

    found = by_name(Model(), torch.randn(3, 7, 4))
    assert [b.name for b in found["lstm.weight_hh_l0"].blocks] == ["i", "f", "g", "o"]
    assert [(b.name, b.start) for b in found["gru.weight_ih_l0"].blocks] == [("r", 0), ("z", 6), ("n", 12)]
    assert found["lstm.weight_hh_l0"].before == "recurrent"
    assert found["lstm.weight_ih_l0"].role == "input"
    assert found["fc"].before == "recurrent"


def test_tied_table_is_an_embedding_and_a_head() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tok, self.ln, self.head = nn.Embedding(30, 8), nn.LayerNorm(8), nn.Linear(8, 30, bias=False)
            self.head.weight = self.tok.weight

        def forward(self, i: torch.Tensor) -> torch.Tensor:
            return self.head(self.ln(self.tok(i)))

    found = by_name(Model(), torch.randint(0, 30, (2, 5)))
    assert found["tok"].kind == "embedding"
    assert (found["head"].kind, found["head"].weight, found["head"].head) == ("linear", "tok.weight", True)


def test_shared_module_is_one_layer_with_several_nodes() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(torch.tanh(self.a(x)))

    found = layers(Model(), torch.randn(4, 8))
    assert len(found) == 1
    assert len(found[0].nodes) == 2
    assert found[0].activation == "tanh"


def test_layer_scale_and_zero_branch() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.gamma = nn.Linear(8, 8), nn.Parameter(torch.full((8,), 1e-5))
            self.alpha, self.fc2 = nn.Parameter(torch.zeros(1)), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.gamma * self.fc(x)
            return x + self.alpha * self.fc2(x)

    found = by_name(Model(), torch.randn(4, 8))
    assert (found["gamma"].kind, found["gamma"].branch) == ("scale", True)
    assert (found["alpha"].kind, found["alpha"].branch) == ("scale", True)
    assert (found["fc"].consumer, found["fc"].branch) == ("residual", True)


def test_low_rank_adapter() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base, self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 2, bias=False), nn.Linear(2, 8, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.relu(self.base(x) + 2.0 * self.b(self.a(x)))

    found = by_name(Model(), torch.randn(4, 8))
    assert (found["base"].consumer, found["base"].activation) == ("activation", "relu")
    assert (found["b"].branch, found["b"].pre_scale) == (True, 2.0)
    assert found["a"].consumer == "linear"


def test_hand_written_cell_sums_before_its_activation() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.u = nn.Linear(4, 8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = torch.zeros(x.shape[0], 8)
            for t in range(3):
                h = torch.tanh(self.w(x[:, t]) + self.u(h))
            return h

    found = by_name(Model(), torch.randn(2, 3, 4))
    assert found["w"].activation == found["u"].activation == "tanh"
    assert not found["w"].branch


def test_classifier_with_softmax_is_still_the_head() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3), nn.LogSoftmax(-1))
    found = by_name(model, torch.randn(4, 8))
    assert (found["2"].consumer, found["2"].head) == ("softmax", True)
    assert not found["0"].head


def test_bare_parameters_and_fans() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.experts = nn.Parameter(torch.randn(8, 12)), nn.Parameter(torch.randn(3, 12, 5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = F.relu(x @ self.w)
            return torch.einsum("bi,eio->beo", h, self.experts)

    found = by_name(Model(), torch.randn(4, 8))
    assert (found["w"].fan_in, found["w"].torch_fans, found["w"].layout) == (8.0, (12, 8), "in_out")
    experts = found["experts"]
    assert (experts.kind, experts.layout, experts.stack, experts.fan_in) == ("matmul", "stacked_in_out", 3, 12.0)
    assert experts.torch_fans == (60, 15)


def test_chosen_experts() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(4, 8, 6))

        def forward(self, x: torch.Tensor, route: torch.Tensor) -> torch.Tensor:
            return F.relu(torch.einsum("bi,bio->bo", x, self.w[route]))

    found = by_name(Model(), torch.randn(5, 8), torch.randint(0, 4, (5,)))
    assert (found["w"].kind, found["w"].activation, found["w"].fan_in) == ("matmul", "relu", 8.0)
    assert found["w"].layout == "stacked_in_out"


def test_detached_output_is_undetermined() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x).detach())

    found = by_name(Model(), torch.randn(4, 8))
    assert found["a"].consumer is None
    assert "gradient" in found["a"].undetermined


def test_loss_inside_the_model() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return F.cross_entropy(self.a(x), y)

    found = by_name(Model(), torch.randn(4, 8), torch.randint(0, 3, (4,)))
    assert (found["a"].consumer, found["a"].head) == ("loss", True)


def test_gates_of_a_hand_written_lstm() -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x2h, self.h2h = nn.Linear(4, 32), nn.Linear(8, 32)

        def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            i, f, g, o = (self.x2h(x) + self.h2h(h)).chunk(4, dim=-1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            return torch.sigmoid(o) * torch.tanh(c)

    found = by_name(Cell(), torch.randn(3, 4), torch.randn(3, 8), torch.randn(3, 8))
    for name in ("x2h", "h2h"):
        assert [(b.name, b.start) for b in found[name].blocks] == [("i", 0), ("f", 8), ("g", 16), ("o", 24)]


def test_rotary_embedding_does_not_hide_the_attention() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(8, 8, bias=False) for _ in range(3))
            angle = torch.arange(5)[:, None] / torch.tensor([1.0, 10.0, 100.0, 1000.0])
            self.register_buffer("cos", angle.cos().repeat(1, 2))
            self.register_buffer("sin", angle.sin().repeat(1, 2))

        def rotate(self, x: torch.Tensor) -> torch.Tensor:
            a, b = x.chunk(2, dim=-1)
            return x * self.cos + torch.cat([-b, a], dim=-1) * self.sin

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k = self.rotate(self.q(x)), self.rotate(self.k(x))
            return F.scaled_dot_product_attention(q, k, self.v(x))

    found = by_name(Model(), torch.randn(2, 5, 8))
    assert [(found[k].consumer, found[k].role) for k in "qkv"] == [
        ("attention", "query"),
        ("attention", "key"),
        ("attention", "value"),
    ]
    assert all(layer.kind != "scale" for layer in found.values())


def test_parallel_branches_are_both_branches() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln, self.a, self.b = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 8)
            self.c, self.d = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.ln(x)
            return x + self.b(torch.tanh(self.a(h))) + self.d(F.relu(self.c(h)))

    found = by_name(Model(), torch.randn(4, 8))
    assert (found["b"].branch, found["d"].branch) == (True, True)


def test_pairing_needs_no_torch() -> None:
    import subprocess
    import sys
    from pathlib import Path

    root = Path(__file__).resolve().parents[2]
    code = "import sys; import initlint.probe.pair; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


class Lengths(nn.Module):
    """The shape of one output is taken for another parameter: what is multiplied by zero hands nothing on."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.scale = nn.Linear(8, 4), nn.Parameter(torch.zeros(4))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = self.mean(x)
        return mean, torch.exp(mean * 0 + self.scale)


def test_a_factor_of_zero_pairs_nothing() -> None:
    found = by_name(Lengths(), torch.randn(4, 8))["mean"]
    assert (found.consumer, found.activation, found.pre_scale) == ("output", None, 1.0)


class Sized(nn.Module):
    """A parameter whose sizes the forward asks for one at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(6, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(-1, self.table.size(1)) * len(self.table)


def test_sizes_of_a_parameter_are_asked_one_at_a_time() -> None:
    assert symbolic.trace_whole(Sized()).complete
