"""What goes wrong ends in one clear message, a hint and the right exit code: no traceback, nothing like success."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]
ROOT = Path(__file__).resolve().parent.parent.parent

NET = """
import torch
from torch import nn
class Network(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.fc1 = nn.Linear(8, width)
        self.fc2 = nn.Linear(width, 2)
    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))
"""
BUILDS = {
    "raises": ("raise RuntimeError('no weights here')", "raised RuntimeError: no weights here"),
    "exits": ("raise SystemExit('bye')", "called sys.exit('bye')"),
    "ends": ("import os; os._exit(3)", "ended the process with exit status 3"),
    "recurses": ("self.child = Net()", "maximum recursion depth exceeded"),
}


def clean(result: Any) -> None:
    """No traceback and no excuse of ours, on either stream."""
    for text in (result.out, result.err):
        assert "Traceback" not in text
        assert "internal error" not in text


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["missing.py"], "No such file or folder: missing.py", "hint:"),
        (["good.py", "--input", "x: floaty[3"], "cannot read the input 'x: floaty[3'", "x: float32[4,3,32,32]"),
        (["good.py", "--input", "x: flat32[3]"], "unknown dtype 'flat32'", "Did you mean float32?"),
        (["good.py", "--select", "IL1O5"], "no rule is called `IL1O5`", "Did you mean `IL105`?"),
        (["good.py", "--output", "htm=a.html"], "no format is called `htm`", "Did you mean `html`?"),
        (["good.py", "--output", "html"], "not FORMAT=FILE", "--output html=report.html"),
        (["good.py", "--shard", "3/2"], "not a part of a whole", "--shard 2/8"),
        (["good.py", "--config", "sedd=1"], "sedd", "Did you mean"),
        (["good.py", "--config", "nowhere.toml"], "nowhere.toml", ""),
        (["good.py", "--baseline", "nowhere.json"], "nowhere.json", ""),
        (["good.py", "--memory-limit", "many"], "many", ""),
        (["good.py", "--timeout", "soon"], "soon", ""),
        (["good.py::Netwrok("], "good.py::Netwrok(", ""),
        (["rule", "IL9999"], "IL9999", ""),
        (["good.py", "--frobnicate"], "--frobnicate", ""),
    ],
)
def test_a_mistake_on_the_command_line(
    run_cli: Cli, tmp_path: Path, arguments: list[str], message: str, hint: str
) -> None:
    (tmp_path / "good.py").write_text(NET)
    result = run_cli(*arguments)
    clean(result)
    assert result.code == 2
    assert result.out == ""
    assert message in result.err
    assert hint in result.err


def test_a_mistake_in_the_configuration(run_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(NET)
    (tmp_path / "pyproject.toml").write_text("[tool.initlint]\nselekt = ['IL1']\n")
    result = run_cli("good.py")
    clean(result)
    assert (result.code, result.out) == (2, "")
    assert "selekt" in result.err
    assert "select" in result.err.partition("hint")[2]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("syntax.py", b"import torch\nclass Net(torch.nn.Module\n", "syntax.py:2: syntax error"),
        ("latin.py", b"import torch\nname = 'caf\xe9'\n" + NET.encode(), "latin.py"),
        ("binary.py", b"import torch\n\x00\x01\x02\xff" * 50, "binary.py"),
        ("deep.py", b"import torch\nx = " + b"(" * 5000 + b")" * 5000, "deep.py"),
    ],
)
def test_a_file_that_is_no_python(run_cli: Cli, tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    result = run_cli(name, "--no-cache")
    clean(result)
    assert result.code == 2
    assert message in result.out
    assert "None" not in result.out


def test_nothing_to_check_says_so(run_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "folder").mkdir()
    for target in ("empty.py", "folder"):
        result = run_cli(target, "--no-cache")
        clean(result)
        assert result.code == 0
        assert "no models found" in result.out


@pytest.mark.parametrize("name", BUILDS)
def test_a_model_that_cannot_be_built(run_cli: Cli, tmp_path: Path, name: str) -> None:
    statement, message = BUILDS[name]
    source = "from torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
    (tmp_path / "model.py").write_text(f"{source}        {statement}\n")
    result = run_cli("model.py", "--no-cache")
    clean(result)
    assert result.code == 2
    assert "not analysed  model.py::Net: building it " in result.out
    assert message in " ".join(result.out.split())
    assert "hint:" in result.out


def test_arguments_that_nobody_can_guess_and_a_class_that_is_not_there(run_cli: Cli, tmp_path: Path) -> None:
    source = "from torch import nn\nclass Net(nn.Module):\n    def __init__(self, thing, gizmo):\n"
    (tmp_path / "needs.py").write_text(f"{source}        super().__init__()\n        self.fc = thing.make(gizmo)\n")
    result = run_cli("needs.py", "--no-cache")
    clean(result)
    assert result.code == 2
    assert "no value is known for the arguments thing, gizmo" in result.out
    assert "Write a small factory function in needs.py" in result.out  # an object cannot be typed
    result = run_cli("needs.py::Nett", "--no-cache")
    clean(result)
    assert result.code == 2
    assert "Did you mean Net?" in result.out


def test_inputs_that_do_not_fit_are_said_to(run_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(NET)
    result = run_cli("good.py", "--input", "x: float32[2,9]", "--no-cache")
    clean(result)
    assert "good.py::Network  partial" in result.out
    assert "the inputs (--input) do not fit: the forward fails in train mode" in result.out.replace("\n", " ").replace(
        "  ", " "
    )
    assert run_cli("good.py", "--input", "y: float32[2,8]", "--no-cache", "--strict").code != 0


def test_a_forward_that_fails_is_no_success(run_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(NET.replace("return self.fc2", "raise ValueError('broken')\n        return x"))
    result = run_cli("model.py", "--no-cache")
    clean(result)
    assert "model.py::Network  partial" in result.out
    assert "broken" in result.out
    assert "1 of them in part" in result.out.splitlines()[-1]
    assert run_cli("model.py", "--no-cache", "--strict").code != 0


def test_what_the_model_prints_stays_out_of_the_report(run_cli: Cli, tmp_path: Path) -> None:
    noise = "import sys, warnings\nprint('hello')\nsys.stderr.write('oh')\nwarnings.warn('look out')\n"
    (tmp_path / "model.py").write_text(noise + NET.replace("super()", "print('hello'); super()"))
    result = run_cli("model.py", "--no-cache", "--output-format", "json")
    clean(result)
    assert [model["status"] for model in result.json()["models"]] == ["analysed"]
    assert result.err == ""


def test_outputs_that_cannot_be_written(run_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(NET)
    (tmp_path / "file").write_text("")
    result = run_cli("good.py", "--output", "html=file/report.html")
    clean(result)
    assert result.code == 2
    assert "file/report.html cannot be written" in result.err
    assert "hint:" in result.err


def test_a_cache_that_cannot_be_written_stops_nothing(run_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(NET)
    (tmp_path / ".initlint_cache").write_text("in the way")
    result = run_cli("good.py")
    clean(result)
    assert result.code == 0
    assert "2 layers" in result.out


def test_colours_are_as_the_environment_says(run_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(NET)
    assert "\x1b[" not in run_cli("good.py").out
    assert "\x1b[" in run_cli("good.py", env={"FORCE_COLOR": "1"}).out
    assert "\x1b[" not in run_cli("good.py", env={"FORCE_COLOR": "1", "NO_COLOR": "1"}).out
    assert "\x1b[" in run_cli("good.py", "--color", "always", env={"NO_COLOR": "1"}).out


def _start(folder: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "initlint", *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, start_new_session=True, **options)


def _session(leader: int) -> list[int]:
    """Processes of a session that are still alive (zombies are not)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(entry.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="counts processes through /proc")
def test_ctrl_c_leaves_nothing_running(tmp_path: Path) -> None:
    mark = tmp_path / "started"
    sleep = f"import time\nopen({str(mark)!r}, 'w').close()\ntime.sleep(1000)\n"
    (tmp_path / "slow.py").write_text(NET.replace("super().__init__()", "__import__('slow_part'); super().__init__()"))
    (tmp_path / "slow_part.py").write_text(sleep)
    running = _start(tmp_path, "slow.py", "--no-cache", "--jobs", "2", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until = time.monotonic() + 300
    while not mark.exists() and running.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    assert mark.exists()
    os.kill(running.pid, signal.SIGINT)
    out, err = running.communicate(timeout=300)
    assert running.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in out + err
    until = time.monotonic() + 100
    while _session(running.pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert _session(running.pid) == []


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(NET)
    running = _start(tmp_path, "good.py", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    assert running.stderr.read() == ""
    running.stderr.close()
    assert running.wait(300) == 0


def test_where_nothing_is_analysed_the_reasons_are_listed(run_cli: Cli, tmp_path: Path) -> None:
    loss = (
        "from torch import nn\n\n\nclass Gap(nn.Module):\n    def forward(self, a, b):\n        return (a - b).mean()\n"
    )
    (tmp_path / "losses.py").write_text(loss)
    result = run_cli("losses.py", "--no-cache")
    clean(result)
    assert result.code == 0
    assert "losses.py::Gap: it has no parameters" in result.out
