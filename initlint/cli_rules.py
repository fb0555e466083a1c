"""``initlint rule`` and ``initlint rules``: what the rules say about themselves. No torch."""

from __future__ import annotations

import inspect
import json
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from initlint.rule import HEADINGS, Rule

_FORMATS = click.Choice(("text", "json", "markdown"))
_CONFIG = click.option("--config", multiple=True, metavar="FILE|KEY=VALUE", help="Configuration file, or one setting.")
_CODE_WIDTH = 8


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, required=True, metavar="RULE...")
@click.option("--output-format", type=_FORMATS, default="text", help="Format.  [text]")
@click.option("--color", type=click.Choice(("auto", "always", "never")), default="auto", help="Use colours.  [auto]")
@_CONFIG
def rule(names: tuple[str, ...], output_format: str, color: str, config: tuple[str, ...]) -> int:
    """Explain rules: what they find, why it matters, examples, sources."""
    from initlint.cli_output import wants_color

    found = [_find(name, config) for name in names]
    if output_format == "json":
        _print_json({"schema_version": 1, "rules": [describe(item, full=True) for item in found]})
        return 0
    pages = [page(item) for item in found]
    if output_format == "markdown":
        click.echo("\n\n".join(pages))
        return 0
    styled = wants_color(color, sys.stdout)
    click.echo("\n\n".join(_styled(text) if styled else text for text in pages), color=styled)
    return 0


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--output-format", type=_FORMATS, default="text", help="Format.  [text]")
@_CONFIG
def rules(output_format: str, config: tuple[str, ...]) -> int:
    """List all rules: code, name, highest severity, what they find."""
    known, enabled = _load(config)
    entries = [describe(item) | {"enabled": item.code in enabled} for item in known]
    if output_format == "json":
        _print_json({"schema_version": 1, "rules": entries})
    elif output_format == "markdown":
        click.echo("| code | name | severity | what it finds |\n|---|---|---|---|")
        for entry in entries:
            click.echo(f"| {entry['code']} | {entry['name']} | {entry['severity']} | {entry['summary']} |")
    else:
        _print_table(entries)
    return 0


def describe(item: Rule, *, full: bool = False) -> dict[str, Any]:
    """A rule as plain data; ``full`` adds its text and the source of its examples."""
    entry: dict[str, Any] = {
        "code": item.code,
        "name": item.name,
        "family": item.family,
        "severity": item.severity.label,
        "summary": _summary(item),
        "aliases": list(item.aliases),
        "thorough": item.thorough,
        "needs_config": item.needs_config,
    }
    if full:
        entry["sections"] = sections(item)
        entry["sources"] = list(item.sources)
        entry["examples"] = {kind: examples(item, kind) for kind in ("bad", "good")}
    return entry


def sections(item: Rule) -> dict[str, str]:
    """The docstring by its headings, in the order of ``HEADINGS``."""
    parts: dict[str, list[str]] = {}
    lines = parts.setdefault("", [])
    for line in (inspect.getdoc(item) or "").splitlines():
        if line.startswith("## "):
            lines = parts.setdefault(line[3:].strip(), [])
        else:
            lines.append(line)
    texts = {heading: "\n".join(body).strip() for heading, body in parts.items() if heading}
    return {heading: texts[heading] for heading in (*HEADINGS, *texts) if heading in texts}


def examples(item: Rule, kind: str) -> list[str]:
    """The source of the examples marked ``bad`` or ``good``, without their decorators."""
    sources = []
    for function in type(item).examples(kind):
        try:
            lines = textwrap.dedent(inspect.getsource(function)).splitlines()
        except OSError:
            continue
        while lines and lines[0].startswith("@"):
            lines.pop(0)
        sources.append("\n".join(lines))
    return sources


def page(item: Rule) -> str:
    """The rule's page as Markdown: the docstring, then examples that run, then sources."""
    lines = [f"# {item.code} {item.name}", "", _summary(item), ""]
    lines.append(f"Family: {item.family}. Severity: at most {item.severity.label}.")
    if item.thorough:
        lines.append("Needs `--thorough`.")
    if item.needs_config:
        lines.append("Needs a setting in the configuration.")
    for heading, text in sections(item).items():
        if text:
            lines += ["", f"## {heading}", "", text]
    for kind, title in (("bad", "Models on which it reports"), ("good", "Models on which it is silent")):
        sources = examples(item, kind)
        if sources:
            lines += ["", f"## {title}"]
            lines += [part for source in sources for part in ("", "```python", source, "```")]
    lines += ["", "## Sources", "", *(f"- {source}" for source in item.sources)]
    return "\n".join(lines)


def _summary(item: Rule) -> str:
    return (inspect.getdoc(item) or "").split("\n\n", 1)[0].replace("\n", " ").strip()


def _styled(text: str) -> str:
    return "\n".join(click.style(line, bold=True) if line.startswith("#") else line for line in text.splitlines())


def _find(name: str, config: tuple[str, ...]) -> Rule:
    """The rule, reading only its own file where the name is a code of the shipped pack."""
    from initlint import packs, selection

    return packs.load_one(name) or selection.find(name, _load(config)[0])


def _load(overrides: Sequence[str]) -> tuple[tuple[Rule, ...], set[str]]:
    """All rules, and the codes of those that the configuration leaves on."""
    from initlint import config, packs, selection

    settings = config.load([Path.cwd()], overrides=overrides)
    known = packs.load(settings.rule_packs)
    return known, {item.code for item in selection.choose(known, (settings.selectors,))}


def _print_table(entries: Sequence[dict[str, Any]]) -> None:
    width = shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 10_000
    longest = max((len(entry["name"]) for entry in entries), default=0)
    family = ""
    for entry in entries:
        if entry["family"] != family:
            family = entry["family"]
            click.echo(click.style(f"{family}", bold=True))
        off = "" if entry["enabled"] else "  (off)"
        head = f"  {entry['code']:<{_CODE_WIDTH}}{entry['name']:<{longest}}  {entry['severity']:<7}  "
        summary = textwrap.shorten(entry["summary"] + off, max(width - len(head), 30), placeholder="…")
        click.echo(head + summary)


def _print_json(document: Any) -> None:
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))
