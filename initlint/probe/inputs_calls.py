"""Inputs that the repository gives a model itself: ``net(torch.randn(2, 3, 64, 64))`` in a main block, test or README.

Nothing of the call site is run. What it hands over is told from its syntax: tensors that torch makes of sizes, and what
is done to their shape. Also told: ``summary(net, (3, 64, 64))`` and other functions that are given a model and inputs.
"""

from __future__ import annotations

import ast
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from initlint.probe import callsites
from initlint.probe.callsites import CallSite
from initlint.probe.dependencies import unwatched
from initlint.probe.evaluate import Unknown
from initlint.probe.evaluate_tensors import LARGEST, Tensors, new_tensor
from initlint.probe.names import Definition, called, dotted
from initlint.probe.recorded_state import seeded
from initlint.probe.target import relative
from initlint.probe.traced import tensors_in
from initlint.records import dataclass

#: Functions that are given a model and the shape of its input.
_SUMMARIES = frozenset("summary get_model_complexity_info stat summary_string print_summary model_summary".split())
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
#: Samples beyond which a call's batch is cut: enough for a correlation between samples.
_SAMPLES = 4


@dataclass(frozen=True, slots=True)
class Told:
    """What one call hands to the forward, by the names of its parameters."""

    values: Mapping[str, Any]
    origin: str  # "call site model.py:71"
    path: str
    seed: int  # of what was drawn for it

    def elements(self, samples: int = 0) -> int:
        """Of all tensors, as they are or as ``with_samples`` makes them."""
        held, count = sum(t.numel() for t in tensors_in(self.values)), self.count if samples else 0
        return held // count * samples if count else held

    @property
    def count(self) -> int:
        """How many samples all tensors agree on, where that is one or many; else 0."""
        counts = {t.shape[0] if t.ndim else 0 for t in tensors_in(self.values)}
        count = counts.pop() if len(counts) == 1 else 0
        return 0 if 1 < count <= _SAMPLES else count


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
        try:
            signature = inspect.signature(model.forward)
        except (TypeError, ValueError):
            return
        seen: set[str] = set()
        for name in dict.fromkeys(self.names):
            with unwatched():
                meant = [site for site in sites(name) if callsites.means(site, self.path)]
            for site in meant:
                for told in _calls_of(site, self, signature):
                    shapes = repr([(n, tuple(t.shape), t.dtype) for n, v in told.values.items() for t in tensors_in(v)])
                    if shapes not in seen:
                        seen.add(shapes)
                        yield told


def _calls_of(made: CallSite, calls: Calls, signature: inspect.Signature) -> Iterator[Told]:
    """The calls of what a constructor call was assigned to, in the same scope."""
    holders = _holders(made)
    for site in callsites.every(made.source):
        given = _given(site.call, made, holders)
        if given is None or not _same_scope(made.around, site.around, holders):
            continue
        try:
            with seeded(calls.seed):
                values = _bound(signature, given, Tensors(site, calls.namespace, str(calls.namespace.get("__name__"))))
        except (Unknown, TypeError):
            continue
        if any(True for _ in tensors_in(values)):
            origin = f"call site {relative(site.source.path, calls.directory)}:{site.line}"
            yield Told(values, origin, site.source.path, calls.seed)


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
    shapes: bool = False  # whether they may be shapes of inputs
    batched: bool = True  # and whether these have the axis of the samples


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
    shape = next((named[n] for n in ("input_size", "input_shape") if n in named), None)
    stated = shape or next((named[n] for n in ("inputs", "input_data", "args") if n in named), None)
    if stated is None:
        stated = call.args[1] if len(call.args) > 1 else None
    if stated is None:
        return None
    # torchinfo counts the samples in, torchsummary, ptflops and others do not
    origin = callsites.scan_of(made.source).canonical(call.func)
    shapes = shape is not None or called(call) in _SUMMARIES
    return _Given((ast.Starred(stated, ast.Load()),), {}, shapes, origin.startswith("torchinfo"))


def _bound(signature: inspect.Signature, given: _Given, evaluator: Tensors) -> dict[str, Any]:
    """Values by parameter. Raises Unknown or TypeError."""
    args: list[Any] = []
    for node in given.args:
        if isinstance(node, ast.Starred):
            args += _as_inputs(evaluator.value(node.value), given)
        else:
            args.append(evaluator.value(node))
    kwargs = {name: evaluator.value(node) for name, node in given.keywords.items()}
    bound = signature.bind(*args, **kwargs)
    if any(signature.parameters[name].kind in _VARIADIC for name in bound.arguments):
        raise Unknown
    return _random(dict(bound.arguments))


def _as_inputs(value: Any, given: _Given) -> list[Any]:
    """Inputs as such functions take them: one tensor, several, or shapes of one or several."""
    if isinstance(value, torch.Tensor):
        return [value]
    if not isinstance(value, (tuple, list)) or not value:
        raise Unknown
    if all(isinstance(part, torch.Tensor) for part in value):
        return list(value)
    shapes = [value] if all(isinstance(size, int) for size in value) else list(value)
    if not given.shapes or not all(
        isinstance(s, (tuple, list)) and s and all(isinstance(n, int) and n > 0 for n in s) for s in shapes
    ):
        raise Unknown
    return [new_tensor("randn", (tuple(s) if given.batched else (2, *s),), {}) for s in shapes]


def _random(values: dict[str, Any]) -> dict[str, Any]:
    """The first tensor standard normal where it holds numbers: a constant image, or one of U(0, 1), is a dummy too."""
    for name, value in values.items():
        if isinstance(value, torch.Tensor):
            if value.is_floating_point() and value.ndim > 1:
                values[name] = torch.randn(value.shape, dtype=torch.float32)
            break
    return values


def with_samples(told: Told, samples: int) -> Told | None:
    """The same for so many samples, where all tensors agree on how many there are: one shows no correlation, and many
    take long. ``None`` where nothing changes, or too much."""
    count = told.count
    if not count or told.elements(samples) > LARGEST:
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

    with seeded(told.seed):
        return replace(told, values={name: resized(value) for name, value in told.values.items()})
