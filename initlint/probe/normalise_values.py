"""Values of the abstract run over an fx graph, and the evaluation of what depends on no input.

Normalising a graph runs it on abstract values: a ``Signal`` is the output of a canonical node; a
``Static`` is a known value (a number, a shape, a parameter or an expression of parameters), which
is computed for real; ``Items`` is a tuple of values; ``Unknown`` is all else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from initlint.probe.normalise_tables import words
from initlint.probe.provenance_ops import UNINITIALISED
from initlint.records import dataclass

#: An expression of parameters larger than this many elements is not evaluated (1 GB of float32).
EVALUATE_LIMIT = 1 << 28


@dataclass(frozen=True, slots=True)
class Signal:
    """The output of the canonical node ``index`` of the builder."""

    index: int


@dataclass(frozen=True, slots=True)
class Static:
    """A value that depends on no input.

    ``sources`` are the parameters and buffers it is computed from; ``view`` is true when it holds
    the unchanged values of (part of) exactly one of them; ``expr`` is its text.
    """

    value: Any
    sources: tuple[str, ...] = ()
    expr: str = ""
    view: bool = False
    random: bool = False
    history: tuple[Any, ...] | None = None  # (function, args, kwargs): how to compute it again
    owners: tuple[str, ...] = ()  # sources that can be trained (parameters, not buffers)
    calls: tuple[str, tuple[Any, ...]] | None = None  # of a random value: the last function and its arguments

    @property
    def is_tensor(self) -> bool:
        """Whether it holds a tensor."""
        return isinstance(self.value, torch.Tensor)


@dataclass(frozen=True, slots=True)
class Items:
    """A tuple or list of values, of which not all are static."""

    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Fields:
    """A dict or a dataclass-like output with named values."""

    values: Mapping[Any, Value]


@dataclass(frozen=True, slots=True)
class Unknown:
    """A value about which nothing is known."""

    why: str = ""


Value = Signal | Static | Items | Fields | Unknown


def signals_in(value: Value) -> Iterator[Signal]:
    """All signals inside a value, in order."""
    if isinstance(value, Signal):
        yield value
    elif isinstance(value, Items):
        for item in value.values:
            yield from signals_in(item)
    elif isinstance(value, Fields):
        for item in value.values.values():
            yield from signals_in(item)


def statics_in(value: Value) -> Iterator[Static]:
    """All static values inside a value."""
    if isinstance(value, Static):
        yield value
    elif isinstance(value, Items):
        for item in value.values:
            yield from statics_in(item)
    elif isinstance(value, Fields):
        for item in value.values.values():
            yield from statics_in(item)


def is_static(value: Value) -> bool:
    """Whether the value is known completely."""
    return isinstance(value, Static)


def wrap(values: Iterable[Value], kind: type = tuple) -> Value:
    """A tuple or list of values: ``Static`` when all of them are, else ``Items``."""
    items = tuple(values)
    if all(isinstance(item, Static) for item in items):
        statics = [item for item in items if isinstance(item, Static)]
        return Static(
            kind(item.value for item in statics),
            merged(item.sources for item in statics),
            "(" + ", ".join(item.expr for item in statics) + ")",
            random=any(item.random for item in statics),
            history=(kind, tuple(statics), {}) if any(item.sources for item in statics) else None,
            owners=merged(item.owners for item in statics),
        )
    return Items(items)


def merged(groups: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """The distinct names in order of first appearance."""
    return tuple(dict.fromkeys(name for group in groups for name in group))


#: Functions that only rearrange or cut: the values of a parameter stay what they are.
VIEWS = words(
    "t transpose permute view reshape unsqueeze squeeze flatten unflatten contiguous swapaxes swapdims movedim "
    "view_as reshape_as select narrow getitem chunk split unbind tensor_split split_with_sizes clone to type float "
    "double half bfloat16 cpu cuda detach T mT H flip roll expand expand_as type_as adjoint numpy_T data "
    "requires_grad_ ravel moveaxis"
)
#: Functions whose results are not the same each time.
RANDOM = UNINITIALISED | words(
    "rand randn rand_like randn_like randint randint_like randperm normal normal_ uniform_ bernoulli bernoulli_ "
    "dropout exponential_ multinomial dropout1d dropout2d dropout3d alpha_dropout poisson rrelu random_"
)
#: Built-in functions that write into their first argument although their name has no underscore.
WRITERS = frozenset(("setitem", "iadd", "isub", "imul", "itruediv", "imatmul", "ipow", "ifloordiv", "iand", "ior"))


def evaluate(name: str, function: Callable[..., Any], args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Value:
    """Run ``function`` on static arguments; ``Unknown`` when it fails or is too large.

    The model is left as it is: in-place functions work on a copy, random ones leave the global
    generator alone.
    """
    statics = [v for v in (*args, *kwargs.values()) if isinstance(v, Static)]
    values = [v.value if isinstance(v, Static) else None for v in args]
    keywords = {k: v.value if isinstance(v, Static) else None for k, v in kwargs.items()}
    inplace = name in WRITERS or (name.endswith("_") and not name.endswith("__"))
    if inplace and values and isinstance(values[0], torch.Tensor):
        values[0] = values[0].detach().clone()
    if any(isinstance(v, torch.Tensor) and v.numel() > EVALUATE_LIMIT for v in values) and name not in VIEWS:
        return Unknown(f"{name} of a tensor too large to evaluate")
    guard = torch.random.fork_rng(devices=[]) if name in RANDOM else contextlib.nullcontext()
    try:
        with torch.no_grad(), guard:
            result = function(*values, **keywords)
            if name == "setitem":
                result = values[0]
    except Exception as error:
        return Unknown(f"{name}: {type(error).__name__}: {error}")
    sources = merged(v.sources for v in statics)
    random = name in RANDOM or any(v.random for v in statics)
    if isinstance(result, torch.Size):
        result = tuple(result)
    return Static(
        result,
        sources if carries_values(result) else (),
        expression(name, args, kwargs),
        view=name in VIEWS and len(sources) == 1 and bool(args) and isinstance(args[0], Static) and args[0].view,
        random=random,
        calls=(name, (*args, *kwargs.values())) if random else None,
        history=(_named(function, name), tuple(args), dict(kwargs)) if sources else None,
        owners=merged(v.owners for v in statics) if carries_values(result) else (),
    )


def _named(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The function under the name of the method that it calls."""
    if getattr(function, "__name__", "") == "<lambda>":
        function.__name__ = name.strip("_")
    return function


def carries_values(result: Any) -> bool:
    """Whether a result can hold values of a parameter, as opposed to its shape or type."""
    if isinstance(result, (tuple, list)):
        return any(carries_values(item) for item in result)
    return isinstance(result, (torch.Tensor, float))


_INFIX = {"add": "+", "sub": "-", "mul": "*", "truediv": "/", "div": "/", "matmul": "@", "pow": "**"}


def expression(name: str, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> str:
    """A readable text of a call on static values."""
    texts = [v.expr if isinstance(v, Static) else "..." for v in args]
    texts += [f"{k}={v.expr if isinstance(v, Static) else '...'}" for k, v in kwargs.items()]
    if name in _INFIX and len(texts) == 2:
        text = f"{texts[0]} {_INFIX[name]} {texts[1]}"
    elif name == "getitem" and len(texts) == 2:
        text = f"{texts[0]}[{texts[1]}]"
    else:
        text = f"{name}({', '.join(texts)})"
    return text if len(text) <= 120 else text[:117] + "..."


def literal(value: Any) -> Static:
    """A constant of the graph."""
    text = repr(value)
    return Static(value, expr=text if len(text) <= 40 else "...")
