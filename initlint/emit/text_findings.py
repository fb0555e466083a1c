"""A finding as text, in the manner of rustc and ruff: headline, code frame, evidence, remedy."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from initlint.emit.common import Options, cells, clean, finite, number, place, relative, times
from initlint.emit.style import COLOURS, Style
from initlint.emit.view import listing
from initlint.facts import Scalar, Site
from initlint.findings import Finding

#: Lines of code shown before the one at fault.
BEFORE = 2
#: Lines of a statement that spans several shown at most.
MOST_CODE = 6
_VERBATIM = ("actual", "expected", "write")  # aligned or code: not to be wrapped
_WORD = 10  # width of the words before the evidence ("parameters")


def finding_lines(finding: Finding, options: Options, style: Style) -> list[str]:
    """All lines of one finding."""
    colour = COLOURS[finding.severity]
    severity = style(f"{finding.severity.label} {clean(finding.code)}", colour, bold=True)
    name = style(clean(finding.name), bold=True)
    head = f"{place(finding)}: {finding.severity.label} {finding.code} {finding.name}: "
    message = _wrapped(clean(finding.message), options.width, cells(clean(head)), 4)
    lines = [f"{style(place(finding), bold=True)}: {severity} {name}: {message[0]}", *message[1:]]
    frame, gutter = code_frame(finding, options, style)
    lines += frame
    for word, text in _evidence(finding):
        bar = " " * gutter + style(" = ", "blue", bold=True)
        indent = gutter + 3 + _WORD + 2
        wrapped = _wrapped(text, options.width, indent, indent) if word not in _VERBATIM else text.split("\n")
        wrapped = [wrapped[0], *(" " * indent + line.strip() for line in wrapped[1:])]
        lines += [f"{bar}{style(f'{word:<{_WORD}}', bold=True)}  {wrapped[0]}", *wrapped[1:]]
    return lines


def _wrapped(text: str, width: int, used: int, indent: int) -> list[str]:
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


def code_frame(finding: Finding, options: Options, style: Style) -> tuple[list[str], int]:
    """The code around the finding with a line under what is at fault, and the width of the gutter."""
    site = finding.site
    numbered = frame_lines(site, options) if site else []
    if site is None or not numbered:
        return [], 2
    gutter = len(str(numbered[-1][0]))
    bar = style("|", "blue", bold=True)
    blank = f"{' ' * gutter} {bar}"
    lines = [blank]
    for line, code in numbered:
        lines.append(f"{style(f'{line:>{gutter}}', 'blue', bold=True)} {bar} {clean(code)}")
        if line == site.line:
            start, end = underline(code)
            pad, carets = " " * cells(clean(code)[:start]), "^" * cells(clean(code)[start:end])
            lines.append(f"{blank} {pad}{style(carets or '^', COLOURS[finding.severity], bold=True)}")
    return [*lines, blank], gutter


def frame_lines(site: Site, options: Options) -> list[tuple[int, str]]:
    """Numbered source lines around a place, shared indentation removed; from the record where there is no file."""
    source = options.sources(site.file) if site.file else ()
    if not 1 <= site.line <= len(source) or (site.text and site.text not in source[site.line - 1]):
        # no such file, or it is not the one that ran: what was recorded at run time is right
        return [(site.line, site.text)] if site.text else []
    first = max(1, site.line - BEFORE)
    last = min(max(site.end_line or 0, site.line), site.line + MOST_CODE - 1, len(source))
    chosen = [line.expandtabs(4) for line in source[first - 1 : last]]
    while chosen and not chosen[0].strip() and first < site.line:
        chosen, first = chosen[1:], first + 1
    dedented = textwrap.dedent("\n".join(chosen)).split("\n")
    return [(first + index, line) for index, line in enumerate(dedented)]


def underline(code: str) -> tuple[int, int]:
    """First and one-past-last character of what is underlined in a line: all but indentation and comment."""
    text = clean(code)
    start = len(text) - len(text.lstrip())
    return start, max(len(text.split("  #")[0].rstrip()), start + 1)


def _evidence(finding: Finding) -> list[tuple[str, str]]:
    found = []
    if finding.parameters:
        found.append(("parameters", clean(listing(finding.parameters))))
    elif finding.layers:
        found.append(("layers", clean(listing(finding.layers))))
    found += compared(finding)
    if finding.effect:
        found.append(("effect", clean(finding.effect)))
    if finding.why:
        found.append(("why", clean(finding.why)))
    if finding.fix is not None and finding.fix.snippet:
        found.append(("write", "\n".join(clean(line) for line in finding.fix.snippet.splitlines())))
    elif finding.fix is not None:
        found.append(("fix", clean(finding.fix.title)))
    found += [("see", f"{clean(relative(r.file))}:{r.line} {clean(r.role)}") for r in finding.related]
    if finding.sources:
        found.append(("source", clean("; ".join(finding.sources))))
    return found


def compared(finding: Finding) -> list[tuple[str, str]]:
    """The actual and the expected values, the same thing below the same thing."""
    keys = list(dict.fromkeys((*finding.actual, *finding.expected)))
    actual, expected = [], []
    for key in keys:
        one = _value(key, finding.actual, ratio_of(finding.actual.get(key), finding.expected.get(key)))
        other = _value(key, finding.expected, None)
        width = max(cells(one), cells(other))
        actual.append(one + " " * (width - cells(one)))
        expected.append(other + " " * (width - cells(other)))
    lines = (("actual", "   ".join(actual).rstrip()), ("expected", "   ".join(expected).rstrip()))
    return [(word, text) for word, text in lines if text]


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


def sites_of(finding: Finding) -> Sequence[tuple[str, int, str]]:
    """File, line and role of all places of a finding, the one to be mended first."""
    found = [(relative(r.file), r.line, r.role) for r in finding.related]
    if finding.site is not None and finding.site.file:
        found.insert(0, (relative(finding.site.file), finding.site.line, "to be mended"))
    return found
