"""Golden files: what each format writes for the sample run, as files that a person can open and read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files of tests/emit anew")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with the golden file of that name; with ``--update-golden`` write it first."""
    update = request.config.getoption("--update-golden", default=False)

    def check(name: str, text: str) -> None:
        path = HERE / "golden" / name
        if update:
            path.write_text(text, encoding="utf-8", newline="\n")
        assert path.exists(), f"{path.name} is missing: run pytest tests/emit --update-golden and read the result"
        assert text == path.read_text(encoding="utf-8"), f"differs from golden/{name}; --update-golden accepts it"

    return check
