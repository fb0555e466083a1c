"""The recorded graph: where tensors come from, whatever the forward does."""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.utils.checkpoint import checkpoint

from initlint.probe import inputs as finding
from initlint.probe import trace as tracing
from initlint.probe.recorded import Recorder
from initlint.probe.traced import custom_backward, merge_view, meta_of, unknown_source, view_again

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


class Body(nn.Module):
    """A module whose forward is a function given by the test."""

    def __init__(self, body, **parts):
        super().__init__()
        self.body = body
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args):
        return self.body(self, *args)


def record(model, *args, **options):
    recorder = Recorder(model, batch=4, **options)
    recorder.run(args, {}, [f"x{i}" for i in range(len(args))])
    return recorder


def named(graph: fx.Graph, name: str) -> fx.Node:
    """The only node whose target has this name."""
    found = [n for n in graph.nodes if (n.target if isinstance(n.target, str) else n.target.__name__) == name]
    assert len(found) == 1, (name, list(graph.nodes))
    return found[0]


def ancestors(node: fx.Node) -> set[fx.Node]:
    seen: set[fx.Node] = set()
    stack = [node]
    while stack:
        for source in stack.pop().all_input_nodes:
            if source not in seen:
                seen.add(source)
                stack.append(source)
    return seen


def test_layers_functions_methods_and_parameters_are_the_usual_fx_nodes():
    def body(self, x):
        h = F.relu(self.fc(x)).view(4, 2, 4)
        return h.sum(1) @ self.w + 1

    model = Body(body, fc=nn.Linear(8, 8), w=nn.Parameter(torch.ones(4, 3)))
    recorder = record(model, X)
    kinds = [(n.op, n.name) for n in recorder.graph.nodes]
    assert kinds[0] == ("placeholder", "x0")
    assert ("call_module", "fc") in kinds
    assert named(recorder.graph, "relu").op == "call_function"
    assert named(recorder.graph, "view").args[1:] == (4, 2, 4)
    assert named(recorder.graph, "w").op == "get_attr"
    assert recorder.outputs == (named(recorder.graph, "add"),)
    assert meta_of(recorder.outputs[0]).shape == (4, 3)


def test_user_line_and_module_of_each_node():
    recorder = record(nn.Sequential(Body(lambda self, x: torch.tanh(x)), nn.Linear(8, 8)), X)
    tanh = meta_of(named(recorder.graph, "tanh"))
    assert tanh.module == "0"
    assert tanh.site is not None
    assert tanh.site.file == __file__
    assert "torch.tanh(x)" in tanh.site.text
    assert meta_of(named(recorder.graph, "1")).module == "1"


def test_readers_after_an_in_place_write_read_the_writer():
    def body(self, x):
        y = x * 2
        y.add_(1)
        return y.exp()

    graph = record(Body(body), X).graph
    assert named(graph, "exp").args[0] is named(graph, "add_")


def test_an_in_place_layer_rebinds_its_input():
    """Pre-activation residual blocks with inplace ReLU add the rectified value."""

    def body(self, x):
        h = x * 1.0
        return self.fc(self.act(h)) + h

    graph = record(Body(body, act=nn.ReLU(inplace=True), fc=nn.Linear(8, 8)), X).graph
    assert named(graph, "add").args == (named(graph, "fc"), named(graph, "act"))


def test_item_assignment_rebinds_and_knows_its_share():
    def body(self, x):
        out = torch.zeros(4, 8)
        out[:, :2] = self.fc(x)
        return out.exp()

    graph = record(Body(body, fc=nn.Linear(8, 2)), X).graph
    written = named(graph, "setitem")
    assert written.target is operator.setitem
    assert meta_of(written).shape == (4, 8)
    assert meta_of(written).share == pytest.approx(0.25)
    assert named(graph, "exp").args[0] is written
    assert named(graph, "fc") in ancestors(written)


def test_a_view_written_in_place_changes_its_base():
    def body(self, x):
        base = x * 1.0
        base[:, :4].mul_(self.scale)
        return base.exp()

    graph = record(Body(body, scale=nn.Parameter(torch.ones(4))), X).graph
    merged = named(graph, "exp").args[0]
    assert merged.target is merge_view
    assert meta_of(merged).share == pytest.approx(0.5)
    assert named(graph, "mul_") in merged.args


def test_a_view_taken_before_its_base_is_written_is_taken_again():
    def body(self, x):
        base = x * 1.0
        half = base[:, :4]
        base.mul_(3.0)
        return half.exp()

    graph = record(Body(body), X).graph
    again = named(graph, "exp").args[0]
    assert again.target is view_again
    assert again.args[0] is named(graph, "mul_")


def test_disjoint_views_do_not_disturb_one_another():
    def body(self, x):
        base = x * 1.0
        even, odd = base[:, ::2], base[:, 1::2]
        even.mul_(2.0)
        return odd.exp()

    graph = record(Body(body), X).graph
    assert named(graph, "exp").args[0].target is operator.getitem


def test_a_write_through_data_is_seen():
    def body(self, x):
        y = x * 1.0
        y.data.mul_(5.0)
        return y.exp()

    graph = record(Body(body), X).graph
    assert named(graph, "exp").args[0] is named(graph, "mul_")


def test_numpy_results_are_unknown_and_never_constants():
    def body(self, x):
        return self.fc(torch.from_numpy(np.sin(x.detach().numpy())))

    graph = record(Body(body, fc=nn.Linear(8, 8)), X).graph
    source = named(graph, "fc").args[0]
    assert source.target is unknown_source
    assert "NumPy" in meta_of(source).unknown


def test_scripted_functions_are_unknown():
    scripted = torch.jit.script(_double)
    graph = record(Body(lambda self, x: self.fc(scripted(x)), fc=nn.Linear(8, 8)), X).graph
    assert named(graph, "fc").args[0].target is unknown_source


def _double(x: torch.Tensor) -> torch.Tensor:
    return x * 2


def test_plain_attributes_and_globals_are_constants():
    model = Body(lambda self, x: x * self.scale + self.table[0])
    model.scale = torch.full((8,), 2.0)
    model.table = [torch.ones(8)]
    recorder = record(model, X)
    targets = [str(n.target) for n in recorder.graph.nodes if n.op == "get_attr"]
    assert targets[0] == "scale"
    assert torch.equal(recorder.constants[targets[1]], torch.ones(8))


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, g):
        return g


captured = Swish.apply


def test_a_custom_function_is_one_node():
    graph = record(Body(lambda self, x: Swish.apply(self.fc(x)), fc=nn.Linear(8, 8)), X).graph
    node = named(graph, "apply")
    assert node.target.__self__ is Swish
    assert node.args == (named(graph, "fc"),)
    assert not any(n.op == "call_function" and n is not node for n in graph.nodes)


def test_the_backward_of_a_captured_custom_function_is_unknown():
    graph = record(Body(lambda self, x: captured(self.fc(x)).exp(), fc=nn.Linear(8, 8)), X).graph
    marked = named(graph, "exp").args[0]
    assert marked.target is custom_backward
    assert "Swish" in meta_of(marked).unknown


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_blocks_are_looked_into(reentrant):
    def body(self, x):
        return checkpoint(lambda h: torch.relu(self.fc(h)), x, use_reentrant=reentrant)

    graph = record(Body(body, fc=nn.Linear(8, 8)), X).graph
    assert named(graph, "relu").args[0] is named(graph, "fc")


def test_functional_call_shows_where_the_weight_comes_from():
    def body(self, x):
        weight = self.hyper(x[0]).view(8, 8)
        return torch.func.functional_call(self.fc, {"weight": weight}, (x,))

    graph = record(Body(body, hyper=nn.Linear(8, 64), fc=nn.Linear(8, 8, bias=False)), X).graph
    linear = named(graph, "linear")
    assert named(graph, "hyper") in ancestors(linear)


@functools.lru_cache
def anchors(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Made in the first call; later ones get what the cache holds."""
    return torch.arange(float(size)), torch.ones(size)


def test_what_an_earlier_call_left_in_a_cache_is_a_constant():
    def body(self, x):
        places, valid = anchors(8)
        return self.fc(x) * valid + places

    model = Body(body, fc=nn.Linear(8, 8))
    for _ in range(2):
        graph = record(model, X).graph
        assert unknown_source not in {n.target for n in graph.nodes}
    assert sum(n.op == "get_attr" for n in graph.nodes) == 2


@dataclass
class Result:
    logits: torch.Tensor
    hidden: list[torch.Tensor]
    cache: object


def test_outputs_in_dataclasses_lists_and_dicts():
    def body(self, x):
        h = self.fc(x)
        return Result(h.exp(), [h.tanh(), {"s": h.sin()}], object())

    recorder = record(Body(body, fc=nn.Linear(8, 8)), X)
    assert [n.target for n in recorder.outputs] == ["exp", "tanh", "sin"]


def test_a_shared_layer_has_a_node_for_each_call():
    recorder = record(Body(lambda self, x: self.fc(torch.relu(self.fc(x))), fc=nn.Linear(8, 8)), X)
    assert [str(n.target) for n in recorder.graph.nodes if n.op == "call_module"] == ["fc", "fc"]


def test_elements_of_tuples_are_getitem_nodes():
    def body(self, x):
        out, (h, _c) = self.rnn(x[None])
        return out.sum() + h.sum()

    graph = record(Body(body, rnn=nn.LSTM(8, 5)), X).graph
    rnn = named(graph, "rnn")
    assert meta_of(rnn).value_kind == "tuple"
    assert {n.args[1] for n in rnn.users} == {0, 1}


def test_wrappers_of_compile_and_data_parallel_are_transparent():
    inner = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
    graph = record(nn.Sequential(nn.DataParallel(inner), nn.Linear(8, 2)), X).graph
    assert [str(n.target) for n in graph.nodes if n.op == "call_module"] == ["0.module.0", "0.module.1", "1"]


def test_scripted_modules_are_leaves():
    scripted = torch.jit.script(nn.Sequential(nn.Linear(8, 8), nn.ReLU()))
    graph = record(nn.Sequential(scripted, nn.Linear(8, 2)), X).graph
    assert [str(n.target) for n in graph.nodes if n.op == "call_module"] == ["0", "1"]


def test_normalised_weights_are_read_through_the_layer():
    model = nn.Sequential(
        torch.nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)),
        torch.nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8)),
    )
    graph = record(model, X).graph
    assert [n.op for n in graph.nodes] == ["placeholder", "call_module", "call_module", "output"]


class LowRank(nn.Linear):
    """Changes the computation of the layer it inherits from: it must be looked into."""

    def forward(self, x):
        return super().forward(x) + x


def test_a_subclass_that_computes_something_else_is_looked_into():
    graph = record(nn.Sequential(LowRank(8, 8)), X).graph
    assert named(graph, "linear").args[1].target == "0.weight"


def test_a_failing_run_keeps_what_was_recorded():
    def body(self, x):
        h = self.a(x)
        return self.b(h)

    recorder = Recorder(Body(body, a=nn.Linear(8, 8), b=nn.Linear(3, 3)), batch=4)
    with pytest.raises(RuntimeError):
        recorder.run((X,), {}, ["x"])
    recorder.close()
    assert [n.op for n in recorder.graph.nodes] == ["placeholder", "call_module", "output"]
    assert recorder.failure is not None
    assert (recorder.failure.op, recorder.failure.target) == ("call_module", "b")


def test_nothing_stays_patched():
    before = nn.Module.__call__, torch.autograd.Function.apply
    record(nn.Sequential(nn.Linear(8, 8)), X)
    assert (nn.Module.__call__, torch.autograd.Function.apply) == before


def test_meta_runs_answer_questions_about_values():
    def body(self, x):
        if x.sum().item() > 0:
            x = x[x[:, 0] > 0]
        return self.fc(x)

    with torch.device("meta"):
        model = Body(body, fc=nn.Linear(8, 8))
        x = torch.empty(4, 8)
    recorder = record(model, x, measure=False, answers=True)
    assert meta_of(named(recorder.graph, "fc")).shape == (1, 8)


def test_a_function_under_vmap_is_not_looked_into() -> None:
    """Masks made position by position: nobody can read a value there, and the forward passes as it does unwatched."""

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.lengths = nn.Linear(6, 8), (4, 7)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.sum() > 1e9:  # no symbolic trace gets past this
                raise RuntimeError("not finite")
            there = torch.ones(x.shape[:2], dtype=torch.int64)
            seen = torch.vmap(lambda row: torch.vmap(lambda at: (at * there[0, 0]) <= row)(torch.arange(9)))
            mask = seen(torch.arange(9)).float()
            return mask @ self.embed(x)

    found = finding.find(Masked(), {"example_inputs": lambda: (torch.randn(3, 9, 6),)}, (), seed=0)
    traced = tracing.trace(Masked(), found, seed=0)
    assert traced.ran
    assert traced.coverage == 1.0
