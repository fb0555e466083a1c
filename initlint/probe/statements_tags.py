"""Marks for the init function, ``self.conv1.stddev = 0.01``, on modules that it does not read them from.

A loop over convolutions reads ``getattr(m, "stddev", 0.1)``; where the mark sits on the block around a convolution, the
convolution inside is drawn without it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from torch import nn

from initlint.facts import InitStatement, Site, Tag
from initlint.probe.statements_marks import marked
from initlint.probe.statements_missed import Misses
from initlint.probe.statements_names import parameters
from initlint.probe.statements_ranges import Ranges
from initlint.probe.statements_source import Candidate, Scope, Source, site_at
from initlint.records import dataclass


@dataclass(slots=True)
class Tags:
    """Answers for one model.

    Args:
        ranges: resolves variables.
        misses: tells what statements could write.
        sources: the parsed files.
        paths: id of a module of the model -> its qualified name.
    """

    ranges: Ranges
    misses: Misses
    sources: dict[str, Source]
    paths: dict[int, str]

    def unread(self, statements: tuple[InitStatement, ...]) -> Iterator[Tag]:
        """The marks that no init statement reads, although one reads marks of that name from layers inside."""
        ran = {(s.site.file, s.site.line, s.site.column): s for s in statements if s.runs}
        for source in self.sources.values():
            asked: dict[tuple[int, str], list[tuple[Candidate, InitStatement]]] = {}
            scopes: dict[int, Scope] = {}
            optional: dict[tuple[int, str], set[str]] = {}
            for candidate in source.candidates:
                site = site_at(candidate.node, source, candidate.scope)
                statement = ran.get((site.file, site.line, site.column))
                root = _root(candidate.target)
                if statement is None or candidate.scope.node is None or not root:
                    continue
                if (id(candidate.scope), root) not in optional:
                    optional[id(candidate.scope), root] = _optional(candidate.scope.node, root)
                for name in optional[id(candidate.scope), root]:
                    if not _depends(candidate, name):
                        continue
                    asked.setdefault((id(candidate.scope), name), []).append((candidate, statement))
                    scopes[id(candidate.scope)] = candidate.scope
            for (key, name), readers in asked.items():
                if not self._read_elsewhere(name, scopes[key]):
                    yield from self._of_name(name, readers, source)

    def _of_name(self, name: str, readers: list[tuple[Candidate, InitStatement]], source: Source) -> Iterator[Tag]:
        written = [self.misses.written_by(candidate, source) for candidate, _ in readers]
        items = [item for found in written if found is not None for item in found[1].items()]
        read = {id(item.value) for _, item in items}
        for module, site in self._marked(name):
            inside = {id(part) for part in module.modules() if part is not module}
            if id(module) in read or any(name in vars(part) for part in module.modules() if part is not module):
                continue
            reached = {parameter for _, statement in readers for parameter in statement.parameters}
            lacking = [key for key, item in items if id(item.value) in inside and key in reached]
            if lacking:
                at = readers[0][1].site
                value = vars(module)[name]
                yield Tag(site, name, value, self.paths[id(module)], tuple(dict.fromkeys(lacking)), at)

    def _marked(self, name: str) -> Iterator[tuple[nn.Module, Site]]:
        """Modules that were given a number under a name from outside, and the assignment that did so."""
        for module, node, scope, source in marked(name, self.ranges, self.sources, self.paths):
            own = isinstance(node.value, ast.Name) and node.value.id in parameters(scope)[:1]
            if not own and type(vars(module).get(name)) in (int, float):
                yield module, site_at(node, source, scope)

    def _read_elsewhere(self, name: str, scope: Scope) -> bool:
        """Whether anything but the init function reads an attribute of that name: the block itself may use it."""
        return any(
            isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and user is not scope
            for source in self.sources.values()
            for user, node, _ in source.references.get(name, ())
        )


def _optional(function: ast.AST, variable: str) -> set[str]:
    """Attributes of a variable that a function asks for where they may be absent: ``getattr(m, "std", 0.1)``."""
    found: set[str] = set()
    for node in ast.walk(function):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or len(node.args) < 2:
            continue
        subject, name = node.args[:2]
        asks = node.func.id == "hasattr" or (node.func.id == "getattr" and len(node.args) == 3)
        own = isinstance(subject, ast.Name) and subject.id == variable
        if asks and own and isinstance(name, ast.Constant) and isinstance(name.value, str):
            found.add(name.value)
    return found


def _depends(candidate: Candidate, name: str) -> bool:
    """Whether the numbers of a statement, or the conditions around it, are taken from an attribute of that name."""
    known: set[str] = set()
    waiting: list[ast.AST] = [candidate.node, *(test.expr for test in candidate.tests)]
    while waiting:
        for node in ast.walk(waiting.pop()):
            if isinstance(node, ast.Name) and node.id not in known:
                known.add(node.id)
                waiting += candidate.scope.assigned.get(node.id, [])
            if (node.attr if isinstance(node, ast.Attribute) else getattr(node, "value", None)) == name:
                return True
    return False


def _root(node: ast.expr | None) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""
