"""Models as they are found in repositories: each is analysed without any configuration."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import initlint
from initlint.errors import ProbeError
from initlint.probe.inputs import find


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {fact.name: fact.shape for fact in find(model).facts}


class Split(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.points, self.views = nn.Linear(63, 32), nn.Linear(27, 32)

    def forward(self, x: Any) -> Any:
        points, views = torch.split(x, [63, 27], dim=-1)
        return F.relu(self.points(points)) + self.views(views)


class Batch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.frames = nn.Embedding(50, 16), nn.Linear(24, 16)

    def forward(self, batch: Any) -> Any:
        return self.words(batch["input_ids"]).mean(1) + self.frames(batch["video_feat"])


class Conditional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(784 + 7, 8)

    def forward(self, x: Any, c: Any) -> Any:
        return self.encode(torch.cat([x.view(-1, 784), F.one_hot(c, 7).float()], 1))


class Graph(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(10, 16), nn.Linear(16, 3)

    def forward(self, data: Any) -> Any:
        h = F.relu(self.first(data.x))
        h = torch.zeros_like(h).index_add(0, data.edge_index[1], h[data.edge_index[0]])
        pooled = torch.zeros(int(data.batch.max()) + 1, 16).index_add(0, data.batch, h)
        return self.second(pooled)


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, 32)
        self.body = nn.Transformer(32, 4, 1, 1, 64, batch_first=True)

    def forward(self, src: Any, tgt: Any, src_mask: Any, src_padding_mask: Any) -> Any:
        embedded = self.embed(src), self.embed(tgt)
        return self.body(*embedded, src_mask=src_mask, src_key_padding_mask=src_padding_mask)


class Characters(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(6, 16, 2, batch_first=True), nn.Linear(16, 6)

    def forward(self, x: Any, hidden: Any) -> Any:
        out, hidden = self.lstm(x, hidden)
        return self.out(out), hidden


class OneWord(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.gru = nn.Embedding(60, 16), nn.GRU(16, 16)

    def forward(self, input: Any, hidden: Any) -> Any:
        return self.gru(self.embed(input).view(1, 1, -1), hidden)


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.gru = nn.Embedding(200, 8), nn.GRU(8, 16, batch_first=True)

    def forward(self, text: Any, lengths: Any) -> Any:
        packed = nn.utils.rnn.pack_padded_sequence(
            self.embed(text), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        return self.gru(packed)[1]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Split, {"x": (4, 90)}),
        (Batch, {"batch_input_ids": (4, 16), "batch_video_feat": (4, 24)}),
        (Conditional, {"x": (4, 784), "c": (4,)}),
        (Graph, {"data_x": (4, 10), "data_edge_index": (2, 16), "data_batch": (4,)}),
        (Masked, {"src": (4, 16), "tgt": (4, 16), "src_mask": (16, 16), "src_padding_mask": (4, 16)}),
        (Characters, {"x": (4, 16, 6)}),
        (OneWord, {"input": (1,)}),
        (Packed, {"text": (4, 16), "lengths": (4,)}),
    ],
)
def test_inputs_that_are_no_single_tensor(model: Any, expected: dict[str, tuple[int, ...]]) -> None:
    assert shapes(model()) == expected


def test_an_object_of_tensors_is_analysed() -> None:
    (facts,) = (report.facts for report in initlint.check(Graph).models)
    assert (facts.status, facts.trace.coverage, facts.trace.ran) == ("analysed", 1.0, True)


def test_a_pair_of_images_gets_the_size_that_the_flattening_layer_wants() -> None:
    class Siamese(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(1, 8, 10), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 7), nn.ReLU())
            self.head = nn.Linear(16 * 21 * 21, 4)

        def one(self, x: Any) -> Any:
            return self.head(F.max_pool2d(self.body(x), 2).flatten(1))

        def forward(self, x1: Any, x2: Any) -> Any:
            return (self.one(x1) - self.one(x2)).abs()

    found = shapes(Siamese())
    assert found["x1"] == found["x2"]
    assert 105 <= found["x1"][-1] <= 109  # every size that two poolings bring to 21


def test_a_flattened_clip_gets_a_customary_size() -> None:
    class Clip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv3d(3, 4, 3, stride=(2, 4, 4), padding=1), nn.Linear(4 * 8 * 28 * 28, 5)

        def forward(self, x: Any) -> Any:
            return self.head(F.relu(self.conv(x)).flatten(1))

    assert shapes(Clip()) == {"x": (2, 3, 16, 112, 112)}


def test_bytes_that_the_model_divides_itself_are_as_large_as_bytes() -> None:
    class Atari(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 8, 8, 4)

        def forward(self, x: Any) -> Any:
            return self.conv(x.float() / 255.0)

    (pixels,) = find(Atari()).args
    assert float(pixels.std()) == pytest.approx(255, rel=0.05)


def test_a_temperature_is_no_unit_of_the_input() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(16, 16)

        def forward(self, x: Any) -> Any:
            return self.layer(x / 4.0)

    (values,) = find(Scaled()).args
    assert float(values.std()) == pytest.approx(1, rel=0.3)


def test_a_forward_that_exits_is_a_failed_attempt() -> None:
    class Exits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Any) -> Any:
            raise SystemExit(3)

    with pytest.raises(ProbeError) as caught:
        find(Exits())
    assert "SystemExit: 3" in caught.value.message
    assert "--input 'x: float32[4,8]'" in caught.value.hint


def test_a_model_without_a_forward_says_so() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

    with pytest.raises(ProbeError) as caught:
        find(Encoder())
    assert caught.value.message == "it has no forward"


def test_a_training_step_stands_in_for_a_forward() -> None:
    class Lightning(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            x, y = batch
            return F.cross_entropy(self.net(x), y)

    model = Lightning()
    (report,) = initlint.check(model).models
    assert (report.facts.status, report.facts.trace.ran, report.facts.trace.coverage) == ("analysed", True, 1.0)
    assert [fact.shape for fact in report.facts.inputs] == [(4, 64), (4,)]
    assert "forward" not in vars(model)


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))


def test_lazy_layers_get_their_parameters_from_a_first_run() -> None:
    (report,) = initlint.check(lazy).models
    facts = report.facts
    assert (facts.status, facts.trace.ran) == ("analysed", True)
    weight = next(p for p in facts.parameters if p.name == "0.weight")
    assert (weight.shape, weight.provenance) == ((8, 3, 3, 3), "recorded")
    assert weight.stats is not None


def test_a_live_lazy_model_stays_lazy() -> None:
    model = lazy()
    (report,) = initlint.check(model).models
    assert report.facts.status == "analysed"
    assert torch.nn.parameter.is_lazy(model[0].weight)


def test_a_scripted_model_is_analysed_as_one_piece() -> None:
    (report,) = initlint.check(lambda: torch.jit.script(nn.Sequential(nn.Linear(8, 4), nn.ReLU()))).models
    assert (report.facts.status, report.facts.trace.coverage) == ("analysed", 1.0)
    assert all(p.stats is not None for p in report.facts.parameters)


def test_objects_reach_the_graph_in_order_of_their_fields() -> None:
    from initlint.probe.traced import argument_names, tensors_in

    data = SimpleNamespace(x=torch.zeros(1), edge_index=torch.ones(1))
    assert argument_names(Graph(), (data,), {}) == ["data_x", "data_edge_index"]
    assert [float(t) for t in tensors_in((data,))] == [0.0, 1.0]


def test_layers_inside_a_custom_function_are_seen() -> None:
    class Reversible(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, layers: Any) -> Any:  # type: ignore[override]
            with torch.no_grad():
                for layer in layers:
                    x = x + layer(x)
            return x

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.out = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)]), nn.Linear(8, 2)

        def forward(self, x: Any) -> Any:
            return self.out(Reversible.apply(x, self.layers))

    (report,) = initlint.check(Net, measure=True).models
    assert (report.facts.status, report.facts.trace.coverage, report.facts.trace.not_reached) == ("analysed", 1.0, ())


def test_hooks_that_a_forward_installs_do_not_pile_up() -> None:
    from initlint.probe.recorded_state import preserved

    class Collecting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Any) -> Any:
            if not getattr(self, "installed", False):
                self.layer.register_forward_hook(lambda *_: None)
                self.installed = True
            return self.layer(x)

    model = Collecting()
    for _ in range(3):
        with preserved(model):
            model(torch.zeros(1, 8))
    assert len(model.layer._forward_hooks) == 0


def test_patches_come_with_the_grid_that_they_form() -> None:
    class Tower(nn.Module):
        config = SimpleNamespace(patch_size=4, in_channels=3, temporal_patch_size=2)

        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(3 * 2 * 4 * 4, 16)

        def forward(self, hidden_states: Any, grid_thw: Any) -> Any:
            embedded = self.embed(hidden_states)
            return [part.mean(0) for part in embedded.split([int(grid.prod()) for grid in grid_thw])]

    assert shapes(Tower()) == {"hidden_states": (64, 96), "grid_thw": (4, 3)}


def test_a_model_that_wants_more_in_training_is_run_for_evaluation() -> None:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, images: Any, targets: Any = None) -> Any:
            if self.training:
                torch._assert(targets is not None, "targets should not be none when in training mode")
            return self.conv(torch.stack(list(images)))

    given = find(Detector())
    assert (given.training, given.estimating, [fact.shape for fact in given.facts]) == (False, True, [(2, 3, 32, 32)])


@pytest.mark.parametrize("loss", ["mse_loss", "l1_loss", "cross_entropy"])
def test_a_forward_that_returns_its_loss_is_no_collapse_of_the_inputs(loss: str) -> None:
    class Learner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 64))

        def forward(self, x: Any) -> Any:
            return getattr(F, loss)(self.net(x), x)

    run = initlint.check(Learner)
    assert [f.code for f in run.findings if f.severity.label != "note"] == []
