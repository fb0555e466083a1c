"""Traces in the source of values that repeat: lists of one module, streams of random numbers from a fixed seed."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from initlint.facts import ModuleFacts, Reseed, Site
from initlint.probe.sites import make_site
from initlint.probe.statements_source import Scope, Source

if TYPE_CHECKING:
    from initlint.probe.provenance import Recorder


def with_repeats(
    facts: tuple[ModuleFacts, ...], recorder: Recorder, model: torch.nn.Module, sources: Mapping[str, Source]
) -> tuple[ModuleFacts, ...]:
    """The facts of the modules, with the list that holds one several times where there is one."""
    if not any(fact.shared_with for fact in facts):
        return facts
    modules = dict(model.named_modules(remove_duplicate=False))
    return tuple(
        replace(fact, repeated=_list_of(modules[fact.name], recorder, sources)) if fact.shared_with else fact
        for fact in facts
    )


def _list_of(module: torch.nn.Module, recorder: Recorder, sources: Mapping[str, Source]) -> Site | None:
    """``[layer] * n`` in the function that made a module, about that module."""
    for code, _ in recorder.place(module):
        source = sources.get(code.co_filename)
        for scope, node in source.multiplied if source is not None else ():
            if source is not None and scope.first_line == code.co_firstlineno:
                entries = node.left if isinstance(node.left, ast.List) else node.right
                assert isinstance(entries, ast.List)
                line = next((entry.lineno for entry in entries.elts if _holds(entry, module, recorder, code)), None)
                if line is not None:
                    return _site(node, scope, source)
    return None


def _holds(entry: ast.expr, module: torch.nn.Module, recorder: Recorder, code: Any) -> bool:
    """Whether an entry of a list is the module: made there, or a plain variable of the function that made it."""
    if isinstance(entry, ast.Name):
        return True
    from initlint.probe.sites import span

    lines = [where[0] for made, lasti in recorder.place(module) if made is code and (where := span((made, lasti)))]
    return isinstance(entry, ast.Call) and any(entry.lineno <= line <= (entry.end_lineno or line) for line in lines)


def streams(sources: Mapping[str, Source], codes: list[Any], model: torch.nn.Module) -> Iterator[Reseed]:
    """Seeded streams other than torch's global one, in functions that ran and may have run more than once."""
    ran = {(code.co_filename, code.co_firstlineno) for code in codes}
    root = f"{type(model).__qualname__}.__init__"
    for source in sources.values():
        for scope, call in source.seedings:
            again = scope.name != root or _in_loop(call, scope)
            if scope.node is not None and (source.path, scope.first_line) in ran and again:
                value = call.args[0]
                seed = value.value if isinstance(value, ast.Constant) and isinstance(value.value, int) else None
                yield Reseed(_site(call, scope, source), seed, 0, stream=True)


def _in_loop(call: ast.Call, scope: Scope) -> bool:
    loops = ast.For | ast.AsyncFor | ast.While | ast.ListComp | ast.GeneratorExp
    return any(
        isinstance(node, loops) and any(inner is call for inner in ast.walk(node))
        for node in (ast.walk(scope.node) if scope.node is not None else ())
    )


def _site(node: ast.expr, scope: Scope, source: Source) -> Site:
    where = node.lineno, node.end_lineno or node.lineno, node.col_offset, node.end_col_offset or 0
    return make_site(source.path, where, scope.name)
