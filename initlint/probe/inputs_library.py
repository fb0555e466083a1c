"""Inputs of models that declare them: Hugging Face style configurations and ``dummy_inputs``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from initlint.probe.inputs_spec import indices
from initlint.probe.inputs_wants import Guess, tokens
from initlint.probe.recorded_state import seeded

Call = tuple[tuple[Any, ...], dict[str, Any]]

_TARGET_TOKENS = 8
_PATCH_MASKS = frozenset({"pixel_attention_mask", "attention_mask"})
# Larger images take long, and networks of convolutions do with smaller ones: those are tried first, a multiple of every
# usual stride. Who has a position for each patch refuses them at once.
_LARGE_IMAGE, _SMALLER, _STRIDE = 384, 256, 32
# Keys under which composite configurations keep the parts that know sizes.
_PARTS = ("vision_config", "backbone_config", "audio_config", "text_config", "encoder", "decoder", "perceiver_config")


def library_inputs(model: nn.Module, batch: int, seed: int) -> Iterator[Call]:
    """Calls to try for a model with a ``config`` and field-standard argument names; none for others."""
    config = getattr(model, "config", None)
    if config is None or isinstance(config, nn.Module):
        return
    try:
        names = set(inspect.signature(model.forward).parameters)
    except (TypeError, ValueError):
        return
    maker = _Maker(model, config, names, batch)
    with seeded(seed):
        made = [((), kwargs) for kwargs in maker.calls()]
        dummy = _dummy(model)
    yield from made
    if dummy:
        yield (), dummy


def library_values(model: nn.Module, name: str, batch: int, seed: int) -> list[torch.Tensor]:
    """What the library's conventions put under a name, for models with a ``config``."""
    config = getattr(model, "config", None)
    if config is None or isinstance(config, nn.Module):
        return []
    maker = _Maker(model, config, {name}, batch)
    with seeded(seed):
        if name in _EXTRA:
            return [_EXTRA[name](maker)]
        return maker.values(name) if name in _MAKERS else []


def declared_images(model: nn.Module, batch: int) -> tuple[list[Guess], bool]:
    """The images that a model says it was made for (timm's ``pretrained_cfg``), and whether it takes no others.

    Where it does, smaller ones come first: what 768 pixels a side need of time and memory is sixteen times as much.
    """
    for name in ("pretrained_cfg", "default_cfg"):
        config = getattr(model, name, None)
        size = config.get("input_size") if isinstance(config, Mapping) else None
        if isinstance(size, (tuple, list)) and len(size) == 3 and all(isinstance(n, int) and n > 0 for n in size):
            fixed = bool(isinstance(config, Mapping) and config.get("fixed_input_size"))
            sizes = [size] if fixed else [(size[0], *map(_reduced, size[1:])), size]
            return list(dict.fromkeys(Guess("image", (batch, *sides)) for sides in sizes)), fixed
    return [], False


def _reduced(side: int) -> int:
    """A side of at most ``_SMALLER``: the half, the quarter and so on of a larger one, as far as it is a multiple."""
    while side > _SMALLER:
        side = -(-side // (2 * _STRIDE)) * _STRIDE
    return side


def _dummy(model: nn.Module) -> dict[str, Any]:
    try:
        given = getattr(model, "dummy_inputs", None)
    except Exception:  # a property of the library that needs what this model lacks
        return {}
    return dict(given) if isinstance(given, Mapping) else {}


class _Maker:
    def __init__(self, model: nn.Module, config: Any, names: set[str], batch: int) -> None:
        self.model, self.config, self.names, self.batch = model, config, names, batch
        self.main = str(getattr(model, "main_input_name", "") or "")

    def calls(self) -> Iterator[dict[str, Any]]:
        """Keyword arguments to try, the model's main input first."""
        sources = [n for n in _MAKERS if n in self.names]
        sources.sort(key=lambda n: n != self.main)
        fixed = {"use_cache": False} if "use_cache" in self.names else {}
        yield from self.patched()
        decoder = {"decoder_input_ids": self.ids(_TARGET_TOKENS)} if "decoder_input_ids" in self.names else {}
        for extra in [decoder, {}] if decoder else [{}]:
            for first in sources:
                for value in self.values(first):
                    alone = {first: value, **extra, **fixed}
                    yield alone
                    for second in sources:
                        if second != first and second in ("input_ids", "pixel_values", "bbox", "input_features"):
                            for other in self.values(second):
                                yield {**alone, second: other}
                    if first == "input_ids" and "attention_mask" in self.names:
                        yield {**alone, "attention_mask": torch.ones_like(value)}

    def patched(self) -> Iterator[dict[str, Any]]:
        """Images that come as patches, with the grids that they form."""
        side = 4  # a multiple of the 2x2 patches that are merged
        patch = self.size("patch_size", "spatial_patch_size", default=8)
        channels = self.size("num_channels", "in_channels", "in_chans", default=3)
        width = channels * patch * patch
        count = side * side
        if "grid_thw" in self.names:
            grid = torch.tensor([[1, side, side]] * self.batch)
            frames = self.size("temporal_patch_size", default=1)
            first = next((n for n in ("hidden_states", "pixel_values", "pixel_values_videos") if n in self.names), "")
            if first:
                yield {first: torch.randn(self.batch * count, width * frames), "grid_thw": grid}
                yield {first: torch.randn(self.batch * count, channels, patch, patch), "grid_thw": grid}
        if "target_sizes" in self.names and "pixel_values" in self.names:  # all images' patches in one row
            sizes = torch.tensor([[side, side]] * self.batch)
            yield {"pixel_values": torch.randn(1, channels, patch, patch * count * self.batch), "target_sizes": sizes}
        if "spatial_shapes" in self.names and "pixel_values" in self.names:
            shapes = torch.tensor([[side, side]] * self.batch)
            masks = {n: torch.ones(self.batch, count, dtype=torch.int64) for n in self.names if n in _PATCH_MASKS}
            yield {"pixel_values": torch.randn(self.batch, count, width), "spatial_shapes": shapes, **masks}
        if "flattened_patches" in self.names:  # the place of each patch, then its values
            places = torch.cartesian_prod(torch.arange(1, side + 1), torch.arange(1, side + 1)).float()
            values = torch.randn(self.batch, count, self.size("patch_embed_hidden_size", default=width))
            patches = torch.cat([places.expand(self.batch, -1, -1), values], -1)
            decoder = {"decoder_input_ids": self.ids(_TARGET_TOKENS)} if "decoder_input_ids" in self.names else {}
            yield {"flattened_patches": patches, **decoder}

    def values(self, name: str) -> list[torch.Tensor]:
        """Candidate tensors for an argument."""
        values: list[torch.Tensor] = _MAKERS[name](self)
        return values

    def size(self, *names: str, default: int) -> int:
        """First integer under one of the names in the configuration or its parts."""
        for part in (self.config, *(getattr(self.config, p, None) for p in _PARTS)):
            for name in names:
                value = getattr(part, name, None)
                if isinstance(value, Mapping):
                    value = value.get("height")
                if isinstance(value, (list, tuple)) and value:
                    value = value[0]
                if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                    return value
        return default

    def sides(self, *names: str, default: int) -> tuple[int, int]:
        """Height and width of images: those of the first name with two of them, else a square."""
        side = self.size(*names, default=default)
        for part in (self.config, *(getattr(self.config, p, None) for p in _PARTS)):
            for value in (getattr(part, name, None) for name in names):
                if isinstance(value, Mapping):
                    value = (value.get("height"), value.get("width"))
                if isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(n, int) for n in value):
                    return (value[0], value[1])
        return (side, side)

    def ids(self, length: int) -> torch.Tensor:
        """Token ids that are no special tokens, as far as the configuration names them."""
        rows = self.size("vocab_size", "n_vocab", "n_token", default=100)
        try:
            table = self.model.get_input_embeddings()  # type: ignore[operator]
            rows = min(rows, int(table.num_embeddings))
        except Exception:  # models without a table of tokens
            pass
        special = {v for k, v in _plain(self.config).items() if k.endswith(("token_id", "token_index"))}
        ids = indices((self.batch, length), rows, low=min(10, rows // 4))
        ordinary = next((i for i in range(rows // 2, rows) if i not in special), 0)
        for value in special:
            if isinstance(value, int):
                ids[ids == value] = ordinary
        return ids

    def images(self) -> list[torch.Tensor]:
        sides = self.sides("image_size", "img_size", default=64)
        channels = self.size("num_channels", "in_channels", default=3)
        frames = self.size("num_frames", "frames_per_clip", default=0)
        plain = torch.randn(self.batch, channels, *sides)
        clip = torch.randn(self.batch, frames, channels, *sides) if frames else None
        found = [clip, plain] if clip is not None else [plain]
        if clip is None and max(sides) > _LARGE_IMAGE:
            found = [torch.randn(self.batch, channels, *(_reduced(n) for n in sides)), plain]
        return [*found, plain[:, None]] if "input_ids" in self.names else found  # one image in each text

    def clips(self) -> list[torch.Tensor]:
        side = self.size("image_size", "crop_size", default=64)
        frames = self.size("num_frames", "frames_per_clip", default=2)
        return [torch.randn(self.batch, frames, self.size("num_channels", "in_chans", default=3), side, side)]

    def spectra(self) -> list[torch.Tensor]:
        bins = self.size("num_mel_bins", "feature_size", "input_dim", default=80)
        length = 2 * self.size("max_source_positions", default=50)
        plain = torch.randn(self.batch, 100, bins)
        return [plain, torch.randn(self.batch, bins, length), plain[:, None]]  # the last as an image of one channel

    def waves(self) -> list[torch.Tensor]:
        bins = self.size("num_mel_bins", default=0)
        waves = torch.randn(self.batch, 8000)
        if not bins:
            return [waves, waves[:, None]]
        return [torch.randn(self.batch, self.size("max_length", default=128), bins), waves]

    def boxes(self) -> list[torch.Tensor]:
        high = self.size("max_2d_position_embeddings", default=100)
        corner = indices((self.batch, tokens(self.batch), 2), max(2, high // 2))
        return [torch.cat([corner, corner + 1], -1)]

    def vectors(self) -> list[torch.Tensor]:
        width = self.size("d_model", "hidden_size", default=32)
        return [torch.randn(self.batch, tokens(self.batch), width), self.ids(tokens(self.batch))]

    def series(self) -> list[torch.Tensor]:
        length = self.size("context_length", default=32)
        channels = self.size("num_input_channels", default=1)
        return [torch.randn(self.batch, length, channels), torch.randn(self.batch, length)]


_MAKERS: Mapping[str, Any] = {
    "input_ids": lambda m: [m.ids(tokens(m.batch))],
    "pixel_values": _Maker.images,
    "pixel_values_videos": _Maker.clips,
    "input_features": _Maker.spectra,
    "input_values": _Maker.waves,
    "bbox": _Maker.boxes,
    "inputs": _Maker.vectors,
    "past_values": _Maker.series,
}

# What is given only where the model asks for it.
_EXTRA: Mapping[str, Any] = {
    "pixel_attention_mask": lambda m: torch.ones(m.batch, 1, dtype=torch.bool),  # one image, and it is there
}


def _plain(config: Any) -> dict[str, Any]:
    return {k: v for k, v in getattr(config, "__dict__", {}).items() if isinstance(v, int)}
