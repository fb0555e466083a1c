"""Init statements in the user's source against the record of what ran.

For each statement of the user's files that looks like an initialisation: how often it ran, what it
wrote, whether the function around it was seen running, and the conditions around it evaluated against
the model. Nothing is traced for this: recorded frames carry exact source positions.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from initlint.facts import InitStatement
from initlint.probe.provenance_store import Event
from initlint.probe.record_lost import Fates
from initlint.probe.sites import Noted, make_site, span
from initlint.probe.statements_files import model_classes, read_sources
from initlint.probe.statements_guards import Guards, subjects_of
from initlint.probe.statements_names import UNKNOWN, Names, bound, parameters
from initlint.probe.statements_reach import Reach
from initlint.probe.statements_source import Call, Candidate, Scope, Source

if TYPE_CHECKING:
    from initlint.probe.provenance import Recorder
    from initlint.probe.record import Sites


@dataclass(slots=True)
class Hits:
    """What was recorded at one statement."""

    events: list[Event] = field(default_factory=list)
    touches: int = 0  # assignments that changed nothing recorded

    def runs(self) -> int:
        """How often the statement ran; the events of one init call are one run."""
        return max(len({event.call for event in self.events}), self.touches)


def init_statements(
    recorder: Recorder, model: torch.nn.Module, fates: Fates, places: Sites
) -> tuple[InitStatement, ...]:
    """All statements that look like an initialisation, in source order."""
    del places
    classes = model_classes(recorder, model)
    sources = read_sources(recorder, classes)
    if not sources:
        return ()
    instances: dict[str, list[Any]] = {}
    for module in model.modules():
        for key in classes.get(type(module), ()):
            instances.setdefault(key, []).append(module)
    names = Names(sources, recorder.seen, instances)
    guards = Guards(names, subjects_of(model))
    reach = Reach(recorder, sources, guards, set(instances))
    found: list[InitStatement] = []
    matcher = _Matcher(recorder, sources, fates)
    for source in sources.values():
        for candidate in matcher.candidates(source):
            found += _describe(candidate, source, matcher, guards, reach, names)
    return tuple(sorted(set(found), key=lambda item: (item.site.file, item.site.line, item.site.column or 0)))


class _Matcher:
    """Assigns recorded events to statements by exact source positions."""

    def __init__(self, recorder: Recorder, sources: dict[str, Source], fates: Fates) -> None:
        self.fates = fates
        self._hits: dict[int, Hits] = {}
        self._dynamic: dict[tuple[str, int, int], Candidate] = {}
        self._found: dict[str, list[Candidate]] = {path: list(source.candidates) for path, source in sources.items()}
        self._index: dict[tuple[str, int, int], Candidate] = {}
        self._calls: dict[tuple[str, int, int], Call] = {}
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
        return self._hits.get(id(candidate), Hits())

    def _around(self, frames: Iterable[Noted]) -> list[Candidate]:
        found = []
        for noted in frames:
            where = span(noted)
            if where is not None:
                candidate = self._index.get((noted[0].co_filename, where[1], where[3]))
                if candidate is not None:
                    found.append(candidate)
        return found

    def _note(self, event: Event) -> None:
        candidates = self._around(event.frames)
        if not event.creation:
            if not candidates and event.origin == "user" and event.op not in ("load", "deepcopy", "to_empty"):
                candidates = self._by_record(event)
            for candidate in candidates:
                self._hits.setdefault(id(candidate), Hits()).events.append(event)
        else:
            for candidate in candidates:
                if candidate.result_unused and event.frames and event.args.get("chain"):
                    self._hits.setdefault(id(candidate), Hits()).events.append(event)

    def _by_record(self, event: Event) -> list[Candidate]:
        """A call that no pattern knows but that wrote a parameter: ``init_function(m.weight)``."""
        if not event.frames or not self.fates.of(event).parameters:
            return []
        where = span(event.frames[0])
        if where is None:
            return []
        key = (event.frames[0][0].co_filename, where[1], where[3])
        candidate = self._dynamic.get(key)
        if candidate is None:
            call = self._calls.get(key)
            if call is None:
                return []
            target = call.node.args[0] if call.node.args else None
            if isinstance(call.node.func, ast.Attribute) and call.node.func.attr == event.op:
                target = call.node.func.value
            candidate = self._dynamic[key] = Candidate(event.op, target, call.node, call.scope, call.tests)
            self._found[key[0]].append(candidate)
        return [candidate]


def _key(path: str, node: ast.AST) -> tuple[str, int, int]:
    # The end tells chained and nested calls apart; the start does not.
    return path, getattr(node, "end_lineno", 0) or 0, getattr(node, "end_col_offset", 0) or 0


def _describe(
    candidate: Candidate, source: Source, matcher: _Matcher, guards: Guards, reach: Reach, names: Names
) -> list[InitStatement]:
    hits = matcher.hits(candidate)
    runs = hits.runs()
    reached = bool(runs) or reach.reached(candidate.scope)
    if not runs and not reach.relevant(candidate, source):
        return []
    statement = _statement(candidate, source, hits, matcher.fates, reached, reach.referenced(candidate.scope, source))
    found = [_with_guards(statement, guards.of(candidate.tests, candidate.scope, source))]
    return found + _by_call_site(statement, candidate, source, hits, guards, reach, names)


def _with_guards(statement: InitStatement, guards: Any) -> InitStatement:
    from dataclasses import replace

    return replace(statement, guards=guards)


def _statement(candidate: Candidate, source: Source, hits: Hits, fates: Fates, reached: bool, referenced: bool
               ) -> InitStatement:
    calls: dict[int, list[Event]] = {}
    for event in hits.events:
        calls.setdefault(event.call, []).append(event)
    parameters_: dict[str, None] = {}
    affected: dict[str, None] = {}
    lost, reason = 0, ""
    for events in calls.values():
        outcomes = [fates.of(event) for event in events]
        reached_names = [name for outcome in outcomes for name in outcome.parameters]
        parameters_.update(dict.fromkeys(reached_names))
        gone = next((outcome for outcome in outcomes if outcome.lost), None)
        if gone is not None and not reached_names:
            lost, reason = lost + 1, gone.reason
            affected.update(dict.fromkeys(gone.affected))
    op = hits.events[0].op if hits.events and not hits.events[0].creation else candidate.op
    return InitStatement(
        site=_site(candidate.node, source, candidate.scope),
        op=op,
        target="" if candidate.target is None else source.segment(candidate.target),
        runs=hits.runs(),
        reached=reached,
        parameters=tuple(parameters_),
        lost=lost,
        lost_reason=reason,
        affected=tuple(affected),
        referenced=referenced,
    )


def _site(node: ast.AST, source: Source, scope: Scope) -> Any:
    where = (
        getattr(node, "lineno", 1), getattr(node, "end_lineno", 1),
        getattr(node, "col_offset", 0), getattr(node, "end_col_offset", 0),
    )
    return make_site(source.path, where, scope.name)


def _by_call_site(
    statement: InitStatement, candidate: Candidate, source: Source, hits: Hits, guards: Guards, reach: Reach,
    names: Names,
) -> list[InitStatement]:
    """One entry for each call of the function that selected nothing while other calls did.

    ``apply(weight_init(nn.Conv2d))`` and ``apply(weight_init(nn.Linear))`` run the same statement; the
    first may match no module at all.
    """
    if not hits.events:
        return []
    mentioned = {node.id for test in candidate.tests for node in ast.walk(test.expr) if isinstance(node, ast.Name)}
    found: list[InitStatement] = []
    scope: Scope | None = candidate.scope
    while scope is not None and scope.node is not None:
        relevant = [name for name in parameters(scope) if name in mentioned]
        sites = names.call_sites(scope, source) if relevant else []
        for call, caller in sites:
            if not reach.reached(call.scope) or _through(call, caller, hits.events):
                continue
            bindings = _bindings(relevant, scope, call, caller, names)
            if not bindings:
                continue
            judged = guards.of(candidate.tests, candidate.scope, source, bindings)
            if any(guard.matched == 0 and guard.kind != "value" for guard in judged):
                found.append(_at_call(statement, call, caller, judged))
        scope = scope.parent
    return found


def _bindings(relevant: list[str], scope: Scope, call: Call, caller: Source, names: Names) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in relevant:
        expr = bound(name, scope, call.node)
        values = [] if expr is None else names.values(expr, call.scope, caller)
        if len(values) == 1 and values[0] is not UNKNOWN:
            found[name] = values[0]
    return found


def _through(call: Call, caller: Source, events: list[Event]) -> bool:
    """Whether any event was recorded while this call, or the statement around it, was running."""
    first, last = call.node.lineno, call.node.end_lineno or call.node.lineno
    for event in events:
        for noted in event.frames:
            if noted[0].co_filename != caller.path or noted[0].co_firstlineno != call.scope.first_line_or_none:
                continue
            where = span(noted)
            if where is not None and where[0] <= first and where[1] >= last:
                return True
    return False


def _at_call(statement: InitStatement, call: Call, caller: Source, guards: Any) -> InitStatement:
    return InitStatement(
        site=_site(call.node, caller, call.scope),
        op=statement.op,
        target=statement.target,
        runs=0,
        reached=True,
        guards=guards,
    )
