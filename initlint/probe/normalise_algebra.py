"""What an expression of parameters is as a weight: its power of a parameter, or a sum of products.

A standardised weight does not change when its parameter is scaled, a scaled one does in
proportion: that decides whether the parameter's variance means anything. A low-rank adapter merged
into a matrix is taken apart again, for each of its factors is a layer.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from initlint.probe.normalise_tables import words
from initlint.probe.normalise_values import VIEWS, Items, Static, statics_in

#: A constant factor and the matrices whose product it multiplies.
Term = tuple[float, tuple[Static, ...]]

_TRANSPOSES = words("t T transpose mT swapaxes permute")
_KEEPS = words("clone contiguous to type type_as float double half bfloat16 identity")
#: Homogeneous of degree one: f(s w) = s f(w) for s > 0.
_LINEAR = VIEWS | words(
    "sum mean amax amin max min std norm vector_norm abs relu leaky_relu neg cat stack concat masked_fill triu tril "
    "clamp clamp_min where pad cumsum diag_embed repeat tile interpolate maximum minimum linalg_norm identity list "
    "tuple"
)
#: Scale-free: f(s w) = f(w) up to epsilon.
_FREE = words("batch_norm layer_norm rms_norm group_norm instance_norm normalize sign argmax argsort eq gt lt")
_POWERS = {"sqrt": 0.5, "rsqrt": -0.5, "square": 2.0, "var": 2.0, "reciprocal": -1.0}
_PRODUCTS = words("mul matmul mm bmm einsum outer kron linear tensordot multi_dot")
_SPELLINGS = {"iadd": "add", "radd": "add", "rmul": "mul", "imul": "mul", "truediv": "div", "itruediv": "div"}


def degree(static: Static, name: str) -> float | None:
    """By which power of the parameter ``name`` an expression grows: 1 linear, 0 scale-free.

    ``None`` where it is no power of it: ``1 + w``, ``exp(w)``, a function without a rule.
    """
    if name not in static.sources:
        return 0.0
    if static.view or static.history is None:
        return 1.0
    function, arguments = last_call(static)
    args = [a for a in arguments if isinstance(a, (Static, Items))]
    if function in ("list", "tuple"):
        args = list(arguments)
    degrees = [_of(a, name) for a in args]
    if function in _FREE:
        return 0.0 if not degrees[1:] or None in degrees[1:] else float(sum(d or 0.0 for d in degrees[1:]))
    if None in degrees or not degrees:
        return None
    known = [d for d in degrees if d is not None]
    if function in _POWERS:
        return known[0] * _POWERS[function]
    if function == "pow":
        exponent = args[1].value if len(args) > 1 and isinstance(args[1], Static) else None
        return known[0] * exponent if isinstance(exponent, (int, float)) else None
    if function in _PRODUCTS:
        return float(sum(known))
    if function == "div":
        return known[0] - (known[1] if len(known) > 1 else 0.0)
    if function in ("add", "sub"):
        return _of_sum(args, known, name)
    return known[0] if function in _LINEAR else None


def _of(value: Static | Items, name: str) -> float | None:
    """The common degree of all static parts."""
    found = {degree(s, name) for s in statics_in(value) if s.is_tensor or s.sources}
    if not found:
        return 0.0
    return found.pop() if len(found) == 1 else None


def _of_sum(args: list[Static | Items], known: list[float], name: str) -> float | None:
    """A sum keeps a degree that its terms share; a small constant is an epsilon."""
    if len(set(known)) == 1:
        return known[0]
    with_name = [d for a, d in zip(args, known, strict=True) if isinstance(a, Static) and name in a.sources]
    rest = [a.value for a in args if isinstance(a, Static) and name not in a.sources]
    small = all(isinstance(v, float) and abs(v) <= 1e-3 for v in rest)
    return with_name[0] if small and len(with_name) == 1 else None


def terms_of(weight: Static) -> tuple[Term, ...] | None:
    """A matrix as a sum of products of matrices; ``None`` when it is a single one."""
    if weight.view or len(weight.owners) < 2 or not weight.is_tensor or weight.value.ndim != 2:
        return None
    terms = _terms(weight, False)
    single = len(terms) == 1 and len(terms[0][1]) == 1
    return None if single or not all(s.sources for _, chain in terms for s in chain) else terms


def _terms(value: Static, flipped: bool) -> tuple[Term, ...]:
    name, args = last_call(value)
    tensors = [a for a in args if isinstance(a, Static) and a.is_tensor and a.sources and a.value.ndim == 2]
    numbers = [a.value for a in args if isinstance(a, Static) and isinstance(a.value, (int, float))]
    if name in _TRANSPOSES and len(tensors) == 1:
        return _terms(tensors[0], not flipped)
    if name in _KEEPS and len(tensors) == 1:
        return _terms(tensors[0], flipped)
    if name in ("add", "sub") and len(tensors) == 2 and len(args) == 2:
        sign = -1.0 if name == "sub" else 1.0
        return (*_terms(tensors[0], flipped), *((sign * f, chain) for f, chain in _terms(tensors[1], flipped)))
    scaled = len(tensors) == 1 and len(numbers) == 1
    if scaled and (name == "mul" or (name == "div" and args[0] is tensors[0])):
        factor = float(numbers[0]) if name == "mul" else 1.0 / float(numbers[0] or 1.0)
        return tuple((f * factor, chain) for f, chain in _terms(tensors[0], flipped))
    if name in ("matmul", "mm") and len(tensors) == 2:
        first, second = _terms(tensors[0], flipped), _terms(tensors[1], flipped)
        if flipped:
            first, second = second, first
        return tuple((f * g, (*left, *right)) for f, left in first for g, right in second)
    leaf = dataclasses.replace(value, value=value.value.t()) if flipped else value
    return ((1.0, (leaf,)),)


def last_call(value: Static) -> tuple[str, tuple[Any, ...]]:
    """Name and arguments (also those by keyword) of the function that made a static value."""
    if value.view or value.history is None:
        return "", ()
    function, args, kwargs = value.history
    name = str(getattr(function, "__name__", "")).strip("_")
    return _SPELLINGS.get(name, name), (*args, *kwargs.values())
