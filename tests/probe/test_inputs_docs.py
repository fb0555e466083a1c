"""Inputs whose shapes stand in the docstring of the forward, and what messages of models' own checks say of sizes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from initlint.probe import inputs
from initlint.probe.inputs_docs import described


class Trajectories(nn.Module):
    """Three inputs that are all None by default."""

    def __init__(self) -> None:
        super().__init__()
        self.state_dim, self.act_dim = 5, 3
        self.states, self.actions, self.times = nn.Linear(5, 8), nn.Linear(3, 8), nn.Embedding(40, 8)

    def forward(
        self,
        states: torch.Tensor | None = None,
        actions: torch.Tensor | None = None,
        timesteps: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Args:
            states (`torch.Tensor` of shape `(batch_size, episode_length, state_dim)`):
                The states.
            actions (`torch.Tensor` of shape `(batch_size, episode_length, act_dim)`):
                What was done.
            timesteps (`torch.LongTensor` of shape `(batch_size, episode_length)`):
                When.
            attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
                Which count.
        """
        return self.states(states) + self.actions(actions) + self.times(timesteps)


def test_the_docstring_says_which_arguments_there_are_and_of_which_shape() -> None:
    found = inputs.find(Trajectories(), seed=0)
    assert not found.notes
    shapes = {f.name: f.shape for f in found.facts}
    assert set(shapes) == {"states", "actions", "timesteps"}
    assert shapes["states"][-1] == 5
    assert shapes["actions"][-1] == 3
    assert shapes["states"][:2] == shapes["actions"][:2] == shapes["timesteps"]


class Patches(nn.Module):
    """The patches of all images in one row, and a grid for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_size, self.num_channels = 4, 3
        self.embed, self.head = nn.Linear(48, 8), nn.Linear(8, 2)

    def forward(self, pixels: torch.Tensor, image_grid_thw: torch.Tensor) -> torch.Tensor:
        """
        Args:
            pixels (torch.Tensor): shape (num_patches, num_channels * patch_size**2), patches in raster order.
            image_grid_thw (torch.LongTensor): shape (num_images, 3), frames, rows and columns.
        """
        counts = image_grid_thw.prod(-1).tolist()
        return torch.stack([self.head(image.mean(0)) for image in self.embed(pixels).split(counts)])


def test_patches_in_one_row_are_as_many_as_the_grids_have() -> None:
    found = inputs.find(Patches(), seed=0)
    assert not found.notes
    pixels, grid = found.args
    assert pixels.shape[0] == int(grid.prod(-1).sum())
    assert len(grid) > 1


class Spectrogram(nn.Module):
    """Frames in chunks; the mask has an entry for each frame, which its own description calls by another name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.chunk = nn.Conv1d(6, 8, 3, padding=1), 25

    def forward(self, features: torch.Tensor, features_mask: torch.Tensor) -> torch.Tensor:
        """
        Args:
            features (`torch.Tensor` of shape `(batch_size, feature_dim, num_frames)`): a spectrogram.
            features_mask (`torch.LongTensor` of shape `(batch_size, padded_length)`): which frames are there.
        """
        length = features.shape[-1]
        if length % self.chunk:
            raise ValueError(f"expected a length that is a multiple of `self.chunk` ({self.chunk}), but got {length}.")
        there = features_mask.view(features.shape[0], length // self.chunk, self.chunk)
        return self.conv(features) * there.flatten(1)[:, None]


def test_a_mask_is_as_long_as_the_view_that_is_made_of_it() -> None:
    found = inputs.find(Spectrogram(), seed=0)
    assert not found.notes
    features, mask = found.args
    assert features.shape[-1] % 25 == 0
    assert mask.shape == (features.shape[0], features.shape[-1])
    assert bool((mask == 1).all())


class Stacked(nn.Module):
    """Puts one image on top of another, and checks the height of both."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 16, 16)

    def forward(self, image: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        both = torch.cat((prompt, image), dim=2)
        if both.shape[2:] != (96, 48):
            raise ValueError(f"Input image size ({both.shape[2]}*{both.shape[3]}) doesn't match model (96*48).")
        return self.conv(both)


def test_images_get_the_sides_with_which_their_combination_has_the_size_that_is_wanted() -> None:
    found = inputs.find(Stacked(), seed=0)
    assert not found.notes
    assert {tuple(a.shape[2:]) for a in found.args} == {(48, 48)}


class Alone(nn.Module):
    """Works for one sample only, by a slip in its table of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.places = nn.Linear(6, 8), nn.Embedding(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        places = self.places(torch.arange(x.shape[1])).view(x.shape[0], x.shape[1], 8)
        return self.embed(x) + places


def test_a_model_for_one_sample_gets_one() -> None:
    found = inputs.find(Alone(), seed=0)
    assert not found.notes
    assert found.args[0].shape[0] == 1


class Places(nn.Module):
    """Rows and columns of patches, looked up by a product with one-hot rows."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.table = nn.Linear(12, 8), nn.Parameter(torch.randn(2, 10, 8))

    def forward(self, patches: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """
        Args:
            patches: the patches of an image.
            position_ids (`torch.LongTensor` of shape `(batch_size, max_patches, 2)`): column and row of each.
        """
        places = F.one_hot(position_ids, 10).permute(0, 2, 1, 3).to(self.table) @ self.table
        return self.embed(patches) + places.sum(1)


def test_indices_keep_their_axes_when_they_are_bounded() -> None:
    found = inputs.find(Places(), seed=0)
    assert not found.notes
    assert found.args[1].shape == (*found.args[0].shape[:2], 2)


class Crossed(nn.Module):
    """Texts and images: the mask says which token may look at which image."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.image = nn.Embedding(30, 8), nn.Linear(12, 8)

    def forward(self, ids: torch.Tensor, image: torch.Tensor, image_mask: torch.Tensor) -> torch.Tensor:
        seen = self.image(image)[:, None, None]
        allowed = image_mask.expand(image_mask.shape[0], image_mask.shape[1], -1) if image_mask.dim() == 3 else None
        if allowed is None:
            allowed = image_mask.expand(8, image_mask.shape[0], -1, -1, -1)
        return self.table(ids) + (seen * allowed[..., None]).sum(2)


def test_a_mask_gets_the_axis_that_it_lacks() -> None:
    found = inputs.find(Crossed(), seed=0)
    assert not found.notes
    assert found.args[2].dim() == 3


class Maps(nn.Module):
    """Its decoder wants maps of 20 by 20."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 8, 8, 8), nn.Conv2d(8, 2, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(images).flatten(2)
        return self.head(tokens.view(images.shape[0], -1, 20, 20))


def test_images_have_as_many_patches_as_the_maps_that_are_made_of_them() -> None:
    found = inputs.find(Maps(), seed=0)
    assert not found.notes
    assert found.args[0].shape[2:] == (160, 160)


class Sampled(nn.Module):
    def forward(self, x: torch.Tensor, mask: torch.Tensor, sizes: list[int] | None = None) -> torch.Tensor:
        return x * mask


@pytest.mark.parametrize(
    "text",
    [
        "Args:\n    x (Tensor): input of shape (B, T, 7)\n    mask: a mask [B, T, 1] of what counts",
        "Parameters\n-----\nx : Tensor of shape (batch, length, 7)\n    The input.\nmask : Tensor, shape (B, T, 1)",
        ":param x: features, shape (batch, time, 7)\n:param mask: shape (batch, time, 1)\n:returns: shape (batch, 3)",
        "- x (`torch.Tensor` of shape `(batch_size, seq_len, 7)`): input\n- mask: size `[batch, seq_len, 1]`",
    ],
)
def test_the_usual_styles_are_read(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sampled.forward, "__doc__", text)
    docs = described(Sampled())
    assert set(docs) == {"x", "mask"}
    assert docs["x"].shape[2] == "7"
    assert docs["mask"].shape[2] == "1"


def test_what_is_no_tensor_or_has_no_shape_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "Args:\n    x: the image (see section 3)\n    sizes (list of shape (2, 3)): pairs\nReturns:\n    mask: (B, T)"
    )
    monkeypatch.setattr(Sampled.forward, "__doc__", text)
    assert described(Sampled()) == {}
