"""Which rules run: selectors are codes, code prefixes, names, aliases, or ``ALL``.

The more specific selector wins, and ``ignore`` wins among equals, as users know from ruff. Layers (the
configuration, then the command line) apply in turn: a layer's ``select`` starts afresh, its
``extend-select`` and ``ignore`` change what was there.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from initlint.errors import UsageError
from initlint.records import dataclass

ALL = "ALL"


class Named(Protocol):
    """What selectors look at: a rule, or the description of one."""

    @property
    def code(self) -> str:
        """``IL101``."""

    @property
    def name(self) -> str:
        """The kebab-case name."""

    @property
    def aliases(self) -> tuple[str, ...]:
        """Retired codes and names."""


_V = TypeVar("_V")
_R = TypeVar("_R", bound=Named)


@dataclass(frozen=True, slots=True)
class Selectors:
    """One layer of selection; ``select`` is ``None`` where the layer does not replace the one below."""

    select: tuple[str, ...] | None = None
    extend: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()


def choose(rules: Sequence[_R], layers: Iterable[Selectors]) -> tuple[_R, ...]:
    """The rules that the layers leave on, in the order given. With no ``select`` anywhere all are on.

    Raises:
        UsageError: a selector matches no rule.
    """
    chosen = {rule.code for rule in rules}
    for layer in layers:
        ranks = _ranks(rules, layer)
        if layer.select is not None:
            chosen = set()
        for rule in rules:
            on, off = ranks[rule.code]
            if off >= 0 and off >= on:
                chosen.discard(rule.code)
            elif on >= 0:
                chosen.add(rule.code)
    return tuple(rule for rule in rules if rule.code in chosen)


def _ranks(rules: Sequence[Named], layer: Selectors) -> dict[str, tuple[int, int]]:
    """For each rule how specifically the layer turns it on and off; -1 where it does not."""
    ranks = {rule.code: (-1, -1) for rule in rules}
    for selector in (*(layer.select or ()), *layer.extend):
        for rule, rank in matching(selector, rules):
            ranks[rule.code] = (max(rank, ranks[rule.code][0]), ranks[rule.code][1])
    for selector in layer.ignore:
        for rule, rank in matching(selector, rules):
            ranks[rule.code] = (ranks[rule.code][0], max(rank, ranks[rule.code][1]))
    return ranks


def matching(selector: str, rules: Sequence[_R]) -> list[tuple[_R, int]]:
    """The rules that a selector names, each with how specific it is (ALL 0, a prefix its length, a code 99).

    Raises:
        UsageError: it matches none; the hint names the nearest.
    """
    text = selector.strip()
    if text.upper() == ALL:
        return [(rule, 0) for rule in rules]
    exact = [rule for rule in rules if text.upper() == rule.code or text in (rule.name, *rule.aliases)]
    exact = exact or [rule for rule in rules if text.lower() in (rule.name, *(a.lower() for a in rule.aliases))]
    if exact:
        return [(rule, 99) for rule in exact]
    if text:
        prefixed = [(rule, len(text)) for rule in rules if rule.code.startswith(text.upper())]
        if prefixed:
            return prefixed
    raise UsageError(f"no rule is called `{selector}`", did_you_mean(selector, names(rules)) or "See `initlint rules`.")


def find(selector: str, rules: Sequence[_R]) -> _R:
    """The one rule of that code, name or alias. Raises ``UsageError`` when there is none."""
    for rule, rank in matching(selector, rules):
        if rank == 99:
            return rule
    raise UsageError(f"`{selector}` is a prefix of several rules", "Name one: see `initlint rules`.")


def names(rules: Iterable[Named]) -> list[str]:
    """All that a selector may say, apart from prefixes."""
    return [key for rule in rules for key in (rule.code, rule.name, *rule.aliases)]


def resolve(table: Mapping[str, _V], rules: Sequence[Named]) -> dict[str, _V]:
    """A table by selectors as one by codes; the most specific selector decides.

    Raises:
        UsageError: a selector matches no rule.
    """
    best: dict[str, tuple[int, _V]] = {}
    for selector, value in table.items():
        for rule, rank in matching(selector, rules):
            if rule.code not in best or rank > best[rule.code][0]:
                best[rule.code] = (rank, value)
    return {code: value for code, (_, value) in best.items()}


#: Letters and the digits that they are taken for.
_LOOKS = str.maketrans("oil", "011")


def did_you_mean(text: str, candidates: Iterable[str]) -> str:
    """``Did you mean `x`?`` for the nearest candidate; empty when none is near."""
    options = {candidate.lower(): candidate for candidate in candidates}
    wanted = text.lower()
    near = difflib.get_close_matches(wanted, options, n=20, cutoff=0.6)

    def likeness(option: str) -> tuple[float, int]:
        # a code with a digit mistyped is equally near to many others: the one that agrees in most places is meant,
        # where a letter agrees with the digit that it looks like
        alike = difflib.SequenceMatcher(None, option, wanted).ratio()
        seen = zip(option.translate(_LOOKS), wanted.translate(_LOOKS), strict=False)
        return alike, sum(a == b for a, b in seen)

    return f"Did you mean `{options[max(near, key=likeness)]}`?" if near else ""
