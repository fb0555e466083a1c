"""Which arguments of a forward need a value: those without a default, and those that the model asks for."""

from __future__ import annotations

import inspect
import re

from torch import nn

from initlint.probe.inputs_absent import absent
from initlint.probe.inputs_source import entries
from initlint.records import dataclass

# How code says that an argument it declares optional is needed after all.
_DEMAND = re.compile(r"\b(must|have to|has to|needs?|required?|requires|specify|provided?|expected|missing)\b", re.I)
# "either input_ids or inputs_embeds": both at once would be refused.
_EITHER = re.compile(r"\b(either|exactly (?:one|1)|one of)\b", re.I)


@dataclass(frozen=True, slots=True)
class Argument:
    """A parameter of the forward that needs a value."""

    name: str
    keyword: bool
    annotation: str
    variadic: bool = False


def needed(model: nn.Module) -> list[Argument]:
    """Arguments without default; when all have one, the first; ``*args`` as one."""
    try:
        parameters = list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):
        return [Argument("input", False, "")]
    found: list[Argument] = []
    for p in parameters:
        if p.kind is p.VAR_POSITIONAL:
            if not found:
                found.append(Argument(p.name, False, _annotation(p), variadic=True))
        elif p.kind is p.VAR_KEYWORD:
            found += [Argument(name, True, "") for name in entries(model).get(p.name, ())]
        elif p.default is p.empty:
            found.append(Argument(p.name, p.kind is p.KEYWORD_ONLY, _annotation(p)))
    if not found and parameters and parameters[0].kind is not inspect.Parameter.VAR_KEYWORD:
        first = parameters[0]
        found.append(Argument(first.name, first.kind is first.KEYWORD_ONLY, _annotation(first)))
    return found


def demanded(model: nn.Module, error: BaseException, known: list[Argument]) -> list[Argument]:
    """Optional arguments that the model asks for by name ("labels must be given"), or uses where they are None."""
    text = str(error)
    choices = [a.name for a in optional(model)]
    words: set[str] = set()
    if isinstance(error, (ValueError, TypeError, AssertionError, RuntimeError)) and _DEMAND.search(text):
        named = [w for w in dict.fromkeys(re.findall(r"\w+", text)) if w in choices]
        words.update(named[:1] if _EITHER.search(text) else named)
    code = getattr(inspect.unwrap(model.forward), "__code__", None)
    words.update(absent(error, code) if code is not None else ())
    words -= {a.name for a in known}
    return [a for a in optional(model) if a.name in words]


def optional(model: nn.Module) -> list[Argument]:
    """Arguments that are None when they are not given."""
    return [
        Argument(p.name, True, _annotation(p))
        for p in inspect.signature(model.forward).parameters.values()
        if p.default is None and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]


def _annotation(parameter: inspect.Parameter) -> str:
    a = parameter.annotation
    return "" if a is parameter.empty else a if isinstance(a, str) else getattr(a, "__name__", str(a))
