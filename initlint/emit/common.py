"""What the output formats share: options, paths, numbers, and the taming of text that models control."""

from __future__ import annotations

import functools
import hashlib
import math
import os
import re
import tokenize
import unicodedata
from collections.abc import Callable, Sequence

from initlint.findings import Finding
from initlint.records import dataclass

#: Reads the lines of a file (without their ends); an empty sequence when it cannot be read.
Sources = Callable[[str], Sequence[str]]


@functools.lru_cache(maxsize=64)
def read_lines(file: str) -> Sequence[str]:
    """The lines of a Python file, decoded as its coding line says; ``()`` when it cannot be read."""
    try:
        with tokenize.open(file) as stream:
            return tuple(stream.read().splitlines())
    except (OSError, SyntaxError, ValueError):
        return ()


@dataclass(frozen=True, slots=True)
class Options:
    """How to render; see ``initlint.emit.emit`` for the meaning of each."""

    color: bool = False
    width: int = 100
    verbose: int = 0
    statistics: bool = False
    sources: Sources = read_lines
    rules: tuple[object, ...] = ()


# Control characters of C0 and C1 (terminal escapes among them), marks that reorder text or hide in it
# ("Trojan source", CVE-2021-42574), line separators, and lone surrogates, which no stream can encode.
_HARMFUL = re.compile("[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def clean(text: str) -> str:
    """One line that is safe to print: white space becomes blanks, harmful characters a replacement mark."""
    return _HARMFUL.sub("\ufffd", " ".join(text.splitlines()).replace("\t", "    "))


_PLAIN = str.maketrans({"…": "...", "×": "x", "·": "-", "→": "->", "—": "-", "–": "-", "−": "-", "²": "2", "│": "|"})


def spell_for(text: str, encoding: str | None) -> str:
    """The text, spelled in ASCII where a stream of that encoding could not take it as it is."""
    try:
        text.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        return text.translate(_PLAIN).encode(encoding or "utf-8", "backslashreplace").decode(encoding or "utf-8")
    except LookupError:
        return text
    return text


def relative(file: str) -> str:
    """The path as seen from the working directory, in POSIX style."""
    if not file:
        return ""
    path = file
    if os.path.isabs(file):
        try:
            path = os.path.relpath(file)
        except ValueError:  # another drive on Windows
            path = file
    return os.path.normpath(path).replace(os.sep, "/")


def place(finding: Finding) -> str:
    """``file:line:column`` of a finding, as far as known; the target where nothing is."""
    site = finding.site
    if site is None or not site.file:
        return clean(finding.model)
    column = "" if site.column is None else f":{site.column}"
    return f"{clean(relative(site.file))}:{site.line}{column}"


def finite(value: object) -> float | None:
    """The value as a float, or ``None`` when it is no number, NaN or infinite."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def number(value: object, digits: int = 3) -> str:
    """A number for people: ``0.0884``, ``1.2e-07``, ``1204``; ``inf`` and ``nan`` as such, ``-`` for unknown.

    Anything that is no number comes back as clean text.
    """
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return clean(str(value))
    if isinstance(value, int):
        return str(value)
    if not math.isfinite(value):
        return str(value)
    text = f"{value:.{digits}g}"
    if "e" not in text:
        return text
    if 1e-4 <= abs(value) < 1e5:  # 12345.6 to three digits is 1.23e+04 in Python, but people read 12346
        return f"{value:.0f}"
    mantissa, exponent = text.split("e")
    return f"{mantissa}e{int(exponent)}"


def times(ratio: float | None) -> str:
    """A ratio for people: ``0.41×``, ``8×``."""
    if ratio is None or not math.isfinite(ratio):
        return "-"
    return f"{number(ratio, 2 if ratio < 10 else 3)}×"


def counted(count: int, noun: str, plural: str = "") -> str:
    """``1 layer``, ``1,204 layers``."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def seconds(value: float) -> str:
    """A duration for people."""
    return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def cells(text: str) -> int:
    """How many columns of a terminal the text takes (wide East Asian characters take two)."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def shorten(text: str, width: int) -> str:
    """The text cut in the middle to that many columns."""
    if cells(text) <= width:
        return text
    if width <= 1:
        return "…"[:width]
    head, tail = (width - 1) // 2, width // 2
    return f"{text[:head]}…{text[-tail:]}" if cells(text) == len(text) else f"{text[: width // 2 - 1]}…"


def truncate(text: str, width: int) -> str:
    """The text cut at its end to that many columns."""
    if cells(text) <= width:
        return text
    kept = text[: max(width - 1, 0)]
    while kept and cells(kept) > width - 1:
        kept = kept[:-1]
    return f"{kept.rstrip()}…"


def fingerprint(finding: Finding) -> str:
    """The finding's fingerprint; without one, a hash of what names the cause (no line, no measured number)."""
    if finding.fingerprint:
        return finding.fingerprint
    file = relative(finding.site.file) if finding.site else ""
    parts = (finding.code, file, finding.model, *finding.parameters)
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:16]


def unique_fingerprints(findings: Sequence[Finding]) -> list[str]:
    """One fingerprint for each finding, made unique by a numbered suffix where they coincide."""
    seen: dict[str, int] = {}
    found = []
    for finding in findings:
        key = fingerprint(finding)
        seen[key] = seen.get(key, 0) + 1
        found.append(key if seen[key] == 1 else f"{key}-{seen[key]}")
    return found
