"""Tracing as a whole: which way is taken, what is measured, and that the model stays as it was."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from initlint.probe.inputs import Inputs, describe
from initlint.probe.trace import trace
from initlint.probe.traced import meta_of, unknown_source


def given(model, *args, **kwargs) -> Inputs:
    return describe(model, args, kwargs, "example_inputs")


class Branching(nn.Module):
    """Control flow on values: not symbolically traceable."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.unused = nn.Linear(8, 8), nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x):
        h = torch.relu(self.a(x))
        return self.b(h) if h.sum() > 0 else self.unused(h)


class Deceiving(nn.Module):
    """Proxies take another branch than tensors."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return self.a(x) if isinstance(x, torch.Tensor) else self.b(x)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8)
        self.act = nn.ReLU(inplace=True)
        self.fc = nn.Linear(8, 8)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        b, n = x.shape
        h = self.norm(x)
        h = self.fc(self.act(h)) + h
        return self.drop(h.view(b, 2, n // 2)).flatten(1)


def test_traceable_models_are_traced_symbolically_and_sizes_are_folded():
    model = Residual()
    traced = trace(model, given(model, torch.randn(4, 8)))
    assert (traced.method, traced.ran, traced.coverage) == ("symbolic", True, 1.0)
    view = next(n for n in traced.graph.nodes if n.target == "view")
    assert view.args[1:] == (4, 2, 4)
    assert all(meta_of(n).value_kind != "other" for n in traced.graph.nodes if n.op != "output")


def test_in_place_layers_rebind_in_symbolic_graphs_too():
    model = Residual()
    graph = trace(model, given(model, torch.randn(4, 8))).graph
    act, fc = (next(n for n in graph.nodes if n.target == name) for name in ("act", "fc"))
    add = next(n for n in graph.nodes if n.name == "add")
    assert add.args == (fc, act)


def test_both_ways_measure_the_same():
    from initlint.probe import trace as module

    model = Residual()
    inputs = given(model, torch.randn(4, 8))
    symbolic = trace(model, inputs)
    recorded = module._recorded(model, inputs, False, 0, [])
    for name in ("norm", "act", "fc", "drop"):
        one, other = (
            next(meta_of(n).measured for n in t.graph.nodes if n.target == name) for t in (symbolic, recorded)
        )
        assert one is not None
        assert other is not None
        assert one.second == pytest.approx(other.second)
        assert one.correlation == pytest.approx(other.correlation)


def test_data_dependent_branches_are_recorded_and_the_rest_is_not_reached():
    torch.manual_seed(0)
    model = Branching()
    traced = trace(model, given(model, torch.randn(4, 8)))
    assert (traced.method, traced.ran) == ("recorded", True)
    assert traced.not_reached == ("unused.weight", "unused.bias")
    assert traced.coverage == pytest.approx(2 / 3)


def test_a_graph_that_computes_something_else_is_not_believed():
    model = Deceiving()
    traced = trace(model, given(model, torch.randn(4, 8)))
    assert traced.method == "recorded"
    assert [str(n.target) for n in traced.graph.nodes if n.op == "call_module"] == ["a"]


def test_without_inputs_untraceable_children_become_leaves_and_are_traced_in_turn():
    model = nn.Sequential(nn.Linear(8, 8), Branching(), nn.Linear(4, 2))
    traced = trace(model, None)
    assert (traced.method, traced.ran) == ("mixed", False)
    leaf = next(n for n in traced.graph.nodes if n.target == "1")
    assert "control flow" in meta_of(leaf).unknown
    assert traced.coverage == 1.0

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
            self.flow = Branching()

        def forward(self, x):
            return self.flow(self.inner(x)) if x.sum() > 0 else x

    islands = trace(Outer(), None)
    tanh = next(n for n in islands.graph.nodes if n.target == "inner.1")
    assert tanh.args[0].target == "inner.0"
    assert tanh.args[0].args[0].target is unknown_source


def test_a_run_that_fails_half_way_keeps_its_part():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            h = self.a(x)
            if h.sum() < 1e9:
                raise ValueError("targets are missing")
            return self.b(h)

    model = Late()
    traced = trace(model, given(model, torch.randn(4, 8)))
    assert not traced.ran
    assert any("targets are missing" in note for note in traced.notes)


def test_models_that_only_run_in_eval_mode_say_so():
    class EvalOnly(nn.Linear):
        def forward(self, x):
            if self.training:
                raise ValueError("needs targets in training")
            return F.linear(x, self.weight).relu()

    model = EvalOnly(8, 8)
    traced = trace(model, given(model, torch.randn(4, 8)))
    assert (traced.ran, traced.training) == (True, False)
    assert model.training


def test_nothing_changes():
    class Caching(Residual):
        def __init__(self):
            super().__init__()
            self.cache = {}
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.cache["last"] = x
            self.seen = x
            self.calls += 1
            return super().forward(x)

    model = Caching().eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    traced = trace(model, given(model, x), measure=True)
    assert traced.ran
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in before.items())
    assert torch.equal(state, torch.get_rng_state())
    assert model.cache == {}
    assert not hasattr(model, "seen")
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


def test_the_same_seed_gives_the_same_measurement():
    model = Residual()
    inputs = given(model, torch.randn(4, 8))
    one, two, other = (trace(model, inputs, seed=s).outputs[0] for s in (3, 3, 4))
    assert meta_of(one).measured == meta_of(two).measured
    assert meta_of(one).measured != meta_of(other).measured


def test_measured_moments_of_a_linear_layer():
    """y = W x with W of variance g/n: q = g q_x, p_x = g p_y; c is kept."""
    torch.manual_seed(0)
    n, gain = 400, 3.0
    model = nn.Sequential(nn.Linear(n, n, bias=False), nn.Identity())
    nn.init.normal_(model[0].weight, std=math.sqrt(gain / n))
    common, own = torch.randn(1, n), torch.randn(16, n)
    x = math.sqrt(0.5) * (common + own)
    traced = trace(model, given(model, x), measure=True)
    start, layer = list(traced.graph.nodes)[:2]
    before, after = meta_of(start).measured, meta_of(layer).measured
    assert before is not None
    assert after is not None
    assert after.second == pytest.approx(gain * before.second, rel=0.05)
    assert after.correlation == pytest.approx(0.5, abs=0.05)
    assert after.gradient_second == pytest.approx(1.0, rel=0.05)
    assert before.gradient_second == pytest.approx(gain, rel=0.05)


def test_cosine_between_positions():
    x = torch.randn(8, 1, 64).expand(8, 32, 64) + torch.randn(8, 32, 64)
    model = nn.Sequential(nn.Identity(), nn.Linear(64, 4))
    traced = trace(model, given(model, x))
    first = next(iter(traced.graph.nodes))
    assert meta_of(first).positions[2] == pytest.approx(0.5, abs=0.06)


def test_gradients_reach_values_that_were_overwritten():
    """The gradient of a value before an in-place op is that of the old value."""

    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(64, 64)

        def forward(self, x):
            return self.fc(x).mul_(10.0)

    model = InPlace()
    graph = trace(model, given(model, torch.randn(32, 64)), measure=True).graph
    fc = next(n for n in graph.nodes if n.target == "fc")
    measured = meta_of(fc).measured
    assert measured is not None
    assert measured.gradient_second == pytest.approx(100.0, rel=0.1)


def test_models_on_meta_are_traced_by_shapes():
    with torch.device("meta"):
        model = Branching()
    traced = trace(model, given(model, torch.randn(4, 8)))
    assert (traced.method, traced.ran) == ("recorded", True)
    assert meta_of(traced.outputs[0]).shape == (4, 4)
    assert meta_of(traced.outputs[0]).measured is None


@pytest.mark.shared
def test_classics_are_covered_either_way(shared):
    import importlib.util

    from initlint.probe import inputs as finding
    from initlint.probe import trace as module

    for path in sorted((shared / "classics").glob("m*.py")):
        spec = importlib.util.spec_from_file_location(f"classic_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        namespace = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(namespace)
        model = namespace.Model()
        inputs = finding.find(model, vars(namespace))
        traced = trace(model, inputs)
        assert (traced.method, traced.coverage, traced.not_reached) == ("symbolic", 1.0, ()), path.stem
        recorded = module._recorded(model, inputs, False, 0, [])
        assert module.cover(model, recorded.graph)[0] == 1.0, path.stem
        inferred = finding.find(model, {})
        assert trace(model, inferred).coverage == 1.0, path.stem


def test_no_slow_imports():
    """Tracing with a backward must not import what takes torch half a second or more to load."""
    code = (
        "import sys, torch\n"
        "from initlint.probe import inputs, trace\n"
        "nn = torch.nn\n"
        "m = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))\n"
        "m(torch.zeros(1, 3, 8, 8))\n"
        "found = inputs.describe(m, (torch.randn(4, 3, 8, 8),), {}, 'x')\n"
        "t = trace.trace(m, found, measure=True)\n"
        "assert t.ran\n"
        "bad = {'sympy', 'torch._dynamo'} & set(sys.modules)\n"
        "sys.exit(f'imported {bad}' if bad else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
