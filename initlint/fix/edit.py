"""Apply planned edits to the bytes of a file: encoding, line ends and everything around the edits stay as they are.

LibCST (the extra ``fix``) reads the file's encoding and line ends, and parses the result before anybody gets it.
"""

from __future__ import annotations

import difflib
import importlib
import itertools
import re
from collections.abc import Iterator, Sequence
from types import ModuleType

from initlint.errors import InitlintError, UsageError
from initlint.findings import Edit

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")
_BOM = b"\xef\xbb\xbf"


class EditError(InitlintError):
    """Edits that cannot be applied: the file has changed, or two edits want the same lines."""


def require_libcst() -> ModuleType:
    """LibCST. Raises ``UsageError`` where the extra is not installed."""
    try:
        return importlib.import_module("libcst")
    except ImportError as error:
        raise UsageError(
            f"fixes need LibCST, which could not be imported ({error})", "Install it: pip install 'initlint[fix]'."
        ) from error


def edited(content: bytes, edits: Sequence[Edit]) -> bytes:
    """The file's content with all edits made.

    Raises:
        EditError: the lines are not those that the edits were planned on, edits overlap, or the result is no Python.
        UsageError: LibCST is not installed.
    """
    libcst = require_libcst()
    try:
        module = libcst.parse_module(content)
    except (libcst.ParserSyntaxError, SyntaxError, ValueError, LookupError) as error:
        raise EditError(f"the file cannot be parsed: {type(error).__name__}") from error
    encoding = module.encoding.removesuffix("-sig")  # the byte order mark is put back below
    text = content.removeprefix(_BOM).decode(encoding)
    lines = [match.group() for match in _LINE.finditer(text) if match.group()]
    for edit in _ordered(edits):
        old = lines[edit.start - 1 : edit.end]
        if [line.rstrip("\r\n") for line in old] != edit.before.split("\n"):
            raise EditError(
                f"{edit.file} has changed since it was analysed (line {edit.start})", "Run initlint on it again."
            )
        end = "" if old and old[-1] == old[-1].rstrip("\r\n") else module.default_newline
        new = [line + module.default_newline for line in edit.text.split("\n")]
        lines[edit.start - 1 : edit.end] = [*new[:-1], new[-1].rstrip("\r\n") + end]
    result = "".join(lines)
    try:
        libcst.parse_module(result)
        data: bytes = result.encode(encoding)
    except (libcst.ParserSyntaxError, ValueError) as error:
        raise EditError("the edited file would not be valid Python") from error
    return _BOM + data if content.startswith(_BOM) else data


def clashes(first: Sequence[Edit], second: Sequence[Edit]) -> bool:
    """Whether two groups of edits want the same lines and do not agree on them."""
    return any(
        one.file == other.file and one.start <= other.end and other.start <= one.end and one != other
        for one in first
        for other in second
    )


def unified(file: str, old: bytes, new: bytes) -> Iterator[str]:
    """The lines of a unified diff, each with its newline."""
    before, after = (
        [match.group() for match in _LINE.finditer(data.decode("utf-8", "replace")) if match.group()]
        for data in (old, new)
    )
    for line in difflib.unified_diff(before, after, file, file):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _ordered(edits: Sequence[Edit]) -> list[Edit]:
    """The edits from the last to the first line, each once."""
    ordered = sorted(dict.fromkeys(edits), key=lambda edit: edit.start, reverse=True)
    for later, earlier in itertools.pairwise(ordered):
        if earlier.end >= later.start:
            raise EditError(f"two fixes change line {later.start}", "Apply one, then run initlint again.")
    return ordered
