"""Marks on modules, ``self.proj.zero_init = True``, that the init function looks for under another name."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from torch import nn

from initlint.probe.statements_near import near, words_of
from initlint.probe.statements_ranges import Ranges
from initlint.probe.statements_source import Candidate, Scope, Source
from initlint.records import dataclass

#: Shorter words (``is``, ``no``, ``set``) are in many names of marks.
_WORD = 4


@dataclass(slots=True)
class Marks:
    """Answers for one model.

    Args:
        ranges: resolves variables.
        sources: the parsed files.
        paths: id of a module of the model -> its qualified name.
    """

    ranges: Ranges
    sources: dict[str, Source]
    paths: dict[int, str]

    def meant(self, candidate: Candidate) -> list[nn.Module]:
        """Modules that a statement was meant for: it asks for a mark that nothing is ever given, and they have one of a
        name much like it, which nothing reads."""
        asked = [name for test in candidate.tests if test.positive for name in _asked(test.expr, candidate.target)]
        asked = [name for name in asked if not self._stored(name)]
        if not asked:
            return []
        return [
            module
            for name in dict.fromkeys(name for source in self.sources.values() for name in source.references)
            if any(_alike(name, other) for other in asked) and not self._read(name)
            for module in self._marked(name)
        ]

    def _stored(self, name: str) -> bool:
        """Whether any module is given an attribute of that name."""
        return any(isinstance(node.ctx, ast.Store) for node in self._attributes(name))

    def _read(self, name: str) -> bool:
        """Whether anything reads an attribute of that name, or names it in a text."""
        trees = [source.tree for source in self.sources.values() if source.tree is not None]
        return any(isinstance(node.ctx, ast.Load) for node in self._attributes(name)) or any(
            isinstance(node, ast.Constant) and node.value == name for tree in trees for node in ast.walk(tree)
        )

    def _attributes(self, name: str) -> Iterator[ast.Attribute]:
        for source in self.sources.values():
            yield from (node for _, node, _ in source.references.get(name, ()) if isinstance(node, ast.Attribute))

    def _marked(self, name: str) -> Iterator[nn.Module]:
        """Modules that have a number, a text or a truth value under a name, and no class that knows it."""
        for module, *_ in marked(name, self.ranges, self.sources, self.paths):
            plain = isinstance(vars(module).get(name), (bool, int, float, str))
            if plain and not hasattr(type(module), name):
                yield module


def marked(
    name: str, ranges: Ranges, sources: dict[str, Source], paths: dict[int, str]
) -> Iterator[tuple[nn.Module, ast.Attribute, Scope, Source]]:
    """Modules of the model that code gives an attribute of a name, and the place that is assigned to."""
    for source in sources.values():
        for scope, node, _ in source.references.get(name, ()):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                owners = ranges.modules(node.value, scope, source)
                found = (item.value for item in (owners.items if owners is not None else ()))
                yield from ((module, node, scope, source) for module in found if id(module) in paths)


def _asked(expr: ast.expr, target: ast.expr | None) -> Iterator[str]:
    """``"init"`` of ``hasattr(m, "init")`` or ``getattr(m, "init", False)`` for a target ``m.weight``."""
    root = target
    while isinstance(root, ast.Attribute):
        root = root.value
    for node in ast.walk(expr):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) >= 2:
            subject, name = node.args[:2]
            same = isinstance(subject, ast.Name) and isinstance(root, ast.Name) and subject.id == root.id
            if node.func.id in ("hasattr", "getattr") and same and isinstance(name, ast.Constant):
                yield str(name.value)


def _alike(one: str, other: str) -> bool:
    """Whether two names have the same words in another order, or one more or less, or differ by a slip of the pen."""
    first, second = set(words_of(one)), set(words_of(other))
    shared = any(len(word) >= _WORD for word in first & second)
    return one != other and ((shared and (first <= second or second <= first)) or near(one, other))
