"""Patterns that were tested against the names of a model while it was built and matched none of them.

A pattern was meant for a parameter if it matches the name without what wrappers put into it (a module that holds
nothing but another one: activation checkpointing, ``torch.compile``, data parallelism), or without its beginning.
"""

from __future__ import annotations

import ast
import fnmatch
import re
from collections.abc import Iterator, Mapping

from torch import nn

from initlint.facts import Plain
from initlint.probe.provenance_matching import Matching, Matchings, Tested
from initlint.probe.sites import span
from initlint.probe.statements_source import Candidate, Source
from initlint.records import dataclass

#: How many parts of a name may be missing at the beginning of a pattern that is written for whole names.
_LEADING = 2


@dataclass(frozen=True, slots=True)
class Idle:
    """A pattern that matched nothing, with the parameters that it was meant for."""

    test: ast.expr
    pattern: str
    names: tuple[str, ...]
    known: Mapping[str, Plain]  # plain variables around the test


class Patterns:
    """Answers for one model."""

    def __init__(self, model: nn.Module, noted: Matchings) -> None:
        self._model = model
        self._calls: dict[tuple[str, int, int], Matching] = {}
        for matching in noted.found.values():
            where = span((matching.code, matching.lasti))
            if where is not None:
                self._calls[matching.code.co_filename, where[1], where[3]] = matching
        self._names = [name for name, _ in model.named_parameters()] if self._calls else []
        self._wrapping = _wrapping(model) if self._calls else set()

    def idle(self, candidate: Candidate, source: Source) -> Iterator[Idle]:
        """The patterns in the conditions of a statement that matched nothing, and should have matched something."""
        if not self._calls:
            return
        for test in (*candidate.tests, *candidate.exits):
            for call in _required(test.expr, positive=test.positive):
                matching = self._calls.get((source.path, call.end_lineno or 0, call.end_col_offset or 0))
                for tested in matching.patterns.values() if matching is not None else ():
                    names = () if tested.matched or matching is None else self._meant(candidate, matching, tested)
                    if names:
                        yield Idle(call, tested.pattern, names, tested.known)

    def _meant(self, candidate: Candidate, matching: Matching, tested: Tested) -> tuple[str, ...]:
        compiled = _compiled(matching.function, tested)
        if compiled is None:
            return ()
        whole = matching.function != "search"
        found: dict[str, None] = {}
        for text, name in self._parameters(candidate, tested.names):
            if any(_matches(compiled, matching.function, other) for other in self._variants(text, name, whole=whole)):
                found[name] = None
        return tuple(found)

    def _parameters(self, candidate: Candidate, texts: list[str]) -> Iterator[tuple[str, str]]:
        """Pairs of what was tested and the parameter of that name, or of the module of that name."""
        known = set(self._names)
        target = candidate.target
        while isinstance(target, ast.Attribute) and target.attr == "data":
            target = target.value
        local = target.attr if isinstance(target, ast.Attribute) else ""
        if any(text in known for text in texts):
            yield from ((text, text) for text in texts if text in known)
        elif local and any(f"{text}.{local}" in known for text in texts):  # names of modules
            yield from ((text, f"{text}.{local}") for text in texts if f"{text}.{local}" in known)
        elif len(texts) == len(self._names):  # changed before they were tested: by their order
            pairs = list(zip(texts, self._names, strict=True))
            if all(text.rpartition(".")[2] == name.rpartition(".")[2] for text, name in pairs):
                yield from pairs

    def _variants(self, text: str, name: str, *, whole: bool) -> Iterator[str]:
        """The tested name without what wrappers add, and without its beginning."""
        parts, path = text.split("."), name.split(".")
        wrappers = {part for i, part in enumerate(path[:-1]) if ".".join(path[: i + 1]) in self._wrapping}
        for gone in [wrappers, *({wrapper} for wrapper in wrappers)]:
            kept = [part for part in parts if part not in gone]
            if kept and len(kept) < len(parts):
                yield ".".join(kept)
        if whole:
            for start in range(1, min(_LEADING, len(parts) - 2) + 1):
                yield ".".join(parts[start:])


def _wrapping(model: nn.Module) -> set[str]:
    """Names of modules that are all that the module around them holds."""
    found = set()
    for name, module in model.named_modules():
        children = list(module.named_children())
        if len(children) == 1 and not any(True for _ in nn.Module.parameters(module, recurse=False)):
            found.add(f"{name}.{children[0][0]}" if name else children[0][0])
    return found


def _required(expr: ast.expr, *, positive: bool) -> Iterator[ast.Call]:
    """Calls that must be true for a condition to hold."""
    while isinstance(expr, ast.UnaryOp) and isinstance(expr.op, ast.Not):
        expr, positive = expr.operand, not positive
    if isinstance(expr, ast.BoolOp) and isinstance(expr.op, ast.And) == positive:
        for value in expr.values:
            yield from _required(value, positive=positive)
    elif isinstance(expr, ast.Compare) and len(expr.ops) == 1 and isinstance(expr.left, ast.Call):
        nothing = isinstance(expr.comparators[0], ast.Constant) and expr.comparators[0].value is None
        if nothing and isinstance(expr.ops[0], ast.IsNot if positive else ast.Is):
            yield expr.left
    elif isinstance(expr, ast.Call) and positive:
        yield expr


def _compiled(function: str, tested: Tested) -> re.Pattern[str] | None:
    pattern = fnmatch.translate(tested.pattern) if function.startswith("fnmatch") else tested.pattern
    try:
        return re.compile(pattern, tested.flags)
    except re.error:
        return None


def _matches(compiled: re.Pattern[str], function: str, text: str) -> bool:
    if function == "search":
        return compiled.search(text) is not None
    return (compiled.fullmatch(text) if function == "fullmatch" else compiled.match(text)) is not None
