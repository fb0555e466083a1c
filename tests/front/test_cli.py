"""The command line from outside: a process, its output and its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from initlint import cli_output
from initlint.cli_output import Sink, parse_sinks, wants_color
from initlint.collect import Shard
from initlint.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
Cli = Callable[..., Any]

BROKEN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(8, 8))

    def forward(self, x):
        return x @ self.weight

def example_inputs():
    return (torch.randn(4, 8),)
"""
FINE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        return self.fc(x)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "broken.py").write_text(BROKEN)
    (tmp_path / "fine.py").write_text(FINE)
    return tmp_path


# -- without a build -------------------------------------------------------------------------------


def test_help_shows_both_forms_and_all_options(run_cli: Cli) -> None:
    short, long = run_cli("--help"), run_cli("check", "--help")
    assert (short.code, long.code) == (0, 0)
    options = """
        --select --extend-select --ignore --fail-on --exit-zero --strict --output-format --output --input --weights
        --measure --seed --jobs --timeout --memory-limit --no-cache --diff --fix --unsafe-fixes --write-baseline
        --baseline --statistics -q -v --color --thorough --shard --device --import --allow-unanalysed --config
    """
    for option in options.split():
        assert option in short.out, option
        assert option in long.out, option
    assert "--version" not in long.out


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ([], "nothing to check", "Name a file"),
        (["boken.py"], "boken.py", "Did you mean broken.py?"),
        (["check", "absent/"], "absent", ""),
        (["rule", "uninitialised-memry"], "no rule is called", "Did you mean `uninitialised-memory`?"),
        (["--output", "html", "x.py"], "not FORMAT=FILE", "html=report.html"),
        (["--output", "htm=x", "x.py"], "no format is called `htm`", "Did you mean `html`?"),
        (["--config", "sed=1", "x.py"], "unknown key `sed`", "Did you mean `seed`?"),
        (["--shard", "3/2", "fine.py"], "not a part of a whole", "2/8"),
        (["--baseline", "absent.json", "folder"], "absent.json", "--write-baseline"),
        (["merge", "absent.json"], "absent.json", "--output json"),
    ],
)
def test_misuse_is_one_message_a_hint_and_exit_code_2(
    run_cli: Cli, project: Path, arguments: list[str], message: str, hint: str
) -> None:
    (project / "folder").mkdir()
    done = run_cli(*arguments)
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert message in done.err
    assert hint in done.err
    assert "Traceback" not in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    "arguments", [["--outptu", "x"], ["--fail-on", "info", "x.py"], ["completion", "tcsh"], ["--seed", "x"]]
)
def test_bad_options_are_usage_errors(run_cli: Cli, arguments: list[str]) -> None:
    done = run_cli(*arguments)
    assert done.code == 2
    assert "Traceback" not in done.err


def test_an_error_inside_initlint_is_said_and_not_thrown(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from initlint import cli, cli_check

    def fails(_: object) -> int:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(cli_check, "execute", fails)
    assert cli.run(["model.py"]) == 2
    assert "internal error: RuntimeError: unforeseen" in capsys.readouterr().err


def test_rules_about_themselves(run_cli: Cli) -> None:
    page = run_cli("rule", "IL001")
    assert page.code == 0
    assert "## What it does" in page.out
    assert "def never_written" in page.out
    assert run_cli("rule", "uninitialised-memory").out == page.out
    listed = run_cli("rules", "--output-format", "json").json()["rules"]
    (one,) = run_cli("rule", "il001", "--output-format", "json").json()["rules"]
    assert {key: one[key] for key in ("code", "name", "severity")} == {
        "code": "IL001",
        "name": "uninitialised-memory",
        "severity": "error",
    }
    assert any(entry["code"] == "IL001" and entry["enabled"] for entry in listed)
    assert one["examples"]["bad"][0].startswith("def ")
    assert "IL903" in run_cli("rules").out


def test_config_names_the_origin_of_each_value(run_cli: Cli, project: Path) -> None:
    (project / "pyproject.toml").write_text('[tool.initlint]\nseed = 3\nfail-on = "never"\n')
    document = run_cli("config", "--config", "jobs=2", "--output-format", "json").json()
    settings = document["settings"]
    assert settings["seed"] == {"value": 3, "origin": str(project / "pyproject.toml")}
    assert settings["fail-on"]["value"] is None
    assert settings["jobs"] == {"value": 2, "origin": "--config"}
    assert settings["ignore"] == {"value": [], "origin": "default"}
    assert "seed" in run_cli("config").out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(run_cli: Cli, shell: str) -> None:
    done = run_cli("completion", shell)
    assert done.code == 0
    assert "_INITLINT_COMPLETE" in done.out


def test_no_candidates_at_all_is_fine_and_said(run_cli: Cli, project: Path) -> None:
    (project / "none").mkdir()
    (project / "none" / "util.py").write_text("def f():\n    return 1\n")
    done = run_cli("none")
    assert done.code == 0
    assert "no models" in done.out.lower()


# -- with a build ----------------------------------------------------------------------------------


def test_one_run_many_outputs(run_cli: Cli, project: Path) -> None:
    done = run_cli(
        "broken.py", "--output", "json=out/r.json", "--output", "concise=-", "--output", "sarif=r.sarif", "--no-cache"
    )
    assert done.code == 1, done.err
    assert done.err == ""
    assert done.out.startswith("broken.py:8:"), "standard output belongs to the one output that goes there"
    document = json.loads((project / "out" / "r.json").read_text())
    (finding,) = [f for f in document["findings"] if f["code"] == "IL001"]
    assert (finding["file"], finding["line"], finding["parameters"]) == ("broken.py", 8, ["weight"])
    assert document["schema_version"] == 1
    assert json.loads((project / "r.sarif").read_text())["version"] == "2.1.0"


def test_exit_codes_selection_and_cached_runs_agree(run_cli: Cli, project: Path) -> None:
    """One build; everything after it is answered by the cache, without torch."""
    first = run_cli("check", "broken.py", "--output-format", "json")
    again = run_cli("broken.py", "--output-format", "json")
    assert (first.code, again.code) == (1, 1)
    one, other = first.json(), again.json()
    for document in (one, other):
        document["summary"].pop("seconds")
    assert one == other, "the same bytes apart from seconds"
    assert (project / ".initlint_cache" / "CACHEDIR.TAG").is_file()

    assert run_cli("broken.py", "--exit-zero").code == 0
    assert run_cli("broken.py", "--fail-on", "never").code == 0
    assert run_cli("broken.py", "--select", "IL0", "--ignore", "IL001").code == 0
    assert run_cli("broken.py", "--select", "IL4,IL9").code == 0
    assert run_cli("broken.py", "--select", "IL4", "--extend-select", "uninitialised-memory").code == 1
    assert run_cli("broken.py", env={"INITLINT_OUTPUT_FORMAT": "concise"}).out.startswith("broken.py:8")

    wrote = run_cli("--write-baseline", "broken.py")
    assert (wrote.code, (project / ".initlint-baseline.json").is_file()) == (0, True)
    assert run_cli("broken.py", "--baseline", ".initlint-baseline.json").code == 0
    assert run_cli("broken.py", "--write-baseline", "b.json").code == 0
    assert run_cli("broken.py", "--config", 'baseline="b.json"').code == 0
    stale = run_cli("broken.py", "--baseline", "b.json", "--select", "IL4")
    assert "no longer occur" in stale.err

    assert _run_without_worker(project) == "1 False"
    assert run_cli("cache", "clean").out.startswith("removed 1 entry")
    assert run_cli("cache", "clean").code == 0


def _run_without_worker(folder: Path) -> str:
    """Check broken.py in a process whose worker cannot start; its exit code, and whether torch was imported."""
    code = (
        "import sys\n"
        "from initlint.cli import run\n"
        "from initlint.probe.client import Pool\n"
        "del Pool.start\n"
        "code = run(['broken.py', '-q', '--output', 'json=r.json'])\n"
        "print(code, 'torch' in sys.modules, file=sys.stderr)"
    )
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.stderr.strip()


def test_edits_are_seen(run_cli: Cli, project: Path) -> None:
    (project / "part.py").write_text("std = 0.1\n")
    source = BROKEN.replace("import torch\n", "import torch\nfrom part import std\n", 1)
    (project / "broken.py").write_text(source)
    assert run_cli("broken.py", "--output-format", "concise").code == 1
    (project / "part.py").write_text("std = 0.2\nimport torch\ntorch.empty = torch.zeros\n")
    changed = run_cli("broken.py", "--output-format", "json")
    assert "IL001" not in {finding["code"] for finding in changed.json()["findings"]}, "a file it imports changed"


def test_suppression_comments_and_targets_from_the_configuration(run_cli: Cli, project: Path) -> None:
    source = BROKEN.replace("torch.empty(8, 8))", "torch.empty(8, 8))  # initlint: ignore[IL001]")
    (project / "broken.py").write_text(source)
    (project / "pyproject.toml").write_text('[tool.initlint]\ntargets = ["broken.py::Net"]\nselect = ["IL0", "IL9"]\n')
    (project / "sub").mkdir()
    done = run_cli("--output-format", "json", cwd=project / "sub")
    assert done.code == 0, done.out + done.err
    assert done.json()["models"][0]["target"] == "../broken.py::Net"
    assert done.json()["findings"] == []


def test_a_named_model_that_cannot_be_analysed_is_trouble(run_cli: Cli, project: Path) -> None:
    done = run_cli("fine.py::Absent", "--output-format", "json")
    assert done.code == 2
    assert done.json()["not_analysed"][0]["target"].startswith("fine.py::")
    assert run_cli("fine.py::Absent", "--allow-unanalysed").code == 0


def test_shards_together_are_the_whole(run_cli: Cli, project: Path) -> None:
    parts = []
    for number in (1, 2):
        parts.append(f"{number}.json")
        code = run_cli(".", "--shard", f"{number}/2", "--output", f"json={number}.json", "-q").code
        assert code in (0, 1)
    whole = run_cli(".", "--output-format", "json").json()
    merged = run_cli("merge", *parts)
    assert merged.code == 1
    document = merged.json()
    for report in (whole, document):
        report["summary"].pop("seconds")
    assert document == whole
    assert {model["target"] for model in document["models"]} == {"broken.py::Net", "fine.py::Net"}


def test_rule_packs_of_the_project(run_cli: Cli, project: Path) -> None:
    rules = project / "init_rules"
    rules.mkdir()
    (rules / "my001_too_wide.py").write_text(
        """
from initlint.findings import Severity
from initlint.rule import HEADINGS, Rule, bad, good

class TooWide(Rule):
    __doc__ = "Too wide.\\n\\n" + "\\n".join(f"## {heading}" for heading in HEADINGS)
    code = "MY001"
    name = "too-wide"
    family = "architecture"
    severity = Severity.WARNING
    sources = ("us",)

    def check(self, context):
        yield self.finding(context, "too wide", parameters=[context.facts.parameters[0].name], topic="convention")

    @bad
    def wide(): ...

    @good
    def narrow(): ...
"""
    )
    (project / "pyproject.toml").write_text('[tool.initlint]\nrule-packs = ["./init_rules"]\nselect = ["MY"]\n')
    done = run_cli("fine.py", "--output-format", "json")
    assert done.code == 1, done.err
    assert [(f["code"], f["parameters"]) for f in done.json()["findings"]] == [("MY001", ["fc.weight"])]
    assert "too-wide" in run_cli("rules").out
    assert run_cli("rule", "MY001").out.startswith("# MY001 too-wide")


def test_the_rule_in_the_documentation_works_as_it_stands(run_cli: Cli, project: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    page = (root / "docs" / "writing-rules.md").read_text("utf-8")
    rules = project / "init_rules"
    rules.mkdir()
    (rules / "pack.toml").write_text('name = "team"\nversion = "1"\nprefix = "TEAM"\n')
    (rules / "team001_unscaled_writer.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    (project / "pyproject.toml").write_text('[tool.initlint]\nrule-packs = ["./init_rules"]\nselect = ["TEAM"]\n')
    (project / "gpt.py").write_text((root / "examples" / "tiny_gpt.py").read_text("utf-8"))
    done = run_cli("gpt.py", "--output-format", "json")
    (finding,) = done.json()["findings"]
    assert finding["code"] == "TEAM001"
    assert len(finding["parameters"]) == 8
    assert finding["severity"] == "warning"


def test_a_reader_that_goes_away_is_no_error(project: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m initlint rules | head -1; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0


def test_interrupting_ends_everything(project: Path) -> None:
    waits = "super().__init__(); import time; open('started', 'w').close(); time.sleep(1000)"
    (project / "slow.py").write_text(FINE.replace("super().__init__()", waits))
    process = subprocess.Popen(
        [sys.executable, "-m", "initlint", "slow.py", "--no-cache"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 300
    while not (project / "started").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert out == ""


# -- pieces ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "terminal", "environment", "expected"),
    [
        ("auto", True, {}, True),
        ("auto", False, {}, False),
        ("auto", True, {"NO_COLOR": "1"}, False),
        ("auto", True, {"NO_COLOR": ""}, True),
        ("auto", False, {"FORCE_COLOR": "1"}, True),
        ("auto", False, {"FORCE_COLOR": "0"}, False),
        ("auto", False, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ("auto", True, {"TERM": "dumb"}, False),
        ("always", False, {"NO_COLOR": "1"}, True),
        ("never", True, {"FORCE_COLOR": "1"}, False),
    ],
)
def test_colours(choice: str, terminal: bool, environment: dict[str, str], expected: bool) -> None:
    class Stream:
        def isatty(self) -> bool:
            return terminal

    assert wants_color(choice, Stream(), environment) is expected  # type: ignore[arg-type]


def test_outputs() -> None:
    assert parse_sinks([], None, "text") == (Sink("text"),)
    assert parse_sinks(["html=r.html"], None, "text") == (Sink("html", "r.html"), Sink("text"))
    assert parse_sinks(["github=-"], None, "text") == (Sink("github"),)
    with pytest.raises(UsageError, match="two outputs go to standard output"):
        parse_sinks(["github=-"], "json", "text")
    with pytest.raises(UsageError, match="two outputs"):
        parse_sinks(["json=r", "html=./r"], None, "text")


def test_progress_is_silent_without_a_terminal(capsys: Any) -> None:
    from initlint.probe.outcome import Event

    with cli_output.Progress() as progress:
        progress(Event("start", "m.py"))
    assert capsys.readouterr().err == ""


def test_progress_on_a_terminal() -> None:
    import io

    from initlint.probe.outcome import Event

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with cli_output.Progress(stream) as progress:
        progress(Event("start", "a.py"))
        progress(Event("done", "a.py", 2, 1))
        progress(Event("start", "b\x1b[31m.py"))
    assert "analysing a.py" in stream.getvalue()
    assert "[1/2] analysing b[31m.py" in stream.getvalue(), "names cannot control the terminal"
    assert stream.getvalue().endswith("\r\x1b[K")


def test_shards_are_disjoint_and_complete() -> None:
    jobs = list(range(10))
    parts: list[Any] = [Shard.parse(f"{i}/3").pick(jobs) for i in (1, 2, 3)]  # type: ignore[arg-type]
    assert sorted(job for part in parts for job in part) == jobs
