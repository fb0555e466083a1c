"""Blocks that add their input to what they make of it: two guessed widths cannot both stay where they differ."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from initlint.errors import InitlintError
from initlint.probe import conventions, isolate
from initlint.probe.scratch import scratch

#: Seconds of work for the search for inputs in each mode: a block is small, and its first few attempts say the same.
_BUDGET = 0.5
#: Seconds until a search that hangs is given up.
_SECONDS = 30.0
_MISMATCH = re.compile(r"size of tensor a \((\d+)\) must match the size of tensor b \((\d+)\)")


def adds_input(cls: Any) -> bool:
    """Whether the forward of a class adds one of its arguments, under whatever name, to something."""
    forward = conventions.tree_of(getattr(cls, "forward", None)) if isinstance(cls, type) else None
    if forward is None:
        return False
    names = {a.arg for a in forward.args.args} - {"self"}
    for node in ast.walk(forward):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and node.value.id in names:
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    for node in ast.walk(forward):
        terms: tuple[ast.expr, ...] = ()
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            terms = (node.left, node.right)
        elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
            terms = (node.target, node.value)
        if any(isinstance(term, ast.Name) and term.id in names for term in terms):
            return True
    return False


def mismatch(model: nn.Module, namespace: Mapping[str, Any], seed: int) -> tuple[int, int] | None:
    """The two sizes that a sum in the forward did not fit together, whatever the input was; found in a fork."""

    def search(shared: Any) -> None:
        from initlint.probe import inputs

        try:
            said = " ".join(inputs.find(model, namespace, seed=seed, budget=_BUDGET).notes)
        except InitlintError as error:
            said = error.message
        shared.write(said.encode())
        shared.flush()

    with scratch() as shared:
        isolate.run(lambda: search(shared), _SECONDS)
        shared.seek(0)
        found = _MISMATCH.search(shared.read().decode())
    return (int(found[1]), int(found[2])) if found is not None else None


def equal(guesses: Mapping[str, int], sizes: tuple[int, int]) -> Iterator[tuple[str, int]]:
    """Guesses to change: the one that is the smaller of the two sizes becomes the larger, else the other way round."""
    small, large = sorted(sizes)
    for have, want in ((small, large), (large, small)):
        yield from ((name, want) for name, value in guesses.items() if value == have)
