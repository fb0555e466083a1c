"""The pytest plugin: a fixture that fails a test when a model's initialisation has findings.

::

    def test_initialisation(initlint_check):
        initlint_check(Model())

    @pytest.mark.initlint(fail_on="error", ignore=["IL101"])
    def test_large(initlint_check):
        run = initlint_check("models.py::Large")
        assert run.models[0].facts.status == "analysed"

Plugins are loaded in every run of pytest: nothing of initlint or torch is imported before the fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from initlint.findings import Run


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        "initlint(**options): options of initlint.check() for the fixture initlint_check, e.g. fail_on, select, ignore",
    )


@pytest.fixture
def initlint_check(request: pytest.FixtureRequest) -> Callable[..., Run]:
    """A function like ``initlint.check`` that fails the test on findings at or above ``fail_on`` (warning)."""
    marker = request.node.get_closest_marker("initlint")
    defaults: dict[str, Any] = dict(marker.kwargs) if marker else {}

    def check(model: Any, **options: Any) -> Run:
        __tracebackhide__ = True
        from initlint.api import check as run_check
        from initlint.errors import InitlintError

        try:
            run = run_check(model, **{**defaults, **options})
        except InitlintError as error:
            pytest.fail(f"initlint: {error.message}\nhint: {error.hint}", pytrace=False)
        problem = _problem(run)
        if problem:
            pytest.fail(problem, pytrace=False)
        return run

    return check


def _problem(run: Run) -> str:
    """Why the test fails, as the report says it; empty when it passes."""
    import io

    from initlint.emit import emit

    if run.unanalysed:
        reasons = "\n".join(f"{entry.target}: {entry.reason}" for entry in run.not_analysed)
        return f"initlint could not analyse {', '.join(run.unanalysed)}\n{reasons}"
    if run.fail_on is None or not any(finding.severity >= run.fail_on for finding in run.findings):
        return ""
    text = io.StringIO()
    emit("text", run, text, verbose=-1)
    return f"initlint:\n{text.getvalue()}"
