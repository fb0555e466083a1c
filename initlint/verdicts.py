"""Keep what the rules said about unchanged facts, so that a cached check neither loads rules nor propagates.

A verdict counts only for the same facts (by digest), the same settings, the same rules, and the same code: the stamp
covers every source file of initlint and of the rule packs. Selection of rules is part of the key; severities,
suppressions, the baseline and the order are not, since the engine applies them afterwards.

Files lie beside the entries of ``initlint.cache`` and are left out of account when anything about them is odd.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from initlint import pack_files
from initlint.codec import from_plain, to_plain
from initlint.errors import InitlintError
from initlint.facts import Scalar
from initlint.files import write_atomically
from initlint.findings import Finding, LayerRow, Severity, Undetermined
from initlint.records import dataclass
from initlint.rule import Context, Outcome, Rule, Settings

#: What the engine and the emitters ask of a rule besides ``check``.
_ATTRIBUTES = ("code", "name", "family", "aliases", "thorough", "needs_config", "generic", "by_engine")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules and the propagation made of one model."""

    findings: tuple[Finding, ...] = ()
    rows: tuple[LayerRow, ...] = ()
    undetermined: tuple[Undetermined, ...] = ()
    init_loss: Mapping[str, Scalar] | None = None
    profile: tuple[Mapping[str, Scalar], ...] = ()


class Verdicts:
    """The verdicts in one cache folder.

    Args:
        folder: of the cache's entries; nothing is stored while it is absent.
        packs: the configured rule packs.
        load: loads all rules, in case they have to be run after all.

    Raises:
        RuleError: a pack cannot be found.
    """

    def __init__(self, folder: Path, packs: Iterable[Path | str], load: Callable[[], Iterable[Rule]]) -> None:
        self.folder = folder
        self._load = load
        self._loaded: dict[str, Rule] = {}
        found = [pack_files.shipped(), *pack_files.installed(), *(pack_files.read(Path(path)) for path in packs)]
        self.stamp = _stamp([Path(__file__).parent, *(pack.path for pack in found)])

    def rules(self) -> tuple[Rule, ...] | None:
        """All rules as they describe themselves; they are loaded when the first of them is to check something."""
        try:
            entries = json.loads((self.folder / f"rules-{self.stamp}.json").read_bytes())
            return tuple(_described(entry, self._rule) for entry in entries)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _rule(self, code: str) -> Rule:
        if not self._loaded:
            self._loaded = {rule.code: rule for rule in self._load()}
        return self._loaded[code]

    def keep_rules(self, rules: Sequence[Rule]) -> None:
        """Note what the rules say about themselves."""
        entries = [
            {name: getattr(rule, name) for name in _ATTRIBUTES}
            | {"severity": rule.severity.name, "sources": list(rule.sources), "doc": rule.__doc__}
            for rule in rules
        ]
        self._write(f"rules-{self.stamp}.json", json.dumps(entries))

    def get(self, facts: str, settings: Settings, rules: Sequence[Rule]) -> tuple[Verdict, ...] | None:
        """The verdicts on an entry's models, in their order; ``facts`` is the entry's digest."""
        try:
            data = json.loads((self.folder / self._name(facts, settings, rules)).read_bytes())
            return tuple(_verdict(entry) for entry in data)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, facts: str, settings: Settings, rules: Sequence[Rule], verdicts: Sequence[Verdict]) -> None:
        """Store the verdicts on an entry's models, unless their stored form would say less than they do."""
        plain = [to_plain(verdict, compact=True) for verdict in verdicts]
        text = json.dumps(plain, separators=(",", ":"))
        if tuple(_verdict(entry) for entry in json.loads(text)) == tuple(verdicts):
            self._write(self._name(facts, settings, rules), text)

    def _name(self, facts: str, settings: Settings, rules: Sequence[Rule]) -> str:
        known = [facts, to_plain(settings), [rule.code for rule in rules], self.stamp]
        return f"verdict-{hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:40]}.json"

    def _write(self, name: str, text: str) -> None:
        if self.folder.is_dir():
            try:
                write_atomically(self.folder / name, text)
            except (OSError, InitlintError):
                return


def _verdict(entry: Mapping[str, Any]) -> Verdict:
    found = from_plain(Verdict, entry)
    # Points of the profile hold pairs of numbers, which JSON gives back as lists.
    profile = [{k: tuple(v) if isinstance(v, list) else v for k, v in point.items()} for point in found.profile]
    return replace(found, profile=tuple(profile))


class _Described(Rule):
    """A rule of which only the description is there."""

    abstract = True

    def __init__(self, load: Callable[[str], Rule]) -> None:
        self._load = load

    def check(self, context: Context) -> Iterable[Outcome]:
        """What the rule itself says."""
        return self._load(self.code).check(context)


def _described(entry: Mapping[str, Any], load: Callable[[str], Rule]) -> Rule:
    rule = _Described(load)
    vars(rule).update({name: entry[name] for name in _ATTRIBUTES})
    vars(rule).update(
        aliases=tuple(entry["aliases"]),
        sources=tuple(entry["sources"]),
        severity=Severity[entry["severity"]],
        __doc__=entry["doc"],
    )
    return rule


def _stamp(folders: Iterable[Path]) -> str:
    """Path, size and time of change of all source files: a change of any of them is noticed in 2 ms."""
    files = sorted(entry for folder in folders for entry in _sources(str(folder)))
    return hashlib.sha256(repr(files).encode()).hexdigest()[:24]


def _sources(path: str) -> Iterator[tuple[str, int, int]]:
    if not os.path.isdir(path):
        status = os.stat(path)
        yield path, status.st_size, status.st_mtime_ns
        return
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.endswith((".py", ".toml")):
                status = entry.stat()
                yield entry.path, status.st_size, status.st_mtime_ns
            elif entry.name != "__pycache__" and not entry.name.startswith(".") and entry.is_dir():
                yield from _sources(entry.path)
