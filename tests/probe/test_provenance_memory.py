"""Memory that nobody wrote, changes that no hook sees, and what recording leaves behind."""

from __future__ import annotations

import math
import random
import threading

import numpy as np
import pytest
import torch
from torch import nn

from initlint.errors import ProbeError
from initlint.facts import ParameterFacts
from initlint.probe.provenance import Recorder


def only(make) -> ParameterFacts:
    """Facts of the only tensor of a module that ``make(module)`` sets up."""

    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            make(self)

    with Recorder() as recorder:
        model = Holder()
    (found,) = recorder.record(model).parameters
    return found


def parameter(make):
    def setup(module: nn.Module) -> None:
        module.p = nn.Parameter(make())

    return setup


def buffer(make):
    def setup(module: nn.Module) -> None:
        module.register_buffer("p", make())

    return setup


UNWRITTEN = {
    "empty": lambda: torch.empty(4, 3),
    "Tensor": lambda: torch.Tensor(4, 3),
    "FloatTensor": lambda: torch.FloatTensor(4),
    "new": lambda: torch.ones(2).new(4, 3),
    "new_empty": lambda: torch.ones(2).new_empty(4),
    "empty_like": lambda: torch.empty_like(torch.ones(2, 3)),
    "empty_strided": lambda: torch.empty_strided((2, 3), (3, 1)),
    "scaled": lambda: torch.empty(4) * 0.02,
    "cast": lambda: torch.empty(4).double(),
    "clone": lambda: torch.empty(4).clone(),
    "half": lambda: torch.empty(4, dtype=torch.bfloat16),
    "scaled in place": lambda: torch.empty(4).mul_(2.0),
    "clamped": lambda: torch.empty(4).clamp_(-1.0, 1.0),
    "joined": lambda: torch.cat([torch.empty(2), torch.empty(2)]),
}


@pytest.mark.parametrize("name", UNWRITTEN)
def test_unwritten_parameters(name: str) -> None:
    found = only(parameter(UNWRITTEN[name]))
    assert found.uninitialised == 1.0
    assert found.provenance == "recorded"
    assert found.created is not None
    assert found.created.text == "module.p = nn.Parameter(make())"


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.LongTensor(4),
        lambda: torch.empty(4, dtype=torch.int32),
        lambda: torch.empty(4, dtype=torch.bool),
        lambda: torch.ones(2).new_empty(3, dtype=torch.uint8),
    ],
)
def test_unwritten_integers_are_judged_by_the_record(make) -> None:
    assert only(buffer(make)).uninitialised == 1.0


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(4, dtype=torch.long),
        lambda: torch.LongTensor([1, 2]),
        lambda: torch.FloatTensor([1.0, 2.0]),
        lambda: torch.Tensor([[math.nan, 1.0]]),
        lambda: torch.full((4,), math.nan),
        lambda: torch.full((4, 4), -math.inf).triu(1),
        lambda: torch.empty(4).fill_(-math.inf),
        lambda: torch.empty(3).fill_(math.nan),
        lambda: torch.zeros(3) / torch.zeros(3),
        lambda: torch.empty(3, dtype=torch.int64).random_(10),
        lambda: torch.from_numpy(np.full(3, np.nan)),
        lambda: torch.tensor([math.nan]),
        lambda: torch.empty(0),
    ],
)
def test_written_memory_whatever_it_holds(make) -> None:
    assert only(buffer(make)).uninitialised == 0.0


def test_partly_written_memory_has_a_share() -> None:
    def make() -> torch.Tensor:
        t = torch.empty(4, 5)
        t[0] = 1.0
        t[:, 2].normal_()
        return t

    found = only(parameter(make))
    assert found.uninitialised == pytest.approx(1 - 8 / 20)


def test_partly_written_integers() -> None:
    def make() -> torch.Tensor:
        t = torch.empty(10, dtype=torch.long)
        t[:7] = 3
        return t

    assert only(buffer(make)).uninitialised == pytest.approx(0.3)


def test_partly_written_through_a_mask() -> None:
    def make() -> torch.Tensor:
        t = torch.empty(4, 4)
        t[torch.eye(4).bool()] = 0.0
        return t

    assert only(parameter(make)).uninitialised == pytest.approx(0.75)


def test_a_nan_on_purpose_beside_unwritten_memory() -> None:
    def make() -> torch.Tensor:
        t = torch.empty(4)
        t[:2] = math.nan
        return t

    assert only(parameter(make)).uninitialised == pytest.approx(0.5)


def test_views_of_a_larger_buffer() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            flat = torch.empty(10)
            flat[:6].normal_()
            self.a = nn.Parameter(flat[:6])
            self.b = nn.Parameter(flat[6:])

    with Recorder() as recorder:
        model = Flat()
    a, b = recorder.record(model).parameters
    assert (a.uninitialised, b.uninitialised) == (0.0, 1.0)
    assert a.storage == b.storage
    assert [w.op for w in a.writes] == ["normal_"]
    assert a.writes[0].share == 1.0
    assert b.writes == ()


def test_meta_to_empty_and_reset() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            with torch.device("meta"):
                self.fc = nn.Linear(4, 4)
                self.norm = nn.LayerNorm(4)
            self.to_empty(device="cpu")
            nn.init.normal_(self.fc.weight, std=0.02)
            nn.init.zeros_(self.fc.bias)

    with Recorder() as recorder:
        model = Net()
    facts = {p.name: p for p in recorder.record(model).parameters}
    assert facts["fc.weight"].uninitialised == 0.0
    assert [w.op for w in facts["fc.weight"].writes] == ["kaiming_uniform_", "to_empty", "normal_"]
    assert facts["fc.weight"].writes[0].unused
    assert facts["norm.weight"].uninitialised == 1.0
    assert facts["norm.weight"].created.text == "self.norm = nn.LayerNorm(4)"


def test_models_on_meta_are_judged_by_the_record() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.raw = nn.Parameter(torch.empty(4))

    with Recorder() as recorder, torch.device("meta"):
        model = Net()
    facts = {p.name: p for p in recorder.record(model).parameters}
    assert facts["fc.weight"].uninitialised == 0.0
    assert facts["raw"].uninitialised == 1.0


# -- what no hook sees ------------------------------------------------------------------------


def through_numpy(w: torch.Tensor) -> None:
    w.detach().numpy()[0] = 7.0


def through_dlpack(w: torch.Tensor) -> None:
    np.from_dlpack(w.detach())
    torch.from_dlpack(w.detach())
    w.detach().numpy()[-1, -1] = 3.0


@torch.jit.script
def scripted_fill(w: torch.Tensor) -> None:
    w.fill_(3.0)


def through_script(w: torch.Tensor) -> None:
    scripted_fill(w.data)


def through_a_thread(w: torch.Tensor) -> None:
    thread = threading.Thread(target=lambda: w.data.fill_(2.0))
    thread.start()
    thread.join()


@pytest.mark.parametrize("size", [(3, 4), (300, 400)])
@pytest.mark.parametrize("change", [through_numpy, through_dlpack, through_script, through_a_thread])
def test_changes_that_nothing_recorded_make_the_provenance_unknown(change, size: tuple[int, int]) -> None:
    def setup(module: nn.Module) -> None:
        module.p = nn.Parameter(torch.zeros(*size))
        change(module.p)

    assert only(setup).provenance == "unknown"


@pytest.mark.parametrize("change", [through_numpy, through_script, through_a_thread])
def test_a_recorded_write_afterwards_is_known_again(change) -> None:
    def setup(module: nn.Module) -> None:
        module.p = nn.Parameter(torch.zeros(3, 4))
        change(module.p)
        nn.init.ones_(module.p)

    found = only(setup)
    assert found.provenance == "recorded"
    assert found.writes[-1].op == "ones_"


def test_swap_tensors_is_followed_by_storage() -> None:
    def setup(module: nn.Module) -> None:
        module.p = nn.Parameter(torch.zeros(3))
        other = nn.Parameter(torch.empty(3).normal_(std=0.5))
        torch.utils.swap_tensors(module.p, other)

    found = only(setup)
    assert [w.op for w in found.writes] == ["normal_"]
    assert found.provenance == "recorded"


def test_numpy_values_are_of_unknown_origin() -> None:
    found = only(parameter(lambda: torch.from_numpy(np.random.default_rng(0).normal(size=4))))
    assert found.provenance == "unknown"
    assert found.uninitialised == 0.0


@pytest.mark.parametrize(("rows", "left"), [(4, 0.0), (3, 0.25), (0, 1.0)])
def test_what_a_numpy_view_did_not_reach_is_uninitialised(rows: int, left: float) -> None:
    def setup(module: nn.Module) -> None:
        module.p = nn.Parameter(torch.empty(4, 5))
        module.p.detach().numpy()[:rows] = 0.5

    assert only(setup).uninitialised == left


def test_reading_through_numpy_changes_nothing() -> None:
    def setup(module: nn.Module) -> None:
        module.p = nn.Parameter(torch.randn(200, 200))
        assert module.p.detach().numpy().std() > 0

    assert only(setup).provenance == "recorded"


# -- global state -----------------------------------------------------------------------------


def test_global_state_is_as_before() -> None:
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
    init, apply = nn.Module.__init__, nn.Module.apply
    seeds = (torch.manual_seed, torch.random.manual_seed, torch.set_rng_state, torch.get_rng_state)
    with Recorder() as recorder:
        assert torch.are_deterministic_algorithms_enabled()
        torch.manual_seed(99)
        random.random()
        np.random.rand(3)
        torch.randn(3)
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_grad_enabled(False)
        torch.use_deterministic_algorithms(False)
        model = nn.Linear(2, 2)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert before[2] == np.random.get_state()[1].tolist()
    assert torch.get_default_dtype() == torch.float32
    assert torch.get_default_device() == torch.device("cpu")
    assert torch.is_grad_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    assert (nn.Module.__init__, nn.Module.apply) == (init, apply)
    assert (torch.manual_seed, torch.random.manual_seed, torch.set_rng_state, torch.get_rng_state) == seeds
    assert torch.overrides._len_torch_function_stack() == 0
    assert recorder.record(model).parameters[0].dtype == "float64"


def test_state_is_restored_after_an_error() -> None:
    def broken() -> nn.Module:
        torch.use_deterministic_algorithms(True)
        raise ValueError("in the constructor")

    with pytest.raises(ValueError, match="in the constructor"), Recorder():
        broken()
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.overrides._len_torch_function_stack() == 0


def test_deterministic_mode_of_the_user_is_kept() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        with Recorder():
            pass
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_recording_changes_no_random_value() -> None:
    torch.manual_seed(3)
    plain = nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 4), nn.Conv2d(2, 2, 3))
    with Recorder() as recorder:
        torch.manual_seed(3)
        seen = nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 4), nn.Conv2d(2, 2, 3))
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), seen.parameters(), strict=True))
    assert len(recorder.record(seen).parameters) == 8


def test_a_mode_that_user_code_leaves_behind_is_taken_off() -> None:
    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    with Recorder() as recorder:
        Mode().__enter__()
        model = nn.Linear(2, 2)
    assert torch.overrides._len_torch_function_stack() == 0
    assert [w.op for w in recorder.record(model).parameters[0].writes] == ["kaiming_uniform_"]


def test_a_recorder_is_used_once() -> None:
    recorder = Recorder()
    with recorder:
        pass
    with pytest.raises(ProbeError, match="one build only"):
        recorder.__enter__()


def test_a_model_whose_construction_was_not_seen() -> None:
    model = nn.Linear(2, 2)
    with Recorder() as recorder:
        pass
    found = recorder.record(model).parameters[0]
    assert found.provenance == "unknown"
    assert found.writes == ()
    assert found.uninitialised == 0.0


# -- random numbers ---------------------------------------------------------------------------


def test_generators_and_seeds_leave_fingerprints() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Parameter(torch.empty(4)) for _ in range(4))
            nn.init.normal_(self.a, generator=torch.Generator().manual_seed(1))
            nn.init.normal_(self.b, generator=torch.Generator().manual_seed(1))
            with torch.random.fork_rng():
                torch.manual_seed(3)
                nn.init.normal_(self.c)
            torch.manual_seed(3)
            nn.init.normal_(self.d)

    with Recorder() as recorder:
        model = Net()
    record = recorder.record(model)
    marks = [p.writes[-1].generator for p in record.parameters]
    assert marks[0] == marks[1]
    assert marks[2] == marks[3]
    assert marks[0] != marks[2]
    assert [(r.seed, r.times, r.forked) for r in record.reseeds] == [(3, 1, True), (3, 1, False)]
    assert record.reseeds[1].site.text == "torch.manual_seed(3)"


def test_seeding_at_module_level_is_no_reseeding() -> None:
    code = compile("import torch\ntorch.manual_seed(0)\n", __file__, "exec")
    with Recorder() as recorder:
        exec(code, {})
        torch.manual_seed(1)
        model = nn.Linear(1, 1)
    assert [r.seed for r in recorder.record(model).reseeds] == [1]


def test_without_the_fill_the_record_decides() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.use_deterministic_algorithms(False)
            self.a = nn.Parameter(torch.empty(4))
            self.b = nn.Parameter(torch.empty(4).normal_())

    with Recorder() as recorder:
        model = Net()
    record = recorder.record(model)
    assert [p.uninitialised for p in record.parameters] == [1.0, 0.0]
    assert any("deterministic" in note for note in record.notes)


@pytest.mark.parametrize(
    ("make", "op"),
    [
        (lambda: torch.Tensor(3, 4).uniform_(-1, 1), "uniform_"),
        (lambda: nn.init.xavier_uniform_(torch.Tensor(3, 4)), "xavier_uniform_"),
        (lambda: nn.init.kaiming_normal_(torch.empty(3, 4)), "kaiming_normal_"),
        (lambda: torch.FloatTensor(3).fill_(1.0), "fill_"),
    ],
)
def test_memory_that_is_written_before_it_becomes_a_parameter(make, op: str) -> None:
    found = only(parameter(make))
    assert [w.op for w in found.writes] == [op]
    assert found.uninitialised == 0.0
    assert found.provenance == "recorded"


def test_safetensors_are_loaded(tmp_path) -> None:
    files = pytest.importorskip("safetensors.torch")
    path = str(tmp_path / "weights.safetensors")
    files.save_file(nn.Linear(4, 4).state_dict(), path)

    def build() -> nn.Module:
        layer = nn.Linear(4, 4)
        layer.load_state_dict(files.load_file(path))
        return layer

    with Recorder() as recorder:
        model = build()
    assert {p.provenance for p in recorder.record(model).parameters} == {"loaded"}


def test_addresses_are_not_mistaken_when_memory_is_reused() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for _ in range(50):
                torch.empty(64).normal_()
            self.p = nn.Parameter(torch.empty(64))
            for _ in range(50):
                torch.zeros(64).fill_(1.0)
            self.q = nn.Parameter(torch.zeros(64))

    with Recorder() as recorder:
        model = Net()
    p, q = recorder.record(model).parameters
    assert (p.uninitialised, p.writes) == (1.0, ())
    assert [w.op for w in q.writes] == ["create"]
