"""The plain data that the templates of the HTML report are filled from: texts, and charts as markup from ``svg``."""

from __future__ import annotations

from dataclasses import dataclass

from initlint.emit.view import Tally


@dataclass(frozen=True, slots=True)
class Value:
    """An actual value beside the expected one."""

    name: str
    actual: str
    expected: str
    ratio: str
    bar: str


@dataclass(frozen=True, slots=True)
class CodeLine:
    """A line of a code frame; at the faulty one, ``code`` is cut into before, underlined and after."""

    number: int
    code: tuple[str, str, str]
    fault: bool


@dataclass(frozen=True, slots=True)
class Card:
    """A finding."""

    id: str
    level: str
    code: str
    name: str
    message: str
    place: str
    model: str
    names: tuple[str, ...]
    listed: str
    frame: tuple[CodeLine, ...]
    values: tuple[Value, ...]
    effect: str
    why: str
    snippet: str
    diff: tuple[tuple[str, str], ...]
    fix_title: str
    fix_status: str
    related: tuple[tuple[str, str], ...]
    sources: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the layer table."""

    stem: str
    leaf: str
    names: tuple[str, ...]
    kind: str
    fan_in: str
    feeds: str
    scheme: str
    place: str
    std: str
    expected: str
    ratio: str
    bar: str
    histogram: str
    forward: str
    gradient: str
    level: str  # ok | undetermined | error | warning | note
    reason: str
    cards: tuple[tuple[str, str], ...]
    off: float  # |log10 ratio|, to sort by


@dataclass(frozen=True, slots=True)
class Chart:
    """A curve with its heading."""

    kind: str
    title: str
    said: str
    drawing: str
    measured: bool
    band: bool
    flagged: bool


@dataclass(frozen=True, slots=True)
class Model:
    """One model's part of the page."""

    id: str
    name: str
    target: str
    status: str
    reason: str
    ran: bool  # a real forward completed
    level: str
    said: str
    count: Tally
    facts: tuple[tuple[str, str], ...]
    charts: tuple[Chart, ...]
    cards: tuple[Card, ...]
    rows: tuple[Row, ...]
    undetermined: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """The whole report."""

    title: str
    level: str
    said: str
    count: Tally
    seconds: str
    models: tuple[Model, ...]
    passed: tuple[Model, ...]
    loose: tuple[Card, ...]
    not_analysed: tuple[tuple[str, str, str, str], ...]
    parts: tuple[tuple[str, str], ...]
    suppressed: tuple[tuple[str, str, str], ...]
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
