"""Which rules run: specificity, layers of configuration, errors."""

from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initlint.errors import UsageError
from initlint.findings import Severity
from initlint.rule import Rule
from initlint.selection import Selectors, choose, find, matching, resolve


class _Fake(Rule):
    abstract = True
    severity = Severity.WARNING
    sources = ("s",)
    aliases: ClassVar[tuple[str, ...]] = ()

    def __init__(self, code: str, name: str, aliases: tuple[str, ...] = ()) -> None:
        self.code, self.name, self.family, self.aliases = code, name, "variance", aliases  # type: ignore[misc]


RULES = (
    _Fake("IL001", "uninitialised-memory"),
    _Fake("IL101", "scale", ("IL100", "gain-too-small")),
    _Fake("IL105", "grouped-fan"),
    _Fake("IL201", "vanishing"),
)


def codes(*layers: Selectors) -> list[str]:
    return [rule.code for rule in choose(RULES, layers)]


def test_all_rules_by_default() -> None:
    assert codes(Selectors()) == ["IL001", "IL101", "IL105", "IL201"]
    assert codes() == ["IL001", "IL101", "IL105", "IL201"]


@pytest.mark.parametrize(
    ("selectors", "expected"),
    [
        (Selectors(("IL1",)), ["IL101", "IL105"]),
        (Selectors(("il1",)), ["IL101", "IL105"]),
        (Selectors(("IL101", "vanishing")), ["IL101", "IL201"]),
        (Selectors(("gain-too-small",)), ["IL101"]),
        (Selectors(("IL100",)), ["IL101"]),
        (Selectors(("ALL",), ignore=("IL1",)), ["IL001", "IL201"]),
        (Selectors(("IL1",), ignore=("IL105",)), ["IL101"]),
        (Selectors(("IL105",), ignore=("IL1",)), ["IL105"]),
        (Selectors(("IL105",), ignore=("IL105",)), []),
        (Selectors(ignore=("ALL",)), []),
        (Selectors((), extend=("IL001",)), ["IL001"]),
    ],
)
def test_the_more_specific_selector_wins(selectors: Selectors, expected: list[str]) -> None:
    assert codes(selectors) == expected


def test_command_line_select_replaces_and_extend_adds() -> None:
    configured = Selectors(("IL1",), ignore=("IL105",))
    assert codes(configured, Selectors(("IL2",))) == ["IL201"]
    assert codes(configured, Selectors(extend=("IL2",))) == ["IL101", "IL201"]
    assert codes(configured, Selectors(extend=("IL105",))) == ["IL101", "IL105"]
    assert codes(configured, Selectors(ignore=("scale",))) == []
    assert codes(configured, Selectors(("ALL",))) == ["IL001", "IL101", "IL105", "IL201"]


def test_unknown_selector_names_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        codes(Selectors(("uninitialized-memory",)))
    assert caught.value.hint == "Did you mean `uninitialised-memory`?"
    with pytest.raises(UsageError):
        matching("", RULES)
    with pytest.raises(UsageError):
        matching("ZZ", RULES)


def test_find_wants_one_rule() -> None:
    assert find("scale", RULES).code == "IL101"
    with pytest.raises(UsageError, match="prefix of several"):
        find("IL1", RULES)


def test_resolve_prefers_the_more_specific() -> None:
    table = {"ALL": "a", "IL1": "b", "grouped-fan": "c"}
    assert resolve(table, RULES) == {"IL001": "a", "IL101": "b", "IL105": "c", "IL201": "a"}


_SELECTORS = st.lists(
    st.sampled_from(["ALL", "IL", "IL1", "IL10", "IL101", "IL105", "scale", "IL2", "IL0"]), max_size=4
)


@given(_SELECTORS, _SELECTORS)
def test_ignoring_never_adds_and_extending_never_removes(select: list[str], other: list[str]) -> None:
    base = Selectors(tuple(select))
    chosen = set(codes(base))
    assert set(codes(base, Selectors(ignore=tuple(other)))) <= chosen
    assert set(codes(base, Selectors(extend=tuple(other)))) >= chosen
