"""Inputs that the repository gives a model itself: ``net(torch.randn(2, 3, 64, 64))`` in a main block, test or README.

Nothing of the call site is run. What it hands over is told from its syntax: tensors that torch makes of sizes, and what
is done to their shape. Also told: ``summary(net, (3, 64, 64))`` and other functions that are given a model and inputs.
"""

from __future__ import annotations

import ast
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from initlint.probe import callsites
from initlint.probe.callsites import CallSite
from initlint.probe.dependencies import unwatched
from initlint.probe.evaluate import Evaluator, Unknown
from initlint.probe.names import Definition, called, dotted
from initlint.probe.recorded_state import seeded
from initlint.probe.target import relative
from initlint.records import dataclass

#: Functions of torch that make a tensor, by their names; ``randint`` and the like draw, under a seed of our own.
_MADE = frozenset(
    "randn rand zeros ones empty full randint arange linspace eye tensor as_tensor FloatTensor LongTensor normal "
    "randperm rand_like randn_like zeros_like ones_like randint_like full_like cat stack tril triu".split()
)
#: Methods that change a tensor's shape or type alone.
_SHAPED = frozenset(
    "view reshape permute transpose unsqueeze squeeze repeat expand flatten unflatten contiguous long float int bool "
    "double clone detach t type type_as size dim numel triu tril softmax sigmoid uniform_ normal_ random_ fill_ zero_ "
    "bernoulli_ requires_grad_ masked_fill eq ne gt lt ge le".split()
)
#: Moves that leave the values alone; the model stays where it is.
_MOVES = frozenset(("cuda", "cpu", "to", "pin_memory", "half", "bfloat16", "Variable"))
#: Keywords of what makes a tensor that say where, not what.
_PLACES = frozenset(("device", "requires_grad", "generator", "pin_memory", "out"))
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_SUMS: Mapping[type[ast.operator], Callable[..., torch.Tensor]] = {
    ast.Add: torch.add,
    ast.Sub: torch.sub,
    ast.Mult: torch.mul,
    ast.Div: torch.div,
}
#: Elements of one tensor, as of all inputs that are tried.
_LARGEST = 8_000_000
#: Samples beyond which a call's batch is cut: enough for a correlation between samples.
_SAMPLES = 4


@dataclass(frozen=True, slots=True)
class Told:
    """What one call hands to the forward, by the names of its parameters."""

    values: Mapping[str, Any]
    origin: str  # "call site model.py:71"
    path: str

    @property
    def elements(self) -> int:
        """Of all tensors."""
        return sum(t.numel() for t in _tensors(self.values))


class Calls:
    """The calls of one model, in its own file and in the rest of its repository."""

    def __init__(self, names: Sequence[str], namespace: Mapping[str, Any], directory: str, seed: int) -> None:
        self.names, self.namespace, self.directory, self.seed = names, namespace, directory, seed
        self.path = str(namespace.get("__file__") or "")

    def near(self, model: nn.Module) -> Iterator[Told]:
        """Those of the model's own file."""
        yield from self._told(model, lambda name: callsites.find_in(name, self.path))

    def far(self, model: nn.Module) -> Iterator[Told]:
        """Those of other files: tests, examples, notebooks, documents."""
        yield from self._told(model, self._elsewhere)

    def _elsewhere(self, name: str) -> list[CallSite]:
        return [site for site in callsites.find(name, self.path) if site.source.path != self.path]

    def _told(self, model: nn.Module, sites: Callable[[str], Iterable[CallSite]]) -> Iterator[Told]:
        if not os.path.isfile(self.path):
            return
        signature = _signature(model)
        seen: set[str] = set()
        for name in dict.fromkeys(self.names) if signature is not None else ():
            with unwatched():
                made = [site for site in sites(name) if callsites.means(site, self.path)]
            for site in made:
                for told in _calls_of(site, self, signature):
                    shapes = repr([(n, tuple(t.shape), t.dtype) for n, v in told.values.items() for t in _tensors(v)])
                    if shapes not in seen:
                        seen.add(shapes)
                        yield told


def _signature(model: nn.Module) -> inspect.Signature | None:
    try:
        return inspect.signature(model.forward)
    except (TypeError, ValueError):
        return None


def _calls_of(made: CallSite, calls: Calls, signature: inspect.Signature | None) -> Iterator[Told]:
    """The calls of what a constructor call was assigned to, in the same scope."""
    assert signature is not None
    holders = _holders(made)
    for call, around in _walk(made.source.tree, ()):
        given = _given(call, made, holders)
        if given is None or not _same_scope(made.around, around, holders):
            continue
        site = CallSite(made.source, call, around)
        try:
            with seeded(calls.seed):
                values = _bound(signature, given, _Tensors(site, calls.namespace, str(calls.namespace.get("__name__"))))
        except (Unknown, TypeError):
            continue
        if any(True for _ in _tensors(values)):
            origin = f"call site {relative(site.source.path, calls.directory)}:{site.line}"
            yield Told(values, origin, site.source.path)


def _holders(made: CallSite) -> frozenset[str]:
    """Names that hold the model which a call makes, whatever it is wrapped in; "" where it is called at once."""
    found = {""}
    for node in ast.walk(made.source.tree):
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            continue
        if not any(inner is made.call for inner in _wrapped(node.value)):
            continue
        for target in node.targets if isinstance(node, ast.Assign) else (node.target,):
            found.add(dotted(target) or "")
    return frozenset(found)


def _wrapped(node: ast.expr) -> Iterator[ast.expr]:
    """A call, the object of its methods and its first argument: ``nn.DataParallel(Net()).cuda()``."""
    yield node
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute):
            yield from _wrapped(node.func.value)
        if node.args:
            yield from _wrapped(node.args[0])


def _walk(node: ast.AST, around: tuple[Definition, ...]) -> Iterator[tuple[ast.Call, tuple[Definition, ...]]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            yield child, around
        yield from _walk(child, (child, *around) if isinstance(child, Definition) else around)


def _same_scope(made: tuple[Definition, ...], call: tuple[Definition, ...], holders: frozenset[str]) -> bool:
    """Whether a name means the same at both places: in one function, from the top level on, or an attribute of self."""
    if made[:1] == call[:1] or not made:
        return True
    within = [d for d in made if isinstance(d, ast.ClassDef)]
    return bool(within) and within[0] in call and any(name.startswith("self.") for name in holders)


@dataclass(frozen=True, slots=True)
class _Given:
    """Expressions of the inputs of a call."""

    args: tuple[ast.expr, ...]
    keywords: Mapping[str, ast.expr]
    batched: bool = True  # whether shapes that stand for inputs have the axis of the samples


def _given(call: ast.Call, made: CallSite, holders: frozenset[str]) -> _Given | None:
    """The inputs of a call of the model, or of a function that is given the model and its inputs."""
    function = call.func
    if isinstance(function, ast.Attribute) and function.attr == "forward":
        function = function.value
    if function is made.call or (dotted(function) or " ") in holders:
        keywords = {k.arg: k.value for k in call.keywords if k.arg is not None}
        return _Given(tuple(call.args), keywords) if len(keywords) == len(call.keywords) else None
    if not call.args or not (call.args[0] is made.call or (dotted(call.args[0]) or " ") in holders):
        return None
    named = {k.arg: k.value for k in call.keywords}
    stated = next((named[n] for n in ("input_size", "input_shape", "inputs", "input_data", "args") if n in named), None)
    if stated is None:
        stated = call.args[1] if len(call.args) > 1 else None
    if stated is None:
        return None
    # torchinfo counts the samples in, torchsummary, ptflops and others do not
    origin = callsites.scan_of(made.source).canonical(call.func) or ""
    return _Given((ast.Starred(stated, ast.Load()),), {}, origin.startswith("torchinfo"))


def _bound(signature: inspect.Signature, given: _Given, evaluator: _Tensors) -> dict[str, Any]:
    """Values by parameter. Raises Unknown or TypeError."""
    args: list[Any] = []
    for node in given.args:
        if isinstance(node, ast.Starred):
            args += _as_inputs(evaluator.value(node.value), given.batched)
        else:
            args.append(evaluator.value(node))
    kwargs = {name: evaluator.value(node) for name, node in given.keywords.items()}
    bound = signature.bind(*args, **kwargs)
    if any(
        p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for n, p in signature.parameters.items() if n in bound.arguments
    ):
        raise Unknown
    return _random(dict(bound.arguments))


def _as_inputs(value: Any, batched: bool) -> list[Any]:
    """Inputs as such functions take them: one tensor, several, or shapes of one or several."""
    if isinstance(value, torch.Tensor):
        return [value]
    if not isinstance(value, (tuple, list)) or not value:
        raise Unknown
    if all(isinstance(part, torch.Tensor) for part in value):
        return list(value)
    shapes = [value] if all(isinstance(size, int) for size in value) else list(value)
    if not all(isinstance(s, (tuple, list)) and s and all(isinstance(n, int) and n > 0 for n in s) for s in shapes):
        raise Unknown
    return [_checked(torch.randn, s if batched else (2, *s)) for s in shapes]


def _random(values: dict[str, Any]) -> dict[str, Any]:
    """The first tensor standard normal where it holds numbers: a constant image, or one of U(0, 1), is a dummy too."""
    for name, value in values.items():
        if isinstance(value, torch.Tensor):
            if value.is_floating_point() and value.ndim > 1:
                values[name] = torch.randn(value.shape, dtype=torch.float32)
            break
    return values


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)


def with_samples(told: Told, samples: int) -> Told | None:
    """The same for so many samples, where all tensors agree on how many there are: one shows no correlation, and many
    take long. ``None`` where nothing changes."""
    found = list(_tensors(told.values))
    counts = {t.shape[0] if t.ndim else 0 for t in found}
    if len(counts) != 1 or 0 in counts:
        return None
    count = counts.pop()
    if 1 < count <= _SAMPLES:
        return None

    def resized(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            if value.is_floating_point() and value.std() > 0:
                return torch.randn(samples, *value.shape[1:])
            if count == 1 and value.dtype == torch.int64 and bool((value != value.flatten()[0]).any()):
                return torch.randint(int(value.min()), int(value.max()) + 1, (samples, *value.shape[1:]))
            return value[torch.arange(samples) % count]
        if isinstance(value, Mapping):
            return {key: resized(part) for key, part in value.items()}
        return type(value)(resized(part) for part in value) if type(value) in (tuple, list) else value

    return Told({name: resized(value) for name, value in told.values.items()}, told.origin, told.path)


class _Tensors(Evaluator):
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
        name = called(node) or ""
        if isinstance(node.func, ast.Attribute) and not self._of_torch(node.func):
            owner = self.value(node.func.value, depth)
            if isinstance(owner, torch.Tensor):
                return self._method(owner, name, node, depth)
        if name == "Variable" and node.args:
            return self.value(node.args[0], depth)
        if name in _MADE and self._of_torch(node.func):
            return _checked(getattr(torch, name), *self._items(node.args, depth), **self._keywords(node, depth))
        return super()._call(node, depth)

    def _of_torch(self, function: ast.expr) -> bool:
        return (self.scan.canonical(function) or "").startswith("torch.")

    def _method(self, owner: torch.Tensor, name: str, node: ast.Call, depth: int) -> Any:
        if name in _MOVES:
            return owner
        if name not in _SHAPED:
            raise Unknown
        return getattr(owner, name)(*self._items(node.args, depth), **self._keywords(node, depth))

    def _keywords(self, node: ast.Call, depth: int) -> dict[str, Any]:
        return {
            keyword.arg: self.value(keyword.value, depth)
            for keyword in node.keywords
            if keyword.arg is not None and keyword.arg not in _PLACES
        }

    def _binop(self, node: ast.BinOp, depth: int) -> Any:
        left, right = self.value(node.left, depth), self.value(node.right, depth)
        if isinstance(left, torch.Tensor) or isinstance(right, torch.Tensor):
            operation = _SUMS.get(type(node.op))
            if operation is None:
                raise Unknown
            return operation(torch.as_tensor(left), torch.as_tensor(right))
        return super()._binop(node, depth)


def _checked(function: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
    """A new tensor, unless it were too large to try."""
    sizes = [n for a in args for n in (a if isinstance(a, (tuple, list)) else (a,)) if isinstance(n, int)]
    product = 1
    for size in sizes:
        product *= max(abs(size), 1)
    if function not in (torch.randint, torch.full, torch.arange, torch.tensor) and product > _LARGEST:
        raise Unknown
    value = function(*args, **kwargs)
    if not isinstance(value, torch.Tensor) or value.numel() > _LARGEST:
        raise Unknown
    return value
