"""``initlint config``, ``initlint cache`` and ``initlint completion``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

_HELP = {"help_option_names": ["-h", "--help"]}


@click.command(context_settings=_HELP)
@click.argument("targets", nargs=-1, metavar="[TARGET]...")
@click.option("--config", "overrides", multiple=True, metavar="FILE|KEY=VALUE", help="File, or one setting.")
@click.option("--isolated", is_flag=True, help="Read no configuration file.")
@click.option("--output-format", type=click.Choice(("text", "json")), default="text", help="Format.  [text]")
def config(targets: tuple[str, ...], overrides: tuple[str, ...], isolated: bool, output_format: str) -> int:
    """Show each setting and where it came from."""
    from initlint import config as configuration

    start = [path for path in (Path(text.split(":", 1)[0]) for text in targets) if path.exists()]
    settings = configuration.load(start, overrides=overrides, isolated=isolated)
    values = {key: _shown(getattr(settings, name)) for key, name in configuration.KEYS.items()}
    origins = {key: settings.origins.get(name, "default") for key, name in configuration.KEYS.items()}
    if output_format == "json":
        rows = {key: {"value": value, "origin": origins[key]} for key, value in values.items()}
        file = str(settings.path) if settings.path else None
        click.echo(json.dumps({"schema_version": 1, "file": file, "settings": rows}, indent=2, ensure_ascii=False))
        return 0
    click.echo(f"# {settings.path or 'no configuration file'}")
    texts = {key: _text(key, value) for key, value in values.items()}
    width = max(map(len, texts))
    room = min(max(map(len, texts.values())), 48)
    for key, text in texts.items():
        click.echo(f"{key:<{width}} = {text:<{room}}  # {origins[key]}")
    return 0


def _text(key: str, value: Any) -> str:
    """The value as TOML, or in words what stands in for one that is not set."""
    from initlint.options import TIMEOUT

    unset = {
        "select": "all rules",
        "timeout": f"{TIMEOUT:g} s for each model",
        "memory-limit": "80% of the machine",
        "jobs": "one per two cores",
        "baseline": "none",
    }
    return f"({unset.get(key, 'not set')})" if value is None or value == "" else json.dumps(value, ensure_ascii=False)


def _shown(value: Any) -> Any:
    """A setting as people would write it in TOML."""
    from initlint.findings import Severity

    if isinstance(value, Severity):
        return value.label
    if isinstance(value, dict):
        return {key: _shown(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_shown(item) for item in value]
    return value


@click.group(context_settings=_HELP)
def cache() -> None:
    """Manage the cache of analysed models."""


@cache.command(context_settings=_HELP)
@click.option("--cache-dir", metavar="DIR", help="Folder of the cache.  [.initlint_cache]")
def clean(cache_dir: str | None) -> int:
    """Remove the cache."""
    from initlint import config as configuration
    from initlint.cache import Cache

    folder = Path(cache_dir or configuration.load([]).cache_dir)
    count = Cache(folder, Path.cwd()).clean()
    click.echo(f"removed {count} {'entry' if count == 1 else 'entries'} from {folder}")
    return 0


@click.command(context_settings=_HELP)
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> int:
    """Print the script that makes SHELL complete initlint's commands and options.

    \b
    bash:  eval "$(initlint completion bash)"
    zsh:   eval "$(initlint completion zsh)"
    fish:  initlint completion fish | source
    """
    from click.shell_completion import BashComplete, get_completion_class

    from initlint.cli import cli

    kind = get_completion_class(shell)
    assert kind is not None
    if kind is BashComplete:
        # click's own source() runs bash to learn its version, and fails where there is none.
        kind = type("Bash", (BashComplete,), {"_check_version": staticmethod(lambda: None)})
    click.echo(kind(cli, {}, "initlint", "_INITLINT_COMPLETE").source())
    return 0
