"""Buggy and fixed twins of documented kinds of initialisation bugs: found on the one, silent on the other."""

from __future__ import annotations

import fnmatch
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LEVELS = {"note": 1, "warning": 2, "error": 3}
CASES = sorted(HERE.glob("*/meta.toml"))
METAS = {case.parent.name: tomllib.loads(case.read_text()) for case in CASES}


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    """One run over all twins."""
    files = [str(case.parent / f"{twin}.py") for case in CASES for twin in ("buggy", "fixed")]
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
    data: dict[str, Any] = json.loads(done.stdout)
    return data


def of_file(result: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """Findings on the models of one file."""
    return [f for f in result["findings"] if Path(f["model"].split("::")[0]).parts[-2:] == path.parts[-2:]]


def missing(result: dict[str, Any], slug: str) -> set[str]:
    """The parameters of a buggy twin that no finding of the severity names."""
    meta = METAS[slug]
    lowest = LEVELS[meta.get("accept", meta["severity"])]
    findings = [f for f in of_file(result, HERE / slug / "buggy.py") if LEVELS[f["severity"]] >= lowest]
    named = {p for f in findings for p in f["parameters"]}
    return {wanted for wanted in meta["parameters"] if not fnmatch.filter(named, wanted)}


@pytest.mark.parametrize("slug", list(METAS))
def test_bug_is_found(result: dict[str, Any], slug: str) -> None:
    lacking = missing(result, slug)
    if lacking and "known_miss" in METAS[slug]:
        pytest.xfail(METAS[slug]["known_miss"])
    assert not lacking


@pytest.mark.parametrize("slug", list(METAS))
def test_fixed_twin_is_silent(result: dict[str, Any], slug: str) -> None:
    findings = of_file(result, HERE / slug / "fixed.py")
    assert not [f["message"] for f in findings if LEVELS[f["severity"]] >= 2]
