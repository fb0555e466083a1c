"""Reading suppression comments, and what they hold for."""

from __future__ import annotations

from pathlib import Path

import pytest

from initlint.facts import ModelFacts, ModuleFacts, ParameterFacts, Site, Write
from initlint.findings import Finding, Severity
from initlint.suppressions import Malformed, Suppression, hits, read


def comments(tmp_path: Path, text: str) -> tuple[tuple[Suppression, ...], tuple[Malformed, ...]]:
    (tmp_path / "m.py").write_text(text, "utf-8")
    return read(["m.py"], tmp_path)


def test_codes_and_names_on_a_line(tmp_path: Path) -> None:
    found, bad = comments(tmp_path, "x = 1\ny = 2  # initlint: ignore[IL101, scale]  # noqa\n")
    assert [(c.selector, c.line, c.first, c.last, c.whole_file) for c in found] == [
        ("IL101", 2, 2, 2, False),
        ("scale", 2, 2, 2, False),
    ]
    assert not bad


def test_a_comment_holds_for_its_whole_statement(tmp_path: Path) -> None:
    found, _ = comments(tmp_path, "a = 0\nf(\n  1,  # initlint: ignore[IL1]\n  2,\n)\nb = 0\n")
    assert (found[0].first, found[0].last) == (2, 5)
    assert found[0].covers("m.py", 5)
    assert not found[0].covers("m.py", 6)
    assert not found[0].covers("other.py", 5)


def test_whole_file_and_own_line(tmp_path: Path) -> None:
    found, _ = comments(tmp_path, "# initlint: ignore-file[IL2]\n\n# initlint: ignore[IL1]\nx = 1\n")
    assert found[0].whole_file
    assert found[0].covers("m.py", 99)
    assert not found[1].covers("m.py", 4), "a comment holds for the line that it is on"


def test_text_in_strings_is_no_comment(tmp_path: Path) -> None:
    found, bad = comments(tmp_path, 'x = "# initlint: ignore[IL1]"\n"""\n# initlint: ignore\n"""\n')
    assert not found
    assert not bad


@pytest.mark.parametrize(
    ("comment", "problem"),
    [
        ("# initlint: ignore", "names no rule"),
        ("# initlint: ignore[]", "names no rule"),
        ("# initlint: ignore-file", "names no rule"),
        ("# initlint: disable[IL101]", "neither ignore nor ignore-file"),
    ],
)
def test_there_is_no_blanket_form(tmp_path: Path, comment: str, problem: str) -> None:
    found, bad = comments(tmp_path, f"x = 1  {comment}\n")
    assert not found
    assert problem in bad[0].problem
    assert (bad[0].line, bad[0].column) == (1, 8)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe# initlint: ignore[IL1]", b"def (:  # initlint: ignore[IL1]\n  ("])
def test_unreadable_files_have_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.py").write_bytes(content)
    read(["m.py", "absent.py"], tmp_path)  # must not raise


def model() -> ModelFacts:
    def parameter(name: str, module: str, line: int) -> ParameterFacts:
        site = Site("m.py", line)
        write = Write("normal_", 1, site=Site("m.py", 20))
        return ParameterFacts(name, "parameter", (2,), "float32", module, "weight", created=site, writes=(write,))

    return ModelFacts(
        "Net",
        "m.py::Net",
        "m.py",
        1,
        parameters=(parameter("a.fc.weight", "a.fc", 5), parameter("b.weight", "b", 6)),
        modules=(ModuleFacts("", "Net"), ModuleFacts("a", "Block", created=Site("m.py", 9))),
    )


def finding(site: Site | None, *parameters: str) -> Finding:
    return Finding("IL101", "scale", Severity.WARNING, "m", "m.py::Net", site, parameters)


def on(line: int, *, whole: bool = False) -> Suppression:
    return Suppression("m.py", line, 1, "IL101", whole, line, line)


def test_the_line_of_the_finding_is_enough() -> None:
    both = finding(Site("m.py", 20), "a.fc.weight", "b.weight")
    assert hits(both, model(), [on(20)]).complete
    assert hits(both, model(), [on(1, whole=True)]).complete
    assert not hits(both, model(), [on(21)]).complete
    assert hits(finding(Site("m.py", 20, end_line=24)), model(), [on(24)]).complete


def test_the_line_of_construction_counts_for_its_own_parameters() -> None:
    one = finding(Site("m.py", 30), "b.weight")
    assert hits(one, model(), [on(6)]).complete
    both = finding(Site("m.py", 30), "a.fc.weight", "b.weight")
    partly = hits(both, model(), [on(6)])
    assert not partly.complete, "a comment on one layer does not silence a fault of two"
    assert partly.used == (on(6),), "but it is not idle either"
    assert hits(both, model(), [on(5), on(6)]).complete
    assert hits(both, model(), [on(9), on(6)]).complete, "where the block around a layer is constructed"
