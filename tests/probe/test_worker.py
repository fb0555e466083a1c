"""Targets in children of the worker: what they do to themselves stays there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from initlint.probe.outcome import Event, ProbeResult
from initlint.probe.running import Running

ROOT = Path(__file__).resolve().parents[2]
IMPORTS = "import ctypes, os, sys, torch\nfrom torch import nn\n"
FINE = """
class Fine(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
    def forward(self, x):
        return self.fc(x)
"""

Analyse = Callable[..., list[ProbeResult]]


@pytest.fixture
def analyse(probe_files: Analyse) -> Analyse:
    """The common fixture, with what these models need imported."""

    def call(*targets: str, files: dict[str, str], **options: Any) -> list[ProbeResult]:
        return probe_files(*targets, files={name: IMPORTS + dedent(code) for name, code in files.items()}, **options)

    return call


def reasons(results: list[ProbeResult]) -> dict[str, str]:
    return {m.target: m.reason for result in results for m in result.not_analysed if not m.harmless}


def models(results: list[ProbeResult]) -> list[str]:
    return [facts.name for result in results for facts in result.models]


def test_a_model_is_analysed(analyse: Analyse) -> None:
    (result,) = analyse("model.py", files={"model.py": FINE})
    (facts,) = result.models
    assert (facts.name, facts.target, facts.file, facts.line) == ("Fine", "model.py::Fine", "model.py", 4)
    assert [p.name for p in facts.parameters] == ["fc.weight", "fc.bias"]
    assert facts.parameters[0].stats is not None
    assert facts.parameters[0].stats.count == 6
    assert facts.status == "analysed", facts.reason
    assert [layer.name for layer in facts.layers] == ["fc"]
    assert result.not_analysed == ()


def test_forking_again_and_again_does_not_hang(analyse: Analyse) -> None:
    """Each target forks for itself, for its candidates and for tracing; a parallel region before would hang."""
    two = FINE + FINE.replace("Fine", "Other") + "\nx = torch.randn(600, 600) @ torch.randn(600, 600)\n"
    results = analyse("a.py", "b.py", "a.py::Fine", files={"a.py": two, "b.py": two}, import_mode="full")
    assert models(results) == ["Fine", "Other", "Fine", "Other", "Fine"]
    assert {facts.status for result in results for facts in result.models} == {"analysed"}


def test_the_same_seed_gives_the_same_weights(analyse: Analyse) -> None:
    files = {"model.py": FINE, "twin.py": "torch.randn(5)\n" + FINE}
    first, second, other = (
        analyse(name, files=files, seed=seed)[0].models[0].parameters[0].stats
        for name, seed in (("model.py", 0), ("twin.py", 0), ("model.py", 1))
    )
    assert first is not None
    assert first == second
    assert first != other


BAD = """
class SysExit(nn.Module):
    def __init__(self):
        sys.exit("no GPU")
class HardExit(nn.Module):
    def __init__(self):
        super().__init__()
        print("leaving now")
        os._exit(3)
class Segfault(nn.Module):
    def __init__(self):
        ctypes.string_at(0)
class Raises(nn.Module):
    def __init__(self):
        raise ValueError("width must be even")
"""


def test_a_target_that_dies_is_one_message_and_the_others_finish(analyse: Analyse) -> None:
    results = analyse("bad.py", "good.py", files={"bad.py": BAD + FINE, "good.py": FINE})
    assert models(results) == ["Fine", "Fine"]
    found = reasons(results)
    assert found["bad.py::SysExit"] == "building it called sys.exit('no GPU') (line bad.py:6)"
    assert found["bad.py::HardExit"] == "building it ended the process with exit status 3: leaving now"
    assert found["bad.py::Segfault"] == "building it crashed the interpreter with SIGSEGV"
    assert found["bad.py::Raises"] == "building it raised ValueError: width must be even (line bad.py:17)"
    assert len(found) == 4


@pytest.mark.parametrize("name", ["HardExit", "Segfault"])
def test_a_named_model_that_dies_alone(analyse: Analyse, name: str) -> None:
    (result,) = analyse(f"bad.py::{name}", files={"bad.py": BAD})
    (missing,) = result.not_analysed
    assert missing.named
    assert missing.target == f"bad.py::{name}"


def test_an_endless_loop_is_stopped_and_the_rest_goes_on(analyse: Analyse) -> None:
    endless = "class Endless(nn.Module):\n    def __init__(self):\n        while True: pass\n"
    results = analyse("loop.py", files={"loop.py": FINE + endless + FINE.replace("Fine", "Last")}, timeout=6)
    assert models(results) == ["Fine", "Last"]
    assert reasons(results) == {"loop.py::Endless": "building it did not finish within 6 s"}


def test_an_endless_import_is_stopped(analyse: Analyse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("initlint.probe.running.GRACE", 0.0)
    code = "while True:\n    pass\n" + FINE
    (result,) = analyse("loop.py", files={"loop.py": code}, timeout=2, import_mode="full")
    assert reasons([result]) == {"loop.py": "importing it did not finish within 2 s"}


def test_an_endless_or_crashing_forward_leaves_the_parameters(analyse: Analyse) -> None:
    crash = FINE.replace("return self.fc(x)", "return ctypes.string_at(0)")
    endless = crash.replace("Fine", "Endless").replace("return ctypes.string_at(0)", "while True: pass")
    (result,) = analyse("forward.py", files={"forward.py": crash + endless}, timeout=6)
    assert models([result]) == ["Fine", "Endless"]
    for facts, reason in zip(
        result.models, ("crashed the interpreter with SIGSEGV", "did not finish within"), strict=True
    ):
        assert facts.status == "partial"
        assert reason in facts.reason
        assert [p.name for p in facts.parameters] == ["fc.weight", "fc.bias"]


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        ("ctypes.string_at(0)", "the trace crashed the interpreter with SIGSEGV"),
        ("os._exit(3)", "the trace ended the process with exit status 3"),
    ],
)
@pytest.mark.parametrize("width", [8, 4096], ids=["traced where it was built", "traced in a fork"])
def test_the_only_model_of_a_file_whose_forward_dies_is_traced_without_running_it(
    analyse: Analyse, forward: str, reason: str, width: int
) -> None:
    code = FINE.replace("nn.Linear(3, 2)", f"nn.Linear({width}, {width})")
    code = code.replace(
        "return self.fc(x)", f"y = self.fc(x)\n        if type(x) is torch.Tensor: {forward}\n        return y"
    )
    (result,) = analyse("forward.py", files={"forward.py": code})
    (facts,) = result.models
    assert (facts.status, facts.reason) == ("partial", reason)
    assert [p.name for p in facts.parameters] == ["fc.weight", "fc.bias"]
    assert [node.op for node in facts.nodes if node.parameters] == ["linear"]


def test_the_only_model_of_a_file_whose_forward_never_ends(analyse: Analyse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("initlint.probe.running.GRACE", 0.0)
    code = FINE.replace("return self.fc(x)", "while True: pass")
    (result,) = analyse("forward.py", files={"forward.py": code}, timeout=4)
    (facts,) = result.models
    assert (facts.status, facts.reason) == ("partial", "the trace did not finish within 4 s")
    assert [p.name for p in facts.parameters] == ["fc.weight", "fc.bias"]


EATER = """
class Eater(nn.Module):
    def __init__(self):
        super().__init__()
        self.kept = []
        while True:
            self.kept.append(torch.ones(4_000_000))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is polled through /proc")
def test_eating_memory_is_stopped_and_the_rest_goes_on(analyse: Analyse) -> None:
    files = {"eat.py": FINE + EATER + FINE.replace("Fine", "Last")}
    (result,) = analyse("eat.py", files=files, memory_limit=1 << 30)
    assert models([result]) == ["Fine", "Last"]
    assert reasons([result]) == {"eat.py::Eater": "building it used more memory than the limit of 1 GiB"}


def test_what_a_target_prints_is_captured(analyse: Analyse, capfd: pytest.CaptureFixture[str]) -> None:
    loud = FINE.replace(
        "super().__init__()", "super().__init__(); print('x' * 300_000); os.system('echo from a shell')"
    )
    (result,) = analyse("loud.py", files={"loud.py": "print('at import')\n" + loud})
    assert models([result]) == ["Fine"]
    assert "from a shell" in result.output
    assert capfd.readouterr() == ("", "")


def test_large_facts_come_through(analyse: Analyse) -> None:
    deep = FINE.replace("nn.Linear(3, 2)", "nn.Sequential(*[nn.Linear(3, 3) for _ in range(400)])")
    (result,) = analyse("deep.py", files={"deep.py": deep})
    assert len(result.models[0].parameters) == 800
    assert len(result.models[0].nodes) >= 400


def test_cuda_is_redirected_and_said(analyse: Analyse) -> None:
    code = """
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2).cuda()
            self.scale = nn.Parameter(torch.ones(2, device="cuda"))
            self.shift = nn.Parameter(torch.zeros(2).to("cuda:0"))
            self.to(torch.device("cuda"))
        def forward(self, x):
            return self.fc(x.cuda()) * self.scale + self.shift
    """
    (result,) = analyse("gpu.py", files={"gpu.py": code})
    (facts,) = result.models
    assert facts.status == "analysed", facts.reason
    assert [note for note in facts.notes if "redirected" in note][:3] == [
        "gpu.py:7: .cuda() was redirected to the CPU",
        "gpu.py:8: device='cuda' was redirected to the CPU",
        "gpu.py:9: .to('cuda:0') was redirected to the CPU",
    ]


COMPILED = """
    @torch.jit.script
    def double(x):
        return x * 2

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            assert os.environ["TORCHDYNAMO_DISABLE"] == "1"
            self.fc = torch.compile(nn.Linear(3, 2), mode="max-autotune")
            self.out = nn.Linear(2, 2)
            self.out.compile()
        @torch.compile
        def forward(self, x):
            return self.tail(double(self.fc(x)))
        @torch.compile(dynamic=True)
        def tail(self, x):
            assert "torch._inductor" not in sys.modules
            return self.out(x)
"""


def test_nothing_is_compiled(analyse: Analyse) -> None:
    (result,) = analyse("net.py", files={"net.py": COMPILED})
    (facts,) = result.models
    assert facts.status == "analysed", facts.reason
    assert [p.name for p in facts.parameters] == ["fc.weight", "fc.bias", "out.weight", "out.bias"]
    assert facts.trace.coverage == 1
    assert not facts.trace.unsupported


def test_the_environment_of_the_caller_stays(analyse: Analyse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHDYNAMO_DISABLE", raising=False)
    analyse("model.py", files={"model.py": FINE})
    assert "TORCHDYNAMO_DISABLE" not in os.environ


def test_dependencies_are_the_project_files_read(analyse: Analyse, tmp_path: Path) -> None:
    (tmp_path / "sizes.txt").write_text("3")
    files = {
        "sizes_of.py": "WIDTH = 3\n",
        "model.py": "from sizes_of import WIDTH\n"
        + FINE.replace("nn.Linear(3, 2)", "nn.Linear(int(open('sizes.txt').read()), WIDTH)"),
        "unrelated.py": FINE,
    }
    (result,) = analyse("model.py", files=files)
    assert [Path(path).name for path, _ in result.dependencies] == ["model.py", "sizes.txt", "sizes_of.py"]
    assert all(len(digest) == 64 for _, digest in result.dependencies)
    assert "torch" not in [name for name, _ in result.packages]


def test_progress_is_reported(analyse: Analyse) -> None:
    events: list[Event] = []
    analyse("a.py", "b.py", files={"a.py": FINE, "b.py": FINE}, events=events)
    assert [(event.kind, event.target, event.done) for event in events] == [
        ("start", "a.py", 0),
        ("done", "a.py", 1),
        ("start", "b.py", 0),
        ("done", "b.py", 2),
    ]


def test_the_next_one_starts_before_the_last_result_is_read(analyse: Analyse, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []
    seen: list[int] = []
    read = Running.result

    def reading(self: Running) -> ProbeResult:
        seen.append(sum(event.kind == "start" for event in events))
        return read(self)

    monkeypatch.setattr(Running, "result", reading)
    analyse(*("a.py", "b.py", "c.py"), files=dict.fromkeys(("a.py", "b.py", "c.py"), FINE), events=events, jobs=1)
    assert seen == [2, 3, 3]


def test_two_at_a_time_come_in_order(analyse: Analyse) -> None:
    slow = "import time\n" + FINE.replace("super().__init__()", "super().__init__(); time.sleep(0.5)")
    results = analyse("slow.py", "quick.py", files={"slow.py": slow, "quick.py": FINE}, jobs=2)
    assert [result.target.text for result in results] == ["slow.py", "quick.py"]


def test_nothing_is_written_beside_the_models(analyse: Analyse, tmp_path: Path) -> None:
    analyse("model.py", files={"model.py": "import other\n" + FINE, "other.py": "x = 1\n"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.py", "other.py"]


RUN = """
import sys
from initlint.options import ProbeOptions
from initlint.probe import client, target
if __name__ == "__main__":
    print("ready", flush=True)
    for result in client.probe(target.parse_all(["model.py"]), ProbeOptions(timeout=60)):
        print(result.models[0].name if result.models else result.not_analysed)
"""


def _start(folder: Path, code: str) -> subprocess.Popen[str]:
    (folder / "model.py").write_text(IMPORTS + dedent(code))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", RUN],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_modules_name_in_the_working_directory_does_not_shadow(tmp_path: Path) -> None:
    for name in ("types.py", "json.py", "random.py"):
        (tmp_path / name).write_text("raise RuntimeError('shadowed')\n")
    (tmp_path / "model.py").write_text(IMPORTS + FINE)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", RUN],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.split() == ["ready", "Fine"], done.stderr


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="processes are listed through /proc")
@pytest.mark.parametrize("how", ["interrupt", "kill"])
def test_nothing_is_left_behind(tmp_path: Path, how: str) -> None:
    marker = tmp_path / "pid"
    sleeping = f"""
    class Sleeping(nn.Module):
        def __init__(self):
            super().__init__()
            open({str(marker)!r}, "w").write(str(os.getpid()))
            while True: pass
    class Second(Sleeping):
        pass
    """
    process = _start(tmp_path, sleeping)
    deadline = time.monotonic() + 300
    while not (marker.exists() and marker.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    pid = int(marker.read_text())
    if how == "interrupt":
        process.send_signal(2)
    else:
        process.kill()
    process.communicate(timeout=300)
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
