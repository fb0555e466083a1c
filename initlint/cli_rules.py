"""``initlint rule`` and ``initlint rules``: what the rules say about themselves. No torch."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from initlint import catalogue
from initlint.catalogue import Description

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
        _print_json({"schema_version": 1, "rules": [plain(item, full=True) for item in found]})
        return 0
    pages = [catalogue.page(item) for item in found]
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
    entries = [plain(item) | {"enabled": item.code in enabled} for item in known]
    if output_format == "json":
        _print_json({"schema_version": 1, "rules": entries})
    elif output_format == "markdown":
        click.echo("| code | name | severity | what it finds |\n|---|---|---|---|")
        for entry in entries:
            click.echo(f"| {entry['code']} | {entry['name']} | {entry['severity']} | {entry['summary']} |")
    else:
        _print_table(entries)
    return 0


def plain(item: Description, *, full: bool = False) -> dict[str, Any]:
    """A rule as plain data; ``full`` adds its text and the source of its examples."""
    entry: dict[str, Any] = {
        "code": item.code,
        "name": item.name,
        "family": item.family,
        "severity": item.severity,
        "summary": item.summary,
        "aliases": list(item.aliases),
        "thorough": item.thorough,
        "needs_config": item.needs_config,
    }
    if full:
        entry["sections"] = item.sections
        entry["sources"] = list(item.sources)
        entry["examples"] = {"bad": list(item.bad), "good": list(item.good)}
    return entry


def _styled(text: str) -> str:
    return "\n".join(click.style(line, bold=True) if line.startswith("#") else line for line in text.splitlines())


def _find(name: str, config: tuple[str, ...]) -> Description:
    """The rule of that code, name or alias. Only its own file is read where the name is a shipped code."""
    from initlint import pack_files, selection

    for file in pack_files.rule_files(pack_files.shipped()):
        if file.stem.upper().partition("_")[0] == name.upper():
            for item in catalogue.describe_file(file) or ():
                if item.code == name.upper():
                    return item
    return selection.find(name, _load(config)[0])


def _load(overrides: Sequence[str]) -> tuple[tuple[Description, ...], set[str]]:
    """All rules, and the codes of those that the configuration leaves on."""
    from initlint import config, pack_files, selection

    settings = config.load([Path.cwd()], overrides=overrides)
    packs = [pack_files.shipped(), *pack_files.installed(), *(pack_files.read(Path(p)) for p in settings.rule_packs)]
    known: list[Description] = []
    for pack in packs:
        for file in pack_files.rule_files(pack):
            found = catalogue.describe_file(file)
            if found is None:
                from initlint.packs import rules_of

                found = tuple(catalogue.describe_rule(item) for item in rules_of(file, pack))
            known += found
    known.sort(key=lambda item: item.code)
    return tuple(known), {item.code for item in selection.choose(known, (settings.selectors,))}


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
