"""Which line of user code is running: the innermost frame outside torch and initlint."""

from __future__ import annotations

import linecache
import os
import sys
from itertools import islice
from types import CodeType, FrameType

import torch

from initlint.facts import Site

_TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_STDLIB = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_PACKAGES = os.sep + "site-packages" + os.sep

_sites: dict[tuple[CodeType, int], Site] = {}
_foreign: dict[str, bool] = {}


def _is_foreign(file: str) -> bool:
    """Whether a file belongs to torch, initlint or the standard library (not third-party packages)."""
    known = _foreign.get(file)
    if known is None:
        library = file.startswith(_STDLIB) and _PACKAGES not in file
        known = _foreign[file] = file.startswith((_TORCH, _OURS, "<")) or library
    return known


def user_site(skip: int = 1) -> Site | None:
    """Site of the innermost user frame inside the forward, ``None`` when there is none.

    Looks no further out than the function named ``run`` of initlint that started the forward.

    Args:
        skip: frames to leave out, 1 is the caller's own.
    """
    frame: FrameType | None = sys._getframe(skip)
    while frame is not None:
        if frame.f_code.co_name == "run" and frame.f_code.co_filename.startswith(_OURS):
            return None
        if not _is_foreign(frame.f_code.co_filename):
            return _site(frame.f_code, frame.f_lasti)
        frame = frame.f_back
    return None


def _site(code: CodeType, lasti: int) -> Site:
    site = _sites.get((code, lasti))
    if site is None:
        line, end, column, _ = next(islice(code.co_positions(), lasti // 2, None), (None, None, None, None))
        line = line or code.co_firstlineno
        site = _sites[code, lasti] = Site(
            file=code.co_filename,
            line=line,
            column=None if column is None else column + 1,
            function=code.co_qualname,
            text=linecache.getline(code.co_filename, line).strip(),
            end_line=end if end is not None and end > line else None,
        )
    return site
