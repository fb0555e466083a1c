"""Cheap dataclasses behave as the standard ones do."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest

from initlint.records import dataclass

KINDS = [
    {"frozen": True, "slots": True},
    {"slots": True},
    {"slots": True, "eq": False},
    {"frozen": True, "slots": True, "eq": False},
]


def pair(**options: Any) -> tuple[type, type]:
    """The same class made by both decorators."""
    made = []
    for decorator in (dataclass, dataclasses.dataclass):

        class Point:
            x: int
            tags: list[str] = dataclasses.field(default_factory=list)
            hidden: int = dataclasses.field(default=3, repr=False, compare=False)
            known: int = dataclasses.field(default=4, kw_only=True)
            later: int = dataclasses.field(init=False, default=5)

        made.append(decorator(**options)(Point))
    return made[0], made[1]


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_construction_and_fields(options: dict[str, Any]) -> None:
    ours, standard = pair(**options)
    for arguments, keywords in (((1,), {}), ((1, ["a"]), {"known": 7}), ((1,), {"tags": ["b"], "hidden": 9})):
        one, other = ours(*arguments, **keywords), standard(*arguments, **keywords)
        assert dataclasses.asdict(one) == dataclasses.asdict(other)
        assert repr(one) == repr(other)
    assert ours(1).tags is not ours(1).tags
    assert not hasattr(ours(1), "__dict__")
    with pytest.raises(TypeError):
        ours()
    with pytest.raises(TypeError):
        ours(1, [], 2, 3)


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_comparison_and_hash(options: dict[str, Any]) -> None:
    ours, standard = pair(**options)
    for cls in (ours, standard):
        equal = cls(1, hidden=2) == cls(1, hidden=8)
        assert equal is options.get("eq", True)
        assert cls(1) != cls(2)
        assert (cls.__hash__ is None) is (options.get("eq", True) and "frozen" not in options)
    assert ours(1) != standard(1)


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_assignment(options: dict[str, Any]) -> None:
    for cls in pair(**options):
        point = cls(1)
        if "frozen" in options:
            with pytest.raises(dataclasses.FrozenInstanceError):
                point.x = 2
            with pytest.raises(dataclasses.FrozenInstanceError):
                del point.x
        else:
            point.x = 2
        assert dataclasses.replace(point, x=3, hidden=6).x == 3
        assert point.x == (1 if "frozen" in options else 2)


@dataclass(frozen=True, slots=True)
class Frozen:
    x: int
    tags: tuple[str, ...] = ()


@dataclass(slots=True)
class Open:
    x: int
    tags: tuple[str, ...] = ()


@pytest.mark.parametrize("cls", [Frozen, Open])
def test_copies(cls: Any) -> None:
    value = cls(1, ("a",))
    assert copy.deepcopy(value) == copy.copy(value) == pickle.loads(pickle.dumps(value)) == value


def test_a_method_of_the_class_stays() -> None:
    @dataclass(slots=True)
    class Named:
        x: int

        def __repr__(self) -> str:
            return "named"

        def __post_init__(self) -> None:
            self.x += 1

    assert repr(Named(1)) == "named"
    assert Named(1).x == 2


def test_other_options_and_heirs_are_left_to_the_standard_decorator() -> None:
    @dataclass(frozen=True, slots=True, order=True)
    class Ordered:
        x: int

    assert Ordered(1) < Ordered(2)

    @dataclass(frozen=True, slots=True)
    class Heir(Frozen):
        more: int = 0

    assert Heir(1, ("a",), 2) == Heir(1, ("a",), 2)
