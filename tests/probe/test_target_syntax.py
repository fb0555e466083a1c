"""Targets as people type them."""

from __future__ import annotations

from pathlib import Path

import pytest

from initlint.errors import UsageError
from initlint.probe.target import parse, parse_all, parse_call


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "model.py").write_text("")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "data").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("")
    (tmp_path / "models" / "unet.py").write_text("")
    return tmp_path


def test_file_and_folder(project: Path) -> None:
    file = parse("model.py", str(project))
    assert (file.kind, file.path, file.named) == ("file", str(project / "model.py"), False)
    assert parse("models", str(project)).kind == "folder"
    assert parse(".", str(project)).path == str(project)
    assert parse(str(project / "models") + "/", str(project)).kind == "folder"


@pytest.mark.parametrize("separator", ["::", ":"])
def test_named_model(project: Path, separator: str) -> None:
    target = parse(f"model.py{separator}Net", str(project))
    assert (target.kind, target.call, target.name, target.named) == ("file", "Net", "Net", True)
    assert target.identity(str(project)) == "model.py::Net"


def test_call_of_a_file_and_of_a_module(project: Path) -> None:
    target = parse("model.py::Net(depth=4)", str(project))
    assert target.identity(str(project)) == "model.py::Net(depth=4)"
    module = parse('models.unet:build(size="a:b")', str(project))
    assert (module.kind, module.module, module.name) == ("module", "models.unet", "build")
    assert module.identity(str(project)) == 'models.unet:build(size="a:b")'


def test_arguments_are_literals() -> None:
    call = parse_call("pkg.Net(1, [2, 3], depth=-4, name='x')")
    assert call.name == "pkg.Net"
    assert call.args == (1, [2, 3])
    assert dict(call.kwargs) == {"depth": -4, "name": "x"}
    assert call.texts == (("0", "1"), ("1", "[2, 3]"), ("depth", "-4"), ("name", "'x'"))


@pytest.mark.parametrize(
    "text", ["Net(size=SIZE)", "Net(__import__('os').system('true'))", "Net(**{})", "Net()()", "1 + 1", "12"]
)
def test_anything_else_is_refused(project: Path, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(f"model.py::{text}", str(project))
    assert caught.value.hint


def test_missing_file_names_the_nearest(project: Path) -> None:
    with pytest.raises(UsageError) as caught:
        parse("modle.py", str(project))
    assert "modle.py" in caught.value.message
    assert caught.value.hint == "Did you mean model.py?"
    with pytest.raises(UsageError) as caught:
        parse("model/unet.py", str(project))
    assert "models" in caught.value.hint


@pytest.mark.parametrize("text", ["", "model.py::", "notes.txt", "data::Net", "no_such_module_anywhere"])
def test_malformed(project: Path, text: str) -> None:
    with pytest.raises(UsageError):
        parse(text, str(project))


def test_the_same_target_twice_is_one(project: Path) -> None:
    assert len(parse_all(["model.py", "./model.py", "model.py::Net"], str(project))) == 2
