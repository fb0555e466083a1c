"""Which layer reads an argument first, from a symbolic graph or from a recorded run that failed."""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import fx, nn

from initlint.probe.inputs_wants import Guess, conv_wants, index_wants, tokens, wants
from initlint.probe.submodules import submodule
from initlint.probe.traced import meta_of

# Ops on the way that change neither the meaning nor the size of the channel axis.
_MAX_STEPS = 400
_CONV_AXES = {"conv1d": 1, "conv2d": 2, "conv3d": 3}


class Call(Protocol):
    """An op with its operands: a node of a graph, or the one that raised."""

    @property
    def op(self) -> str: ...
    @property
    def target(self) -> Any: ...
    @property
    def args(self) -> Any: ...
    @property
    def kwargs(self) -> Any: ...


def leads(graph: fx.Graph, root: nn.Module, batch: int) -> dict[str, list[Guess]]:
    """Candidates for each placeholder, from the nearest layers that read it, and for its items, ``x[0]``."""
    found: dict[str, list[Guess]] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            guesses = list(dict.fromkeys(_downstream(node, root, batch)))
            if guesses:
                found[str(node.target)] = guesses
            for user in node.users:
                if user.target is operator.getitem and type(user.args[1]) in (int, str):
                    item = list(dict.fromkeys(_downstream(user, root, batch)))
                    found.setdefault(f"{node.target}[{user.args[1]}]", item)
    return found


def _downstream(start: fx.Node, root: nn.Module, batch: int) -> Iterator[Guess]:
    queue: deque[tuple[fx.Node, fx.Node]] = deque((user, start) for user in start.users)
    seen: set[fx.Node] = set()
    for _ in range(_MAX_STEPS):
        if not queue:
            return
        node, source = queue.popleft()
        if node in seen:
            continue
        seen.add(node)
        direct = list(consumer_wants(node, source, root, batch))
        if direct:
            yield from direct
            continue
        queue.extend((user, node) for user in node.users)


def consumer_wants(node: Call, source: fx.Node, root: nn.Module, batch: int) -> Iterator[Guess]:
    """What a node accepts in place of ``source``, when it is a layer or an op with a weight."""
    if node.op == "call_module":
        module = submodule(root, str(node.target))
        yield from wants(module, batch)
        return
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if name == "einsum":
        yield from _einsum_wants(node, source, root, batch)
        return
    weight = _weight_operand(node, source, root)
    if weight is None:
        return
    if name in _CONV_AXES:
        groups = node.kwargs.get("groups", node.args[6] if len(node.args) > 6 else 1)
        channels = weight.shape[1] * (groups if isinstance(groups, int) else 1)
        yield from conv_wants(channels, _CONV_AXES[name], batch)
    elif node.target is F.embedding or (node.target is operator.getitem and len(node.args) == 2):
        yield from index_wants(weight.shape[0], batch)
    elif name == "linear" and weight.dim() == 2:
        yield Guess("features", (batch, weight.shape[1]))
        yield Guess("tokens", (batch, tokens(batch), weight.shape[1]))
    elif name in ("matmul", "mm", "addmm") and weight.dim() >= 2:
        yield Guess("features", (batch, weight.shape[-2]))
        yield Guess("tokens", (batch, tokens(batch), weight.shape[-2]))


def _einsum_wants(node: Call, source: fx.Node, root: nn.Module, batch: int) -> Iterator[Guess]:
    """The shape that an equation gives an operand; letters of no known operand get the size of the batch."""
    equation = node.args[0] if node.args else None
    operands = node.args[1:] if len(node.args) != 2 or isinstance(node.args[1], fx.Node) else node.args[1]
    if not isinstance(equation, str) or "." in equation or not isinstance(operands, (tuple, list)):
        return
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, operand in zip(terms, operands, strict=False):
        shape = _known_shape(operand, root) if operand is not source else None
        if shape is not None and len(shape) == len(term):
            sizes.update(zip(term, shape, strict=True))
    for term, operand in zip(terms, operands, strict=False):
        if operand is source and sizes.keys() & set(term):
            yield Guess("other", tuple(sizes.get(letter, batch) for letter in term))


def _known_shape(operand: Any, root: nn.Module) -> tuple[int, ...] | None:
    if not isinstance(operand, fx.Node):
        return None
    value = _parameter(operand, root)
    return tuple(value.shape) if value is not None else meta_of(operand).shape


def _weight_operand(node: Call, source: fx.Node, root: nn.Module) -> torch.Tensor | None:
    """The parameter among a node's operands besides ``source``; for lookups the table it indexes."""
    operands: Sequence[Any] = [*node.args, *node.kwargs.values()]
    for operand in operands:
        if isinstance(operand, fx.Node) and operand is not source:
            value = _parameter(operand, root)
            if value is not None and value.dim() >= 2:
                return value
    return None


def _parameter(node: fx.Node, root: nn.Module) -> torch.Tensor | None:
    if node.op == "get_attr":
        value: Any = root
        for name in str(node.target).split("."):
            value = getattr(value, name, None)
        return value.detach() if isinstance(value, torch.Tensor) else None
    if node.op == "call_method" and node.target in ("t", "transpose") and isinstance(node.args[0], fx.Node):
        value = _parameter(node.args[0], root)
        return value.transpose(-1, -2) if value is not None and value.dim() >= 2 else None
    if node.op == "call_function" and node.target is getattr and node.args[1] in ("T", "mT"):
        value = _parameter(node.args[0], root) if isinstance(node.args[0], fx.Node) else None
        return value.transpose(-1, -2) if value is not None and value.dim() >= 2 else None
    return None


def first_layers(root: nn.Module, batch: int) -> list[list[Guess]]:
    """Candidates of the weighted layers in order of registration, one list for each different layer."""
    found: list[list[Guess]] = []
    for module in root.modules():
        if any(True for _ in nn.Module.parameters(module, recurse=False)) or isinstance(module, nn.MultiheadAttention):
            guesses = wants(module, batch)
            if guesses and guesses not in found:
                found.append(guesses)
        if len(found) >= 6:
            break
    return found
