"""Edits are applied to bytes: encoding, line ends and everything around them stay."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from typing import Any

import pytest

from initlint.errors import UsageError
from initlint.findings import Edit
from initlint.fix.edit import EditError, clashes, edited, require_libcst, unified


def edit(start: int, end: int, before: str, text: str) -> Edit:
    return Edit("m.py", start, end, text, before)


def test_several_edits_keep_the_rest() -> None:
    source = b"a = 1  # one\n\n\nb = 2\nc = 3\n"
    edits = [edit(1, 1, "a = 1  # one", "a = 10  # one"), edit(4, 5, "b = 2\nc = 3", "b = 20\nx = 1\ny = 2")]
    assert edited(source, edits) == b"a = 10  # one\n\n\nb = 20\nx = 1\ny = 2\n"
    assert edited(source, [edits[0], edits[0]]) == edited(source, edits[:1]), "the same edit twice is one"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (b"a = 1\r\nb = 2\r\n", b"a = 1\r\nb = 3\r\nc = 4\r\n"),
        (b"a = 1\nb = 2", b"a = 1\nb = 3\nc = 4"),
        (b"\xef\xbb\xbfa = 1\nb = 2\n", b"\xef\xbb\xbfa = 1\nb = 3\nc = 4\n"),
        (b"# coding: latin-1\nb = 2\n# \xe9\n", b"# coding: latin-1\nb = 3\nc = 4\n# \xe9\n"),
    ],
    ids=["crlf", "no newline at the end", "byte order mark", "latin-1"],
)
def test_bytes_around_the_edit_stay(source: bytes, expected: bytes) -> None:
    assert edited(source, [edit(2, 2, "b = 2", "b = 3\nc = 4")]) == expected


def test_a_changed_file_is_refused() -> None:
    with pytest.raises(EditError, match=r"m\.py has changed since it was analysed \(line 1\)"):
        edited(b"a = 2\n", [edit(1, 1, "a = 1", "a = 3")])
    with pytest.raises(EditError, match="has changed"):
        edited(b"", [edit(7, 7, "a = 1", "a = 3")])


def test_overlapping_edits_are_refused() -> None:
    one, other = edit(1, 2, "a = 1\nb = 2", "a = 1"), edit(2, 2, "b = 2", "b = 3")
    with pytest.raises(EditError, match="two fixes change line 2"):
        edited(b"a = 1\nb = 2\n", [one, other])
    assert clashes([one], [other])
    assert not clashes([one], [one]), "equal edits agree"


def test_what_is_no_python_is_refused() -> None:
    with pytest.raises(EditError, match="would not be valid Python"):
        edited(b"a = 1\n", [edit(1, 1, "a = 1", "a = (")])
    with pytest.raises(EditError, match="cannot be parsed"):
        edited(b"a = (\n", [edit(1, 1, "a = (", "a = 1")])


def test_diff_says_where_a_newline_is_missing() -> None:
    text = "".join(unified("m.py", b"a = 1\nb = 2", b"a = 1\nb = 3\n"))
    assert text == ("--- m.py\n+++ m.py\n@@ -1,2 +1,2 @@\n a = 1\n-b = 2\n\\ No newline at end of file\n+b = 3\n")


def test_without_libcst_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "libcst":
            raise ImportError("No module named 'libcst'")
        return real(name, *args, **kwargs)

    monkeypatch.setitem(sys.modules, "libcst", None)
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UsageError, match="LibCST") as caught:
        require_libcst()
    assert "initlint[fix]" in caught.value.hint
