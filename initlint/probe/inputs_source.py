"""The source of a forward, as far as it can be had."""

from __future__ import annotations

import ast
import inspect
import textwrap

from torch import nn


def forward_source(model: nn.Module) -> ast.FunctionDef | None:
    """The definition of the forward that runs, ``None`` without a source."""
    try:
        text = inspect.getsource(inspect.unwrap(getattr(model.forward, "__func__", model.forward)))
        tree = ast.parse(textwrap.dedent(text))
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    first = tree.body[0] if tree.body else None
    return first if isinstance(first, ast.FunctionDef) else None


def arguments_of(function: ast.FunctionDef) -> list[str]:
    """Names of the arguments, ``self`` (or what it is called) first."""
    return [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
