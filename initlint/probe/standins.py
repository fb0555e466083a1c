"""What stands in for the caller's world while a model's file is imported: missing modules, the command line."""

from __future__ import annotations

import argparse
import contextlib
import dis
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from initlint.errors import ProbeError
from initlint.probe.distributions import remedy

# Code asks for versions to take the way that new ones need; the newest of all takes it.
_VERSION = "99.0.0"


class Missing:
    """Stands in for something that could not be imported; harmless until the model uses it."""

    def __init__(self, name: str, reason: str, error: ProbeError | None = None) -> None:
        self.__dict__["_initlint_missing"] = (name, reason)
        self.__dict__["_initlint_error"] = error

    def _fail(self) -> ProbeError:
        error = self.__dict__["_initlint_error"]
        if error is not None:
            return ProbeError(error.message, error.hint)
        name, reason = self.__dict__["_initlint_missing"]
        return ProbeError(f"it needs {name}, which cannot be imported here: {reason}", remedy(name, reason))

    def __getattr__(self, name: str) -> Any:
        if name == "__version__":
            return _VERSION
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        base, reason = self.__dict__["_initlint_missing"]
        return Missing(f"{base}.{name}", reason, self.__dict__["_initlint_error"])

    def __getitem__(self, _: object) -> Missing:
        return self

    def __or__(self, _: object) -> Missing:
        return self

    __ror__ = __or__

    def __iter__(self) -> Iterator[Any]:
        raise self._fail()  # with __getitem__ alone, a loop over it would never end

    def __contains__(self, _: object) -> bool:
        raise self._fail()

    def _refuse(self, *_: object) -> Any:
        raise self._fail()

    # What can be computed from it is not known: the reason is that it is missing, not that its type does not fit.
    __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __matmul__ = __rmatmul__ = _refuse
    __neg__ = __len__ = __int__ = __float__ = __index__ = __enter__ = __exit__ = _refuse

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and (isinstance(args[0], type) or callable(args[0])):
            return args[0]  # used as a decorator: what it would add is not needed to build
        if _is_plain((args, kwargs)) and _is_dropped(sys._getframe(1)):
            return None  # a call that only says something: warnings, logs, marks
        raise self._fail()

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        from initlint.probe.standins_lightning import is_lightning_module, make

        if is_lightning_module(self.__dict__["_initlint_missing"][0]):
            return (make(),)
        if any(_is_module(base) for base in bases):  # a mixin: what it would add is not needed to build
            return (type("Mixin", (_Keywords,), {"__slots__": ()}),)  # one of its own, for bases must differ
        raise self._fail()

    def __instancecheck__(self, _: object) -> bool:
        return False

    def __subclasscheck__(self, _: type) -> bool:
        return False

    def __bool__(self) -> bool:
        return False


class _Keywords:
    """A base that takes what is said in the head of a class: ``class Net(nn.Module, Mixin, license="mit")``."""

    __slots__ = ()

    def __init_subclass__(cls, **_: Any) -> None:
        super().__init_subclass__()


def _is_plain(value: Any) -> bool:
    """Whether this holds nothing that a call could initialise or build upon: texts, numbers, types."""
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, int, float, Missing, type))


def _is_dropped(frame: FrameType) -> bool:
    """Whether the call that a frame is making is a statement of its own, whose value nobody takes."""
    steps = iter(dis.get_instructions(frame.f_code))
    for step in steps:
        if step.offset >= frame.f_lasti:
            following = next(steps, None)
            return step.opname.startswith("CALL") and following is not None and following.opname == "POP_TOP"
    return False


def _is_module(base: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(base, type) and issubclass(base, torch.nn.Module)


@contextlib.contextmanager
def relaxed_argparse(path: str, notes: list[str]) -> Iterator[None]:
    """An empty command line that never makes ``parse_args`` exit: required arguments become optional."""
    argv, parse = sys.argv[:], argparse.ArgumentParser.parse_known_args
    sys.argv[:] = [path]

    def parse_known_args(
        self: argparse.ArgumentParser, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        if args is None:
            for action in self._actions:
                if action.required:
                    action.required = False
                    notes.append(f"the command-line argument {action.dest} is required and was left empty")
                if not action.option_strings and action.nargs is None:
                    action.nargs = "?"
            args = []
        return parse(self, args, namespace)

    argparse.ArgumentParser.parse_known_args = parse_known_args  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        argparse.ArgumentParser.parse_known_args = parse  # type: ignore[method-assign]
        sys.argv[:] = argv
