"""The source of a forward, as far as it can be had."""

from __future__ import annotations

import ast
import inspect

from torch import nn

from initlint.probe.conventions import tree_of


def forward_source(model: nn.Module) -> ast.FunctionDef | None:
    """The definition of the forward that runs, ``None`` without a source."""
    return tree_of(inspect.unwrap(getattr(model.forward, "__func__", model.forward)))
