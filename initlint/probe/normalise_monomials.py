"""Which parameters an expression multiplies with each other, and how often: where exact zeros block gradients.

An expression is read as a sum of monomials with unknown coefficients. ``a * b`` is one monomial with both names,
``1 + w`` is two (one of them empty), ``w ** 2`` is one in which ``w`` counts twice. It is zero where every monomial
holds a zero, and passes a gradient to ``w`` where a monomial holds ``w`` once and nothing else that is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from initlint.probe.normalise_algebra import last_call
from initlint.probe.normalise_tables import words
from initlint.probe.normalise_values import VIEWS, Items, Static, statics_in

#: Names, each with how often it counts: 1, or 2 for any more.
Monomial = Mapping[str, int]
#: Longer sums are not followed (products multiply them out).
_MOST = 32

#: f(0) = 0 with a derivative there, elementwise or as a sum of elements.
_PASSES = (VIEWS - {"detach", "data"}) | words(
    "sum mean amax amin max min cumsum neg masked_fill triu tril diag diag_embed repeat tile interpolate pad where "
    "identity list tuple cat stack concat hstack vstack leaky_relu elu selu celu gelu silu mish tanh sin sinh asin "
    "atan arctan erf expm1 log1p softsign hardswish add sub trace real dropout"
)
#: Zero at zero, and so is the derivative that PyTorch gives there.
_FLAT = words(
    "square abs relu relu6 norm vector_norm linalg_norm linalg_vector_norm frobenius_norm var std threshold tanhshrink "
    "hardshrink softshrink"
)
_LIFTS = words("sigmoid softplus exp exp2 softmax log_softmax logsigmoid hardsigmoid")
_LIFTS_FLAT = words("cos cosh")
_PRODUCTS = words("mul matmul mm bmm mv einsum outer ger kron linear dot vdot inner tensordot multi_dot addcmul")


def monomials(static: Static) -> tuple[Monomial, ...] | None:
    """The monomials of an expression of parameters; ``None`` where a function has no rule here."""
    if static.view:
        return ({static.sources[0]: 1},) if len(static.sources) == 1 else None
    if not static.sources:
        return () if _zero(static.value) else ({},)
    if static.history is None or static.random:
        return None
    name, arguments = last_call(static)
    parts = [_part(a) for a in arguments if any(s.is_tensor or s.sources for s in statics_in(_static(a)))]
    known = [p for p in parts if p is not None]
    if len(known) < len(parts) or not known:
        return None
    found = _combined(name, arguments, known)
    return None if found is None or len(found) > _MOST else found


def blocking(static: Static) -> tuple[Monomial, ...]:
    """The monomials where they say more than that every parameter gets a gradient; else none."""
    found = monomials(static) or ()
    return found if any(len(m) > 1 or 2 in m.values() for m in found) else ()


def _combined(name: str, arguments: tuple[Any, ...], known: list[tuple[Monomial, ...]]) -> tuple[Monomial, ...] | None:
    first = known[0]
    if name in _PRODUCTS:
        result: tuple[Monomial, ...] = ({},)
        for factor in known:
            result = _product(result, factor)
        return result
    if name == "div":
        if not (isinstance(arguments[0], Static) and arguments[0].is_tensor):
            return None
        # the quotient passes a gradient to what divides only where it is not zero itself
        return _distinct((*first, *_product(first, known[1]))) if len(known) > 1 else first
    if name == "pow":
        exponent = arguments[1].value if len(arguments) > 1 and isinstance(arguments[1], Static) else None
        if not isinstance(exponent, (int, float)) or exponent < 1:
            return None
        return first if exponent == 1 else _product(first, first)
    if name in _FLAT:
        return _product(first, first)
    if name in _LIFTS:
        return _distinct(({}, *first))
    if name in _LIFTS_FLAT:
        return _distinct(({}, *_product(first, first)))
    if name not in _PASSES:
        return None
    terms = _distinct(tuple(m for part in known for m in part))
    added = name in ("add", "sub") and any(
        isinstance(a, Static) and isinstance(a.value, (int, float)) and a.value != 0 for a in arguments
    )
    return _distinct(({}, *terms)) if added else terms


def _static(value: Any) -> Any:
    """Lists and tuples of values as one value."""
    return Items(tuple(value)) if isinstance(value, (list, tuple)) else value


def _part(value: Any) -> tuple[Monomial, ...] | None:
    value = _static(value)
    if isinstance(value, Static):
        return monomials(value)
    if not isinstance(value, Items):
        return None
    parts = [_part(v) for v in value.values]
    return None if None in parts else _distinct(tuple(m for part in parts for m in part or ()))


def _product(first: tuple[Monomial, ...], second: tuple[Monomial, ...]) -> tuple[Monomial, ...]:
    if len(first) * len(second) > _MOST**2:
        return first  # cut off by the caller's limit
    return _distinct(tuple({n: min(2, a.get(n, 0) + b.get(n, 0)) for n in (*a, *b)} for a in first for b in second))


def _distinct(found: tuple[Monomial, ...]) -> tuple[Monomial, ...]:
    return tuple({tuple(sorted(m.items())): m for m in found}.values())


def _zero(value: Any) -> bool:
    """Whether a constant is all zeros."""
    if hasattr(value, "count_nonzero"):
        return bool(not value.is_meta and value.numel() and value.count_nonzero() == 0)
    return isinstance(value, (int, float)) and value == 0
