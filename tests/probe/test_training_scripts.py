"""Thirty training scripts of the common kind: all models analysed, nothing executed but definitions.

Each script leaves a file or folder behind when its training, its data loading or its ``main`` runs.
"""

from __future__ import annotations

import shutil
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from initlint.options import ProbeOptions
from initlint.probe.client import Pool
from initlint.probe.discovery import discover
from initlint.probe.outcome import ProbeResult
from initlint.probe.target import parse_all

SCRIPTS = Path(__file__).resolve().parent.parent / "corpus" / "scripts"
EXPECTED: dict[str, dict[str, dict[str, Any]]] = tomllib.loads((SCRIPTS / "expected.toml").read_text())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, worker_pool: Pool) -> tuple[Path, list[ProbeResult]]:
    """The folder that the scripts were analysed in, and what was found."""
    folder = tmp_path_factory.mktemp("scripts")
    for name in EXPECTED:
        shutil.copy(SCRIPTS / f"{name}.py", folder)
    worker_pool.options = replace(ProbeOptions(timeout=60, jobs=1), cwd=str(folder))
    worker_pool.limit = 1 << 40
    names = [f"{name}.py" for name in EXPECTED]
    jobs = discover(parse_all(names, str(folder)), worker_pool.options)
    return folder, list(worker_pool.run(jobs, None))


def test_every_script_of_the_corpus_is_expected() -> None:
    assert sorted(EXPECTED) == sorted(path.stem for path in SCRIPTS.glob("*.py"))
    assert len(EXPECTED) >= 30


def test_nothing_but_definitions_was_executed(corpus: tuple[Path, list[ProbeResult]]) -> None:
    folder, _ = corpus
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.py" for name in EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_models_of_a_script_are_built_as_it_would(corpus: tuple[Path, list[ProbeResult]], name: str) -> None:
    result = corpus[1][list(EXPECTED).index(name)]
    found = {facts.name: facts for facts in result.models}
    assert list(found) == list(EXPECTED[name])
    assert [entry.target for entry in result.not_analysed if not entry.harmless] == []
    for model, expected in EXPECTED[name].items():
        facts = found[model]
        assert facts.status == "analysed", facts.reason
        assert {a.name: a.value for a in facts.arguments} == expected.get("arguments", {})
        shapes = {p.name: list(p.shape) for p in facts.parameters}
        assert {k: shapes.get(k) for k in expected if k != "arguments"} == {
            k: v for k, v in expected.items() if k != "arguments"
        }
