"""Selectors that select nothing, and what they were probably meant to select."""

from __future__ import annotations

import re

import torch

from initlint.probe.statements_conditions import Condition

#: A slip of the pen is told from another word from this length on: among shorter ones most are one letter apart.
_WORD = 4
#: Classes that are everybody's base say nothing about kinship.
_ROOTS = (object, torch.nn.Module)
#: What holds parameters themselves, as a list or by name.
_HOLDERS = (torch.nn.ParameterList, torch.nn.ParameterDict)


def kin(cls: type, wanted: type) -> bool:
    """Whether two module classes are variants of one operation: they share a base below ``nn.Module``.

    ``Conv1d`` and ``Conv3d`` share ``_ConvNd``; transposed convolutions have a layout of their own and
    are kin among themselves only. Lists and dictionaries of parameters are kin.
    """
    if issubclass(cls, _HOLDERS) and issubclass(wanted, _HOLDERS):
        return True
    if any("Transpose" in part.__name__ for part in cls.__mro__) != any(
        "Transpose" in part.__name__ for part in wanted.__mro__
    ):
        return False
    common = set(cls.__mro__) & set(wanted.__mro__) - set(_ROOTS)
    return any(issubclass(base, torch.nn.Module) and base.__module__.startswith("torch.nn.") for base in common)


def near_class(condition: Condition, module: torch.nn.Module) -> bool:
    """Whether a test on classes (or attributes) that no module passes was meant for this module."""
    if condition.kind == "class_name":
        return any(near(value, type(module).__name__) for value in condition.values)
    if condition.kind == "hasattr":
        return any(near(value, name) for value in condition.values for name in module._parameters)
    return any(kin(type(module), wanted) for wanted in condition.classes)


def near_name(condition: Condition, name: str) -> bool:
    """Whether a test on names that no name passes was meant for this one.

    It passes a trailing part of the name (``name == "weight"`` where names are ``"fc.weight"``), or would without a
    difference of case, one mistyped letter, or the number behind it (``"fc2" in name``).
    """
    return condition.test(name) is True or any(
        near(value, name) or _numbered(value, name) for value in condition.values
    )


def _numbered(value: str, name: str) -> bool:
    """Whether a part of a dotted name is the text without its number: ``fc`` of ``"fc.weight"`` for ``"fc2"``."""
    stem = value.rstrip("0123456789")
    return len(stem) > 1 and stem != value and stem in name.split(".")


def near(value: str, name: str) -> bool:
    """Whether a text is in a name but for a difference of case or one mistyped letter."""
    if not value:
        return False
    if value.lower() in name.lower():
        return True
    wanted, there = words_of(value), words_of(name)
    return any(_one_slip(wanted, there[start : start + len(wanted)]) for start in range(len(there) - len(wanted) + 1))


def words_of(text: str) -> list[str]:
    """The words and numbers of a name."""
    return re.findall(r"[a-z]+|[0-9]+", text.lower())


def _one_slip(one: list[str], other: list[str]) -> bool:
    """Whether two lists of words differ in one letter of one word."""
    different = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
    if len(different) != 1:
        return False
    first, second = different[0]
    return min(len(first), len(second)) >= _WORD and first.isalpha() and second.isalpha() and _slip(first, second)


def _slip(first: str, second: str) -> bool:
    """One letter more, less or other, or two neighbours exchanged (four of five spelling errors: Damerau 1964)."""
    if len(first) > len(second):
        first, second = second, first
    if len(second) - len(first) > 1:
        return False
    start = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), len(first))
    if len(first) < len(second):
        return first[start:] == second[start + 1 :]
    exchanged = (
        first[start : start + 2][::-1] == second[start : start + 2] and first[start + 2 :] == second[start + 2 :]
    )
    return first[start + 1 :] == second[start + 1 :] or exchanged
