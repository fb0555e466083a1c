"""The cache of facts: what counts as unchanged."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from initlint import cache as caching
from initlint.cache import Cache, Entry
from initlint.errors import InitlintError
from initlint.facts import ModelFacts, NotAnalysed

ENTRY = Entry((ModelFacts("Net", "m.py::Net", "m.py", 3),), (NotAnalysed("m.py::Part", "a part", harmless=True),))
KEY = "k" * 40


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return fresh(tmp_path)


def fresh(folder: Path) -> Cache:
    """A cache as a new process sees it."""
    return Cache(folder / ".initlint_cache", folder)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_is_stored_comes_back_while_files_are_unchanged(tmp_path: Path, cache: Cache) -> None:
    helper = tmp_path / "helper.py"
    helper.write_text("x = 1\n")
    cache.put(KEY, ENTRY, [(str(helper), digest(helper))], ["hypothesis", "json"])
    assert fresh(tmp_path).get(KEY) == ENTRY
    helper.write_text("x = 2\n")
    assert fresh(tmp_path).get(KEY) is None
    helper.write_text("x = 1\n")
    assert fresh(tmp_path).get(KEY) == ENTRY, "it is the content that counts"
    helper.unlink()
    assert fresh(tmp_path).get(KEY) is None


def test_a_cache_can_be_moved(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    helper = tmp_path / "a" / "helper.py"
    helper.write_text("x = 1\n")
    fresh(tmp_path / "a").put(KEY, ENTRY, [(str(helper), digest(helper))])
    (tmp_path / "a").rename(tmp_path / "b")
    assert fresh(tmp_path / "b").get(KEY) == ENTRY


def test_a_file_that_was_looked_for_and_absent_must_stay_so(tmp_path: Path, cache: Cache) -> None:
    cache.put(KEY, ENTRY, [(str(tmp_path / "local.py"), "")])
    assert fresh(tmp_path).get(KEY) == ENTRY
    (tmp_path / "local.py").write_text("")
    assert fresh(tmp_path).get(KEY) is None


def test_other_versions_of_packages_do_not_count(tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.put(KEY, ENTRY, (), ["hypothesis"])
    assert fresh(tmp_path).get(KEY) == ENTRY
    monkeypatch.setattr(caching, "_installed", lambda: {"hypothesis": "0.1"})
    assert fresh(tmp_path).get(KEY) is None


def test_packages_are_told_apart_without_importing_them() -> None:
    assert caching.package_stamp("hypothesis")[0].isdigit(), "by the name of its folder"
    assert len(caching.package_stamp("_pytest")) == 64, "installed under another name: by its files"
    assert caching.package_stamp("there_is_no_such_package") == ""


@pytest.mark.parametrize(
    "entry",
    [
        Entry((replace(ENTRY.models[0], status="failed"),)),
        Entry((replace(ENTRY.models[0], status="partial", reason="the trace did not finish within 120 s"),)),
        Entry(ENTRY.models, (NotAnalysed("m.py::B", "needs arguments"),)),
    ],
)
def test_failures_are_never_stored(cache: Cache, entry: Entry) -> None:
    cache.put(KEY, entry)
    assert not cache.folder.exists()


def test_damaged_entries_are_ignored(tmp_path: Path, cache: Cache) -> None:
    cache.put(KEY, ENTRY)
    file = cache.versioned / f"{KEY}.json"
    whole = file.read_bytes()
    for damaged in (b"", b"{}", whole[:-9], whole.replace(b"Net", b"Nut"), b"[" * 100_000, whole[::-1], b"{}\n{}"):
        file.write_bytes(damaged)
        assert fresh(tmp_path).get(KEY) is None
    file.write_bytes(whole)
    assert fresh(tmp_path).get(KEY) == ENTRY


def test_the_folder_marks_itself_as_a_cache(cache: Cache) -> None:
    cache.put(KEY, ENTRY)
    assert (cache.folder / ".gitignore").read_text() == "*\n"
    assert (cache.folder / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")
    assert {path.name for path in cache.versioned.iterdir()} == {f"{KEY}.json"}, "no temporary files are left"


def test_clean_removes_a_cache_and_nothing_else(tmp_path: Path, cache: Cache) -> None:
    assert cache.clean() == 0
    cache.put(KEY, ENTRY)
    assert cache.clean() == 1
    assert not cache.folder.exists()
    (tmp_path / "precious").mkdir()
    with pytest.raises(InitlintError, match="not a cache"):
        Cache(tmp_path / "precious", tmp_path).clean()
    assert (tmp_path / "precious").is_dir()


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / ".initlint_cache").write_text("a file in its place")
    fresh(tmp_path).put(KEY, ENTRY)
    assert fresh(tmp_path).get(KEY) is None


def test_keys_tell_environments_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    first = caching.key_of({"target": "m.py"})
    assert caching.key_of({"target": "m.py"}) == first
    assert caching.key_of({"target": "n.py"}) != first
    monkeypatch.setenv("UNRELATED", "1")
    assert caching.key_of({"target": "m.py"}) == first
    monkeypatch.setenv("HF_HOME", "elsewhere")
    assert caching.key_of({"target": "m.py"}) != first


def test_old_entries_are_removed(cache: Cache) -> None:
    import os

    cache.put(KEY, ENTRY)
    os.utime(cache.versioned / f"{KEY}.json", (0, 0))
    cache.put("l" * 40, ENTRY)
    assert [path.name[0] for path in cache.versioned.iterdir()] == ["l"]
