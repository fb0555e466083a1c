"""What rules say about themselves, read from their source without running it.

``initlint rule`` and ``initlint rules`` show text. Running the rule files for that would import the signal
propagation and half of the mathematics; parsing them costs a millisecond a file. A file whose rule cannot be
read this way (attributes computed or inherited) is loaded after all.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Mapping
from pathlib import Path

from initlint.records import dataclass

#: Class attributes that are read as literals, with what they are when absent (``None``: must be there).
_ATTRIBUTES: Mapping[str, object] = {
    "code": None,
    "name": None,
    "family": None,
    "sources": None,
    "aliases": (),
    "thorough": False,
    "needs_config": False,
}


@dataclass(frozen=True, slots=True)
class Description:
    """A rule as people read about it."""

    code: str
    name: str
    family: str
    severity: str
    doc: str
    sources: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    thorough: bool = False
    needs_config: bool = False
    bad: tuple[str, ...] = ()  # source of the examples, without decorators
    good: tuple[str, ...] = ()
    file: str = ""

    @property
    def summary(self) -> str:
        """The first paragraph of the docstring, as one line."""
        return " ".join(self.doc.split("\n\n", 1)[0].split())

    @property
    def sections(self) -> dict[str, str]:
        """The docstring by its ``##`` headings, in its own order."""
        parts: dict[str, list[str]] = {}
        lines: list[str] = []
        for line in self.doc.splitlines():
            if line.startswith("## "):
                lines = parts.setdefault(line[3:].strip(), [])
            else:
                lines.append(line)
        return {heading: "\n".join(body).strip() for heading, body in parts.items()}


def describe_file(file: Path) -> tuple[Description, ...] | None:
    """The rules that a file defines; ``None`` when only running it can tell."""
    try:
        source = file.read_text("utf-8")
        tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError):
        return None
    found = [_describe(node, source, file) for node in tree.body if _may_be_rule(node)]
    descriptions = tuple(entry for entry in found if entry is not None)
    return descriptions if descriptions and len(descriptions) == len(found) else None


def describe_rule(rule: object) -> Description:
    """The description of a rule that has been loaded."""
    import inspect

    cls = type(rule)
    attributes = {name: getattr(rule, name) for name in _ATTRIBUTES}
    examples = {kind: tuple(_source_of(f) for f in cls.examples(kind)) for kind in ("bad", "good")}  # type: ignore[attr-defined]
    return Description(
        **attributes,
        severity=rule.severity.label,  # type: ignore[attr-defined]
        doc=inspect.getdoc(cls) or "",
        bad=tuple(filter(None, examples["bad"])),
        good=tuple(filter(None, examples["good"])),
        file=inspect.getsourcefile(cls) or "",
    )


def _may_be_rule(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.ClassDef)
        and bool(node.bases)
        and any(
            isinstance(item, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "code" for t in item.targets)
            for item in node.body
        )
    )


def _describe(node: ast.stmt, source: str, file: Path) -> Description | None:
    assert isinstance(node, ast.ClassDef)
    values: dict[str, object] = {}
    severity = ""
    for item in node.body:
        if isinstance(item, ast.Assign) and len(item.targets) == 1 and isinstance(item.targets[0], ast.Name):
            name = item.targets[0].id
            if name == "severity" and isinstance(item.value, ast.Attribute):
                severity = item.value.attr.lower()
            elif name in _ATTRIBUTES:
                try:
                    values[name] = ast.literal_eval(item.value)
                except ValueError:
                    return None
    doc = ast.get_docstring(node)
    if not severity or not doc or any(default is None and name not in values for name, default in _ATTRIBUTES.items()):
        return None
    return Description(
        **values,  # type: ignore[arg-type]
        severity=severity,
        doc=doc,
        bad=_examples(node, source, "bad"),
        good=_examples(node, source, "good"),
        file=str(file),
    )


def _examples(node: ast.ClassDef, source: str, kind: str) -> tuple[str, ...]:
    lines = source.splitlines()
    return tuple(
        textwrap.dedent("\n".join(lines[item.lineno - 1 : item.end_lineno]))
        for item in node.body
        if isinstance(item, ast.FunctionDef)
        and any(isinstance(mark, ast.Name) and mark.id == kind for mark in item.decorator_list)
    )


def _source_of(function: object) -> str:
    """The source of an example, without its decorators; "" when it cannot be read."""
    import inspect

    try:
        lines = textwrap.dedent(inspect.getsource(function)).splitlines()  # type: ignore[arg-type]
    except (OSError, TypeError):
        return ""
    while lines and lines[0].startswith("@"):
        lines.pop(0)
    return "\n".join(lines)


def page(rule: Description) -> str:
    """The rule's page as Markdown: the docstring, then examples that run, then sources."""
    lines = [f"# {rule.code} {rule.name}", "", rule.summary, ""]
    lines.append(f"Family: {rule.family}. Severity: at most {rule.severity}.")
    if rule.aliases:
        lines.append(f"Also called: {', '.join(rule.aliases)}.")
    if rule.thorough:
        lines.append("Needs `--thorough`.")
    if rule.needs_config:
        lines.append("Needs a setting in the configuration.")
    for heading, text in rule.sections.items():
        if text:
            lines += ["", f"## {heading}", "", text]
    for examples, title in ((rule.bad, "Models on which it reports"), (rule.good, "Models on which it is silent")):
        if examples:
            lines += ["", f"## {title}"]
            lines += [part for example in examples for part in ("", "```python", example, "```")]
    lines += ["", "## Sources", "", *(f"- {source}" for source in rule.sources)]
    return "\n".join(lines)
