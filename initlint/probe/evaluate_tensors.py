"""Values of expressions that make tensors, as those that a call hands to a model; nothing but torch's own is called."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from initlint.probe.evaluate import Evaluator, Unknown
from initlint.probe.names import called
from initlint.probe.traced import tensors_in

#: Functions of torch that make a tensor, by their names; ``randint`` and the like draw, under a seed of our own.
_MADE = frozenset(
    "randn rand zeros ones empty full randint arange linspace eye tensor as_tensor FloatTensor LongTensor normal "
    "randperm rand_like randn_like zeros_like ones_like randint_like full_like cat stack tril triu".split()
)
#: Those among them whose plain numbers are sizes, and those that leave the memory as it is: numbers are drawn instead.
_SIZED = frozenset("randn rand zeros ones empty FloatTensor LongTensor".split())
_UNFILLED = {"empty": torch.float32, "FloatTensor": torch.float32, "LongTensor": torch.int64}
#: Methods that change a tensor's shape or type, fill it, or compare it.
_SHAPED = frozenset(
    "view reshape permute transpose unsqueeze squeeze repeat expand flatten unflatten contiguous long float int bool "
    "double clone detach t type type_as size dim numel triu tril softmax sigmoid uniform_ normal_ random_ fill_ zero_ "
    "bernoulli_ requires_grad_ masked_fill eq ne gt lt ge le".split()
)
#: Moves that leave the values alone; the model stays where it is.
_MOVES = frozenset(("cuda", "cpu", "to", "pin_memory", "half", "bfloat16"))
#: Keywords of what makes a tensor that say where, not what.
_PLACES = frozenset(("device", "requires_grad", "generator", "pin_memory", "out"))
_SUMS: Mapping[type[ast.operator], Callable[..., torch.Tensor]] = {
    ast.Add: torch.add,
    ast.Sub: torch.sub,
    ast.Mult: torch.mul,
    ast.Div: torch.div,
}
#: Elements of one tensor, as of all inputs that are tried.
LARGEST = 8_000_000


class Tensors(Evaluator):
    """Evaluates what a call hands over: beside plain values, tensors that torch makes of them."""

    def _attribute(self, node: ast.Attribute, depth: int) -> Any:
        if self._of_torch(node):  # also where a document leaves the import out
            return self._resolved(self.scan.canonical(node))
        if node.attr in ("shape", "T", "dtype"):
            value = self.value(node.value, depth)
            if isinstance(value, torch.Tensor):
                return getattr(value, node.attr)
        return super()._attribute(node, depth)

    def _call(self, node: ast.Call, depth: int) -> Any:
        name = called(node)
        if isinstance(node.func, ast.Attribute) and not self._of_torch(node.func):
            owner = self.value(node.func.value, depth)
            if isinstance(owner, torch.Tensor):
                return self._method(owner, name, node, depth)
        if name == "Variable" and node.args:
            return self.value(node.args[0], depth)
        if name in _MADE and self._of_torch(node.func):
            return new_tensor(name, tuple(self._items(node.args, depth)), self._keywords(node, depth))
        return super()._call(node, depth)

    def _of_torch(self, function: ast.expr) -> bool:
        return self.scan.canonical(function).startswith("torch.")

    def _method(self, owner: torch.Tensor, name: str, node: ast.Call, depth: int) -> Any:
        if name in _MOVES:
            return owner
        if name not in _SHAPED:
            raise Unknown
        args = self._items(node.args, depth)
        if name == "repeat" and owner.numel() * _product(args) > LARGEST:
            raise Unknown
        value = getattr(owner, name)(*args, **self._keywords(node, depth))
        return _fitting(value) if isinstance(value, torch.Tensor) else value

    def _keywords(self, node: ast.Call, depth: int) -> dict[str, Any]:
        return {
            keyword.arg: self.value(keyword.value, depth)
            for keyword in node.keywords
            if keyword.arg is not None and keyword.arg not in _PLACES
        }

    def _binop(self, node: ast.BinOp, depth: int) -> Any:
        left, right = self.value(node.left, depth), self.value(node.right, depth)
        if isinstance(left, torch.Tensor) or isinstance(right, torch.Tensor):
            operation, (a, b) = _SUMS.get(type(node.op)), (torch.as_tensor(part) for part in (left, right))
            shape = torch.broadcast_shapes(a.shape, b.shape)  # type: ignore[no-untyped-call]
            if operation is None or math.prod(shape) > LARGEST:
                raise Unknown
            return operation(a, b)
        return super()._binop(ast.BinOp(ast.Constant(left), node.op, ast.Constant(right)), depth)


def new_tensor(name: str, args: Sequence[Any], keywords: Mapping[str, Any]) -> torch.Tensor:
    """What torch's function of that name makes, unless it were too large to try.

    Raises:
        Unknown: it is.
    """
    if _elements(name, args, keywords) > LARGEST:
        raise Unknown
    if name not in _UNFILLED:
        return _fitting(getattr(torch, name)(*args, **keywords))
    dtype = keywords.get("dtype") or _UNFILLED[name]
    if name != "empty" and args and isinstance(args[0], (tuple, list)):
        return torch.tensor(args[0], dtype=dtype)
    return (torch.randn if dtype.is_floating_point else torch.zeros)(*args, dtype=dtype)


def _elements(name: str, args: Sequence[Any], keywords: Mapping[str, Any]) -> int:
    """How many elements a function's tensor has, at most."""
    shapes = [
        a for a in (*args, *keywords.values()) if isinstance(a, (tuple, list)) and not any(True for _ in tensors_in(a))
    ]
    numbers = [a for a in args if isinstance(a, int)]
    held = sum(t.numel() for t in tensors_in(args))
    if name in ("arange", "linspace", "randperm"):
        return max((abs(n) for n in numbers), default=0)
    if name == "eye":
        return _product(numbers) ** 2
    return max(_product(numbers) if name in _SIZED else 1, *(_product(shape) for shape in shapes), held)


def _product(sizes: Sequence[Any]) -> int:
    """Of whole numbers, as of sizes, also where they are in one tuple."""
    flat = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
    return math.prod(max(abs(n), 1) for n in flat if isinstance(n, int))


def _fitting(value: torch.Tensor) -> torch.Tensor:
    if not isinstance(value, torch.Tensor) or value.numel() > LARGEST:
        raise Unknown
    return value
