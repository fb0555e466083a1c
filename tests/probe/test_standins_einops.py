"""Where einops is not installed, its patterns are computed by what torch has."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch

from initlint.probe import standins_einops as stand_in

X = torch.arange(2.0 * 3 * 4 * 6).reshape(2, 3, 4, 6)
HALVES = X.reshape(2, 3, 2, 2, 3, 2)


@pytest.mark.parametrize(
    ("pattern", "sizes", "expected"),
    [
        ("b c h w -> b h w c", {}, X.permute(0, 2, 3, 1)),
        ("b c h w -> b (h w) c", {}, X.permute(0, 2, 3, 1).reshape(2, 24, 3)),
        ("b c (h p) (w q) -> b (h w) (p q c)", {"p": 2, "q": 2}, HALVES.permute(0, 2, 4, 3, 5, 1).reshape(2, 6, 12)),
        ("b ... -> ... b", {}, X.permute(1, 2, 3, 0)),
        ("b ... w -> (b ...) w", {}, X.reshape(24, 6)),
        ("b c h w -> b 1 c (h w) ()", {}, X.reshape(2, 1, 3, 24, 1)),
        ("(two b) c h w -> two b c h w", {"two": 2}, X.reshape(2, 1, 3, 4, 6)),
    ],
)
def test_rearrange(pattern: str, sizes: dict[str, int], expected: torch.Tensor) -> None:
    assert torch.equal(stand_in.rearrange(X, pattern, **sizes), expected)
    assert torch.equal(stand_in.Rearrange(pattern, **sizes)(X), expected)


def test_rearrange_undoes_itself() -> None:
    flat = stand_in.rearrange(X, "b c (h s) w -> (s b) (w c) h", s=2)
    back = stand_in.rearrange(flat, "(s b) (w c) h -> b c (h s) w", s=2, c=3)
    assert torch.equal(back, X)
    assert torch.equal(stand_in.rearrange([X[0], X[1]], "b c h w -> b c h w"), X)


def test_repeat() -> None:
    row = torch.arange(5.0)
    assert torch.equal(stand_in.repeat(row, "d -> b d", b=3), row.expand(3, 5))
    assert torch.equal(stand_in.repeat(row, "d -> (d 2)"), row.repeat_interleave(2))
    assert torch.equal(stand_in.repeat(row, "d -> (n d)", n=2), row.repeat(2))
    token = torch.randn(1, 1, 4)
    assert torch.equal(stand_in.repeat(token, "() n d -> b n d", b=3), token.expand(3, 1, 4))


def test_reduce() -> None:
    assert torch.equal(stand_in.reduce(X, "b c h w -> b c", "mean"), X.mean((2, 3)))
    assert torch.equal(stand_in.reduce(X, "b c (h 2) (w 2) -> b c h w", "max"), torch.amax(HALVES, (3, 5)))
    assert torch.equal(stand_in.reduce(X, "b ... -> b", "sum"), X.sum((1, 2, 3)))
    assert torch.equal(stand_in.Reduce("b c h w -> b c 1 1", "prod")(X), X.prod(3).prod(2)[..., None, None])


def test_sums_shapes_and_packs() -> None:
    q, k = torch.randn(2, 4, 5, 8), torch.randn(2, 4, 7, 8)
    found = stand_in.einsum(q, k, "batch head i d, batch head j d -> batch head i j")
    assert torch.allclose(found, q @ k.transpose(2, 3))
    assert torch.allclose(stand_in.einsum(q, k[0, 0], "... i d, j d -> ... i j"), q @ k[0, 0].t())
    assert stand_in.parse_shape(X, "b _ h w") == {"b": 2, "h": 4, "w": 6}
    tokens, image = torch.randn(2, 8), torch.randn(2, 3, 4, 8)
    packed, shapes = stand_in.pack([tokens, image], "b * d")
    assert packed.shape == (2, 13, 8)
    for one, other in zip(stand_in.unpack(packed, shapes, "b * d"), (tokens, image), strict=True):
        assert torch.equal(one, other)
    assert stand_in.unpack(packed, [[1], [-1]], "b * d")[1].shape == (2, 12, 8)


@pytest.mark.parametrize(
    ("pattern", "sizes"),
    [
        ("b c h w", {}),
        ("b c h -> b c h", {}),
        ("b c h w -> b c h", {}),
        ("b c h w -> b c h w d", {"d": 2}),
        ("b (c d) h w -> b c d h w", {}),
        ("b (c d) h w -> b c d h w", {"d": 2}),
    ],
)
def test_what_does_not_fit_is_said(pattern: str, sizes: dict[str, int]) -> None:
    with pytest.raises(stand_in.EinopsError):
        stand_in.rearrange(X, pattern, **sizes)


MODEL = """
import torch
from torch import nn
from einops import rearrange, repeat
from einops.layers.torch import Rearrange
class Net(nn.Module):
    def __init__(self, dim=32, patch=4):
        super().__init__()
        self.embed = nn.Sequential(
            Rearrange("b c (h p) (w q) -> b (h w) (p q c)", p=patch, q=patch), nn.Linear(3 * patch * patch, dim)
        )
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, 10)
    def forward(self, image):
        x = self.embed(image)
        x = torch.cat([repeat(self.token, "1 n d -> b n d", b=x.shape[0]), x], 1)
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=4)
        x = rearrange((q @ k.transpose(2, 3) / 8**0.5).softmax(-1) @ v, "b h n d -> b n (h d)")
        return self.out(x[:, 0])
"""


@pytest.mark.skipif(importlib.util.find_spec("einops") is not None, reason="einops is installed")
def test_a_model_is_analysed_without_einops(probe_files: Any) -> None:
    (result,) = probe_files("net.py", files={"net.py": MODEL})
    (facts,) = result.models
    assert facts.status == "analysed"
    assert {node.op for node in facts.nodes} & {"attention", "softmax"}
    assert any("einops is not installed" in note for note in facts.notes)
    assert "einops" in dict(result.packages)
