"""A finding as text, in the manner of rustc and ruff: headline, code frame, evidence, remedy."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from initlint.emit.common import Options, cells, clean, finite, number, place, relative, times, truncate
from initlint.emit.frame import code_frame
from initlint.emit.style import COLOURS, Style
from initlint.emit.view import listing, places
from initlint.facts import Scalar
from initlint.findings import Finding

_VERBATIM = ("actual", "expected", "write")  # aligned or code: not to be wrapped
_WORD = 10  # width of the words before the evidence ("parameters")


def finding_lines(finding: Finding, options: Options, style: Style) -> list[str]:
    """All lines of one finding."""
    colour = COLOURS[finding.severity]
    severity = style(f"{finding.severity.label} {clean(finding.code)}", colour, bold=True)
    name = style(clean(finding.name), bold=True)
    head = f"{place(finding)}: {finding.severity.label} {finding.code} {finding.name}: "
    message = wrapped(clean(finding.message), options.width, cells(clean(head)), 4)
    lines = [f"{style(place(finding), bold=True)}: {severity} {name}: {message[0]}", *message[1:]]
    frame, gutter = _frame_lines(finding, options, style)
    lines += frame
    indent = gutter + 3 + _WORD + 2
    for word, text in _evidence(finding, options.width - indent):
        bar = " " * gutter + style(" = ", "blue", bold=True)
        verbatim = word in _VERBATIM
        parts = text.split("\n") if verbatim else wrapped(text, options.width, indent, indent)
        parts = [parts[0], *(" " * indent + (line if verbatim else line.strip()) for line in parts[1:])]
        lines += [f"{bar}{style(f'{word:<{_WORD}}', bold=True)}  {parts[0]}", *parts[1:]]
    return lines


def wrapped(text: str, width: int, used: int, indent: int) -> list[str]:
    """Text in lines; ``used`` columns of the first are taken, the others are indented."""
    lines = textwrap.wrap(
        text,
        max(width, indent + 20),
        initial_indent=" " * min(used, max(width - 12, 0)),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    if not lines:
        return [""]
    if used > width - 12 or not lines[0].strip():
        return ["", *textwrap.wrap(text, width, initial_indent=" " * indent, subsequent_indent=" " * indent)]
    return [lines[0].lstrip(), *lines[1:]]


def _frame_lines(finding: Finding, options: Options, style: Style) -> tuple[list[str], int]:
    """The code around the finding with a line under what is at fault, and the width of the gutter."""
    frame = code_frame(finding.site, options)
    if frame is None:
        return [], 2
    gutter = len(str(frame.lines[-1][0]))
    bar = style("|", "blue", bold=True)
    blank = f"{' ' * gutter} {bar}"
    lines = [blank]
    for line, code in frame.lines:
        if line != frame.line:  # what lies around the fault may be cut, the fault itself is shown whole
            code = truncate(code, max(options.width - gutter - 3, 20))
        lines.append(f"{style(f'{line:>{gutter}}', 'blue', bold=True)} {bar} {code}")
        if line == frame.line:
            pad, carets = " " * cells(code[: frame.start]), "^" * cells(code[frame.start : frame.end])
            lines.append(f"{blank} {pad}{style(carets or '^', COLOURS[finding.severity], bold=True)}")
    return [*lines, blank], gutter


def _evidence(finding: Finding, room: int) -> list[tuple[str, str]]:
    found = []
    if named_already(finding):
        pass
    elif finding.parameters:
        found.append(("parameters", clean(listing(finding.parameters))))
    elif finding.layers:
        found.append(("layers", clean(listing(finding.layers))))
    found += compared(finding, room)
    if finding.effect:
        found.append(("effect", clean(finding.effect)))
    if finding.why:
        found.append(("why", clean(finding.why)))
    if finding.fix is not None and finding.fix.snippet:
        found.append(("write", "\n".join(clean(line) for line in finding.fix.snippet.splitlines())))
    elif finding.fix is not None:
        found.append(("fix", clean(finding.fix.title)))
    found += [("see", f"{clean(relative(r.file))}:{r.line} {clean(r.role)}") for r in places(finding)]
    if finding.sources:
        found.append(("source", clean("; ".join(finding.sources))))
    return found


def named_already(finding: Finding) -> bool:
    """Whether the message names the one parameter or layer that the finding is about."""
    names = finding.parameters or finding.layers
    return len(names) == 1 and f"`{names[0]}`" in finding.message


def compared(finding: Finding, room: int) -> list[tuple[str, str]]:
    """The actual and the expected values, the same thing below the same thing; in several pairs of lines at need."""
    pairs: list[tuple[list[str], list[str]]] = []
    used = room
    for key in compared_keys(finding):
        one = _value(key, finding.actual, ratio_of(finding.actual.get(key), finding.expected.get(key)))
        other = _value(key, finding.expected, None)
        width = max(cells(one), cells(other))
        if not pairs or used + 3 + width > room:
            pairs.append(([], []))
            used = -3
        used += 3 + width
        pairs[-1][0].append(one + " " * (width - cells(one)))
        pairs[-1][1].append(other + " " * (width - cells(other)))
    lines = [(w, "   ".join(v).rstrip()) for pair in pairs for w, v in zip(("actual", "expected"), pair, strict=True)]
    return [(word, text) for word, text in lines if text]


def compared_keys(finding: Finding) -> list[str]:
    """Names of the values, without a lone ``ratio``: it is written behind the two values it compares."""
    keys = dict.fromkeys((*finding.actual, *finding.expected))
    if any(ratio_of(finding.actual.get(key), finding.expected.get(key)) for key in keys):
        keys.pop("ratio", None)
    return list(keys)


def _value(key: str, values: Mapping[str, Scalar], ratio: float | None) -> str:
    if key not in values:
        return ""
    return f"{clean(key)} {number(values[key])}" + (f" ({times(ratio)})" if ratio is not None else "")


def ratio_of(actual: Scalar, expected: Scalar) -> float | None:
    """actual / expected where both are positive numbers and differ."""
    one, other = finite(actual), finite(expected)
    if one is None or other is None or one <= 0 or other <= 0 or one == other:
        return None
    return one / other
