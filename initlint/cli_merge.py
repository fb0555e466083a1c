"""``initlint merge``: join the JSON reports of shards."""

from __future__ import annotations

from pathlib import Path

import click

from initlint.config_values import FAIL_ON


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("-o", "--output", metavar="FILE", default="-", help="Where to write.  [standard output]")
@click.option("--fail-on", type=click.Choice(FAIL_ON), default="warning", help="Lowest severity that fails.  [warning]")
@click.option("--exit-zero", is_flag=True, help="Exit with 0 also when there are findings.")
def merge(files: tuple[str, ...], output: str, fail_on: str, exit_zero: bool) -> int:
    """Join JSON reports (of `initlint --shard I/N --output json=FILE`) into one."""
    import sys

    from initlint import config_values
    from initlint import merge as merging
    from initlint.files import write_atomically

    document = merging.merge([merging.read(Path(file)) for file in files])
    text = merging.dump(document)
    if output == "-":
        sys.stdout.write(text)
    else:
        write_atomically(Path(output), text)
    return 0 if exit_zero else merging.exit_code(document, config_values.fail_on(fail_on))
