"""Names that user code tests against patterns while a model is built: ``re.fullmatch(pattern, name)``."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable
from dataclasses import field
from types import CodeType
from typing import Any

from initlint.facts import Plain
from initlint.probe.sites import USER, Origins
from initlint.records import dataclass

#: More tests than this are no selection of parameters.
_MOST = 200_000


@dataclass(slots=True)
class Tested:
    """A pattern at one place in the source: what was tested, in order, and whether anything matched."""

    pattern: str
    flags: int
    known: dict[str, Plain]  # plain local variables of the function around it, at the first test
    names: list[str] = field(default_factory=list)
    matched: bool = False


@dataclass(slots=True)
class Matching:
    """A call that tests names against patterns."""

    code: CodeType
    lasti: int
    function: str  # "match" | "search" | "fullmatch" | "fnmatch" | "fnmatchcase"
    patterns: dict[tuple[str, int], Tested] = field(default_factory=dict)


class Matchings:
    """Notes the calls of matching functions from the user's own files."""

    def __init__(self, origins: Origins) -> None:
        self._origins = origins
        self._count = 0
        self.found: dict[tuple[int, int], Matching] = {}  # by code object and instruction

    def noting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """The function (pattern first), noting what the user's code asks it; ``fnmatch`` takes the name first."""
        function = original.__name__
        swapped = function.startswith("fnmatch")

        @functools.wraps(original)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            frame = sys._getframe(1)
            if len(args) >= 2 and self._origins.of(frame.f_code.co_filename) == USER and self._count < _MOST:
                pattern, name = (args[1], args[0]) if swapped else (args[0], args[1])
                flags = args[2] if len(args) > 2 else kwargs.get("flags", 0)
                if isinstance(pattern, re.Pattern):
                    pattern, flags = pattern.pattern, pattern.flags
                if isinstance(pattern, str) and isinstance(name, str):
                    self._note(function, frame, (pattern, int(flags)), name, matched=bool(result))
            return result

        return wrapper

    def _note(self, function: str, frame: Any, pattern: tuple[str, int], name: str, *, matched: bool) -> None:
        self._count += 1
        key = id(frame.f_code), frame.f_lasti
        site = self.found.get(key)
        if site is None:
            site = self.found[key] = Matching(frame.f_code, frame.f_lasti, function)
        tested = site.patterns.get(pattern)
        if tested is None:
            known: dict[str, Plain] = {
                k: v for k, v in frame.f_locals.items() if isinstance(v, bool | int | float | str)
            }
            tested = site.patterns[pattern] = Tested(*pattern, known)
        tested.names.append(name)
        tested.matched |= matched
