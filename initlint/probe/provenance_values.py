"""What is known of the values in a tensor from the expression that computed them.

``torch.randn(n, m) * 0.02`` is a normal sample with mean 0 and std 0.02: factories have known moments
and products and sums with plain numbers carry them along. Anything else keeps the chain of functions
only; its moments are unknown, never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any

import torch

from initlint.facts import Plain
from initlint.probe.provenance_ops import RENAMED, SIGNATURES
from initlint.probe.provenance_words import words
from initlint.records import dataclass

#: A chain longer than this says nothing more to a reader.
_CHAIN = 12
#: Functions that return the same values: copies, casts, moves.
COPIES = words("""clone to half float double bfloat16 type cpu cuda contiguous detach detach_copy type_as alias deepcopy
    pin_memory to_dense requires_grad Parameter data copy as_tensor asarray""")
#: Functions that rearrange or select values: moments stay (as estimates), identity does not.
_REARRANGED = words("""
    reshape view permute transpose t flatten unsqueeze squeeze expand repeat flip roll movedim view_as
    expand_as swapaxes tile repeat_interleave getitem chunk split unbind narrow select""")
_SHIFTS = {"add": 1.0, "add_": 1.0, "radd": 1.0, "sub": -1.0, "sub_": -1.0, "subtract": -1.0}
_PRODUCTS = frozenset({"mul", "mul_", "rmul", "multiply"})
_QUOTIENTS = frozenset({"div", "div_", "true_divide", "truediv"})


@dataclass(frozen=True, slots=True)
class Value:
    """Description of a tensor's current values: base function, chain after it, moments if known."""

    function: str = "unknown"
    chain: tuple[str, ...] = ()
    args: Mapping[str, Plain] = field(default_factory=dict)
    mean: float | None = None
    std: float | None = None
    low: float | None = None  # bounds of a uniform distribution
    high: float | None = None
    random: bool = False
    generator: str = ""
    source: int | None = None  # number of the memory whose values these are, bit for bit up to the dtype
    unwritten: bool = False  # computed from memory that nobody wrote
    loaded: bool = False  # read from a file

    def described(self) -> dict[str, Plain]:
        """The description as arguments of a ``Write``.

        ``function`` is the factory whose distribution the values have (moments given), or ``derived``
        when an expression changed it beyond scaling and shifting; ``chain`` lists all functions.
        """
        known = self.mean is not None or self.function in ("empty", "loaded", "unknown")
        found: dict[str, Plain] = {"function": self.function if known or not self.chain else "derived"}
        found.update({key: value for key, value in self.args.items() if not self.chain})
        for name in ("mean", "std", "low", "high"):
            value = getattr(self, name)
            if value is not None:
                found[name] = value
        if self.chain:
            found["chain"] = [self.function, *self.chain]
            found["derived"] = True
        return found


#: Contents of computed tensors up to this size are averaged when they are copied: microseconds, also in a tight loop.
_SMALL = 65536


def contents(tensor: Any) -> dict[str, Plain]:
    """Mean and second moment of what is copied, since a later write may wipe it out."""
    if not isinstance(tensor, torch.Tensor) or tensor.is_meta or not tensor.is_floating_point():
        return {}
    if not 0 < tensor.numel() <= _SMALL:
        return {}
    values = tensor.detach().double()
    return {"actual_mean": float(values.mean()), "actual_second": float(values.square().mean())}


def factory(name: str, args: Mapping[str, Plain], tensor: Any, *, random: bool, generator: str) -> Value:
    """Value of a fresh tensor made by a factory, or of an overwriting in-place function."""
    mean, std, low, high = _moments(name, args, tensor)
    return Value(name, (), dict(args), mean, std, low, high, random, generator)


def _moments(name: str, args: Mapping[str, Plain], tensor: Any) -> tuple[float | None, ...]:
    base = name.removeprefix("new_").removesuffix("_like").rstrip("_")
    if base in ("randn", "normal", "trunc_normal"):
        mean, std = _number(args.get("mean", 0.0)), _number(args.get("std", 1.0))
        # A truncated normal has the stated std only when the bounds are far away; left to the rules.
        return mean, std, None, None
    if base in ("rand", "uniform"):
        low, high = _number(args.get("a", 0.0)), _number(args.get("b", 1.0))
        return _uniform(low, high)
    constants = {"zeros": 0.0, "zero": 0.0, "ones": 1.0}
    if base in constants:
        return constants[base], 0.0, None, None
    if base in ("full", "fill", "constant"):
        value = _number(args.get("val"))
        return (value, 0.0, None, None) if value is not None else (None,) * 4
    if base in ("tensor", "as_tensor") and tensor.numel() == 1 and not tensor.is_meta:
        value = float(tensor.detach().reshape(()).item()) if not tensor.is_complex() else None
        return (value, 0.0, None, None) if value is not None else (None,) * 4
    return (None,) * 4


def _uniform(low: float | None, high: float | None) -> tuple[float | None, ...]:
    if low is None or high is None:
        return (None,) * 4
    return (low + high) / 2, abs(high - low) / math.sqrt(12.0), low, high


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def derive(name: str, parents: list[Value], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Value:
    """Value of what a function computes from tensors with known values."""
    chain = name.rstrip("_") or name
    random = any(parent.random for parent in parents)
    generator = next((parent.generator for parent in parents if parent.generator), "")
    unwritten = any(parent.unwritten for parent in parents)
    loaded = any(parent.loaded for parent in parents)
    if len(parents) == 1:
        parent = parents[0]
        if chain in COPIES:
            return replace(parent, chain=(*parent.chain, chain)[-_CHAIN:])
        if chain in _REARRANGED:
            return replace(parent, chain=(*parent.chain, chain)[-_CHAIN:], source=None)
        moved = _affine(name, parent, args, kwargs)
        if moved is not None:
            return moved
    base = parents[0] if parents else Value("derived")
    history = (*base.chain, chain)[-_CHAIN:]
    return Value(base.function, history, {}, None, None, None, None, random, generator, None, unwritten, loaded)


def _affine(name: str, parent: Value, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Value | None:
    """The value times or plus a plain number, with its moments, when the function is one of these."""
    scale, shift = _coefficients(name, args, kwargs)
    if scale is None or shift is None:
        return None
    mean = None if parent.mean is None else parent.mean * scale + shift
    std = None if parent.std is None else parent.std * abs(scale)
    ends = (
        None
        if parent.low is None or parent.high is None
        else sorted((parent.low * scale + shift, parent.high * scale + shift))
    )
    chain = (*parent.chain, name.rstrip("_"))[-_CHAIN:]
    low, high = ends if ends is not None else (None, None)
    return replace(parent, chain=chain, args={}, mean=mean, std=std, low=low, high=high, source=None)


def _coefficients(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[float | None, float | None]:
    if name in ("neg", "neg_", "negative"):
        return -1.0, 0.0
    if len(args) != 2 or set(kwargs) - {"alpha", "other"}:
        return None, None
    number = scalar(args[1] if isinstance(args[0], torch.Tensor) else args[0])
    if number is None:
        return None, None
    if name in _PRODUCTS:
        return number, 0.0
    if name in _QUOTIENTS and isinstance(args[0], torch.Tensor):
        return (1.0 / number, 0.0) if number else (None, None)
    alpha = scalar(kwargs.get("alpha", 1.0))
    if name in _SHIFTS and alpha is not None:
        if isinstance(args[0], torch.Tensor):
            return 1.0, _SHIFTS[name] * number * alpha
        return _SHIFTS[name] * alpha, number
    if name in ("rsub", "__rsub__"):
        return -1.0, number
    return None, None


def scalar(value: Any) -> float | None:
    """A plain number, also from a tensor with one element; ``None`` for anything else."""
    if isinstance(value, bool | int | float):
        return float(value)
    if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_meta and not value.is_complex():
        return float(value.detach().reshape(()).item())
    return None


def plain(value: Any) -> Plain:
    """A value as an argument in the record: plain numbers and strings, short lists; ``None`` otherwise."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, torch.Tensor):
        return scalar(value)
    if isinstance(value, list | tuple) and len(value) <= 8:
        return [plain(item) for item in value]
    return None


def resolved(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, skip: int) -> dict[str, Plain]:
    """Arguments of a call by name, defaults included, the ``skip`` leading tensor arguments left out."""
    signature = SIGNATURES.get(name)
    found: dict[str, Plain] = {}
    if signature is not None:
        found.update({key: default for key, default in signature if default is not None})
        found.update({key: plain(value) for (key, _), value in zip(signature, args[skip:], strict=False)})
    for key, value in kwargs.items():
        if key in ("out", "generator", "device", "requires_grad", "layout", "pin_memory", "tensor", "memory_format"):
            continue
        if isinstance(value, torch.Tensor) and value.numel() != 1:
            continue
        found[RENAMED.get(key, key)] = plain(value)
    return {key: value for key, value in found.items() if value is not None}
