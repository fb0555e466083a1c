"""What the rules said is kept while facts, settings, rules and their source are the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from initlint.facts import Site
from initlint.findings import Finding, Severity, Undetermined
from initlint.rule import Context, Outcome, Rule, Settings
from initlint.verdicts import Verdict, Verdicts

PACK = """from initlint.rule import Rule
"""

FINDING = Finding("IL101", "n", Severity.WARNING, "m", "a.py::A", Site("a.py", 3), expected={"std": 0.1})
VERDICT = Verdict(
    (FINDING,),
    undetermined=(Undetermined("IL102", "why"),),
    init_loss={"predicted": 2.3},
    profile=({"label": "fc", "q": -1.5, "lost": (0.0, 1.0)},),  # type: ignore[dict-item]
)


class _Said(Rule):
    """A rule that counts how often it is asked."""

    abstract = True
    code, name, family, severity, sources = "IL101", "n", "variance", Severity.ERROR, ("s",)
    asked = 0

    def check(self, context: Context) -> tuple[Outcome, ...]:
        type(self).asked += 1
        return ()


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    folder = tmp_path / "pack"
    folder.mkdir()
    (folder / "rule.py").write_text(PACK, "utf-8")
    return folder


def verdicts(tmp_path: Path, pack: Path) -> Verdicts:
    folder = tmp_path / "cache"
    folder.mkdir(exist_ok=True)
    return Verdicts(folder, [pack], lambda: [_Said()])


def test_a_verdict_comes_back_for_the_same_facts_settings_and_rules(tmp_path: Path, pack: Path) -> None:
    rules = (_Said(),)
    verdicts(tmp_path, pack).put("d1", Settings(), rules, [VERDICT])
    again = verdicts(tmp_path, pack)
    assert again.get("d1", Settings(), rules) == (VERDICT,)
    assert again.get("d2", Settings(), rules) is None
    assert again.get("d1", Settings(optimizer="sgd"), rules) is None
    assert again.get("d1", Settings(), ()) is None


def test_an_edited_rule_file_makes_it_void(tmp_path: Path, pack: Path) -> None:
    verdicts(tmp_path, pack).put("d1", Settings(), (), [VERDICT])
    assert verdicts(tmp_path, pack).get("d1", Settings(), ()) is not None
    (pack / "rule.py").write_text(PACK + "# edited\n", "utf-8")
    assert verdicts(tmp_path, pack).get("d1", Settings(), ()) is None


def test_what_json_cannot_hold_is_not_kept(tmp_path: Path, pack: Path) -> None:
    kept = verdicts(tmp_path, pack)
    kept.put("d1", Settings(), (), [Verdict(profile=({"q": float("inf")},))])
    assert kept.get("d1", Settings(), ()) is None


def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, pack: Path) -> None:
    kept = verdicts(tmp_path, pack)
    kept.put("d1", Settings(), (), [VERDICT])
    (file,) = kept.folder.glob("verdict-*.json")
    file.write_text(file.read_text("utf-8")[:-9], "utf-8")
    assert kept.get("d1", Settings(), ()) is None


def test_rules_are_described_and_loaded_when_they_must_check(tmp_path: Path, pack: Path) -> None:
    kept = verdicts(tmp_path, pack)
    assert kept.rules() is None
    kept.keep_rules([_Said()])
    rules = verdicts(tmp_path, pack).rules()
    assert rules is not None
    (rule,) = rules
    assert (rule.code, rule.name, rule.family, rule.severity, rule.sources) == (
        "IL101",
        "n",
        "variance",
        Severity.ERROR,
        ("s",),
    )
    assert (rule.__doc__ or "").startswith("A rule that counts")
    before = _Said.asked
    assert list(rule.check(None)) == []  # type: ignore[arg-type]
    assert _Said.asked == before + 1
