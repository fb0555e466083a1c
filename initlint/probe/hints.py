"""What would let a model be built that could not be: arguments that can be typed, a factory, a file; else nothing."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from typing import Any

from initlint.probe import conventions
from initlint.probe.arguments import parameters_of, required

#: Arguments that a hint names at most, where any of them may be the one.
_NAMED = 6


def hint_for(error: BaseException, subject: Any, identity: str, *, called: bool) -> str:
    """A way to build what failed, or ``""`` where none is known.

    Args:
        error: why it failed; its cause is the exception of the constructor.
        identity: the target without arguments.
        called: whether the user gave arguments already.
    """
    factory = f"Write a small factory function in {_file(identity)} that returns it, and name that instead."
    cause = error.__cause__
    if isinstance(cause, FileNotFoundError):
        return _of_file(cause, subject, identity)
    if called:
        return ""
    if names := required(subject):
        return call(identity, names) if all(_can_be_typed(subject, name) for name in names) else factory
    if names := left_out(subject):
        return call(identity, names)
    if isinstance(subject, type) and not parameters_of(subject) and cause is not None:
        return "Its constructor fails in plain Python, too: mend it there."
    return ""


def left_out(subject: Any) -> list[str]:
    """Optional arguments whose defaults stand for nothing: ``None``, an empty tuple."""
    empty = [p.name for p in parameters_of(subject) if p.default is None or _is_empty(p.default)]
    return [name for name in empty if _can_be_typed(subject, name)][:_NAMED]


def for_empty(subject: Any, identity: str) -> str:
    """For a model that its defaults leave without parameters."""
    names = left_out(subject)
    return f"{call(identity, names)}, or a factory function in {_file(identity)} that returns it." if names else ""


def _file(identity: str) -> str:
    path, _, name = identity.partition("::")
    return os.path.basename(path) if name else "its module"


def call(identity: str, names: Sequence[str]) -> str:
    """A command with a place for each argument: ``initlint 'net.py::Net(depth=..., width=...)'``."""
    return f"initlint '{identity}({', '.join(f'{name}=...' for name in names)})'"


def _of_file(cause: FileNotFoundError, subject: Any, identity: str) -> str:
    """For a file that is missing: the argument whose default it is, else where it is looked for."""
    path = cause.filename
    if not isinstance(path, (str, os.PathLike)):
        return ""
    name = next((p.name for p in parameters_of(subject) if isinstance(p.default, str) and p.default == str(path)), "")
    if name:
        return f"initlint '{identity}({name}=...)' with a file that is there."
    return "" if os.path.isabs(path) else "The file is looked for from the working directory: run initlint where it is."


def _is_empty(default: Any) -> bool:
    return isinstance(default, (tuple, list, dict, str)) and not default


def _can_be_typed(subject: Any, name: str) -> bool:
    """Whether a literal will do: no module, no object whose attributes are read, nothing that is called."""
    usage = conventions.uses(subject).get(name, conventions.Usage())
    annotation = next((p.annotation for p in parameters_of(subject) if p.name == name), inspect.Parameter.empty)
    if isinstance(annotation, type) and annotation is not inspect.Parameter.empty:
        return annotation.__module__ == "builtins"
    return not (usage.module or usage.attributes or usage.checked or usage.called >= 0)
