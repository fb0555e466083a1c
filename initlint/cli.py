"""The command line: ``initlint TARGET...`` is ``initlint check TARGET...``, for ever.

Each verb is imported when it is called. Whatever goes wrong ends in one message, a hint and exit code 2; never
in a traceback.
"""

from __future__ import annotations

import atexit
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from initlint import __version__
from initlint.errors import InitlintError

#: Verb -> (module, attribute, help). Help texts are here so that ``--help`` imports none of the modules.
VERBS = {
    "check": ("initlint.cli_check", "check", "Find faults in the initialisation of models (the default)."),
    "rule": ("initlint.cli_rules", "rule", "Explain a rule."),
    "rules": ("initlint.cli_rules", "rules", "List all rules."),
    "config": ("initlint.cli_config", "config", "Show each setting and where it came from."),
    "cache": ("initlint.cli_config", "cache", "Manage the cache: `initlint cache clean`."),
    "merge": ("initlint.cli_merge", "merge", "Join the JSON reports of several runs into one."),
    "completion": ("initlint.cli_config", "completion", "Print the completion script of a shell."),
}

_EPILOG = """\b
Targets:
  model.py                                every model in a file
  models/                                 every model in a folder
  model.py::Net                           one model; model.py::Net(depth=4) with arguments
  package.module:factory(size="tiny")     what a function returns (literal arguments only)

\b
Exit code: 0 nothing at or above --fail-on, 1 findings, 2 usage error or a target that could not be analysed.
"""


class Verbs(click.Group):
    """A group whose first word may be left out: anything that is no verb belongs to ``check``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``check`` in front where no verb was given."""
        own = {"--help", "-h", "--version"}
        if args and args[0] not in VERBS and args[0] not in own:
            args = ["check", *args]
        elif not args and not ctx.resilient_parsing:
            args = ["check"]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, without importing them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module."""
        if cmd_name not in VERBS:
            return None
        module, attribute, _ = VERBS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show the short form, which is the usual one."""
        formatter.write_usage(ctx.command_path, "[check] [OPTIONS] TARGET...")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show the verbs, and the options of ``check``, since they need no verb."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in VERBS.items()])
        command = self.get_command(ctx, "check")
        assert command is not None
        command.format_options(click.Context(command, info_name="check", parent=ctx), formatter)


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib import metadata

    try:
        torch = metadata.version("torch")
    except metadata.PackageNotFoundError:
        torch = "not installed"
    click.echo(f"initlint {__version__} (Python {sys.version.split()[0]}, torch {torch})")
    ctx.exit()


@click.command(cls=Verbs, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show versions."
)
def cli() -> None:
    """Find faults in the initialisation of PyTorch models before the first training step."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process.

    Args:
        arguments: replaces ``sys.argv[1:]``.
    """
    import gc

    from initlint.cli_output import drop_stdout

    gc.set_threshold(100_000)  # a check makes much and drops little; collecting at every 700 objects costs 5 %
    code = run(list(sys.argv[1:] if arguments is None else arguments))
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        drop_stdout()
    # Tearing the interpreter down takes a fifth of a cached check's time, and only frees memory.
    atexit._run_exitfuncs()
    sys.stderr.flush()
    os._exit(code)


def run(arguments: list[str]) -> int:
    """Run the command line; returns the exit code. Errors are shown on stderr."""
    from initlint.cli_output import drop_stdout

    try:
        result: Any = cli.main(arguments, prog_name="initlint", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except InitlintError as error:
        return _fail(error.message, error.hint)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    except SystemExit:
        # click ends so when the reader of our output has gone (`| head`): not our failure.
        drop_stdout()
        return 0
    except Exception as error:
        if os.environ.get("INITLINT_DEBUG"):
            raise
        return _fail(f"internal error: {type(error).__name__}: {error}", _report_hint(error))


def _fail(message: str, hint: str) -> int:
    from initlint.cli_output import wants_color

    color = wants_color("auto", sys.stderr)
    click.echo(click.style("error", fg="red", bold=True) + f": {message}", err=True, color=color)
    if hint:
        click.echo(click.style("hint", fg="cyan", bold=True) + f": {hint}", err=True, color=color)
    return 2


def _report_hint(error: Exception) -> str:
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
    return f"This is a fault of initlint{place}. INITLINT_DEBUG=1 shows where; please report it."


if __name__ == "__main__":
    main()
