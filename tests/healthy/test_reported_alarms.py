"""Public models on which a rule once spoke for a wrong reason: what must not be said of them, and why."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

import initlint  # noqa: E402
from initlint.findings import Finding, Severity  # noqa: E402


def loud(findings: tuple[Finding, ...]) -> list[tuple[str, str]]:
    """What is said at warning or above."""
    return [(f.code, f.message) for f in findings if f.severity >= Severity.WARNING]


class Frames(nn.Module):
    """The common deep Q-network: bytes are divided by 255, three convolutions, two linear layers, PyTorch's default."""

    def __init__(self, actions: int = 6) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU()
        )
        self.body = nn.Sequential(nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, actions))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.convs(x.float() / 255.0).flatten(1))


@pytest.mark.parametrize("given", ["floats", "bytes"])
def test_units_of_the_data_are_no_layer(given: str) -> None:
    torch.manual_seed(0)
    frames = torch.randint(0, 256, (4, 4, 84, 84), dtype=torch.uint8)
    run = initlint.check(Frames, inputs=(frames.float() if given == "floats" else frames,))
    assert not loud(run.findings)
    # what bytes carry differs between samples: a collapse of the representation would be said as a note
    assert "IL505" not in {f.code for f in run.findings}
    signal = run.models[0].profile
    assert signal[0]["forward_std"] < 2.0  # behind the division


def test_standardised_data_starts_the_profile() -> None:
    class Standardised(nn.Module):
        mean: Tensor
        std: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.full((3, 1, 1), 120.0))
            self.register_buffer("std", torch.full((3, 1, 1), 60.0))
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.body((x - self.mean) / self.std)

    run = initlint.check(Standardised, inputs=(120 + 60 * torch.randn(4, 3, 12, 12),))
    assert run.models[0].profile[0]["forward_std"] == pytest.approx(1.0, rel=0.2)


def test_a_second_output_counts_for_an_effect() -> None:
    """A value beside a policy: weights N(0, 1) in front of it are seen, though the trunk leads to the policy."""

    class Policy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            body = [layer for _ in range(4) for layer in (nn.Linear(64, 64), nn.ReLU())]
            self.actor = nn.Sequential(*body, nn.Linear(64, 4))
            self.value = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
            for at in (0, 2):
                nn.init.normal_(self.value[at].weight)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.actor(x), self.value(x)

    run = initlint.check(Policy, inputs=(torch.randn(8, 64),))
    found = [f for f in run.findings if "value.0.weight" in f.parameters]
    assert found
    assert max(f.severity for f in found) is Severity.WARNING
    assert abs(max(f.effect_log10 or 0.0 for f in found)) > 2.0


def scales(findings: tuple[Finding, ...]) -> list[str]:
    """Codes at warning or above that say something on the scale of signals and weights."""
    return [f.code for f in findings if f.severity >= Severity.WARNING]


def test_a_gate_against_the_signal_is_one_finding() -> None:
    class Highway(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.change, self.gate = nn.Linear(32, 32), nn.Linear(32, 32)
            nn.init.constant_(self.gate.bias, 3.0)

        def forward(self, x: Tensor) -> Tensor:
            gate = torch.sigmoid(self.gate(x))
            return gate * torch.relu(self.change(x)) + (1 - gate) * x

    run = initlint.check(
        lambda: nn.Sequential(*[Highway() for _ in range(20)], nn.Linear(32, 4)), inputs=(torch.randn(8, 32),)
    )
    assert scales(run.findings) == ["IL324"]


def test_an_init_that_never_ran_is_one_finding() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = [layer for _ in range(16) for layer in (nn.Linear(48, 48), nn.ReLU())]
            self.body, self.head = nn.Sequential(*layers), nn.Linear(48, 4)

        def reset(self) -> None:
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                    nn.init.zeros_(module.bias)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x))

    run = initlint.check(Net, inputs=(torch.randn(8, 48),))
    assert scales(run.findings) == ["IL401"]


def test_one_line_that_draws_all_layers_too_large_is_one_finding() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Sequential(nn.Linear(64, 64), nn.ReLU()), nn.Linear(64, 10)
            for module in (*self.body, self.head):
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x))

    run = initlint.check(Net, inputs=(torch.randn(8, 64),))
    assert len(scales(run.findings)) == 1
    assert set(run.findings[0].parameters) >= {"body.0.weight", "head.weight"}


def test_a_bias_that_saturates_is_named() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 4)
            for layer in (self.a, self.b):
                nn.init.xavier_normal_(layer.weight)
                nn.init.constant_(layer.bias, -10.0)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.tanh(self.b(torch.tanh(self.a(x)))))

    found = [f for f in initlint.check(Net, inputs=(torch.randn(8, 64),)).findings if f.code == "IL207"]
    assert [set(f.parameters) for f in found] == [{"a.bias", "b.bias"}]
    assert found[0].severity is Severity.ERROR


@pytest.mark.parametrize(("scale", "level"), [(1e-5, Severity.NOTE), (1.0, Severity.WARNING)])
def test_a_packed_projection_behind_layer_scale_is_a_note(scale: float, level: Severity) -> None:
    """Missed by the init function, but the branch writes 1e-5 of what it would: nothing changes at the start."""

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(width)
            self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
            self.gamma = nn.Parameter(scale * torch.ones(width))

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(x)
            return x + self.gamma * self.attention(y, y, y, need_weights=False)[0]

    class Net(nn.Module):
        def __init__(self, width: int = 64) -> None:
            super().__init__()
            self.stem = nn.Linear(16, width)
            self.blocks = nn.ModuleList(Block(width) for _ in range(6))
            self.head = nn.Linear(width, 8)
            self.apply(self._init)

        @staticmethod
        def _init(module: nn.Module) -> None:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.2)
                nn.init.zeros_(module.bias)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            for block in self.blocks:
                x = block(x)
            return self.head(x)

    run = initlint.check(Net, inputs=(torch.randn(4, 10, 16),))
    found = [f for f in run.findings if f.code == "IL403"]
    assert [f.severity for f in found] == [level]


def test_an_output_split_between_two_activations_has_no_scheme_of_its_own() -> None:
    """RAFT's context network: half of the channels go through tanh, half through ReLU."""

    class Context(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(16, 32, 3, padding=1)
            self.hidden, self.head = nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 2, 3, padding=1)
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

        def forward(self, x: Tensor) -> Tensor:
            first, second = self.conv(x).chunk(2, 1)
            return self.head(torch.relu(self.hidden(torch.cat([torch.tanh(first), torch.relu(second)], 1))))

    run = initlint.check(Context, inputs=(torch.randn(2, 16, 12, 12),))
    assert not [f for f in run.findings if f.code == "IL104" and "conv.weight" in f.parameters]


class Field(nn.Module):
    """A radiance field: eight default layers, which send nearly the same to the last one whatever comes in."""

    def __init__(self, width: int = 128, outputs: int = 4) -> None:
        super().__init__()
        sizes = [63, *[width] * 4, width + 63, *[width] * 2]
        self.body = nn.ModuleList(nn.Linear(size, width) for size in sizes)
        self.head = nn.Linear(width, outputs)

    def hidden(self, x: Tensor) -> Tensor:
        y = x
        for i, layer in enumerate(self.body):
            y = layer(torch.cat([x, y], -1) if i == 5 else y).relu()
        return y

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(x))


class ColourAndDensity(Field):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        out = self.head(self.hidden(x))
        return out[:, :3], out[:, 3]


class TwoHeads(Field):
    def __init__(self) -> None:
        super().__init__()
        self.normal = nn.Linear(128, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        y = self.hidden(x)
        return self.head(y), self.normal(y)


class Coded(Field):
    def forward(self, x: Tensor) -> Tensor:
        waves = [wave(x * 2**k) for k in range(10) for wave in (torch.sin, torch.cos)]
        return self.head(self.hidden(torch.cat([x, *waves], -1)))


class Classifier(Field):
    def forward(self, x: Tensor) -> Tensor:
        out = self.head(self.hidden(x)).softmax(-1)
        return out[:, :4]


@pytest.mark.parametrize(
    ("model", "width", "said"),
    [
        (Field, 63, True),
        (Classifier, 63, True),
        (ColourAndDensity, 63, False),
        (TwoHeads, 63, False),
        (Coded, 3, False),
    ],
)
def test_a_field_over_space_guesses_no_classes(model: type[nn.Module], width: int, said: bool) -> None:
    """A bare vector of four numbers is taken for scores; what is taken apart, or a function of a place, is none."""
    torch.manual_seed(0)
    run = initlint.check(model, inputs=(torch.randn(16, width),))
    assert ("IL501" in {f.code for f in run.findings}) is said
