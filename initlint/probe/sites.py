"""Where in the user's source something happened: frames are noted cheaply, places resolved later.

While a model is built thousands of frames are noted, and hardly any is ever shown. So only the code
object and the instruction offset are kept; line and columns come from ``co_positions()`` when asked.
"""

from __future__ import annotations

import linecache
import os
import sysconfig
from collections.abc import Iterable
from types import CodeType, FrameType
from typing import Final

from initlint.facts import Site

#: A noted frame: code object and ``f_lasti``.
Noted = tuple[CodeType, int]
#: ``(line, end_line, column, end_column)``; lines from 1, columns from 0 in UTF-8 bytes, as ``ast`` has them.
Span = tuple[int, int, int, int]

USER: Final = 0
TORCH: Final = 1
INIT: Final = 2  # torch/nn/init.py
STDLIB: Final = 3  # also generated code ("<string>", "<frozen ...>"): transparent
OWN: Final = 4  # initlint itself
LIBRARY: Final = 5  # other installed packages
LAYER: Final = 6  # torch/nn: layers and what they are made of
ERRAND: Final = 7  # parts of torch that act on the user's behalf: conversions, copies, loading, parametrizations
FILES: Final = 8  # libraries that read weights from files

#: Directories of installed packages, whatever the environment is called.
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
#: Interactive input is the user's, other generated code is not.
_INTERACTIVE = ("<stdin>", "<ipython", "<cell")


#: Files of torch whose functions give an operation a meaning of its own.
_ERRANDS = tuple(
    os.path.join("torch", *parts)
    for parts in (
        ("nn", "modules", "module.py"),
        ("nn", "parameter.py"),
        ("nn", "utils", "parametrize.py"),
        ("serialization.py",),
        ("hub.py",),
    )
)


def _folder(path: str) -> str:
    return os.path.join(os.path.realpath(path), "")


# Asked once, before the worker forks: it takes 8 ms.
_STDLIB = tuple({_folder(sysconfig.get_path(key)) for key in ("stdlib", "platstdlib")})


class Origins:
    """Tells user code from torch, the standard library, installed packages and initlint, by file name.

    Args:
        torch_folder: the folder of the torch package.
        user_roots: folders (or files) that count as user code although they are installed packages.
    """

    def __init__(self, torch_folder: str, user_roots: Iterable[str] = ()) -> None:
        self._torch = _folder(torch_folder)
        self._init = os.path.join(self._torch, "nn", "init.py")
        self._own = _folder(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        self._roots = tuple(os.path.realpath(root) for root in user_roots)
        self.known: dict[str, int] = {}  # by file name, for callers in a hurry
        self.boundary: FrameType | None = None  # the frame that records: walks end there

    def of(self, filename: str) -> int:
        """The origin (``USER``, ``TORCH`` ...) of code from this file."""
        known = self.known.get(filename)
        if known is None:
            known = self.known[filename] = self._judge(filename)
        return known

    def _judge(self, filename: str) -> int:
        if filename.startswith("<"):
            return USER if filename.startswith(_INTERACTIVE) else STDLIB
        path = os.path.realpath(filename)
        if path.startswith(self._torch):
            if path == self._init:
                return INIT
            if path.endswith(_ERRANDS):
                return ERRAND
            return LAYER if path.startswith(os.path.join(self._torch, "nn", "")) else TORCH
        if any(path == root or path.startswith(root + os.sep) for root in self._roots):
            return USER
        if path.startswith(self._own):
            return OWN
        if any(part in path for part in _INSTALLED):
            return FILES if f"{os.sep}safetensors{os.sep}" in path else LIBRARY
        return STDLIB if path.startswith(_STDLIB) else USER


def span(noted: Noted) -> Span | None:
    """Exact source range of the noted instruction, or ``None`` when the interpreter does not know it."""
    code, lasti = noted
    positions = _positions(code)
    index = lasti // 2
    if not 0 <= index < len(positions):
        return None
    line, end_line, column, end_column = positions[index]
    if line is None:
        return None
    return line, line if end_line is None else end_line, column or 0, end_column or 0


_position_cache: dict[int, tuple[CodeType, list[tuple[int | None, int | None, int | None, int | None]]]] = {}


def _positions(code: CodeType) -> list[tuple[int | None, int | None, int | None, int | None]]:
    # Keyed by id with the code kept alive: hashing a code object hashes its constants every time.
    entry = _position_cache.get(id(code))
    if entry is None:
        entry = _position_cache[id(code)] = (code, list(code.co_positions()))
    return entry[1]


def site(noted: Noted) -> Site:
    """The place of a noted frame; columns count characters from 1."""
    code = noted[0]
    where = span(noted)
    if where is None:
        return Site(code.co_filename, code.co_firstlineno, None, code.co_qualname)
    return make_site(code.co_filename, where, code.co_qualname)


def make_site(file: str, where: Span, function: str) -> Site:
    """A ``Site`` for a source range; reads the line's text if the file can be read."""
    line, end_line, column, _ = where
    text = linecache.getline(file, line)
    start = len(text.encode()[:column].decode(errors="ignore")) if text else column
    return Site(file, line, start + 1, function, text.strip(), end_line if end_line != line else None)


def user_frames(frame: FrameType | None, origins: Origins) -> tuple[Noted, ...]:
    """All frames of user code from here outwards, innermost first, up to the frame that records."""
    found: list[Noted] = []
    known, boundary = origins.known, origins.boundary
    while frame is not None:
        code = frame.f_code
        origin = known.get(code.co_filename)
        if (origins.of(code.co_filename) if origin is None else origin) == USER:
            found.append((code, frame.f_lasti))
        if frame is boundary:
            break
        frame = frame.f_back
    return tuple(found)
