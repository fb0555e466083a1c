"""Inputs: given by the file, by a spec, or inferred by trying."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from initlint.errors import ProbeError, UsageError
from initlint.probe.inputs import find
from initlint.probe.inputs_spec import build, indices, parse


class Body(nn.Module):
    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def shapes(inputs):
    return {f.name: f.shape for f in inputs.facts}


@pytest.mark.parametrize(
    ("text", "name", "dtype", "shape", "high"),
    [
        ("x: float32[1,3,32,32]", "x", torch.float32, (1, 3, 32, 32), None),
        ("float[2, 8]", "", torch.float32, (2, 8), None),
        ("ids: int64[1,16]<50257", "ids", torch.int64, (1, 16), 50257),
        ("mask:bool[4x16]", "mask", torch.bool, (4, 16), None),
        ("t: bfloat16[]", "t", torch.bfloat16, (), None),
    ],
)
def test_specs(text, name, dtype, shape, high):
    (spec,) = parse([text])
    assert (spec.name, spec.dtype, spec.shape, spec.high) == (name, dtype, shape, high)
    value = build(spec)
    assert (value.dtype, tuple(value.shape)) == (dtype, shape)


@pytest.mark.parametrize("text", ["x: float32", "x: floaty[3]", "x: float32[2]<9", "[3]", "x: int64[2]<0"])
def test_malformed_specs_say_what_to_write(text):
    with pytest.raises(UsageError) as caught:
        parse([text])
    assert caught.value.hint


def test_several_specs_become_arguments_by_name():
    model = Body()
    given = find(model, specs=["x: float32[2,8]; ids: int64[2,4]<7"])
    assert set(given.kwargs) == {"x", "ids"}
    assert int(given.kwargs["ids"].max()) < 7
    assert [f.origin for f in given.facts] == ["--input", "--input"]
    assert given.batch == 2


def test_indices_are_distinct_while_they_can_be():
    assert len(set(indices((4, 8), 1000).flatten().tolist())) == 32
    assert int(indices((100,), 5).max()) == 4


@pytest.mark.parametrize(
    ("returned", "args", "kwargs"),
    [
        (torch.ones(2, 8), 1, ()),
        ((torch.ones(2, 8), torch.ones(2, 8)), 2, ()),
        (((torch.ones(2, 8),), {"y": torch.ones(2, 8)}), 1, ("y",)),
        ({"x": torch.ones(2, 8)}, 0, ("x",)),
    ],
)
def test_forms_of_example_inputs(returned, args, kwargs):
    class Model(nn.Module):
        def forward(self, x, y=None):
            return x if y is None else x + y

    given = find(Model(), {"example_inputs": lambda: returned})
    assert (len(given.args), tuple(given.kwargs)) == (args, kwargs)


def test_example_inputs_that_fail_are_reported_with_the_reason():
    def example_inputs():
        raise ValueError("no data")

    with pytest.raises(ProbeError, match="no data"):
        find(Body(), {"example_inputs": example_inputs})


def test_example_inputs_are_the_same_each_time_and_leave_the_random_state():
    state = torch.get_rng_state()
    one, two = (find(Body(), {"example_inputs": lambda: torch.randn(3, 3)}).args[0] for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(state, torch.get_rng_state())


class LeNet(nn.Module):
    """Insists on 28 x 28, by the size of its first linear layer."""

    def __init__(self):
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.f1 = nn.Linear(400, 10)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x):
        x = self.pool(torch.relu(self.c1(x)))
        x = self.pool(torch.relu(self.c2(x)))
        return self.f1(x.view(-1, 400))


class Conditional(nn.Module):
    """A generator on noise joined with an embedded label."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 12)
        self.fc = nn.Linear(100 + 12, 64)

    def forward(self, z, labels):
        return self.fc(torch.cat([z, self.table(labels)], -1))


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(1, 16), nn.SiLU(), nn.Linear(16, 8))
        self.conv_in, self.conv_out = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x, t):
        h = self.conv_in(x) + self.time(t[:, None].float())[:, :, None, None]
        return self.conv_out(torch.relu(h))


class Patches(nn.Module):
    """A table of positions fixes the image size; the shape is unpacked, so that fx cannot trace it."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 8, 8)
        self.pos = nn.Parameter(torch.zeros(1, 64, 16))
        self.head = nn.Linear(16, 5)

    def forward(self, images):
        b, _c, _h, _w = images.shape
        x = self.patch(images).flatten(2).transpose(1, 2) + self.pos
        return self.head(x.mean(1)).view(b, -1)


class Sequence(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(12, 20, batch_first=True)
        self.head = nn.Linear(20, 3)

    def forward(self, x, lengths=None):
        return self.head(self.rnn(x)[0][:, -1])


class Keyed(nn.Module):
    """A dictionary of tensors."""

    def __init__(self):
        super().__init__()
        self.table, self.fc = nn.Embedding(30, 8), nn.Linear(16, 2)

    def forward(self, batch):
        h = self.table(batch["ids"]).mean(1)
        return self.fc(torch.cat([h, batch["features"][:, :8]], -1))


class Graph(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(24, 16), nn.Linear(16, 4)

    def forward(self, x, adj):
        return adj @ self.b(torch.relu(adj @ self.a(x)))


class KeywordOnly(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(9, 2)

    def forward(self, *, features, scale: float = 1.0):
        return self.fc(features) * scale


class Checked(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        if x.shape[-1] != 48:
            raise ValueError(f"wrong width {x.shape[-1]}, expected 48")
        return self.conv(x)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (LeNet(), {"x": (4, 1, 28, 28)}),
        (Conditional(), {"z": (4, 100), "labels": (4,)}),
        (Denoiser(), {"x": (4, 3, 32, 32), "t": (4,)}),
        (Patches(), {"images": (4, 3, 64, 64)}),
        (Sequence(), {"x": (4, 16, 12)}),
        (Graph(), {"x": (4, 24), "adj": (4, 4)}),
        (KeywordOnly(), {"features": (4, 9)}),
        (Checked(), {"x": (4, 3, 48, 48)}),
        (nn.Sequential(nn.Conv1d(7, 4, 3), nn.ReLU()), {"input": (4, 7, 16)}),
        (nn.Sequential(nn.ConvTranspose2d(32, 8, 4), nn.BatchNorm2d(8)), {"input": (4, 32, 4, 4)}),
        (nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, batch_first=True), 2), {"src": (4, 16, 32)}),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "",
)
def test_inputs_are_inferred(model, expected):
    found = find(model)
    assert shapes(found) == expected
    assert {f.origin for f in found.facts} == {"inferred"}
    model(*found.args, **found.kwargs)


def test_dictionaries_are_filled_key_by_key():
    found = find(Keyed())
    assert set(found.args[0]) == {"ids", "features"}
    Keyed()(*found.args)


def test_an_index_input_stays_below_the_table():
    found = find(nn.Sequential(nn.Embedding(11, 4), nn.Linear(4, 2)))
    assert found.args[0].dtype == torch.int64
    assert int(found.args[0].max()) < 11


def test_deep_image_models_get_images_large_enough_for_their_maps():
    convs = [nn.Conv2d(3 if i == 0 else 4, 4, 3, 2, 1) for i in range(5)]
    (shape,) = shapes(find(nn.Sequential(*convs))).values()
    assert shape[-1] == 64


def test_inference_that_fails_says_what_to_give():
    class Impossible(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x):
            raise RuntimeError("needs a licence key")

    with pytest.raises(ProbeError, match="licence key") as caught:
        find(Impossible(), budget=1.0)
    assert "--input" in caught.value.hint


def test_inference_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)).eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    find(model)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in before.items())
    assert not model.training


def test_models_on_meta_get_inputs_too():
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 30 * 30, 4))
    assert list(shapes(find(model)).values()) == [(4, 3, 32, 32)]


def test_configured_models_are_fed_by_their_configuration():
    class Library(nn.Module):
        main_input_name = "pixel_values"

        def __init__(self):
            super().__init__()
            self.config = SimpleNamespace(image_size=24, num_channels=2, vocab_size=50, pad_token_id=0)
            self.conv, self.table = nn.Conv2d(2, 8, 24), nn.Embedding(50, 8)

        def forward(self, input_ids=None, pixel_values=None, attention_mask=None):
            if input_ids is None or pixel_values is None:
                raise ValueError("You have to specify input_ids and pixel_values")
            return self.table(input_ids) + self.conv(pixel_values).flatten(1)[:, None]

    found = find(Library())
    assert shapes(found) == {"pixel_values": (4, 2, 24, 24), "input_ids": (4, 16)}
    assert {f.origin for f in found.facts} == {"library"}


class Reader(Body):
    """Says in words that an argument with a default of None is needed."""

    def __init__(self, check):
        super().__init__(query=nn.Linear(16, 16), key=nn.Linear(16, 16), head=nn.Linear(16, 4))
        self.check = check

    def forward(self, queries, mask=None, memory=None):
        self.check(memory)
        keys = self.key(memory)
        return self.head((self.query(queries) @ keys.transpose(1, 2)).softmax(-1) @ keys)


def _raise(memory):
    if memory is None:
        raise ValueError("You have to specify memory, for queries alone attend to nothing")


def _assert(memory):
    assert memory is not None, "memory is required"


@pytest.mark.parametrize("check", [_raise, _assert])
def test_an_optional_argument_is_given_where_the_model_asks_for_it_by_name(check):
    inputs = find(Reader(check), {})
    assert set(shapes(inputs)) == {"queries", "memory"}
    assert inputs.notes == ()


class Pairs(Body):
    """Two images in one argument, and a check that says so."""

    def __init__(self):
        super().__init__(conv=nn.Conv2d(1, 8, 3, padding=1))

    def forward(self, images):
        if images.ndim != 5:
            raise ValueError("images must have the shape (batch_size, 2, num_channels, height, width)")
        return self.conv(images.flatten(0, 1)).mean((2, 3))


def test_the_shape_that_a_message_spells_out_is_given():
    inputs = find(Pairs(), {})
    assert shapes(inputs) == {"images": (4, 2, 1, 32, 32)}


class Standardised(nn.Conv2d):
    """A convolution whose weight is computed, so that only the message says how many channels it takes."""

    def forward(self, x):
        weight = nn.functional.batch_norm(self.weight.reshape(1, 16, -1), None, None, training=True)
        return nn.functional.conv2d(x, weight.reshape_as(self.weight), self.bias, 2, 1)


def test_the_channels_that_a_message_names_are_given():
    stem = nn.Sequential(Standardised(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Conv2d(32, 8, 1))
    (shape,) = shapes(find(stem, {})).values()
    assert shape[1] == 3


class Strip(Body):
    """Configured for images that are wider than high."""

    def __init__(self):
        super().__init__(conv=nn.Conv2d(3, 8, 4, 4))
        self.config = SimpleNamespace(image_size=[16, 64], num_channels=3)

    def forward(self, pixel_values):
        assert pixel_values.shape[2:] == (16, 64)
        return self.conv(pixel_values).mean((2, 3))


def test_configured_images_need_not_be_square():
    assert shapes(find(Strip(), {})) == {"pixel_values": (4, 3, 16, 64)}


class Merged(Body):
    """Patches of images as small images, with the grids that they form."""

    def __init__(self):
        super().__init__(conv=nn.Conv2d(3, 8, 4))
        self.config = SimpleNamespace(patch_size=4, num_channels=3)

    def forward(self, pixel_values, grid_thw):
        parts = torch.split(self.conv(pixel_values).flatten(1), grid_thw.prod(-1).tolist())
        return torch.stack([part.mean(0) for part in parts])


def test_patches_may_keep_their_shape():
    inputs = find(Merged(), {})
    assert shapes(inputs) == {"pixel_values": (64, 3, 4, 4), "grid_thw": (4, 3)}


class Spectrogram(Body):
    """Adds the axis of channels itself."""

    def __init__(self):
        super().__init__(conv=nn.Conv2d(1, 8, 3))

    def forward(self, mel):
        return self.conv(mel.unsqueeze(1)).mean((2, 3))


def test_an_axis_that_the_model_adds_itself_is_left_out():
    assert shapes(find(Spectrogram(), {})) == {"mel": (4, 32, 32)}


class Tolerant(Body):
    """Uses an argument whose default is None, far below its forward."""

    def __init__(self):
        super().__init__(inner=nn.Linear(16, 16), head=nn.Linear(16, 4))

    def forward(self, x, context=None):
        return self.read(x, context)

    def read(self, x, context):
        return self.head(self.inner(x) + context.mean(1))


def test_an_optional_argument_is_given_where_none_is_used():
    assert set(shapes(find(Tolerant(), {}))) == {"x", "context"}


class Hops(Body):
    """Checks that waves hold whole hops."""

    def __init__(self):
        super().__init__(conv=nn.Conv1d(1, 8, 5))

    def forward(self, waves):
        if waves.shape[-1] % 48:
            raise ValueError(f"length {waves.shape[-1]} is not a multiple of 48")
        return self.conv(waves).mean(2)


def test_lengths_are_rounded_up_to_the_multiple_that_a_check_names():
    (shape,) = shapes(find(Hops(), {})).values()
    assert shape[-1] % 48 == 0


class Pathways(nn.Module):
    """Two clips come in one argument, as SlowFast takes them: the fast one has four times as many frames."""

    def __init__(self) -> None:
        super().__init__()
        self.slow, self.fast = nn.Conv3d(3, 8, (1, 3, 3)), nn.Conv3d(3, 4, (5, 3, 3), padding=(2, 0, 0))
        self.join, self.head = nn.Conv3d(4, 8, (5, 1, 1), (4, 1, 1), (2, 0, 0)), nn.Linear(16, 10)

    def forward(self, x: list[torch.Tensor]) -> torch.Tensor:
        assert len(x) == 2
        slow, fast = x
        slow, fast = self.slow(slow).relu(), self.join(self.fast(fast).relu())
        return self.head(torch.cat([slow, fast], 1).mean((2, 3, 4)))


class Pair(nn.Module):
    """An image and the tokens that describe it."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.words = nn.Conv2d(3, 16, 4, 4), nn.Embedding(50, 16)

    def forward(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        image, words = batch
        return self.image(image).mean((2, 3)) @ self.words(words).mean(1).t()


def test_several_tensors_in_one_argument() -> None:
    found = find(Pathways())
    assert not found.notes
    slow, fast = (facts.shape for facts in found.facts)
    assert (len(slow), slow[1], len(fast), fast[1]) == (5, 3, 5, 3)
    assert fast[2] == 4 * slow[2]
    image, words = find(Pair()).facts
    assert (len(image.shape), words.dtype, words.high) == (4, "int64", 50)


class Step(nn.Module):
    """One step of a world model: a flag for each sample empties the state where an episode begins."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.cell, self.post = nn.Linear(8, 16), nn.GRUCell(16, 24), nn.Linear(24 + 12, 6)

    def forward(self, embed: torch.Tensor, action: torch.Tensor, is_first: torch.Tensor) -> torch.Tensor:
        keep = (1.0 - is_first.float()).unsqueeze(-1)
        state = self.cell(self.inp(action * keep), torch.zeros(action.shape[0], 24) * keep)
        return self.post(torch.cat([state, embed], -1))


class Packed(nn.Module):
    """Sequences are packed: the longest first."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(16, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        return self.head(nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0])


def test_an_axis_fewer_where_the_message_says_how_many_there_should_be() -> None:
    found = find(Step())
    assert not found.notes
    assert [facts.shape for facts in found.facts] == [(4, 12), (4, 8), (4,)]


def test_lengths_that_are_given_as_text_are_those_of_whole_sequences() -> None:
    specified = find(Packed(), {}, ["x: float32[3,7,16]", "lengths: int64[3]<8"])
    assert specified.kwargs["lengths"].tolist() == [7, 7, 7]
    assert Packed()(**specified.kwargs).shape == (3, 7, 4)
