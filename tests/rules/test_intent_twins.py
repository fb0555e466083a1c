"""Small models in which code asks for one thing and another happens, beside innocent siblings that look alike."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
CORPUS = ROOT / "tests" / "corpus" / "intent"
EXPECTED: dict[str, list[str]] = tomllib.loads((CORPUS / "expected.toml").read_text())
INNOCENT = sorted(path.stem for path in CORPUS.glob("*.py") if not path.stem.endswith("_bug"))
LEVELS = {"note": 1, "warning": 2, "error": 3}
#: Rules of this corpus; others may say what they think of these small nets.
OURS = ("IL4", "IL006", "IL304")


@pytest.fixture(scope="module")
def found() -> dict[str, list[dict[str, Any]]]:
    """Findings by file, from one run over all."""
    files = [str(path) for path in sorted(CORPUS.glob("*.py"))]
    command = [sys.executable, "-m", "initlint", *files, "--output-format", "json", "--no-cache"]
    done = subprocess.run(
        [*command, "--fail-on", "never", "--allow-unanalysed"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    by_file: dict[str, list[dict[str, Any]]] = {Path(m["target"].split("::")[0]).stem: [] for m in result["models"]}
    for finding in result["findings"]:
        by_file[Path(finding["model"].split("::")[0]).stem].append(finding)
    return by_file


@pytest.mark.parametrize("name", list(EXPECTED))
def test_bug_is_found(found: dict[str, list[dict[str, Any]]], name: str) -> None:
    code, level = EXPECTED[name]
    reported = [f for f in found[f"{name}_bug"] if f["code"] == code]
    assert max((LEVELS[f["severity"]] for f in reported), default=0) >= LEVELS[level]
    assert all(f["line"] and f["parameters"] for f in reported)


@pytest.mark.parametrize("name", INNOCENT)
def test_innocent_sibling_is_silent(found: dict[str, list[dict[str, Any]]], name: str) -> None:
    loud = [f for f in found[name] if f["code"].startswith(OURS) and LEVELS[f["severity"]] >= 2]
    assert not [(f["code"], f["message"]) for f in loud]
