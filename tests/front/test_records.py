"""The cheap ``dataclass`` behaves as the standard one."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import field

import pytest

from initlint.records import dataclass


@dataclass(frozen=True, slots=True)
class Cheap:
    """A point."""

    x: int
    y: float = 1.5
    names: list[str] = field(default_factory=list, hash=False, compare=False)
    hidden: int = field(default=0, repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Standard:
    """A point."""

    x: int
    y: float = 1.5
    names: list[str] = field(default_factory=list, hash=False, compare=False)
    hidden: int = field(default=0, repr=False)


@dataclass(slots=True)
class Mutable:
    """Left to the standard decorator."""

    x: int = 1


def test_it_reads_and_compares_as_the_standard_one() -> None:
    ours, theirs = Cheap(1, hidden=3), Standard(1, hidden=3)
    assert repr(ours) == repr(theirs).replace("Standard", "Cheap")
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)
    assert hash(ours) == hash(theirs)
    assert Cheap.__match_args__ == Standard.__match_args__
    assert ours == Cheap(1, hidden=3, names=["not compared"])
    assert ours != Cheap(2, hidden=3)
    assert ours != theirs
    assert not hasattr(ours, "__dict__")


def test_factories_make_a_new_value_each_time() -> None:
    assert Cheap(1).names is not Cheap(1).names
    assert Cheap(1, 2.0, ["a"]).names == ["a"]


def test_it_is_frozen_and_can_be_replaced_copied_and_pickled() -> None:
    one = Cheap(1, names=["a"])
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'x'"):
        one.x = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'x'"):
        del one.x  # type: ignore[misc]
    assert dataclasses.replace(one, y=2.0) == Cheap(1, 2.0)
    assert pickle.loads(pickle.dumps(one)).names == ["a"]
    assert copy.deepcopy(one) == one


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1, 2.0, [], 0, 5), {}), ((1,), {"z": 1})])
def test_a_wrong_call_is_refused(args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    with pytest.raises(TypeError, match=r"Cheap.__init__\(\)"):
        Cheap(*args, **kwargs)  # type: ignore[arg-type]


def test_anything_else_is_the_standard_dataclass() -> None:
    point = Mutable()
    point.x = 2
    assert point == Mutable(2)
