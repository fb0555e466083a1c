"""Finding and loading rule packs; what malformed ones say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from initlint import catalogue, pack_files, packs
from initlint.errors import RuleError

RULE = '''
from initlint.findings import Severity
from initlint.rule import Rule, bad, good

class Mine(Rule):
    """A rule of a project.

    More about it.

    ## What it does
    ## Why is this bad?
    ## Example
    ## Use instead
    ## Known problems
    ## References
    """
    code = "MY001"
    name = "mine"
    family = "variance"
    severity = Severity.WARNING
    sources = ("https://example.org/1",)

    def check(self, context):
        return ()

    @bad
    def one():
        return 1

    @good
    def two():
        return 2
'''


def pack(folder: Path, source: str = RULE, name: str = "my001_mine.py", toml: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(source, "utf-8")
    if toml:
        (folder / "pack.toml").write_text(toml, "utf-8")
    return folder


def test_the_shipped_pack_loads_and_is_sorted() -> None:
    rules = packs.load(installed=False)
    codes = [rule.code for rule in rules]
    assert codes == sorted(codes)
    assert {"IL001", "IL901", "IL902", "IL903"} <= set(codes)
    assert pack_files.shipped().prefix == "IL"


def test_loading_needs_no_torch() -> None:
    import subprocess

    root = Path(__file__).resolve().parents[2]
    code = "import sys; from initlint import packs; packs.load(); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(root)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_packs_of_the_same_name_live_side_by_side(tmp_path: Path) -> None:
    first = pack(tmp_path / "a" / "rules", toml='name = "one"\nversion = "1"\nprefix = "MY"\n')
    second = pack(tmp_path / "b" / "rules", RULE.replace("MY001", "OUR001").replace('"mine"', '"ours"'))
    rules = packs.load([first, second], shipped=False, installed=False)
    assert [rule.code for rule in rules] == ["MY001", "OUR001"]
    assert type(rules[0]).__module__ != type(rules[1]).__module__


def test_a_single_file_and_a_family_folder_are_packs_too(tmp_path: Path) -> None:
    folder = pack(tmp_path / "p" / "variance").parent
    pack(folder, "helper = 1", "_helper.py")
    assert [rule.code for rule in packs.load([folder], shipped=False, installed=False)] == ["MY001"]
    file = pack(tmp_path / "q") / "my001_mine.py"
    assert [rule.code for rule in packs.load([file], shipped=False, installed=False)] == ["MY001"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\n\nraise ValueError('no')\n", r"my001_mine\.py:3: ValueError: no"),
        ("def (:\n", r"my001_mine\.py:1: SyntaxError"),
        ("x = 1\n", r"my001_mine\.py:1: defines no rule"),
        (RULE.replace("MY001", "my1"), r"my001_mine\.py:5: Mine: code 'my1' is not letters and three digits"),
        (RULE.replace("## Example\n", ""), r"my001_mine\.py:5: Mine: the docstring lacks the heading\(s\) Example"),
        (RULE.replace("@bad", ""), r"my001_mine\.py:5: Mine: there is no @bad example"),
        (RULE.replace("MY001", "OUR001"), r"my001_mine\.py:5: code OUR001 does not start with the pack's prefix MY"),
        ("import sys\nsys.exit(3)\n", r"my001_mine\.py:2: SystemExit: 3"),
    ],
)
def test_malformed_rules_are_rejected_with_file_and_line(tmp_path: Path, source: str, message: str) -> None:
    folder = pack(tmp_path / "p", source, toml='prefix = "MY"\n')
    with pytest.raises(RuleError, match=message):
        packs.load([folder], shipped=False, installed=False)


def test_a_rule_in_the_folder_of_another_family_is_rejected(tmp_path: Path) -> None:
    folder = pack(tmp_path / "p" / "signal").parent
    with pytest.raises(RuleError, match="family variance lies in the folder signal"):
        packs.load([folder], shipped=False, installed=False)


def test_codes_and_names_are_unique(tmp_path: Path) -> None:
    first, second = pack(tmp_path / "a"), pack(tmp_path / "b", RULE.replace("MY001", "MY002"))
    with pytest.raises(RuleError, match=r"my001_mine\.py:\d+: `mine` is taken by .*a/my001_mine\.py"):
        packs.load([first, second], shipped=False, installed=False)


@pytest.mark.parametrize("toml", ["name = ", "colour = 'red'", "prefix = 3"])
def test_malformed_markers_are_rejected(tmp_path: Path, toml: str) -> None:
    with pytest.raises(RuleError, match=r"pack\.toml"):
        pack_files.read(pack(tmp_path / "p", toml=toml))
    with pytest.raises(RuleError, match="no such rule pack"):
        pack_files.read(tmp_path / "absent")


def test_installed_packs_are_found_by_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    pack(site / "house_rules").joinpath("__init__.py").write_text("")
    info = site / "house-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: house\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[initlint.packs]\nhouse = house_rules\n")
    monkeypatch.syspath_prepend(str(site))
    assert [found.path.name for found in pack_files.installed()] == ["house_rules"]
    assert [rule.code for rule in packs.load(shipped=False)] == ["MY001"]
    (info / "entry_points.txt").write_text("[initlint.packs]\nhouse = house_rules_gone\n")
    with pytest.raises(RuleError, match="`house` could not be loaded"):
        pack_files.installed()


def test_descriptions_read_from_source_are_those_of_the_loaded_rules() -> None:
    shipped = pack_files.shipped()
    for file in pack_files.rule_files(shipped):
        static = catalogue.describe_file(file)
        if static is None:
            continue  # computed attributes: it is loaded instead
        loaded = tuple(catalogue.describe_rule(rule) for rule in packs.rules_of(file, shipped))
        for one, other in zip(static, loaded, strict=True):
            assert (one.code, one.name, one.family, one.severity) == (
                other.code,
                other.name,
                other.family,
                other.severity,
            )
            assert (one.doc, one.sources, one.aliases) == (other.doc, other.sources, other.aliases)
            assert (one.bad, one.good) == (other.bad, other.good)


def test_computed_attributes_are_left_to_the_loader(tmp_path: Path) -> None:
    folder = pack(tmp_path / "p", RULE.replace('name = "mine"', 'name = "-".join(["mine", "too"])'))
    file = folder / "my001_mine.py"
    assert catalogue.describe_file(file) is None
    (rule,) = packs.rules_of(file, pack_files.read(folder))
    page = catalogue.page(catalogue.describe_rule(rule))
    assert page.startswith("# MY001 mine-too\n\nA rule of a project.")
    assert "def one():\n    return 1" in page
    assert "@bad" not in page
