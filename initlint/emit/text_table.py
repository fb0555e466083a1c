"""The layer table of the text report: as wide as its content, at most as wide as the terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from initlint.emit.common import Options, cells, clean, number, shorten, times, truncate
from initlint.emit.style import COLOURS, Style
from initlint.emit.view import FINDING, OK, UNDETERMINED, Fold, folds
from initlint.findings import Finding, LayerRow, ModelReport
from initlint.records import dataclass

#: Lines of the table before rows that are as expected are left out (a screen and a half); ``-v`` shows all.
MOST_ROWS = 40


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its title, how to fill it, and how to say it in fewer characters."""

    title: str
    text: Callable[[Fold], str]
    right: bool = False
    short: Callable[[Fold], str] | None = None
    measured: bool = False  # what a real run gave, shown on request


#: What happens, in this order, until the table fits the terminal: a column says less, goes, or is cut to a width.
STEPS: tuple[tuple[str, str | int], ...] = (
    ("feeds", "short"),
    ("layer", "short"),
    ("kind", "drop"),
    ("init", "short"),
    ("fan_in", "drop"),
    ("layer", 26),
    ("gradient", "drop"),
    ("forward", "drop"),
    ("init", "drop"),
    ("layer", 18),
    ("feeds", "drop"),
    ("layer", 8),
)


#: The same where real scales were asked for: these stay until the end.
MEASURED_STEPS: tuple[tuple[str, str | int], ...] = (
    ("feeds", "short"),
    ("layer", "short"),
    ("kind", "drop"),
    ("init", "short"),
    ("fan_in", "drop"),
    ("init", "drop"),
    ("layer", 26),
    ("feeds", "drop"),
    ("expected", "drop"),
    ("layer", 18),
    ("ratio", "drop"),
    ("grad run", "drop"),
    ("gradient", "drop"),
    ("layer", 8),
)


def table_lines(report: ModelReport, findings: Sequence[Finding], options: Options, style: Style) -> list[str]:
    """Title, rows (long runs of alike layers as one) and a line for what was left out."""
    rows = folds(report, findings, least=3 if options.verbose < 2 else 10**9)
    shown, left_out = _selected(rows, MOST_ROWS if options.verbose < 1 else len(rows))
    # a forward is run in any case; its scales are shown beside the predicted ones where --measure asked for both
    asked = any(row.signal.measured_gradient_std is not None for row in report.rows)
    columns = [c for c in COLUMNS if asked or not c.measured]
    columns = [c for c in columns if any(c.text(fold) not in ("", "-") for fold in shown)]
    columns, texts, widths = _fitted(columns, shown, options.width - 4, MEASURED_STEPS if asked else STEPS)
    lines = [f"    {style(_line([c.title for c in columns], columns, widths), dim=True)}"]
    for fold, entries in zip(shown, texts, strict=True):
        lines.append(f"  {_mark(fold, style)} {_painted(fold, entries, columns, widths, style)}")
    if left_out:
        layers = sum(len(fold.rows) for fold in left_out)
        lines.append(f"    {style(f'… {layers} more layers, none in a finding (-v lists them)', dim=True)}")
    return lines


def _selected(rows: list[Fold], most: int) -> tuple[list[Fold], list[Fold]]:
    """The first ``most`` rows, but rows with findings before undetermined ones before the rest; in table order."""
    if len(rows) <= most:
        return rows, []
    rank = {FINDING: 0, UNDETERMINED: 1, OK: 2}
    order = sorted(range(len(rows)), key=lambda index: (rank[rows[index].state], index))
    chosen = set(order[:most]) | {index for index in order if rows[index].state == FINDING}
    return [row for i, row in enumerate(rows) if i in chosen], [row for i, row in enumerate(rows) if i not in chosen]


def _fitted(
    columns: list[Column], rows: Sequence[Fold], room: int, steps: Sequence[tuple[str, str | int]]
) -> tuple[list[Column], list[list[str]], list[int]]:
    """Columns, their texts row by row and their widths, such that a line takes at most ``room``."""
    taken: dict[str, str | int] = {}
    texts = _texts(columns, rows, taken)
    for title, step in steps:
        if _width(texts) <= room:
            break
        taken[title] = step
        texts = _texts(columns, rows, taken)
    for title, step in steps:  # what a later step made room for may be said in full again
        if step == "short" and taken.get(title) == step:
            longer = _texts(columns, rows, {key: value for key, value in taken.items() if key != title})
            if _width(longer) <= room:
                del taken[title]
                texts = longer
    kept = [column for column in columns if column.title in texts]
    widths = [max(map(cells, texts[column.title])) for column in kept]
    return kept, [[texts[column.title][i + 1] for column in kept] for i in range(len(rows))], widths


def _texts(columns: Sequence[Column], rows: Sequence[Fold], taken: dict[str, str | int]) -> dict[str, list[str]]:
    """Title and entries of each column that is left, after the steps taken."""
    found: dict[str, list[str]] = {}
    for column in columns:
        step = taken.get(column.title)
        if step == "drop":
            continue
        fill = column.text if step is None or column.short is None else column.short
        entries = [column.title, *(fill(row) for row in rows)]
        found[column.title] = _told_apart(entries, step) if isinstance(step, int) else entries
    return found


def _width(texts: dict[str, list[str]]) -> int:
    return sum(max(map(cells, entries)) for entries in texts.values()) + 2 * (len(texts) - 1)


def _line(entries: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    padded = []
    for text, column, width in zip(entries, columns, widths, strict=True):
        pad = " " * (width - cells(text))
        padded.append(pad + text if column.right else text + pad)
    return "  ".join(padded)


def _painted(fold: Fold, entries: Sequence[str], columns: Sequence[Column], widths: Sequence[int], style: Style) -> str:
    if not style.color or fold.severity is None:
        return _line(entries, columns, widths)
    parts = []
    for i, column in enumerate(columns):
        text = _line([entries[i]], [column], [widths[i]])
        parts.append(style(text, COLOURS[fold.severity]) if column.title in ("layer", "std", "ratio") else text)
    return "  ".join(parts)


def _told_apart(texts: Sequence[str], width: int) -> list[str]:
    """Texts cut in the middle to that many columns; where different ones would become the same, at the beginning."""
    short = [shorten(text, width) for text in texts]
    meant: dict[str, set[str]] = {}
    for text, cut in zip(texts, short, strict=True):
        meant.setdefault(cut, set()).add(text)
    return [
        f"…{text[1 - width :]}" if len(meant[cut]) > 1 and 1 < width < len(text) == cells(text) else cut
        for text, cut in zip(texts, short, strict=True)
    ]


def _mark(fold: Fold, style: Style) -> str:
    if fold.state == FINDING and fold.severity is not None:
        return style("!", COLOURS[fold.severity], bold=True)
    return style("?", "magenta") if fold.state == UNDETERMINED else " "


def _name(fold: Fold) -> str:
    """``layers.0 … layers.19 (20)``."""
    if len(fold.rows) == 1:
        return clean(fold.label) or "(root)"
    whole = fold.label if "}." in fold.label or " … " in fold.label else f"{fold.rows[0].name} … {fold.rows[-1].name}"
    return f"{clean(whole)} ({len(fold.rows)})"


def _short_name(fold: Fold) -> str:
    """``layers.{0…19} (20)``."""
    return f"{clean(fold.label)} ({len(fold.rows)})" if len(fold.rows) > 1 else _name(fold)


def target_text(row: LayerRow) -> str:
    """The activation that consumes the layer's output, or what else does; ``?`` when that is not known."""
    return clean(row.activation or row.consumer or ("?" if row.undetermined else "-"))


def feeds_text(row: LayerRow) -> str:
    """``relu via bn1, add``: what consumes the layer's output and what lies between."""
    target = target_text(row)
    own = (row.name, row.name.rpartition(".")[0])  # a recurrent layer's weights lead through the layer itself
    between = [clean(step) for step in row.path if step not in (row.activation, row.consumer, *own)]
    return f"{target} via {', '.join(between)}" if between and target not in "-?" else target


def scheme_text(scheme: str | None) -> str:
    """The scheme, PyTorch's own default said to be so: ``default kaiming_uniform_(a=2.236)``."""
    if not scheme:
        return "-"
    name, default, _ = clean(scheme).partition("PyTorch's default")
    return f"default {name.strip(' ,(')}".strip() if default else name


def _short_scheme(fold: Fold) -> str:
    """The name of the function alone; ``default`` where PyTorch chose it."""
    text = scheme_text(fold.first.scheme)
    return "default" if text.startswith("default") else text.partition("(")[0]


def _span(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    first, last = (tight(value) for value in (known[0], known[-1]))
    return number(known[0]) if len(known) == 1 else first if first == last else f"{first}→{last}"


def _run_forward(fold: Fold) -> list[float | None]:
    return [row.signal.measured_forward_std for row in fold.rows]


def _run_gradient(fold: Fold) -> list[float | None]:
    return [row.signal.measured_gradient_std for row in fold.rows]


def tight(value: float) -> str:
    """Two digits where they are short, the order of magnitude where they are not: ``0.71``, ``1e-3``."""
    text = number(value, 2)
    return text if len(text) < 6 else re.sub(r"e([+-])0*", r"e\1", f"{value:.0e}").replace("e+", "e")


def std_text(fold: Fold) -> str:
    """The mean standard deviation; a dash for constants that are to be constant (gains of norms)."""
    return "-" if _constant(fold) else number(_mean([row.std for row in fold.rows]))


def expected_text(fold: Fold) -> str:
    """The expected standard deviation; a dash where a constant is expected and there is one."""
    return "-" if _constant(fold) else number(fold.first.expected_std)


def _constant(fold: Fold) -> bool:
    return fold.first.expected_std in (0, None) and all(row.std == 0 for row in fold.rows)


def _fan(fold: Fold) -> str:
    fan = fold.first.fan_in
    return "-" if fan is None else number(int(fan) if fan == int(fan) else fan)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


# In reading order.
COLUMNS = [
    Column("layer", _name, short=_short_name),
    Column("kind", lambda fold: clean(fold.first.kind)),
    Column("fan_in", _fan, right=True),
    Column("feeds", lambda fold: truncate(feeds_text(fold.first), 40), short=lambda fold: target_text(fold.first)),
    Column("init", lambda fold: truncate(scheme_text(fold.first.scheme), 40), short=_short_scheme),
    Column("std", lambda fold: std_text(fold), right=True),
    Column("expected", lambda fold: expected_text(fold), right=True),
    Column("ratio", lambda fold: times(_mean([row.ratio for row in fold.rows])), right=True),
    Column("forward", lambda fold: _span([row.signal.forward_std for row in fold.rows]), right=True),
    Column("fwd run", lambda fold: _span(_run_forward(fold)), right=True, measured=True),
    Column("gradient", lambda fold: _span([row.signal.gradient_std for row in fold.rows]), right=True),
    Column("grad run", lambda fold: _span(_run_gradient(fold)), right=True, measured=True),
]
