"""A worker that all tests of the probe share, since starting one costs an import of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from initlint.options import ProbeOptions
from initlint.probe.client import Pool
from initlint.probe.discovery import discover
from initlint.probe.outcome import Event, ProbeResult
from initlint.probe.target import parse_all


@pytest.fixture(scope="session")
def worker_pool() -> Iterator[Pool]:
    """A pool whose options each test sets for itself."""
    with Pool(ProbeOptions(timeout=60, jobs=1)) as pool:
        yield pool


@pytest.fixture
def probe_files(worker_pool: Pool, tmp_path: Path) -> Callable[..., list[ProbeResult]]:
    """``probe_files("model.py", files={"model.py": source}, timeout=...)``: write the files, analyse the targets."""

    def call(
        *targets: str, files: dict[str, str], events: list[Event] | None = None, **options: Any
    ) -> list[ProbeResult]:
        for name, code in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(code))
        worker_pool.options = replace(ProbeOptions(timeout=60, jobs=1, cwd=str(tmp_path)), **options)
        worker_pool.limit = worker_pool.options.memory_limit or 1 << 40
        jobs = discover(parse_all(targets, str(tmp_path)), worker_pool.options)
        return list(worker_pool.run(jobs, None if events is None else events.append))

    return call
