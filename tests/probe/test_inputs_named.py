"""Inputs that names, keys, refusals and sizes that belong together tell: entries of dictionaries, further keywords,
arguments that an assertion asks for, waveforms, bags, frames, pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from initlint.probe.inputs import find


def given(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of the inputs with which the forward passes."""
    found = find(model, seed=0)
    assert not found.notes
    return {fact.name: fact.shape for fact in found.facts}


class Labelled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image, self.label = nn.Conv2d(3, 8, 3), nn.Linear(12, 8)

    def forward(self, x: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        y = kwargs["labels"].float()
        return self.image(x).mean((2, 3)) + self.label(y)


class Asserting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.table = nn.Linear(6, 8), nn.Embedding(30, 8)

    def forward(self, x: torch.Tensor, y: Any = None, scale: Any = None, rest: Any = None) -> torch.Tensor:
        assert y is not None, "conditional"
        if scale is None:
            raise NotImplementedError("a net without it is another one")
        return self.layer(x) * scale + self.table(y)


class Scene(nn.Module):
    """A graph of molecules in a dictionary, with entries for nodes, edges and graphs."""

    def __init__(self) -> None:
        super().__init__()
        self.atoms, self.bonds, self.head = nn.Embedding(28, 16), nn.Embedding(4, 16), nn.Linear(16, 1)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        h, e = self.atoms(batch["x"]), self.bonds(batch["edge_attr"])
        source, target = batch["edge_index"]
        h = torch.zeros_like(h).index_add(0, target, h[source] + e)
        pooled = h.new_zeros(int(batch["batch"].max()) + 1, 16).index_add(0, batch["batch"], h)
        return self.head(pooled)


class Speech(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(400))
        self.proj, self.rnn = nn.Linear(201, 16), nn.GRU(16, 16, batch_first=True)

    def forward(self, wav: torch.Tensor, wav_lens: torch.Tensor) -> torch.Tensor:
        power = torch.stft(wav, 400, 160, window=self.window, return_complex=True).abs() ** 2
        x = self.proj(torch.log(power.transpose(1, 2) + 1e-6))
        lengths = (wav_lens // 160).clamp(min=1, max=x.shape[1])
        assert int(lengths.min()) > 4, "too short"
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0]


class Bags(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag, self.dense, self.head = nn.EmbeddingBag(500, 8), nn.Linear(5, 8), nn.Linear(16, 2)

    def forward(self, values: torch.Tensor, offsets: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([self.bag(values, offsets), self.dense(dense)], 1))


class Clip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.conv(clip[:, t]) for t in range(clip.size(1))], 1)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16)

    def once(self, x: torch.Tensor) -> torch.Tensor:
        _, dims, _ = x.size()
        assert dims == 3
        return F.relu(self.norm(self.conv(x))).max(2)[0]

    def forward(self, src: torch.Tensor, tgt: torch.Tensor) -> torch.Tensor:
        return self.once(src) - self.once(tgt)


class Columns(nn.Module):
    """One weight for each number, and one for the constant that is put before them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.table = nn.Parameter(torch.randn(7, 8)), nn.Embedding(22, 8)
        self.register_buffer("starts", torch.tensor([0, 3, 15, 20]))

    def forward(self, numbers: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
        numbers = torch.cat([torch.ones(len(numbers), 1), numbers], 1)
        return torch.cat([self.weight * numbers[:, :, None], self.table(kinds + self.starts)], 1)


EXPECTED: dict[Callable[[], nn.Module], dict[str, tuple[int, ...]]] = {
    Labelled: {"x": (4, 3, 32, 32), "labels": (4, 12)},
    Asserting: {"x": (4, 6), "y": (4,), "scale": (4, 8)},
    Scene: {"batch_x": (4,), "batch_edge_attr": (16,), "batch_edge_index": (2, 16), "batch_batch": (4,)},
    Speech: {"wav": (4, 3200), "wav_lens": (4,)},
    Bags: {"values": (64,), "offsets": (4,), "dense": (4, 5)},
    Clip: {"clip": (4, 3, 3, 32, 32)},
    Pair: {"src": (4, 3, 16), "tgt": (4, 3, 16)},
    Columns: {"numbers": (4, 6), "kinds": (4, 4)},
}


@pytest.mark.parametrize("make", EXPECTED)
def test_inputs(make: Callable[[], nn.Module]) -> None:
    assert given(make()) == EXPECTED[make]


def test_lengths_are_those_of_the_waveform() -> None:
    found = find(Speech(), seed=0)
    assert {fact.name: fact.high for fact in found.facts}["wav_lens"] == 3201


class Fusion(nn.Module):
    """Features of three modalities, in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.parts, self.gate = nn.ModuleList(nn.Linear(8, 8) for _ in range(3)), nn.Linear(24, 3)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        weights = self.gate(torch.cat(features, dim=-1)).softmax(-1)
        return (weights.unsqueeze(-1) * torch.stack([p(f) for p, f in zip(self.parts, features, strict=True)], 1)).sum(
            1
        )


def test_a_list_of_features() -> None:
    assert given(Fusion()) == {f"features_{i}": (4, 8) for i in range(3)}


class Trajectory(nn.Module):
    """Returns, states and actions of each step, and which step it is (Decision Transformer)."""

    def __init__(self) -> None:
        super().__init__()
        self.step, self.value = nn.Embedding(100, 8), nn.Linear(1, 8)
        self.state, self.action, self.head = nn.Linear(11, 8), nn.Linear(3, 8), nn.Linear(24, 3)

    def forward(self, states: Any, actions: Any, returns: Any, timesteps: Any) -> torch.Tensor:
        at = self.step(timesteps)
        parts = (self.value(returns) + at, self.state(states) + at, self.action(actions) + at)
        steps = torch.stack(parts, 1).permute(0, 2, 1, 3)
        return self.head(steps.reshape(states.shape[0], states.shape[1], 24))


def test_steps_of_a_sequence() -> None:
    shapes = given(Trajectory())
    assert len(shapes["states"]) == 3
    assert shapes["timesteps"] == shapes["states"][:2]
