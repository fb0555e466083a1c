"""``dataclass`` with slots, at a fifth of the time that the standard one takes to make a class.

The standard decorator compiles six methods for every class, 1 ms each time that initlint starts; the worker makes two
hundred classes before its first target, a cached check seventy, and they need the constructors of few. Here the
constructor is compiled on its first call, and the other methods are shared by all classes. What comes out is a
dataclass in every other respect (``fields``, ``replace``, ``is_dataclass``, pattern matching); type checkers see the
standard decorator.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(cls: type | None = None, /, **options: Any) -> Any:
        """As the standard decorator, and cheaper with ``slots=True``, ``frozen`` and ``eq`` as one likes."""

        def wrap(cls: type) -> type:
            inherits = any("__dataclass_fields__" in vars(base) for base in cls.__mro__[1:])
            if not options.get("slots") or options.keys() - {"slots", "frozen", "eq"} or inherits:
                return dataclasses.dataclass(cls, **options)
            return _make(cls, frozen=options.get("frozen", False), eq=options.get("eq", True))

        return wrap if cls is None else wrap(cls)


def _make(cls: type, *, frozen: bool, eq: bool) -> type:
    shared = _SHARED | (_COMPARED if eq else {}) | (_FROZEN if frozen else {})
    if eq and not frozen:  # what changes has no hash
        shared["__hash__"] = None
    methods = {name: method for name, method in shared.items() if name not in vars(cls)}
    made: Any = dataclasses.dataclass(cls, init=False, repr=False, eq=False, slots=True)
    for name, method in methods.items():
        setattr(made, name, method)
    made.__init__ = _constructor(made)
    _uncompiled.add(made)
    made.__dataclass_params__.frozen, made.__dataclass_params__.eq = frozen, eq
    made.__dataclass_params__.init = made.__dataclass_params__.repr = True
    return made  # type: ignore[no-any-return]


#: Classes whose constructor no call has compiled yet.
_uncompiled: set[Any] = set()


def compile_all() -> None:
    """Compile what is left, for a process that is going to fork often: half a millisecond a class."""
    for cls in tuple(_uncompiled):
        _compiled(cls)


def _compiled(cls: Any) -> None:
    if cls in _uncompiled:
        cls.__init__ = _compile(cls)
        _uncompiled.discard(cls)


def _constructor(cls: Any) -> Callable[..., None]:
    """An ``__init__`` that puts the compiled one in its own place when it is first called."""

    def first(self: Any, /, *args: Any, **kwargs: Any) -> None:
        _compiled(cls)
        cls.__init__(self, *args, **kwargs)

    return first


def _compile(cls: Any) -> Callable[..., None]:
    """Write the constructor as one would by hand, and compile it."""
    names: dict[str, Any] = {"put": object.__setattr__, "absent": dataclasses.MISSING}
    head, body = ["self"], []
    keyword, frozen = False, cls.__dataclass_params__.frozen
    for index, field in enumerate(dataclasses.fields(cls)):
        made = field.default_factory is not dataclasses.MISSING
        if made:
            names[f"f{index}"] = field.default_factory
        elif field.default is not dataclasses.MISSING:
            names[f"d{index}"] = field.default
        if field.init:
            if field.kw_only and not keyword:
                head.append("*")
                keyword = True
            default = "=absent" if made else f"=d{index}" if f"d{index}" in names else ""
            head.append(f"{field.name}{default}")
            value = f"f{index}() if {field.name} is absent else {field.name}" if made else field.name
        elif made or f"d{index}" in names:
            value = f"f{index}()" if made else f"d{index}"
        else:
            continue
        body.append(f" put(self, {field.name!r}, {value})" if frozen else f" self.{field.name} = {value}")
    if hasattr(cls, "__post_init__"):
        body.append(" self.__post_init__()")
    exec("\n".join([f"def __init__({', '.join(head)}):", *body, " return None"]), names)
    function: Callable[..., None] = names["__init__"]
    function.__qualname__ = f"{cls.__qualname__}.__init__"  # named in the message of a wrong call
    return function


_readers: dict[type, Callable[[Any], Any]] = {}


def _reader(cls: type) -> Callable[[Any], Any]:
    """What reads all compared fields of an instance at once."""
    if cls not in _readers:
        names = [field.name for field in dataclasses.fields(cls) if field.compare]
        _readers[cls] = operator.attrgetter(*names) if names else lambda _: ()
    return _readers[cls]


def _repr(self: Any) -> str:
    shown = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self) if f.repr)
    return f"{type(self).__qualname__}({shown})"


def _eq(self: Any, other: object) -> Any:
    if type(other) is not type(self):
        return NotImplemented
    read = _reader(self.__class__)
    return self is other or read(self) == read(other)


def _hash(self: Any) -> int:
    return hash(_reader(self.__class__)(self))


def _get_state(self: Any) -> list[Any]:
    return [getattr(self, field.name) for field in dataclasses.fields(self)]


def _refuse_set(self: Any, name: str, value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_delete(self: Any, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _set_state(self: Any, state: list[Any]) -> None:
    for field, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, field.name, value)


_SHARED: dict[str, Callable[..., Any] | None] = {"__repr__": _repr}
_COMPARED = {"__eq__": _eq, "__hash__": _hash}
_FROZEN = {
    "__setattr__": _refuse_set,
    "__delattr__": _refuse_delete,
    "__getstate__": _get_state,  # what copy and pickle do by themselves would be refused
    "__setstate__": _set_state,
}
