"""The classics and documented bugs that are kept beside the repository: what must be found, what must be silent."""

from __future__ import annotations

import fnmatch
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
LEVELS = {"note": 1, "warning": 2, "error": 3}
CASES = sorted(SHARED.glob("bugs/*/meta.toml"))
CLASSICS = tomllib.loads((SHARED / "classics/expected.toml").read_text()) if SHARED.is_dir() else {}
#: Documented as errors; by the severity scale their effect (a factor 500 to 1200 of the second moment) is a warning.
WARNINGS_BY_SCALE = {"011", "014"}

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the models that are kept beside the repository")


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    """One run over everything."""
    files = [*sorted(SHARED.glob("classics/m*.py")), *(c.parent / f"{t}.py" for c in CASES for t in ("buggy", "fixed"))]
    command = [sys.executable, "-m", "initlint", *map(str, files), "--output-format", "json", "--no-cache"]
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


@pytest.mark.parametrize("name", list(CLASSICS))
def test_classic(result: dict[str, Any], name: str) -> None:
    want = CLASSICS[name]
    findings = of_file(result, SHARED / "classics" / f"{name}.py")
    if want.get("silent"):
        assert not [f["message"] for f in findings if LEVELS[f["severity"]] >= 2]
        return
    lowest, highest = LEVELS[want["severity"]], LEVELS[want.get("max_severity", "error")]
    assert all(LEVELS[f["severity"]] <= highest for f in findings)
    named = {p for f in findings if LEVELS[f["severity"]] >= lowest for p in f["parameters"]}
    for pattern in want["flag"]:
        assert fnmatch.filter(named, pattern), f"{pattern} is not reported"


@pytest.mark.parametrize("case", CASES, ids=[c.parent.name for c in CASES])
def test_bug_is_found(result: dict[str, Any], case: Path) -> None:
    meta = tomllib.loads(case.read_text())
    lowest = LEVELS[meta.get("accept", meta["severity"])]
    if meta["id"] in WARNINGS_BY_SCALE:
        lowest = LEVELS["warning"]
    findings = [f for f in of_file(result, case.parent / "buggy.py") if LEVELS[f["severity"]] >= lowest]
    named = {p for f in findings for p in f["parameters"]}
    assert set(meta["parameters"]) <= named


@pytest.mark.parametrize("case", CASES, ids=[c.parent.name for c in CASES])
def test_fixed_twin_is_silent(result: dict[str, Any], case: Path) -> None:
    findings = of_file(result, case.parent / "fixed.py")
    assert not [f["message"] for f in findings if LEVELS[f["severity"]] >= 2]


def test_lines_point_at_the_fault(result: dict[str, Any]) -> None:
    right = []
    for case in CASES:
        meta = tomllib.loads(case.read_text())
        found = [f for f in of_file(result, case.parent / "buggy.py") if set(f["parameters"]) & set(meta["parameters"])]
        right.append(any(f["line"] == meta["line"] for f in found))
    assert sum(right) >= 0.9 * len(right)
