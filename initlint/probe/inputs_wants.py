"""What a layer accepts: candidate inputs, the likeliest first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from initlint.probe.inputs_spec import Spec
from initlint.records import dataclass

# Sizes tried for images: small ones first (fast), then those that published models insist on.
IMAGE_SIZES = (32, 64, 28, 96, 128, 224, 256, 299, 16, 48, 84, 160, 192, 384, 8, 512)
SEQUENCE_SIZES = (16, 64, 8, 32, 128, 256, 1024, 4096, 16000, 512, 100, 784)
VOLUME_SIZES = (
    *((8, 32, 32), (16, 32, 32), (16, 64, 64), (32, 32, 32), (16, 112, 112), (64, 64, 64), (4, 16, 16)),
    (16, 224, 224),  # what video transformers insist on
)
# Tokens in a sequence: long enough for position statistics, within every table of positions.
TOKENS = 16


def tokens(batch: int) -> int:
    """Length of sequences: half for the small batches that large models get, whose run is what takes time."""
    return TOKENS if batch > 2 else TOKENS // 2


@dataclass(frozen=True, slots=True)
class Guess:
    """A candidate for one argument."""

    kind: str  # "image" | "volume" | "sequence" | "features" | "tokens" | "ids" | "mask" | "time" | "wave" | "other"
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    high: int | None = None
    fill: str = ""

    def spec(self, name: str = "") -> Spec:
        """As a spec that a tensor can be built from."""
        return Spec(name, self.dtype, self.shape, self.high, self.fill)

    def text(self, name: str) -> str:
        """As it is written on the command line."""
        bound = "" if self.high is None else f"<{self.high}"
        return f"{name}: {str(self.dtype).removeprefix('torch.')}[{','.join(map(str, self.shape))}]{bound}"

    def resized(self, shape: tuple[int, ...]) -> Guess:
        """The same with another shape."""
        return replace(self, shape=shape)


def spatial(guess: Guess) -> tuple[int, ...]:
    """Axes of positions of a guess, by its kind."""
    if guess.kind in ("image", "volume", "sequence"):
        return tuple(range(2, len(guess.shape)))
    if guess.kind in ("tokens", "ids", "mask", "wave") and len(guess.shape) > 1:
        return (1,)
    return ()


def wants(module: nn.Module, batch: int) -> list[Guess]:
    """Inputs that a torch layer accepts directly, by its attributes; empty for layers that take anything."""
    return list(_wants(module, batch))


def _wants(m: nn.Module, batch: int) -> Iterator[Guess]:
    if isinstance(m, LazyModuleMixin):
        yield from _lazy_wants(m, batch)
    elif isinstance(m, nn.Linear):
        yield Guess("features", (batch, m.in_features))
        yield Guess("tokens", (batch, tokens(batch), m.in_features))
    elif isinstance(m, nn.modules.conv._ConvNd):
        yield from conv_wants(m.in_channels, len(m.kernel_size), batch, transposed=m.transposed)
    elif isinstance(m, (nn.Embedding, nn.EmbeddingBag)):
        yield from index_wants(m.num_embeddings, batch)
    elif isinstance(m, nn.RNNBase):
        shape = (batch, tokens(batch), m.input_size) if m.batch_first else (tokens(batch), batch, m.input_size)
        yield Guess("tokens", shape)
    elif isinstance(m, nn.RNNCellBase):
        yield Guess("features", (batch, m.input_size))
    elif isinstance(m, nn.MultiheadAttention):
        shape = (batch, tokens(batch), m.embed_dim) if m.batch_first else (tokens(batch), batch, m.embed_dim)
        yield Guess("tokens", shape)
    elif isinstance(m, (nn.LayerNorm, nn.RMSNorm)):
        normed = tuple(int(n) for n in m.normalized_shape)
        yield Guess("tokens", (batch, tokens(batch), *normed)) if len(normed) == 1 else Guess("other", (batch, *normed))
        yield Guess("features", (batch, *normed))
    elif isinstance(m, nn.modules.batchnorm._NormBase):
        yield from _norm_wants(type(m).__name__, m.num_features, batch)
    elif isinstance(m, nn.GroupNorm):
        yield from _norm_wants("2d", m.num_channels, batch)
        yield from _norm_wants("1d", m.num_channels, batch)
    elif isinstance(m, nn.Bilinear):
        yield Guess("features", (batch, m.in1_features))
        yield Guess("features", (batch, m.in2_features))


def _lazy_wants(m: nn.Module, batch: int) -> Iterator[Guess]:
    """What a layer that takes its sizes from its first input usually meets."""
    if isinstance(m, nn.modules.conv._ConvNd):
        axes = len(m.kernel_size)
        yield from conv_wants(1 if axes == 1 else 3, axes, batch, transposed=m.transposed)
    elif isinstance(m, nn.modules.batchnorm._NormBase):
        yield from _norm_wants(type(m).__name__.lower(), 16, batch)
    else:
        yield Guess("features", (batch, 16))
        yield Guess("tokens", (batch, tokens(batch), 16))


def conv_wants(channels: int, axes: int, batch: int, *, transposed: bool = False) -> Iterator[Guess]:
    """Inputs of a convolution over ``axes`` axes."""
    if transposed:  # mostly the start of a generator
        for size in (4, 1, 8, 16, 32):
            yield Guess(_KINDS[axes], (batch, channels, *(size,) * axes))
    elif axes == 1:
        for size in SEQUENCE_SIZES:
            yield Guess("sequence", (batch, channels, size))
    elif axes == 2:
        for size in IMAGE_SIZES:
            yield Guess("image", (batch, channels, size, size))
    else:
        for sizes in VOLUME_SIZES:
            yield Guess("volume", (batch, channels, *sizes))


def index_wants(rows: int, batch: int) -> Iterator[Guess]:
    """Index tensors for a table of ``rows`` rows: sequences, then single indices."""
    yield Guess("ids", (batch, tokens(batch)), torch.int64, rows)
    yield Guess("ids", (batch,), torch.int64, rows)


def _norm_wants(name: str, channels: int, batch: int) -> Iterator[Guess]:
    if "3d" in name:
        yield Guess("volume", (batch, channels, 8, 16, 16))
    elif "2d" in name:
        yield Guess("image", (batch, channels, 32, 32))
    else:
        yield Guess("features", (batch, channels))
        yield Guess("sequence", (batch, channels, 64))


_KINDS = {1: "sequence", 2: "image", 3: "volume"}


def variants(guess: Guess) -> Iterator[Guess]:
    """The same content in other layouts: channels last, without a channel axis of one, unbatched first axes swapped."""
    shape = guess.shape
    if guess.kind in ("image", "volume", "sequence"):
        yield replace(guess, kind="other", shape=(shape[0], *shape[2:], shape[1]))
        if shape[1] == 1:
            yield replace(guess, kind="other", shape=(shape[0], *shape[2:]))
    if guess.kind == "tokens" and len(shape) == 3:
        yield replace(guess, shape=(shape[1], shape[0], shape[2]))
        yield replace(guess, kind="features", shape=(shape[0], shape[2]))
    if guess.kind == "features" and len(shape) == 2:
        yield replace(guess, kind="tokens", shape=(shape[0], tokens(shape[0]), shape[1]))
        side = round(shape[1] ** 0.5)
        if side * side == shape[1] and side >= 4:  # a flattened image
            yield replace(guess, kind="image", shape=(shape[0], 1, side, side))
        side = round((shape[1] / 3) ** 0.5)
        if 3 * side * side == shape[1] and side >= 4:
            yield replace(guess, kind="image", shape=(shape[0], 3, side, side))
    if guess.kind == "ids" and len(shape) == 2:
        yield replace(guess, shape=(shape[0],))
