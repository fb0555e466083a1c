"""Comments that silence findings: ``# initlint: ignore[IL101]`` on a line, ``# initlint: ignore-file[IL101]``.

There is no blanket form: what is silenced is named, by code, prefix or name. Comments are read with
``tokenize``, so that text in strings is no comment, and a comment anywhere in a statement of several lines
holds for the whole statement.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from initlint import selection
from initlint.errors import UsageError
from initlint.facts import ModelFacts, ParameterFacts, Site
from initlint.findings import Finding
from initlint.records import dataclass
from initlint.rule import Rule, site_of

_COMMENT = re.compile(r"#\s*initlint\s*:\s*(?P<verb>[\w-]+)\s*(?P<codes>\[[^\]]*\])?", re.IGNORECASE)
_MARK = re.compile(rb"#\s*initlint\s*:", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Suppression:
    """One selector of one comment."""

    file: str
    line: int  # of the comment
    column: int
    selector: str
    whole_file: bool = False
    first: int = 0  # the statement's first and last line
    last: int = 0

    def covers(self, file: str, line: int | None) -> bool:
        """Whether it holds for that place."""
        return file == self.file and (self.whole_file or (line is not None and self.first <= line <= self.last))


@dataclass(frozen=True, slots=True)
class Malformed:
    """A comment that is meant for initlint and cannot be followed."""

    file: str
    line: int
    column: int
    problem: str


Entry = Suppression | Malformed


def read(files: Iterable[str], base: Path) -> tuple[tuple[Suppression, ...], tuple[Malformed, ...]]:
    """The suppressions in these files, whose names are relative to ``base``. Unreadable files have none."""
    suppressions: list[Suppression] = []
    malformed: list[Malformed] = []
    for file in dict.fromkeys(files):
        for entry in _read_file(file, base):
            if isinstance(entry, Malformed):
                malformed.append(entry)
            else:
                suppressions.append(entry)
    return tuple(suppressions), tuple(malformed)


def _read_file(file: str, base: Path) -> Iterator[Entry]:
    try:
        content = (base / file).read_bytes()
    except (OSError, ValueError):
        return
    # Almost no file has such a comment, and tokenizing costs a hundred times this search.
    if _MARK.search(content) is None:
        return
    comments: list[tokenize.TokenInfo] = []
    first = 0
    try:
        for token in tokenize.tokenize(io.BytesIO(content).readline):
            if token.type == tokenize.COMMENT:
                comments.append(token)
            elif token.type in (tokenize.NEWLINE, tokenize.ENDMARKER):
                yield from _parse(comments, file, first or token.start[0], token.end[0])
                comments, first = [], 0
            elif token.type == tokenize.NL:
                if not first:  # a line that holds nothing but a comment
                    yield from _parse(comments, file, token.start[0], token.start[0])
                    comments = []
            elif token.type not in (tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING) and not first:
                first = token.start[0]
    except (tokenize.TokenError, SyntaxError, ValueError):
        return


def _parse(comments: Sequence[tokenize.TokenInfo], file: str, first: int, last: int) -> Iterator[Entry]:
    for token in comments:
        line, column = token.start[0], token.start[1] + 1
        for match in _COMMENT.finditer(token.string):
            verb = match["verb"].lower()
            selectors = [part.strip() for part in (match["codes"] or "[]")[1:-1].split(",") if part.strip()]
            if verb not in ("ignore", "ignore-file"):
                yield Malformed(file, line, column, f"`{verb}` is neither ignore nor ignore-file")
            elif not selectors:
                yield Malformed(file, line, column, f"`# initlint: {verb}` names no rule, so it silences none")
            for selector in selectors if verb in ("ignore", "ignore-file") else ():
                yield Suppression(file, line, column, selector, verb == "ignore-file", first, last)


# -- what a comment holds for -----------------------------------------------------------------------


class Places:
    """The lines of user code that the models know: where something was constructed, written or initialised."""

    def __init__(self, models: Iterable[ModelFacts]) -> None:
        self._lines: set[tuple[str, int]] = set()
        files: dict[str, None] = {}
        for facts in models:
            files[facts.file] = None
            for site in _sites(facts):
                files[site.file] = None
                self._lines.add((site.file, site.line))
        self.files = tuple(file for file in files if file and not _installed(file))

    def knows(self, comment: Suppression) -> bool:
        """Whether a line comment stands on such a line: there it could have silenced something."""
        return not comment.whole_file and any(
            (comment.file, line) in self._lines for line in range(comment.first, comment.last + 1)
        )


def _sites(facts: ModelFacts) -> Iterator[Site]:
    for parameter in facts.parameters:
        if parameter.created is not None:
            yield parameter.created
        for write in parameter.writes:
            if write.site is not None:
                yield write.site
    for module in facts.modules:
        if module.created is not None:
            yield module.created
    for statement in facts.statements:
        yield statement.site


def _installed(file: str) -> bool:
    return "site-packages" in file or "dist-packages" in file


def resolve(
    comments: Iterable[Suppression], known: Sequence[Rule]
) -> tuple[dict[str, frozenset[str]], tuple[Malformed, ...]]:
    """The codes that each selector names, and the comments whose selector names none."""
    codes: dict[str, frozenset[str]] = {}
    unknown = []
    for comment in comments:
        try:
            if comment.selector.upper() == selection.ALL:
                raise UsageError("`ALL` names no rule: say which one is silenced")
            codes[comment.selector] = frozenset(rule.code for rule, _ in selection.matching(comment.selector, known))
        except UsageError as error:
            codes[comment.selector] = frozenset()
            problem = f"{error.message}. {error.hint}".removesuffix(". ")
            unknown.append(Malformed(comment.file, comment.line, comment.column, problem))
    return codes, tuple(unknown)


@dataclass(frozen=True, slots=True)
class Hits:
    """The comments that hold for (part of) a finding, and whether they silence it."""

    used: tuple[Suppression, ...]
    complete: bool


def hits(finding: Finding, facts: ModelFacts | None, comments: Sequence[Suppression]) -> Hits:
    """Which of the comments hold for a finding.

    A comment at the finding's own place silences it. Comments where parameters were constructed silence it
    when they cover every parameter: a fault of twenty layers is not silenced by a comment on one of them.
    """
    site = finding.site
    file = site.file if site else facts.file if facts else ""
    end = (site.end_line or site.line) if site else None
    direct = [
        comment
        for comment in comments
        if comment.covers(file, site.line if site else None) or (site and comment.covers(file, end))
    ]
    if direct:
        return Hits(tuple(direct), True)
    if facts is None or not finding.parameters:
        return Hits((), False)
    created = {module.name: module.created for module in facts.modules if module.name}
    covering = [
        [c for c in comments if not c.whole_file and any(c.covers(s.file, s.line) for s in sites)]
        for sites in (_places_of(facts.parameter(name), created) for name in finding.parameters)
    ]
    used = dict.fromkeys(comment for found in covering for comment in found)
    return Hits(tuple(used), all(covering))


def _places_of(parameter: ParameterFacts | None, created: Mapping[str, Site | None]) -> list[Site]:
    """Where a parameter was created, last written by the user, and where the modules around it were constructed."""
    if parameter is None:
        return []
    parts = parameter.module.split(".")
    around = (created.get(".".join(parts[:end])) for end in range(1, len(parts) + 1))
    return [site for site in (parameter.created, site_of(parameter), *around) if site is not None]
