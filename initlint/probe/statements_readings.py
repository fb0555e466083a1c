"""Branches whose condition lets through, or keeps out, other parameters than it is plainly meant to."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import torch

from initlint.facts import Due, Misread
from initlint.probe.statements_conditions import Answer
from initlint.probe.statements_guards import Guards, Place
from initlint.probe.statements_meant import Meant
from initlint.probe.statements_missed import Misses
from initlint.probe.statements_names import Names, parameters
from initlint.probe.statements_ranges import Range, Ranges
from initlint.probe.statements_slips import Reading, reading
from initlint.probe.statements_source import Candidate, Scope, Source, Test, site_at
from initlint.records import dataclass


@dataclass(slots=True)
class Readings:
    """Answers for one model.

    Args:
        names: resolves names of the source.
        guards: compiles conditions.
        ranges: resolves variables.
        misses: asks conditions about single modules and parameters.
        meant: resolves targets that no variable ranges over.
        parameters: names of the model's parameters.
    """

    names: Names
    guards: Guards
    ranges: Ranges
    misses: Misses
    meant: Meant
    parameters: tuple[str, ...]

    def of(self, source: Source) -> Iterator[Misread]:
        """The misread conditions of a file, in source order."""
        for scope, branch in source.branches:
            found = reading(branch.test, lambda node, scope=scope: self._class(node, scope, source))  # type: ignore[misc]
            if found is not None:
                misread = self._judged(branch, found, scope, source)
                if misread is not None:
                    yield misread

    def _judged(self, branch: ast.If, read: Reading, scope: Scope, source: Source) -> Misread | None:
        beyond, lacking = self._differing(branch.test, read, Place(scope, source))
        if not beyond and not lacking:
            return None
        return Misread(
            site_at(branch.test, source, scope),
            source.segment(branch.test),
            ast.unparse(read.meant).replace("'", '"'),
            branch.body[0].lineno,
            branch.body[-1].end_lineno or branch.body[-1].lineno,
            bool(branch.orelse),
            beyond,
            lacking,
            tuple(self._due(branch.test, read, beyond, lacking, source)),
        )

    def _differing(self, test: ast.expr, read: Reading, place: Place) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Parameters that a condition lets through and should not, and the reverse."""
        found = self.ranges.of_condition(read.meant, place.scope, place.source)
        if found is None:  # an option of the code: it decides for all
            actual, meant = (self._option(expr, place) for expr in (read.actual, read.meant))
            if actual is None or meant is None or actual is meant:
                return (), ()
            return (self.parameters, ()) if actual else ((), self.parameters)
        actual_of, meant_of = (self._answers(expr, test, found, place) for expr in (read.actual, read.meant))
        beyond = [name for name, answer in actual_of.items() if answer is True and meant_of[name] is False]
        lacking = [name for name, answer in actual_of.items() if answer is False and meant_of[name] is True]
        return tuple(beyond), tuple(lacking)

    def _option(self, expr: ast.expr, place: Place) -> Answer:
        (guard,) = self.guards.of([Test(expr, True)], place)
        return bool(guard.matched) if guard.kind == "value" and guard.matched is not None else None

    def _answers(self, expr: ast.expr, test: ast.expr, found: Range, place: Place) -> dict[str, Answer]:
        """For each parameter whether a condition lets it through.

        Asked for the modules or parameters that the statements of the branch start from, where that is known; else of
        all under which a parameter lies, any will do.
        """
        answers: dict[str, list[Answer]] = {}
        for item in found.items:
            answer = self.misses.answer(expr, item, found, place)
            tensors = [item.value] if isinstance(item.value, torch.Tensor) else item.value.parameters()
            for tensor in tensors:
                name = self.misses.name_of(tensor)
                if name is not None:
                    answers.setdefault(name, []).append(answer)
        known = {name: True if True in given else None if None in given else False for name, given in answers.items()}
        for candidate in place.source.candidates:
            own = any(item.expr is test and item.positive for item in candidate.tests)
            written = self.misses.written_by(candidate, place.source) if own else None
            for name, item in written[1].items() if written is not None else ():
                assert written is not None
                known[name] = self.misses.answer(expr, item, written[0], place)
        return known

    def _due(
        self, test: ast.expr, read: Reading, beyond: tuple[str, ...], lacking: tuple[str, ...], source: Source
    ) -> Iterator[Due]:
        """The first statement of the other branch, or of the branch itself, that is for each parameter."""
        done: set[str] = set()
        for candidate in source.candidates:
            own = next((item for item in candidate.tests if item.expr is test), None)
            if own is None or candidate.op == "pass" or candidate.result_unused:
                continue
            names = lacking if own.positive else beyond
            names = self._written(candidate, names, (test, read.meant), source, came=not own.positive)
            first = tuple(name for name in names if name not in done)
            done.update(first)
            if first:
                yield Due(site_at(candidate.node, source, candidate.scope), first)

    def _written(
        self,
        candidate: Candidate,
        names: tuple[str, ...],
        read: tuple[ast.expr, ast.expr],
        source: Source,
        *,
        came: bool,
    ) -> tuple[str, ...]:
        passing = self.misses.passing(candidate, source, names, read, came=came)
        if passing is not None:
            return passing
        others = [test for test in (*candidate.tests, *candidate.exits) if test.expr is not read[0]]
        judged = self.guards.of(others, Place(candidate.scope, source))
        direct = self.meant.direct(candidate, source)
        return () if any(guard.matched == 0 for guard in judged) else tuple(n for n in direct if n in names)

    def _class(self, node: ast.expr, scope: Scope, source: Source) -> bool:
        """Whether an expression names a class, and no local variable, which may hold ``None`` in its place."""
        if isinstance(node, ast.Tuple | ast.List):
            return bool(node.elts) and all(self._class(item, scope, source) for item in node.elts)
        root = node
        while isinstance(root, ast.Attribute):
            root = root.value
        if not isinstance(root, ast.Name) or _local(root.id, scope):
            return False
        values = self.names.values(node, scope, source)
        return len(values) == 1 and isinstance(values[0], type)


def _local(name: str, scope: Scope) -> bool:
    inner: Scope | None = scope
    while inner is not None and inner.node is not None:
        if name in inner.assigned or name in inner.loops or name in inner.unpacked or name in parameters(inner):
            return True
        inner = inner.parent
    return False
