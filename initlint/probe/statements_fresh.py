"""Functions of the user's that make a new tensor like one they are given, and leave that one as it is.

``trunc_normal(layer.weight, std=0.02)`` as a statement does nothing where ``trunc_normal`` returns
``torch.fmod(torch.randn_like(tensor), 2) * std``.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

from initlint.probe.names import arguments_of, own_nodes
from initlint.probe.provenance_words import words

#: Functions without underscore, of torch or of a tensor, that return a new tensor.
OUT_OF_PLACE = words(
    "mul div add sub clamp clip fill masked_fill neg multiply divide normalize renorm where lerp pow exp log sqrt tril "
    "triu"
)
#: The same of functions that make a new tensor of a parameter's shape, and keep nothing of its values.
FRESH = words("zeros_like ones_like full_like rand_like randn_like new_zeros new_ones new_full new_tensor")
# What says something about a tensor and gives no hold of its values.
_ABOUT = words("shape dtype device ndim size dim numel is_cuda requires_grad")
_COPIES = OUT_OF_PLACE | FRESH | words("empty_like new_empty clone fmod abs sum mean std norm")
_FANS = words("_calculate_fan_in_and_fan_out _calculate_correct_fan")
# Functions that call one another are followed so far.
_DEPTH = 3

Functions = Mapping[str, ast.FunctionDef]


def made_anew(call: ast.Call, functions: Functions) -> ast.expr | None:
    """What a call gives for the first parameter of a function that returns a new tensor and leaves that one alone."""
    function = functions.get(call.func.id) if isinstance(call.func, ast.Name) else None
    if function is None or function.decorator_list:
        return None
    inside = list(own_nodes(function))
    returns = [node.value for node in inside if isinstance(node, ast.Return)]
    computed = returns and all(isinstance(v, ast.Name | ast.Call | ast.BinOp | ast.UnaryOp) for v in returns)
    if not computed or any(isinstance(node, ast.Yield | ast.YieldFrom) for node in inside):
        return None
    given, name = _first(call, function)
    own = any(isinstance(value, ast.Name) and value.id == name for value in returns)
    return None if own or not _left_alone(function, name, functions, _DEPTH) else given


def _first(call: ast.Call, function: ast.FunctionDef) -> tuple[ast.expr | None, str]:
    """What a call gives for a function's first parameter, and its name."""
    names = arguments_of(function)
    if not names or any(isinstance(argument, ast.Starred) for argument in call.args):
        return None, ""
    named = next((keyword.value for keyword in call.keywords if keyword.arg == names[0]), None)
    return (call.args[0] if call.args else named), names[0]


def _left_alone(function: ast.FunctionDef, name: str, functions: Functions, depth: int) -> bool:
    """Whether a function has no way to change its argument of that name, nor to give it another one."""
    harmless: set[int] = set()
    for node in own_nodes(function):
        if isinstance(node, ast.Attribute) and node.attr in _ABOUT | _COPIES:
            harmless.add(id(node.value))
        elif isinstance(node, ast.BinOp):
            harmless.update((id(node.left), id(node.right)))
        elif isinstance(node, ast.UnaryOp):
            harmless.add(id(node.operand))
        elif isinstance(node, ast.Call) and not any(keyword.arg == "out" for keyword in node.keywords):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            other = functions.get(called) if isinstance(node.func, ast.Name) else None
            if called in _COPIES | _FANS or called == "len":
                harmless.update(map(id, node.args))
            elif other is not None and depth:
                given, inner = _first(node, other)
                if given is not None and _left_alone(other, inner, functions, depth - 1):
                    harmless.add(id(given))
    uses = [node for node in own_nodes(function) if isinstance(node, ast.Name) and node.id == name]
    return bool(name) and all(id(use) in harmless for use in uses)
