"""Optional arguments that a forward cannot do without, and the sizes that a model declares."""

import torch
from torch import nn

from initlint.probe import inputs


class Embedded(nn.Module):
    """Puts images into a text, at the places of a mask that has another name inside."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.project = nn.Embedding(50, 8), nn.Linear(12, 8)

    def embed(self, ids: torch.Tensor, features: torch.Tensor, places: torch.Tensor | None = None) -> torch.Tensor:
        text = self.table(ids).clone()
        text[places.to(torch.bool)] = features.reshape(-1, 8)  # type: ignore[union-attr]
        return text

    def forward(self, ids: torch.Tensor, images: torch.Tensor, image_mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.embed(ids, self.project(images).repeat(1, 20, 1), places=image_mask)


def test_a_mask_is_given_where_it_is_used_and_the_text_is_as_long_as_its_places() -> None:
    found = inputs.find(Embedded(), seed=0)
    shapes = {f.name: f.shape for f in found.facts}
    assert not found.notes
    assert shapes["image_mask"] == shapes["ids"]
    assert torch.Size(shapes["ids"]).numel() * 8 == Embedded().project(torch.zeros(shapes["images"])).numel() * 20


class Towers(nn.Module):
    """Needs images for what its second half works on; nothing says so."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.tower, self.head = nn.Linear(6, 4), nn.Conv2d(3, 4, 3), nn.Linear(8, 2)

    def forward(self, state: torch.Tensor, images: torch.Tensor | None = None) -> torch.Tensor:
        seen = None
        if images is not None:
            seen = self.tower(images).mean((2, 3))
        return self.head(torch.cat([self.first(state), seen.flatten(1)], 1))  # type: ignore[union-attr]


def test_the_argument_of_a_branch_that_was_not_taken_is_given() -> None:
    found = inputs.find(Towers(), seed=0)
    assert not found.notes
    assert {f.name for f in found.facts} == {"state", "images"}


class Declared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.default_cfg = {"input_size": (3, 80, 80), "fixed_input_size": True}
        self.conv, self.places = nn.Conv2d(3, 8, 8, stride=8), nn.Parameter(torch.zeros(100, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).flatten(2).transpose(1, 2) + self.places


def test_images_have_the_size_that_the_model_declares() -> None:
    found = inputs.find(Declared(), seed=0)
    assert not found.notes
    assert found.facts[0].shape[1:] == (3, 80, 80)


class Patches(nn.Module):
    """Takes images of any size whose patches pool in threes, and was made for large ones."""

    def __init__(self) -> None:
        super().__init__()
        self.default_cfg = {"input_size": (3, 768, 768)}
        self.embed, self.head = nn.Linear(768, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() != 4:
            raise ValueError("images of four axes are expected")
        rows, columns = x.shape[-2] // 16, x.shape[-1] // 16
        if rows % 3 or columns % 3:
            raise ValueError("patches do not pool")
        patches = nn.functional.unfold(x, 16, stride=16).transpose(1, 2)
        return self.head(self.embed(patches).unflatten(1, (rows, columns)).mean((1, 2)))


def test_large_images_are_tried_smaller_where_others_are_taken() -> None:
    found = inputs.find(Patches(), seed=0)
    assert not found.notes
    assert found.facts[0].shape[1:] == (3, 192, 192)


class Cast(nn.Module):
    """Several inputs, the second of which is converted before the layer that reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.task = nn.Conv2d(3, 4, 3), nn.Linear(21, 4)

    def forward(self, images: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        if images.abs().max() > 1e9:  # no symbolic trace gets past this
            raise RuntimeError("not finite")
        return self.conv(images).mean((2, 3)) + self.task(task.to(images.dtype))


def test_a_conversion_does_not_hide_the_layer_that_reads_an_input() -> None:
    found = inputs.find(Cast(), seed=0)
    assert not found.notes
    assert found.facts[1].shape[1:] == (21,)


class Codec(nn.Module):
    """Makes one frame of 1024 samples, and looks at seven frames."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.look = nn.Conv1d(1, 4, 1024, stride=1024), nn.Conv1d(4, 4, 7)

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        if wave.dim() != 3:
            raise ValueError("batch, channel, samples")
        return self.look(self.down(wave))


def test_sound_is_as_long_as_a_codec_needs() -> None:
    found = inputs.find(Codec(), seed=0)
    assert not found.notes
    assert found.facts[0].shape[-1] >= 7 * 1024


class Either(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(50, 8), nn.Linear(8, 2)

    def forward(
        self, weight: torch.Tensor, ids: torch.Tensor | None = None, embeds: torch.Tensor | None = None
    ) -> torch.Tensor:
        if (ids is None) == (embeds is None):
            raise ValueError("You must specify exactly one of ids or embeds")
        found = self.table(ids) if ids is not None else embeds
        return self.head(found).mean(1) * weight.mean()


def test_of_alternatives_only_one_is_given() -> None:
    found = inputs.find(Either(), seed=0)
    assert not found.notes
    assert [f.name for f in found.facts] == ["weight", "ids"]
