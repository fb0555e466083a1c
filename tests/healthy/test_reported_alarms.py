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
