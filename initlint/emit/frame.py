"""The lines of code around a place, and what of them to underline."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

from initlint.emit.common import Options, clean
from initlint.facts import Site

#: Lines of code shown before the one at fault.
BEFORE = 2
#: Lines shown of a statement that spans several.
MOST_CODE = 6

_BRACKETS = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class Frame:
    """Numbered lines, clean and without their common indentation; ``start`` and ``end`` underline in ``line``."""

    lines: tuple[tuple[int, str], ...]
    line: int
    end_line: int
    start: int
    end: int


def code_frame(site: Site | None, options: Options) -> Frame | None:
    """The frame around a place, from the file or else from the record of the line; ``None`` without either."""
    if site is None:
        return None
    source = options.sources(site.file) if site.file else ()
    if not 1 <= site.line <= len(source) or (site.text and site.text not in source[site.line - 1]):
        # no such file, or it is not the one that ran: what was recorded at run time is right
        text = clean(site.text)
        return Frame(((site.line, text),), site.line, site.line, *_marked(text, None)) if text else None
    first = max(1, site.line - BEFORE)
    last = min(max(site.end_line or 0, site.line), site.line + MOST_CODE - 1, len(source))
    chosen = [line.expandtabs(4) for line in source[first - 1 : last]]
    while chosen and not chosen[0].strip() and first < site.line:
        chosen, first = chosen[1:], first + 1
    dedented = [clean(line) for line in textwrap.dedent("\n".join(chosen)).split("\n")]
    fault = dedented[site.line - first]
    removed = len(chosen[site.line - first]) - len(fault)
    column = len(source[site.line - 1][: site.column - 1].expandtabs(4)) - removed if site.column else None
    numbered = tuple((first + index, line) for index, line in enumerate(dedented))
    return Frame(numbered, site.line, site.end_line or site.line, *_marked(fault, column))


def _marked(text: str, column: int | None) -> tuple[int, int]:
    """First and one-past-last character to underline: the expression at the column, else the statement."""
    whole = len(text) - len(text.lstrip()), len(text.split("  #")[0].rstrip())
    if column is not None and whole[0] <= column < whole[1]:
        return column, max(_expression_end(text, column, whole[1]), column + 1)
    return whole[0], max(whole[1], whole[0] + 1)


def _expression_end(text: str, start: int, limit: int) -> int:
    """Where a name with its calls and subscripts ends; the limit when a bracket stays open on the line."""
    position = start
    while position < limit:
        if text[position] in _BRACKETS:
            position = _closing(text, position, limit)
            continue
        word = re.compile(r"[\w.]+").match(text, position, limit)
        if word is None:
            break
        position = word.end()
    # an operand of a larger expression (`torch.randn(3) * 0.02`): the whole is meant
    rest = text[position:limit].strip()
    ends = rest[:1] in tuple(")]},:") or rest.startswith(("for ", "if ", "else "))
    return position if position > start and ends else limit


def _closing(text: str, position: int, limit: int) -> int:
    """One past the bracket that closes the one at ``position``; quoted brackets do not count."""
    depth, quote = 0, ""
    for index in range(position, limit):
        letter = text[index]
        if quote:
            quote = "" if letter == quote and text[index - 1] != "\\" else quote
        elif letter in "\"'":
            quote = letter
        elif letter in _BRACKETS:
            depth += 1
        elif letter in _BRACKETS.values():
            depth -= 1
            if depth == 0:
                return index + 1
    return limit
