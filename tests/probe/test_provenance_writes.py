"""Every way to write a parameter, as the record shows it."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from initlint.facts import ParameterFacts, Write
from initlint.probe.provenance import Recorder
from initlint.probe.record import Record


def recorded(build) -> Record:
    with Recorder() as recorder:
        model = build()
    return recorder.record(model)


def fact(record: Record, name: str) -> ParameterFacts:
    found = [p for p in record.parameters if p.name == name or name in p.aliases]
    assert found, f"{name} is not in {[p.name for p in record.parameters]}"
    return found[0]


def of_one(tensor_or_build) -> ParameterFacts:
    """The facts of the only parameter of a module made by ``tensor_or_build()``."""

    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p = tensor_or_build(self)

    return fact(recorded(Holder), "p")


def ops(p: ParameterFacts) -> list[str]:
    return [w.op for w in p.writes]


def last(p: ParameterFacts) -> Write:
    assert p.last is not None
    return p.last


INIT_CALLS = {
    "uniform_": (lambda w: nn.init.uniform_(w, -0.1, 0.1), {"a": -0.1, "b": 0.1}, True),
    "normal_": (lambda w: nn.init.normal_(w, std=0.02), {"mean": 0.0, "std": 0.02}, True),
    "trunc_normal_": (
        lambda w: nn.init.trunc_normal_(w, std=0.02),
        {"mean": 0.0, "std": 0.02, "a": -2.0, "b": 2.0},
        True,
    ),
    "constant_": (lambda w: nn.init.constant_(w, 0.3), {"val": 0.3}, False),
    "ones_": (lambda w: nn.init.ones_(w), {"val": 1.0}, False),
    "zeros_": (lambda w: nn.init.zeros_(w), {"val": 0.0}, False),
    "eye_": (lambda w: nn.init.eye_(w), {}, False),
    "xavier_uniform_": (lambda w: nn.init.xavier_uniform_(w, gain=2.0), {"gain": 2.0}, True),
    "xavier_normal_": (lambda w: nn.init.xavier_normal_(w), {"gain": 1.0}, True),
    "kaiming_uniform_": (
        lambda w: nn.init.kaiming_uniform_(w, a=math.sqrt(5)),
        {"a": math.sqrt(5), "mode": "fan_in", "nonlinearity": "leaky_relu"},
        True,
    ),
    "kaiming_normal_": (
        lambda w: nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu"),
        {"a": 0, "mode": "fan_out", "nonlinearity": "relu"},
        True,
    ),
    "orthogonal_": (lambda w: nn.init.orthogonal_(w, gain=0.5), {"gain": 0.5}, True),
    "sparse_": (lambda w: nn.init.sparse_(w, 0.5), {"sparsity": 0.5, "std": 0.01}, True),
}


@pytest.mark.parametrize("name", INIT_CALLS)
def test_init_functions_are_one_write_with_resolved_arguments(name: str) -> None:
    call, expected, random = INIT_CALLS[name]

    def build(self):
        w = nn.Parameter(torch.empty(6, 6))
        call(w)
        return w

    p = of_one(build)
    assert ops(p) == [name]
    write = last(p)
    assert dict(write.args) == expected
    assert write.random is random
    assert bool(write.generator) is random
    assert write.share == 1.0
    assert write.region == ""
    assert write.origin == "user"
    assert write.site is not None
    assert write.site.file == __file__
    assert "nn.init." in write.site.text or "call(w)" in write.site.text
    assert p.uninitialised == 0.0
    assert p.provenance == "recorded"


def test_dirac_is_one_write() -> None:
    def build(self):
        w = nn.Parameter(torch.empty(4, 4, 3))
        nn.init.dirac_(w)
        return w

    p = of_one(build)
    assert ops(p) == ["dirac_"]
    assert last(p).share == 1.0


def test_the_same_init_call_twice_is_two_writes() -> None:
    def build(self):
        w = nn.Parameter(torch.empty(4, 4))
        for _ in range(2):
            nn.init.orthogonal_(w)
        return w

    p = of_one(build)
    assert ops(p) == ["orthogonal_", "orthogonal_"]
    assert p.writes[0].unused
    assert not p.writes[1].unused
    assert p.writes[0].generator != p.writes[1].generator


@pytest.mark.parametrize(
    ("call", "op", "args"),
    [
        (lambda w: w.data.normal_(0, 0.02), "normal_", {"mean": 0, "std": 0.02}),
        (lambda w: w.data.uniform_(-0.5, 0.5), "uniform_", {"a": -0.5, "b": 0.5}),
        (lambda w: w.data.fill_(2.5), "fill_", {"val": 2.5}),
        (lambda w: w.data.zero_(), "zero_", {"val": 0.0}),
        (lambda w: w.detach().normal_(std=3.0), "normal_", {"mean": 0.0, "std": 3.0}),
        (lambda w: w.data.exponential_(2.0), "exponential_", {"lambd": 2.0}),
        (lambda w: w.view(-1).detach().normal_(), "normal_", {"mean": 0.0, "std": 1.0}),
        (lambda w: w.data.t().uniform_(0, 1), "uniform_", {"a": 0, "b": 1}),
    ],
)
def test_in_place_methods(call, op: str, args: dict) -> None:
    def build(self):
        w = nn.Parameter(torch.empty(3, 5))
        call(w)
        return w

    p = of_one(build)
    assert ops(p) == [op]
    assert dict(last(p).args) == args
    assert last(p).share == 1.0
    assert last(p).region == ""


def test_no_grad_block_and_copy_of_a_computed_tensor() -> None:
    def build(self):
        w = nn.Parameter(torch.empty(8))
        with torch.no_grad():
            w.copy_(torch.rand(8) * 2 - 1)
        return w

    write = last(of_one(build))
    assert write.op == "copy_"
    assert write.args["function"] == "rand"
    assert write.args["chain"] == ["rand", "mul", "sub", "copy"]
    assert write.args["low"] == pytest.approx(-1.0)
    assert write.args["high"] == pytest.approx(1.0)
    assert write.args["std"] == pytest.approx(2 / math.sqrt(12))
    assert write.random


def test_data_assignment_keeps_the_earlier_history() -> None:
    def build(self):
        layer = nn.Linear(4, 4, bias=False)
        layer.weight.data = torch.randn(4, 4) * 0.1
        return layer.weight

    p = of_one(build)
    assert ops(p) == ["kaiming_uniform_", "copy_"]
    assert p.writes[0].unused
    assert p.writes[1].args["assigned"] is True
    assert p.writes[1].args["std"] == pytest.approx(0.1)
    assert p.writes[1].random


@pytest.mark.parametrize(
    ("make", "mean", "std"),
    [
        (lambda: torch.randn(3, 4) * 0.02, 0.0, 0.02),
        (lambda: 0.02 * torch.randn(3, 4), 0.0, 0.02),
        (lambda: torch.randn(3, 4) / 4 + 1, 1.0, 0.25),
        (lambda: torch.zeros(3, 4), 0.0, 0.0),
        (lambda: torch.full((3, 4), 0.7), 0.7, 0.0),
        (lambda: 1 - torch.ones(3, 4), 0.0, 0.0),
        (lambda: -torch.ones(3, 4), -1.0, 0.0),
        (lambda: torch.rand(3, 4), 0.5, 1 / math.sqrt(12)),
        (lambda: torch.empty(3, 4).normal_(0, 0.3), 0.0, 0.3),
        (lambda: torch.empty(3, 4).uniform_(-1, 1) * 0.5, 0.0, 0.5 / math.sqrt(3)),
        (lambda: torch.normal(0.0, 0.4, size=(3, 4)), 0.0, 0.4),
        (lambda: torch.ones(4).repeat(3, 1) * 1e-6, 1e-6, 0.0),
    ],
)
def test_moments_of_creation_expressions(make, mean: float, std: float) -> None:
    p = of_one(lambda self: nn.Parameter(make()))
    write = last(p)
    assert write.args["mean"] == pytest.approx(mean)
    assert write.args["std"] == pytest.approx(std)
    assert p.uninitialised == 0.0


def test_derived_expressions_have_no_guessed_moments() -> None:
    write = last(of_one(lambda self: nn.Parameter(torch.log(torch.rand(5) + 1))))
    assert write.op == "create"
    assert write.args["function"] == "derived"
    assert write.args["chain"] == ["rand", "add", "log"]
    assert "std" not in write.args
    assert write.random


def test_slices_add_up_and_say_where() -> None:
    class Gates(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.empty(12, 4))
            for i in range(3):
                nn.init.orthogonal_(self.w[4 * i : 4 * i + 4])
            with torch.no_grad():
                self.w[0] = 0.0
                self.w[:, 1] = 1.0
                self.w[2:4].mul_(2.0)

    p = fact(recorded(Gates), "w")
    assert [(w.op, w.region, w.start, w.stop) for w in p.writes] == [
        ("orthogonal_", "[:4]", 0, 4),
        ("orthogonal_", "[4:8]", 4, 8),
        ("orthogonal_", "[8:]", 8, 12),
        ("setitem", "[0]", 0, 1),
        ("setitem", "[:, 1]", None, None),
        ("mul_", "[2:4]", 2, 4),
    ]
    assert [w.share for w in p.writes] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1 / 12, 1 / 4, 1 / 6])
    assert p.uninitialised == 0.0
    assert not any(w.unused for w in p.writes)


def test_chunks_and_unbound_slices() -> None:
    def build(self):
        w = nn.Parameter(torch.empty(6, 2))
        for part in w.data.chunk(3):
            nn.init.normal_(part)
        for row in w.data.unbind(0)[:2]:
            row.zero_()
        return w

    p = of_one(build)
    assert [w.region for w in p.writes] == ["[:2]", "[2:4]", "[4:]", "[0]", "[1]"]
    assert p.uninitialised == 0.0


def test_masks_and_index_tensors() -> None:
    def build(self):
        w = nn.Parameter(torch.ones(4, 4))
        with torch.no_grad():
            w[torch.eye(4, dtype=torch.bool)] = 0.0
            w.masked_fill_(torch.ones(4, 4).tril().bool(), 2.0)
            w[torch.tensor([1, 3])] = 5.0
        return w

    p = of_one(build)
    assert [w.region for w in p.writes[1:]] == ["[mask]", "[masked_fill]", "[index]"]
    assert [w.share for w in p.writes[1:]] == pytest.approx([0.25, 10 / 16, 0.5])


def test_chains_are_kept_in_order() -> None:
    def build(self):
        w = nn.Parameter(torch.empty(4, 4))
        nn.init.xavier_normal_(w)
        with torch.no_grad():
            w.mul_(0.5).clamp_(-1, 1)
            w /= 2
            w *= 3
        return w

    p = of_one(build)
    assert ops(p) == ["xavier_normal_", "mul_", "clamp_", "div_", "mul_"]
    assert [w.args.get("other") for w in p.writes] == [None, 0.5, None, 2, 3]
    assert p.writes[2].args == {"min": -1, "max": 1}
    assert not any(w.unused for w in p.writes)


def test_a_home_made_helper_is_one_group() -> None:
    def truncated(tensor: torch.Tensor, std: float = 1.0) -> torch.Tensor:
        with torch.no_grad():
            tensor.normal_(0, std)
            tensor.clamp_(-2 * std, 2 * std)
            return tensor

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.empty(4))
            self.b = nn.Parameter(torch.empty(4))
            truncated(self.a, std=0.02)
            truncated(self.b, std=0.02)
            truncated(self.b, std=0.03)

    record = recorded(Two)
    a, b = fact(record, "a"), fact(record, "b")
    assert ops(a) == ["normal_", "clamp_"]
    assert {w.helper for w in a.writes} == {"truncated"}
    assert len({w.group for w in a.writes}) == 1
    assert len({w.group for w in b.writes}) == 2
    assert a.writes[0].group not in {w.group for w in b.writes}
    assert a.writes[0].args["helper"] == {"std": 0.02}
    assert [s.function.rpartition(".")[2] for s in a.writes[0].stack[:2]] == ["truncated", "__init__"]


def test_replaced_functions_of_torch_nn_init_are_matched_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    original = nn.init.normal_

    def normal_(tensor, mean=0.0, std=1.0, generator=None):
        if getattr(tensor, "_done", False):
            return tensor
        return original(tensor, mean=mean, std=std, generator=generator)

    monkeypatch.setattr(nn.init, "normal_", normal_)

    def build(self):
        w = nn.Parameter(torch.empty(4))
        nn.init.normal_(w, std=0.02)
        w._done = True
        nn.init.normal_(w, std=5.0)  # does nothing
        return w

    p = of_one(build)
    assert ops(p) == ["normal_"]
    assert last(p).args["std"] == 0.02
    assert last(p).random


def test_layers_of_torch() -> None:
    p = of_one(lambda self: nn.Linear(4, 4).weight)
    assert ops(p) == ["kaiming_uniform_"]
    assert last(p).origin == "torch"
    assert p.created is not None
    assert p.created.text == "p = of_one(lambda self: nn.Linear(4, 4).weight)"


def test_created_is_the_line_that_constructs_a_layer_or_registers_a_parameter() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            raw = torch.randn(4)
            self.fc = nn.Linear(4, 4)
            self.scale = nn.Parameter(raw)
            self.register_buffer("table", torch.arange(4))

    record = recorded(Net)
    assert fact(record, "fc.weight").created.text == "self.fc = nn.Linear(4, 4)"
    assert fact(record, "scale").created.text == "self.scale = nn.Parameter(raw)"
    assert fact(record, "table").created.text == 'self.register_buffer("table", torch.arange(4))'
    assert fact(record, "table").kind == "buffer"
    assert fact(record, "table").dtype == "int64"
    modules = {m.name: m for m in record.modules}
    assert modules["fc"].created.text == "self.fc = nn.Linear(4, 4)"
    assert modules["fc"].attrs["in_features"] == 4
    assert modules["fc"].cls == "torch.nn.modules.linear.Linear"
    assert modules[""].cls.endswith("Net")


def test_tied_parameters_share_one_entry() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tok = nn.Embedding(10, 4)
            self.head = nn.Linear(4, 10, bias=False)
            self.head.weight = self.tok.weight
            nn.init.normal_(self.head.weight, std=0.02)

    record = recorded(Tied)
    assert [p.name for p in record.parameters] == ["tok.weight"]
    p = record.parameters[0]
    assert p.aliases == ("head.weight",)
    assert ops(p) == ["normal_", "normal_"]
    assert p.created.text == "self.tok = nn.Embedding(10, 4)"


def test_parameters_that_share_memory_have_one_number() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.ones(4))
            self.b = nn.Parameter(self.a.data)
            self.c = nn.Parameter(torch.ones(4))
            self.c.data = self.a.data

    record = recorded(Shared)
    numbers = [p.storage for p in record.parameters]
    assert numbers[0] == numbers[1] == numbers[2]
    assert len(record.parameters) == 3


def test_deep_copies_share_the_history() -> None:
    class Copies(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            first = nn.Linear(4, 4)
            self.layers = nn.ModuleList([first, copy.deepcopy(first)])
            nn.init.zeros_(self.layers[1].bias)

    record = recorded(Copies)
    source, copied = fact(record, "layers.0.weight"), fact(record, "layers.1.weight")
    assert ops(copied) == ["kaiming_uniform_", "deepcopy"]
    assert copied.writes[0].generator == source.writes[0].generator
    assert copied.writes[1].args == {"source": "layers.0.weight"}
    assert copied.writes[1].origin == "user"
    assert copied.storage != source.storage
    assert ops(fact(record, "layers.1.bias")) == ["uniform_", "deepcopy", "zeros_"]
    assert copied.created.text == "first = nn.Linear(4, 4)"


def test_copies_that_torch_makes() -> None:
    record = recorded(lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2))
    copied = fact(record, "layers.1.linear1.weight")
    assert ops(copied) == ["kaiming_uniform_", "deepcopy"]
    assert copied.writes[1].origin == "torch"


@pytest.mark.parametrize("convert", [lambda m: m.half(), lambda m: m.to(torch.float64), lambda m: m.bfloat16()])
def test_conversions_keep_the_history(convert) -> None:
    def build():
        layer = nn.Linear(4, 4)
        nn.init.normal_(layer.weight, std=0.02)
        return convert(layer)

    p = fact(recorded(build), "weight")
    assert ops(p)[:2] == ["kaiming_uniform_", "normal_"]
    assert len(p.writes) == 3
    assert not p.writes[1].unused
    assert p.writes[0].unused
    assert p.uninitialised == 0.0
    assert p.dtype in ("float16", "float64", "bfloat16")


def test_load_state_dict() -> None:
    def build():
        source, target = nn.Linear(4, 4), nn.Linear(4, 4)
        target.load_state_dict(source.state_dict())
        return target

    p = fact(recorded(build), "weight")
    assert ops(p) == ["kaiming_uniform_", "load"]
    assert p.provenance == "recorded"


def test_weights_from_a_file_are_loaded(tmp_path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(nn.Linear(4, 4).state_dict(), path)

    def build():
        layer = nn.Linear(4, 4)
        layer.load_state_dict(torch.load(path, weights_only=True))
        return layer

    p = fact(recorded(build), "weight")
    assert ops(p) == ["kaiming_uniform_", "load"]
    assert p.provenance == "loaded"


def test_load_by_assignment(tmp_path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(nn.Linear(4, 4).state_dict(), path)

    def build():
        with torch.device("meta"):
            layer = nn.Linear(4, 4)
        layer.load_state_dict(torch.load(path, weights_only=True), assign=True)
        return layer

    p = fact(recorded(build), "weight")
    assert p.provenance == "loaded"
    assert p.uninitialised == 0.0


def test_out_argument() -> None:
    def build(self):
        w = nn.Parameter(torch.empty(4))
        with torch.no_grad():
            torch.randn(4, out=w.data)
        return w

    p = of_one(build)
    assert ops(p) == ["randn"]
    assert last(p).random
    assert p.uninitialised == 0.0


def test_foreach_functions() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.ones(2))
            self.b = nn.Parameter(torch.ones(2))
            with torch.no_grad():
                torch._foreach_mul_([self.a, self.b], 0.5)

    record = recorded(Net)
    assert ops(fact(record, "a")) == ["create", "_foreach_mul_"]
    assert ops(fact(record, "b")) == ["create", "_foreach_mul_"]


def test_lazy_modules() -> None:
    class Lazy(nn.Module):
        def __init__(self, ready: bool) -> None:
            super().__init__()
            self.fc = nn.LazyLinear(4)
            if ready:
                self.fc(torch.ones(1, 3))

    ready = fact(recorded(lambda: Lazy(True)), "fc.weight")
    assert ready.shape == (4, 3)
    assert ready.uninitialised == 0.0
    waiting = fact(recorded(lambda: Lazy(False)), "fc.weight")
    assert waiting.shape == ()
    assert waiting.provenance == "unknown"
