"""Finding, reading and validating the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from initlint import config, config_values
from initlint.config import Config, load
from initlint.errors import ConfigError
from initlint.findings import Severity
from initlint.inputs_table import arguments_for, specs_for


def write(folder: Path, text: str, name: str = "pyproject.toml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(text, "utf-8")
    return file


def test_every_key_has_a_check() -> None:
    assert set(config_values.CHECKS) == set(config.KEYS.values())


def test_nearest_table_is_not_merged_with_outer_ones(tmp_path: Path) -> None:
    write(tmp_path, '[tool.initlint]\nseed = 7\nignore = ["IL1"]\n')
    write(tmp_path / "a", '[tool.initlint]\nfail-on = "error"\n')
    write(tmp_path / "a" / "b", '[project]\nname = "no-table-here"\n')
    found = load([tmp_path / "a" / "b"], environment={})
    assert found.path == tmp_path / "a" / "pyproject.toml"
    assert (found.fail_on, found.seed, found.ignore) == (Severity.ERROR, 0, ())


def test_several_targets_use_the_table_above_all_of_them(tmp_path: Path) -> None:
    outer = write(tmp_path, "[tool.initlint]\nseed = 1\n")
    write(tmp_path / "a", "[tool.initlint]\nseed = 2\n")
    (tmp_path / "b").mkdir()
    assert load([tmp_path / "a", tmp_path / "b"], environment={}).path == outer
    assert load([tmp_path / "a" / "pyproject.toml"], environment={}).seed == 2


def test_extend_adds_under_the_own_keys(tmp_path: Path) -> None:
    write(tmp_path, '[tool.initlint]\nseed = 3\nselect = ["IL1"]\nextend-select = ["IL2"]\nrule-packs = ["./p"]\n')
    inner = write(
        tmp_path / "a", '[tool.initlint]\nextend = "../pyproject.toml"\nselect = ["IL0"]\nextend-select = ["IL3"]\n'
    )
    found = load([tmp_path / "a"], environment={})
    assert found.path == inner
    assert (found.seed, found.select, found.extend_select) == (3, ("IL0",), ("IL2", "IL3"))
    assert found.rule_packs == (str(tmp_path / "p"),), "paths are relative to the file that names them"
    assert found.origins["seed"] == str(tmp_path / "pyproject.toml")
    assert found.origins["select"] == str(inner)


def test_extending_in_a_circle_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, '[tool.initlint]\nextend = "b.toml"\n')
    write(tmp_path, 'extend = "pyproject.toml"\n', "b.toml")
    with pytest.raises(ConfigError, match="extends itself"):
        load([tmp_path], environment={})


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("fail_on = 'error'", "unknown key `fail_on`", "Did you mean `fail-on`?"),
        ("fail-on = 'info'", "must be one of error, warning, note, never", ""),
        ("seed = -1", "a whole number from 0", ""),
        ("seed = true", "a whole number from 0", ""),
        ("select = 'IL1'", "a list of texts", ""),
        ("severity = {IL1 = 'info'}", "error, warning or note", 'severity = { IL203 = "note" }'),
        ("memory-limit = 'much'", "amount of memory", "8GB"),
        ("class-priors = [1]", "two or more", ""),
        ("optimizer = 'lion'", "one of sgd, adam", ""),
        ("policy = {a = 1}", "a list of tables", "[[tool.initlint.policy]]"),
        ("timeout = 0", "positive number of seconds", ""),
        ('presets = ["gptt2"]', "no preset `gptt2`", "gpt2"),
        ("[[tool.initlint.policy]]\nstdev = 1.0", "number 1: unknown key `stdev`", "std"),
        ('[[tool.initlint.policy]]\nstd = "0.02 / layers"', "number 1: `std` uses `layers`", "model.NAME"),
        ('[[tool.initlint.policy]]\nstd = "0.02 +"', "number 1: `0.02 +` is no arithmetic", "n_layer"),
        ('[[tool.initlint.policy]]\nstd = "1 / 0"', "number 1: `1 / 0` has no value", ""),
        ('[[tool.initlint.policy]]\nrole = "writer"\nstd = 1.0', "number 1: no role `writer`", "residual-writer"),
    ],
)
def test_wrong_values_say_what_they_must_be(tmp_path: Path, text: str, message: str, hint: str) -> None:
    file = write(tmp_path, f"[tool.initlint]\n{text}\n")
    with pytest.raises(ConfigError) as caught:
        load([tmp_path], environment={})
    assert str(file) in caught.value.message
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_broken_toml_and_missing_files_are_config_errors(tmp_path: Path) -> None:
    write(tmp_path, "[tool.initlint\n")
    with pytest.raises(ConfigError, match=r"pyproject\.toml"):
        load([tmp_path], environment={})
    with pytest.raises(ConfigError, match="No such file"):
        load([], overrides=[str(tmp_path / "absent.toml")], environment={})
    with pytest.raises(ConfigError, match="neither a file nor TOML"):
        load([], overrides=["fail-on=error"], environment={})


def test_command_line_file_and_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "[tool.initlint]\nseed = 1\n")
    other = write(tmp_path / "x", 'seed = 2\nbaseline = "known.json"\n', "ci.toml")
    monkeypatch.chdir(tmp_path)
    found = load([tmp_path], overrides=[str(other), "seed=5", 'ignore=["IL1"]'], environment={})
    assert (found.seed, found.ignore) == (5, ("IL1",))
    assert found.baseline == str(tmp_path / "known.json"), "paths of a file given by --config start at the cwd"
    assert found.origins["seed"] == "--config"
    assert load([tmp_path], isolated=True, environment={}) == Config()


def test_environment_sets_the_format_below_the_command_line(tmp_path: Path) -> None:
    write(tmp_path, '[tool.initlint]\noutput-format = "json"\n')
    environment = {config.ENVIRONMENT_FORMAT: "github"}
    assert load([tmp_path], environment=environment).output_format == "github"
    assert load([tmp_path], overrides=['output-format="sarif"'], environment=environment).output_format == "sarif"
    with pytest.raises(ConfigError, match="INITLINT_OUTPUT_FORMAT"):
        load([tmp_path], environment={config.ENVIRONMENT_FORMAT: "yaml"})


def test_class_priors_are_normalised(tmp_path: Path) -> None:
    write(tmp_path, "[tool.initlint]\nclass-priors = [900, 100]\n")
    found = load([tmp_path], environment={})
    assert found.settings.class_priors == pytest.approx((0.9, 0.1))


def test_inputs_and_arguments_go_by_target_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        tmp_path,
        """
        [tool.initlint.inputs."model.py:Net"]
        shape = [[1, 3, 32, 32], [1, 4]]
        dtype = ["float32", "int64"]
        [tool.initlint.inputs.Other]
        ids = "int64[1,16]<100"
        x = [1, 8]
        [tool.initlint.arguments."model.py::Net"]
        depth = 4
        """,
    )
    write(tmp_path, "", "model.py")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    found = load([tmp_path], environment={})
    assert specs_for(found) == {
        "../model.py::Net": ("float32[1,3,32,32]", "int64[1,4]"),
        "Other": ("ids: int64[1,16]<100", "x: float32[1,8]"),
    }
    assert arguments_for(found) == {"../model.py::Net": {"depth": 4}}


def test_malformed_inputs_are_config_errors() -> None:
    for table in ({"x": 3}, {"shape": [[1, 2]], "extra": 1}, {"x": ["a"]}):
        with pytest.raises(ConfigError, match="Net"):
            specs_for(Config(inputs={"Net": table}))
