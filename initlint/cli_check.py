"""``initlint check``: the options, and the run from configuration to exit code."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from initlint.config_values import FAIL_ON, OUTPUT_FORMATS
from initlint.records import dataclass

if TYPE_CHECKING:
    from initlint.cache import Cache
    from initlint.config import Config
    from initlint.engine import Analysis
    from initlint.findings import Run
    from initlint.options import ProbeOptions
    from initlint.probe.client import Pool
    from initlint.rule import Rule
    from initlint.verdicts import Verdicts

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Request:
    """The options of one call of ``check``, as click parsed them."""

    targets: tuple[str, ...]
    select: tuple[str, ...]
    extend_select: tuple[str, ...]
    ignore: tuple[str, ...]
    fail_on: str | None
    exit_zero: bool
    strict: bool
    allow_unanalysed: bool
    output_format: str | None
    output: tuple[str, ...]
    statistics: bool
    quiet: bool
    verbose: int
    color: str
    input: tuple[str, ...]
    seed: int | None
    measure: bool
    thorough: bool
    device: str
    weights: tuple[str, ...]
    import_: str
    jobs: int | None
    timeout: float | None
    memory_limit: str | None
    no_cache: bool
    cache_dir: str | None
    shard: str | None
    baseline: str | None
    write_baseline: str | None
    diff: bool
    fix: bool
    unsafe_fixes: bool
    config: tuple[str, ...]
    isolated: bool

    @property
    def volume(self) -> int:
        """-1 quiet, 0 usual, 1 and more verbose."""
        return -1 if self.quiet else self.verbose


def _selection(command: _F) -> _F:
    for option in reversed(
        (
            click.option(
                "--select", multiple=True, metavar="RULES", help="Rules to run instead of the configured ones."
            ),
            click.option("--extend-select", multiple=True, metavar="RULES", help="Rules to run as well."),
            click.option("--ignore", multiple=True, metavar="RULES", help="Rules not to run."),
            click.option("--fail-on", type=click.Choice(FAIL_ON), help="Lowest severity that fails.  [warning]"),
            click.option("--exit-zero", is_flag=True, help="Exit with 0 also when there are findings."),
            click.option("--strict", is_flag=True, help="Fail on what stayed undetermined, too."),
            click.option("--allow-unanalysed", is_flag=True, help="Do not fail on models that cannot be analysed."),
        )
    ):
        command = option(command)
    return command


def _output(command: _F) -> _F:
    formats = click.Choice(OUTPUT_FORMATS)
    for option in reversed(
        (
            click.option("--output-format", type=formats, help="Format on standard output.  [text]"),
            click.option("--output", multiple=True, metavar="FORMAT=FILE", help="Also write a file; repeatable."),
            click.option("--statistics", is_flag=True, help="Count the findings of each rule."),
            click.option("-q", "--quiet", is_flag=True, help="Findings only."),
            click.option("-v", "--verbose", count=True, help="More: every model's layers, what was tried and why."),
            click.option(
                "--color", type=click.Choice(("auto", "always", "never")), default="auto", help="Use colours.  [auto]"
            ),
        )
    ):
        command = option(command)
    return command


def _analysis(command: _F) -> _F:
    spec = "An input of forward: 'x: float32[1,3,32,32]'; repeatable."
    for option in reversed(
        (
            click.option("--input", multiple=True, metavar="SPEC", help=spec),
            click.option("--seed", type=click.IntRange(min=0), help="Seed of the build.  [0]"),
            click.option(
                "--measure", is_flag=True, help="Also run forward and backward, and show the measured scales."
            ),
            click.option("--thorough", is_flag=True, help="Also build again: same seed, and meta device with reset."),
            click.option("--device", type=click.Choice(("cpu", "meta")), default="cpu", help="Where to build.  [cpu]"),
            click.option("--weights", multiple=True, metavar="FILE", help="Load these weights (safetensors, torch)."),
            click.option(
                "--import",
                "import_",
                type=click.Choice(("models", "full")),
                default="models",
                help="Execute only what the models need, or the whole file.  [models]",
            ),
        )
    ):
        command = option(command)
    return command


def _running(command: _F) -> _F:
    for option in reversed(
        (
            click.option(
                "--jobs",
                "-j",
                type=click.IntRange(min=1),
                help="Targets at a time, 1 for one core.  [one per two cores]",
            ),
            click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="For each model.  [120]"),
            click.option("--memory-limit", metavar="SIZE", help="8GB, 80%; for all models together.  [80%]"),
            click.option("--no-cache", is_flag=True, help="Neither read nor write the cache."),
            click.option("--cache-dir", metavar="DIR", help="Folder of the cache.  [.initlint_cache]"),
            click.option("--shard", metavar="I/N", help="Do the I-th of N parts; join the JSON with `initlint merge`."),
        )
    ):
        command = option(command)
    return command


def _policy(command: _F) -> _F:
    for option in reversed(
        (
            click.option("--baseline", metavar="FILE", help="Accepted findings; only others count."),
            click.option(
                "--write-baseline",
                metavar="[FILE]",
                is_flag=False,
                flag_value="",
                help="Accept all present findings: write them to the baseline.",
            ),
            click.option("--diff", is_flag=True, help="Show verified fixes as a diff; change nothing."),
            click.option("--fix", is_flag=True, help="Apply safe fixes."),
            click.option("--unsafe-fixes", is_flag=True, help="Apply also fixes that change training."),
            click.option(
                "--config", multiple=True, metavar="FILE|KEY=VALUE", help="Configuration file, or one setting."
            ),
            click.option("--isolated", is_flag=True, help="Read no configuration file."),
        )
    ):
        command = option(command)
    return command


class _Check(click.Command):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Make the value of ``--write-baseline`` optional without ever taking a target for it."""
        joined: list[str] = []
        for argument in args:
            if joined and joined[-1] == "--write-baseline":
                takes = argument.endswith(".json") and not argument.startswith("-")
                joined[-1] = f"--write-baseline={argument if takes else ''}"
                if takes:
                    continue
            joined.append(argument)
        if joined and joined[-1] == "--write-baseline":
            joined[-1] = "--write-baseline="
        return super().parse_args(ctx, joined)


@click.command(cls=_Check, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("targets", nargs=-1, metavar="[TARGET]...")
@_selection
@_output
@_analysis
@_running
@_policy
def check(**options: Any) -> int:
    """Find faults in the initialisation of models.

    Without TARGET the `targets` of [tool.initlint] are checked.
    """
    request = Request(**options)
    return execute(request)


def execute(request: Request) -> int:
    """Do what was asked; returns the exit code.

    Raises:
        InitlintError: a usage or configuration error.
    """
    started = time.perf_counter()
    from initlint import cli_output, engine
    from initlint import config as configuration
    from initlint.probe import target as targeting

    config = _configure(request, configuration)
    sinks = cli_output.parse_sinks(request.output, request.output_format, config.output_format)
    targets = targeting.parse_all(_target_texts(request, config))
    with _pool(request, config) as pool:
        run, rules = _run(request, config, targets, started, pool)
        run = _fixes(request, config, run, pool)
    if request.diff and not request.output_format:
        sinks = tuple(sink for sink in sinks if sink.file != "-")  # the diff alone, for patch
    cli_output.write(
        run, sinks, color=request.color, verbose=request.volume, statistics=request.statistics, rules=rules
    )
    if request.write_baseline is not None:
        return _write_baseline(request, config, run)
    _notices(request, config, run)
    return engine.exit_code(
        run, strict=request.strict, exit_zero=request.exit_zero, allow_unanalysed=request.allow_unanalysed
    )


def _pool(request: Request, config: Config) -> contextlib.AbstractContextManager[Pool | None]:
    """One worker for the check and for verifying its fixes, since each new one imports torch; else ``None``."""
    if not (request.diff or request.fix):
        return contextlib.nullcontext()
    from initlint.probe.client import Pool

    return Pool(_probe_options(request, config))


def _run(
    request: Request, config: Config, targets: Sequence[Any], started: float | None, pool: Pool | None
) -> tuple[Run, tuple[Rule, ...]]:
    """Analyse and judge the targets, and plan fixes; the run, and the rules that ran."""
    from initlint import cli_output, engine
    from initlint.ahead import Ahead

    prepared: list[tuple[tuple[Rule, ...], tuple[Rule, ...]]] = []
    cache = _cache(request, config)
    verdicts = _verdicts(config, cache)
    # Who asks for one target at a time has one core to give: then rules run when all is built.
    alone = config.jobs == 1
    with Ahead(lambda analysis: engine.judge_all(analysis, config, prepared[0][0], verdicts)) as ahead:
        with cli_output.Progress(quiet=request.quiet) as progress:
            analyses = _collect(
                request,
                config,
                targets,
                progress,
                cache,
                lambda fresh: prepared.append(_prepared(request, config, verdicts, fresh=fresh)),
                (lambda _: None) if alone else ahead.submit,
                pool,
            )
        rules, known = prepared[0]
        run = engine.run(
            analyses,
            config,
            rules,
            known=known,
            entries=_baseline(request, config),
            judging=ahead,
            command=shlex.join(["initlint", *sys.argv[1:]]),
            started=started,
        )
    if not run.findings:
        return run, rules
    from initlint.fix.plan import plan_fixes

    return plan_fixes(run), rules


def _configure(request: Request, configuration: Any) -> Config:
    """The configuration with the command line on top."""
    from initlint import config_values

    start = [Path(text.split(":", 1)[0].split("(", 1)[0]) for text in request.targets]
    config: Config = configuration.load(
        [path for path in start if path.exists()], overrides=request.config, isolated=request.isolated
    )
    changes: dict[str, Any] = {
        "seed": request.seed,
        "jobs": request.jobs,
        "timeout": request.timeout,
        "memory_limit": request.memory_limit,
        "cache_dir": request.cache_dir,
        "baseline": request.baseline,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    if request.fail_on is not None:
        changes["fail_on"] = config_values.fail_on(request.fail_on)
    return replace(config, **changes)


def _target_texts(request: Request, config: Config) -> list[str]:
    """The targets of the command line, else those of the configuration, seen from the working directory."""
    import os

    from initlint.errors import UsageError

    if request.targets:
        return list(request.targets)
    if not config.targets:
        raise UsageError(
            "nothing to check: no target was given",
            "Name a file, a folder or a model (initlint model.py), or set `targets` in [tool.initlint].",
        )
    texts = []
    for text in config.targets:
        place = text.split("(", 1)[0].split(":", 1)[0]
        near = config.root / place
        texts.append(os.path.relpath(near) + text[len(place) :] if near.exists() else text)
    return texts


def _collect(
    request: Request,
    config: Config,
    targets: Sequence[Any],
    progress: Any,
    cache: Cache | None,
    meanwhile: Callable[[bool], object],
    on_analysis: Callable[[Analysis], object],
    pool: Pool | None,
) -> list[Analysis]:
    from initlint.collect import Shard, collect

    return collect(
        targets,
        _probe_options(request, config),
        cache=cache,
        shard=Shard.parse(request.shard) if request.shard else None,
        on_event=progress,
        meanwhile=meanwhile,
        on_analysis=on_analysis,
        pool=pool,
    )


def _cache(request: Request, config: Config) -> Cache | None:
    if request.no_cache or not config.cacheable:
        return None
    from initlint.cache import Cache

    return Cache(Path(config.cache_dir), Path(_probe_options(request, config).directory))


def _verdicts(config: Config, cache: Cache | None) -> Verdicts | None:
    if cache is None:
        return None
    from initlint import packs
    from initlint.verdicts import Verdicts

    return Verdicts(cache.versioned, config.rule_packs, lambda: packs.load(config.rule_packs))


def _probe_options(request: Request, config: Config) -> ProbeOptions:
    from initlint.inputs_table import arguments_for, specs_for
    from initlint.options import TIMEOUT, ProbeOptions
    from initlint.probe.inputs_syntax import read
    from initlint.probe.limits import parse_size

    inputs_for = {} if request.input else specs_for(config)
    for texts in (request.input, *inputs_for.values()):
        read(texts)  # a malformed spec is an error of use, not of one model
    return ProbeOptions(
        seed=config.seed,
        inputs=request.input,
        inputs_for=inputs_for,
        timeout=TIMEOUT if config.timeout is None else config.timeout,
        memory_limit=parse_size(config.memory_limit) if config.memory_limit else 0,
        jobs=config.jobs or 0,
        measure=request.measure,
        thorough=request.thorough,
        device=request.device,
        weights=request.weights,
        import_mode=request.import_,
        arguments=arguments_for(config),
        verbose=request.verbose,
    )


def _prepared(
    request: Request, config: Config, verdicts: Verdicts | None, *, fresh: bool
) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
    """The rules; and, while the worker imports torch, everything that its results will need is imported here."""
    rules = _rules(request, config, verdicts, fresh=fresh)
    if fresh:
        import importlib

        from initlint import codec
        from initlint.emit import FORMATS
        from initlint.facts import ModelFacts
        from initlint.records import compile_all

        codec.prepare(ModelFacts)
        importlib.import_module("initlint.table")
        format = FORMATS.get(request.output_format or config.output_format, "text")
        importlib.import_module(f"initlint.emit.{format}")
        compile_all()
    return rules


def _rules(
    request: Request, config: Config, verdicts: Verdicts | None, *, fresh: bool
) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
    """The rules that run, and all rules; only their descriptions where nothing is likely to be judged anew."""
    from initlint import selection

    known = None if fresh or verdicts is None else verdicts.rules()
    if known is None:
        from initlint import packs

        known = packs.load(config.rule_packs)
        if verdicts is not None and not fresh:
            verdicts.keep_rules(known)
    asked = selection.Selectors(
        select=_split(request.select) or None,
        extend=_split(request.extend_select),
        ignore=_split(request.ignore),
    )
    return selection.choose(known, (config.selectors, asked)), known


def _split(values: Sequence[str]) -> tuple[str, ...]:
    """``--select IL1,IL2 --select IL3`` is three selectors."""
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


def _baseline(request: Request, config: Config) -> Sequence[Any]:
    from initlint import baseline

    if request.write_baseline is not None or not config.baseline:
        return ()
    return baseline.read(Path(config.baseline))


def _write_baseline(request: Request, config: Config, run: Run) -> int:
    from initlint import baseline, engine
    from initlint.config import DEFAULT_BASELINE

    path = Path(request.write_baseline or config.baseline or DEFAULT_BASELINE)
    baseline.write(path, run.findings)
    if not request.quiet:
        count = len(run.findings)
        click.echo(
            f"{count} finding{'' if count == 1 else 's'} accepted in {path}: check with --baseline {path}", err=True
        )
    # Accepted findings do not fail; what could not be analysed still does.
    return engine.exit_code(replace(run, fail_on=None), allow_unanalysed=request.allow_unanalysed)


def _fixes(request: Request, config: Config, run: Run, pool: Pool | None) -> Run:
    """Show or apply fixes. Raises ``UsageError`` when the extra is not installed."""
    if not (request.diff or request.fix):
        return run
    from initlint.fix import apply_fixes
    from initlint.probe import target as targeting

    # Copies are no part of the project: they have no place in the cache, in a shard or in the baseline's counts.
    again = replace(request, no_cache=True, shard=None)

    def recheck(texts: Sequence[str]) -> Run:
        return _run(again, config, targeting.parse_all(texts), None, pool)[0]

    return apply_fixes(
        run,
        write=request.fix and not request.diff,
        unsafe=request.unsafe_fixes,
        # a report on standard output stays whole
        diff=None if not request.diff else sys.stderr if request.output_format else sys.stdout,
        recheck=recheck,
        targets=_target_texts(request, config),
    )


def _notices(request: Request, config: Config, run: Run) -> None:
    """What is worth knowing and no finding; on stderr, so that reports on stdout stay whole."""
    if request.quiet:
        return
    if request.unsafe_fixes and not (request.fix or request.diff):
        click.echo("--unsafe-fixes changes what --fix and --diff do; without one of them nothing is edited", err=True)
    if run.baseline_stale:
        count = "1 entry" if run.baseline_stale == 1 else f"{run.baseline_stale} entries"
        click.echo(f"{count} of {config.baseline} no longer occur: prune with --write-baseline", err=True)
    if request.verbose:
        click.echo(f"configuration: {config.path or 'none found'}", err=True)
