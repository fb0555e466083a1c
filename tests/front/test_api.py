"""``initlint.check`` on live models, and the pytest plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import initlint
from initlint.errors import ConfigError, UsageError
from initlint.findings import Severity

torch = pytest.importorskip("torch")
torch.set_num_threads(1)
nn = torch.nn

pytest_plugins = ["pytester"]

# The installed entry point and the module are one plugin: registered under both names, pytest refuses to start.
PLUGIN = ("-p", "no:initlint", "-p", "initlint.pytest_plugin")


class Wide(nn.Module):  # type: ignore[name-defined,misc]
    """Twenty ReLU layers drawn from N(0, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(20))
        for layer in self.layers:
            nn.init.normal_(layer.weight)

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_live_model_is_checked_and_left_as_it_was() -> None:
    model = Wide()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    run = initlint.check(model, inputs=torch.randn(4, 64, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), state), "the random state is the caller's"
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    (finding,) = run.findings
    assert finding.severity is Severity.ERROR
    # Which rule says it, and whether it names the last layers too, is the rules' affair.
    assert len(finding.parameters) >= 10
    assert all(name.endswith(".weight") for name in finding.parameters)
    assert run.models[0].facts.name == "Wide"


def test_what_builds_a_model_gives_places() -> None:
    run = initlint.check(Wide, inputs=(torch.randn(4, 64),), select=["IL1"])
    (finding,) = run.findings
    assert finding.site is not None
    assert finding.site.file.endswith("test_api.py")
    assert "normal_" in finding.site.text


def test_options_select_and_fail() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    run = initlint.check(model, select=["IL0"], fail_on="error", name="small")
    assert run.findings == ()
    assert run.fail_on is Severity.ERROR
    with pytest.raises(UsageError) as caught:
        initlint.check(model, tresh=1)
    assert "no option `tresh`" in caught.value.message
    with pytest.raises(ConfigError, match="fail_on"):
        initlint.check(model, fail_on="info")
    with pytest.raises(UsageError, match="no rule is called"):
        initlint.check(model, select=["IL77"])


def test_the_fixture_fails_tests_with_the_report(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest, torch
        from torch import nn

        class Zero(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
                nn.init.zeros_(self.a.weight)
                nn.init.zeros_(self.b.weight)
            def forward(self, x):
                return self.b(torch.relu(self.a(x)))

        def test_bad(initlint_check):
            initlint_check(Zero(), inputs=torch.randn(2, 8))

        @pytest.mark.initlint(fail_on="never")
        def test_allowed(initlint_check):
            assert initlint_check(Zero(), inputs=torch.randn(2, 8)).findings

        def test_good(initlint_check):
            run = initlint_check(nn.Linear(8, 8), inputs=torch.randn(2, 8))
            assert run.models

        def test_misuse(initlint_check):
            initlint_check(nn.Linear(8, 8), select=["IL77"])
        """
    )
    result = pytester.runpytest_inprocess(*PLUGIN, "-q", "--strict-markers")
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(["*IL003*", "*no rule is called `IL77`*"])
