"""The Python interface: ``initlint.check`` for a model in this process, or for a target as on the command line."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from initlint import config as configuration
from initlint import engine, packs, selection
from initlint.config import Config
from initlint.config_values import fail_on as parse_fail_on
from initlint.engine import Analysis
from initlint.errors import ConfigError, UsageError
from initlint.findings import Run
from initlint.fix.plan import plan_fixes
from initlint.options import ProbeOptions
from initlint.relocate import relocate
from initlint.selection import Selectors

if TYPE_CHECKING:
    from torch import nn

_PROBE_OPTIONS = ("seed", "measure", "thorough", "device", "weights", "jobs", "timeout", "import_mode", "arguments")


def check(
    model: nn.Module | Callable[[], nn.Module] | str | os.PathLike[str],
    *,
    inputs: Any = None,
    select: Sequence[str] | None = None,
    extend_select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    fail_on: str | None = None,
    config: Config | str | os.PathLike[str] | None = None,
    name: str = "",
    **options: Any,
) -> Run:
    """Check the initialisation of a model.

    A model that already lives in this process is traced and measured here; how it was built is not known, so
    rules that compare intent and outcome stay silent. For those, give what builds it: a class or function without
    required arguments (``check(Model)``, ``check(lambda: Model(depth=4))``). Weights and global state, the random
    state among it, are as before. A target (a path, ``file.py::Name``, ``package.module:factory``) is built in a
    child process, as on the command line.

    Args:
        model: the module, what builds it, or a target.
        inputs: arguments for ``forward``: a tensor, a tuple, a dict of keyword arguments, or
            ``(args, kwargs)``; for a target texts as after ``--input``. Inferred when ``None``.
        select: selectors of the rules to run; ``None``: as configured.
        extend_select: rules to run as well.
        ignore: rules not to run.
        fail_on: ``"error"``, ``"warning"``, ``"note"`` or ``"never"``: kept in the run, for reports.
        config: a ``Config``, the path of a file, or ``None``: the nearest ``pyproject.toml``.
        name: what reports call the model; its class by default.
        **options: any of seed, measure, thorough, device, weights, jobs, timeout, import_mode, arguments.

    Returns:
        the run: ``run.findings``, ``run.models``, ...

    Raises:
        InitlintError: a malformed target, option or configuration.
    """
    started = time.perf_counter()
    settings = _settings(config, fail_on, options)
    known = packs.load(settings.rule_packs)
    asked = Selectors(None if select is None else tuple(select), tuple(extend_select), tuple(ignore))
    rules = selection.choose(known, (settings.selectors, asked))
    probing = _options(settings, options)
    if isinstance(model, str | os.PathLike):
        results = _from_target(os.fspath(model), inputs, probing)
    else:
        results = [_from_module(model, inputs, probing, name)]
    return plan_fixes(engine.run(results, settings, rules, known=known, command="initlint.check", started=started))


def _settings(
    config: Config | str | os.PathLike[str] | None, fail_on: str | None, options: Mapping[str, Any]
) -> Config:
    if isinstance(config, Config):
        settings = config
    else:
        settings = configuration.load([]) if config is None else configuration.read(Path(config))
    changes: dict[str, Any] = {}
    if fail_on is not None:
        try:
            changes["fail_on"] = parse_fail_on(fail_on)
        except ValueError as error:
            raise ConfigError(f"fail_on must be {error}, not {fail_on!r}") from None
    if "seed" in options:
        changes["seed"] = options["seed"]
    return replace(settings, **changes)


def _options(settings: Config, options: Mapping[str, Any]) -> ProbeOptions:
    unknown = sorted(options.keys() - set(_PROBE_OPTIONS))
    if unknown:
        hint = selection.did_you_mean(unknown[0], _PROBE_OPTIONS) or f"Known options: {', '.join(_PROBE_OPTIONS)}."
        raise UsageError(f"check() has no option `{unknown[0]}`", hint)
    values = dict(options)
    weights = values.get("weights", ())
    values["weights"] = (os.fspath(weights),) if isinstance(weights, str | os.PathLike) else tuple(weights)
    values.setdefault("seed", settings.seed)
    return ProbeOptions(**values)


def _from_target(text: str, inputs: Any, options: ProbeOptions) -> list[Analysis]:
    from initlint.collect import collect
    from initlint.probe import target

    specs = (inputs,) if isinstance(inputs, str) else tuple(inputs or ())
    if not all(isinstance(spec, str) for spec in specs):
        raise UsageError("inputs of a target are texts", "For example: inputs=['x: float32[1,3,32,32]'].")
    return collect(target.parse_all([text]), replace(options, inputs=specs))


def _from_module(model: nn.Module | Callable[[], nn.Module], inputs: Any, options: ProbeOptions, name: str) -> Analysis:
    """The facts of a live module, or of one that is built here. torch has been imported by whoever made it."""
    from initlint.probe import pipeline

    facts = pipeline.analyse(model, name=name, options=options, inputs=_arguments(inputs))
    return Analysis(target=facts.target, models=(relocate(facts, options.directory),))


def _arguments(inputs: Any) -> Any:
    """What was given as inputs in the form of ``example_inputs()``: a tuple, or ``(args, kwargs)``."""
    if inputs is None or isinstance(inputs, tuple):
        return inputs
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return tuple(inputs) if isinstance(inputs, list) else (inputs,)
