"""Assigns recorded events to statements by exact source positions."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import field
from typing import TYPE_CHECKING

from initlint.probe.provenance_store import Event
from initlint.probe.record_lost import Fates
from initlint.probe.sites import Noted, span
from initlint.probe.statements_fresh import FRESH
from initlint.probe.statements_source import Call, Candidate, Source
from initlint.records import dataclass

if TYPE_CHECKING:
    from initlint.probe.provenance import Recorder

#: Writes that no statement of the user's asks for as an initialisation.
_ERRANDS = frozenset({"load", "deepcopy", "to_empty"})


@dataclass(slots=True)
class Hits:
    """What was recorded at one statement."""

    events: list[Event] = field(default_factory=list)
    touches: int = 0  # assignments that left no event

    def runs(self) -> int:
        """How often the statement ran; the events of one init call are one run."""
        return max(len({event.call for event in self.events}), self.touches)


class Matcher:
    """Finds for each statement the events that were recorded while it ran."""

    def __init__(self, recorder: Recorder, sources: dict[str, Source], fates: Fates) -> None:
        self.fates = fates
        self._hits: dict[int, Hits] = {}
        self._dynamic: dict[tuple[str, int, int], Candidate] = {}
        self._found = {path: list(source.candidates) for path, source in sources.items()}
        self._index: dict[tuple[str, int, int], Candidate] = {}
        self._calls: dict[tuple[str, int, int], Call] = {}
        self._at: dict[tuple[int, int], Candidate | None] = {}  # by code object and instruction
        for path, source in sources.items():
            for call in source.calls:
                self._calls[_key(path, call.node)] = call
            for candidate in source.candidates:
                if candidate.op != "pass":
                    self._index[_key(path, candidate.node)] = candidate
                if candidate.statement is not None:
                    self._index[_key(path, candidate.statement)] = candidate
        for event in recorder.log.events:
            self._note(event)
        for frames in recorder.log.touches:
            for candidate in self._around(frames):
                self._hits.setdefault(id(candidate), Hits()).touches += 1

    def candidates(self, source: Source) -> list[Candidate]:
        """Statements of a file, those found by their record included."""
        return self._found[source.path]

    def hits(self, candidate: Candidate) -> Hits:
        """What was recorded at a statement."""
        return self._hits.get(id(candidate)) or Hits()

    def _around(self, frames: Iterable[Noted]) -> list[Candidate]:
        found = []
        for noted in frames:
            key = (id(noted[0]), noted[1])
            if key in self._at:
                candidate = self._at[key]
            else:
                where = span(noted)
                place = None if where is None else (noted[0].co_filename, where[1], where[3])
                candidate = self._at[key] = None if place is None else self._index.get(place)
            if candidate is not None:
                found.append(candidate)
        return found

    def _note(self, event: Event) -> None:
        candidates = self._around(event.frames)
        if event.creation:
            # ``w.clamp(-1, 1)`` as a statement makes a tensor that nothing uses
            derived = bool(event.args.get("chain"))
            candidates = [
                item
                for item in candidates
                if item.result_unused and (derived or item.own or item.op == "assign" or item.op in FRESH)
            ]
        elif not candidates and event.origin == "user" and event.op not in _ERRANDS:
            candidates = self._by_record(event)
        for candidate in candidates:
            self._hits.setdefault(id(candidate), Hits()).events.append(event)

    def _by_record(self, event: Event) -> list[Candidate]:
        """A call that no pattern knows but that wrote a parameter: ``init_function(m.weight)``."""
        where = span(event.frames[0]) if event.frames else None
        if where is None or not self.fates.of(event).parameters:
            return []
        key = (event.frames[0][0].co_filename, where[1], where[3])
        candidate = self._dynamic.get(key)
        if candidate is None:
            call = self._calls.get(key)
            if call is None:
                return []
            node = call.node
            method = isinstance(node.func, ast.Attribute) and node.func.attr == event.op
            target = node.func.value if method and isinstance(node.func, ast.Attribute) else next(iter(node.args), None)
            candidate = self._dynamic[key] = Candidate(event.op, target, node, call.scope, call.tests)
            self._found[key[0]].append(candidate)
        return [candidate]


def _key(path: str, node: ast.AST) -> tuple[str, int, int]:
    # The end tells chained and nested calls apart; the start does not.
    return path, getattr(node, "end_lineno", 0) or 0, getattr(node, "end_col_offset", 0) or 0
