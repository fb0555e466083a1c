"""The configuration: ``[tool.initlint]`` of the nearest ``pyproject.toml`` that has one.

As in ruff: the nearest table is the whole configuration, tables further up are not merged into it; it may
say ``extend = "../pyproject.toml"`` itself. ``--config FILE`` names another file and ``--config key=value``
overrides one key. Paths in a file are relative to that file. An unknown key or a value of the wrong kind is
an error. Each value remembers where it came from, for ``initlint config``.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, fields, replace
from pathlib import Path
from typing import Any

from initlint.config_values import CHECKS, OUTPUT_FORMATS
from initlint.errors import ConfigError
from initlint.facts import Plain, Scalar
from initlint.findings import Severity
from initlint.records import dataclass
from initlint.rule import Settings
from initlint.selection import Selectors, did_you_mean

ENVIRONMENT_FORMAT = "INITLINT_OUTPUT_FORMAT"
DEFAULT_BASELINE = ".initlint-baseline.json"


@dataclass(frozen=True, slots=True)
class Config:
    """All settings, with their defaults. Keys in TOML are these names with dashes.

    ``timeout`` is in seconds for each target; ``memory_limit`` is a text such as ``"8GB"`` or ``"80%"``.
    """

    targets: tuple[str, ...] = ()
    select: tuple[str, ...] | None = None  # None: all rules
    extend_select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    severity: Mapping[str, Severity] = field(default_factory=dict)  # selector -> severity
    fail_on: Severity | None = Severity.WARNING  # None: never
    baseline: str = ""
    rule_packs: tuple[str, ...] = ()
    inputs: Mapping[str, Plain] = field(default_factory=dict)  # target -> table of input specs
    arguments: Mapping[str, Plain] = field(default_factory=dict)  # target -> table of constructor arguments
    per_layer_ignores: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # glob of layer -> selectors
    optimizer: str = "adam"
    class_priors: tuple[float, ...] = ()
    policy: tuple[Mapping[str, Scalar], ...] = ()
    presets: tuple[str, ...] = ()
    rules: Mapping[str, Mapping[str, Scalar]] = field(default_factory=dict)  # options of single rules
    timeout: float | None = None
    memory_limit: str | None = None
    jobs: int | None = None
    seed: int = 0
    cache_dir: str = ".initlint_cache"
    cacheable: bool = True
    output_format: str = "text"
    # Not keys: where the configuration was read, and where each value came from.
    path: Path | None = None
    origins: Mapping[str, str] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """The folder that relative paths of the configuration are relative to."""
        return self.path.parent if self.path else Path.cwd()

    @property
    def selectors(self) -> Selectors:
        """The configuration's layer of rule selection."""
        return Selectors(self.select, self.extend_select, self.ignore)

    @property
    def settings(self) -> Settings:
        """What rules may read."""
        return Settings(self.optimizer, self.class_priors, self.policy, self.presets, self.rules)


_META = ("path", "origins")
KEYS: Mapping[str, str] = {f.name.replace("_", "-"): f.name for f in fields(Config) if f.name not in _META}


def load(
    start: Sequence[Path] = (),
    *,
    overrides: Iterable[str] = (),
    isolated: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Config:
    """Read the configuration for targets at ``start`` (the working directory when there are none).

    Args:
        start: files or folders; the search goes upwards from the folder that they share.
        overrides: values of ``--config``: a file, or ``key=value`` in TOML.
        isolated: read no file that was not named.
        environment: replaces ``os.environ``.

    Raises:
        ConfigError: a file cannot be read, a key is unknown, a value is of the wrong kind.
    """
    environment = os.environ if environment is None else environment
    files = [text for text in overrides if _is_file(text)]
    if len(files) > 1:
        raise ConfigError("--config names two files", "Name one; give single values as --config key=value.")
    if files:
        config = read(Path(files[0]), base=Path.cwd())
    else:
        found = None if isolated else discover(start)
        config = read(found) if found else Config()
    if environment.get(ENVIRONMENT_FORMAT):
        table: dict[str, Any] = {"output-format": environment[ENVIRONMENT_FORMAT]}
        config = _apply(config, table, f"${ENVIRONMENT_FORMAT}", Path.cwd())
    for text in overrides:
        if not _is_file(text):
            config = _apply(config, _parse_override(text), "--config", Path.cwd())
    return config


def discover(start: Sequence[Path]) -> Path | None:
    """The nearest ``pyproject.toml`` with a ``[tool.initlint]`` table, upwards from the shared folder of ``start``."""
    folders = [path if path.is_dir() else path.parent for path in (p.resolve() for p in start)] or [Path.cwd()]
    folder = Path(os.path.commonpath(folders))
    for candidate in (folder, *folder.parents):
        file = candidate / "pyproject.toml"
        if file.is_file() and _table(file) is not None:
            return file
    return None


def read(file: Path, *, base: Path | None = None, seen: tuple[Path, ...] = ()) -> Config:
    """The configuration in a file, with what it extends. Relative paths are relative to ``base`` (the file's folder).

    Raises:
        ConfigError: as ``load``; also when files extend one another in a circle.
    """
    file = file.resolve()
    if file in seen:
        raise ConfigError(f"{file}: extends itself through {', '.join(str(s) for s in seen)}", "Remove one `extend`.")
    table = _table(file)
    if table is None:
        raise ConfigError(f"{file}: has no [tool.initlint] table", "Add one, or name another file.")
    config = Config()
    parent = table.pop("extend", None)
    if parent is not None:
        if not isinstance(parent, str):
            raise ConfigError(f"{file}: `extend` must be the path of a file", 'For example: extend = "../base.toml".')
        config = read(file.parent / parent, base=base, seen=(*seen, file))
    return replace(_apply(config, table, str(file), base or file.parent), path=(base / file.name) if base else file)


def _is_file(text: str) -> bool:
    return "=" not in text or Path(text).is_file()


def _table(file: Path) -> dict[str, Any] | None:
    """The initlint table of a TOML file: ``[tool.initlint]``; in files not called pyproject.toml also the top level."""
    try:
        with file.open("rb") as stream:
            document = tomllib.load(stream)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}", "Name a TOML file, or key=value.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {error}", "The file must be valid TOML.") from error
    tool = document.get("tool")
    table = tool.get("initlint") if isinstance(tool, dict) else None
    if table is None and file.name != "pyproject.toml" and tool is None:
        table = document
    if table is not None and not isinstance(table, dict):
        raise ConfigError(f"{file}: tool.initlint is not a table", "Write [tool.initlint].")
    return table


def _parse_override(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"--config {text}: neither a file nor TOML ({error})", "Quote texts: --config 'fail-on=\"error\"'."
        ) from error


def _apply(config: Config, table: Mapping[str, Any], origin: str, base: Path) -> Config:
    """``config`` with the keys of ``table`` on top."""
    values: dict[str, Any] = {}
    origins = dict(config.origins)
    for key, value in table.items():
        if key not in KEYS:
            hint = did_you_mean(key, KEYS) or f"Known keys: {', '.join(sorted(KEYS))}, extend."
            raise ConfigError(f"{origin}: unknown key `{key}`", hint)
        name = KEYS[key]
        try:
            checked = CHECKS[name](value)
        except ValueError as error:
            raise ConfigError(f"{origin}: `{key}` must be {error}, not {value!r}", _example(key)) from None
        if name in ("policy", "presets"):
            _check_policies(name, checked, origin)
        if name == "extend_select":
            checked = (*config.extend_select, *checked)
        elif name in ("baseline", "cache_dir"):
            checked = str(base / checked)
        elif name == "rule_packs":
            checked = tuple(str(base / path) for path in checked)
        values[name] = checked
        origins[name] = origin
    return replace(config, **values, origins=origins)


def _check_policies(name: str, values: Sequence[Any], origin: str) -> None:
    """A policy that cannot be meant is an error of the configuration, not of every model that it is held against."""
    from initlint.policies import parse, preset

    for number, value in enumerate(values, 1):
        try:
            parse(value) if name == "policy" else preset(value)
        except ConfigError as error:
            where = f"{origin}: [[tool.initlint.policy]] number {number}" if name == "policy" else origin
            raise ConfigError(f"{where}: {error.message.removeprefix('policy: ')}", error.hint) from None


def _example(key: str) -> str:
    examples = {
        "severity": 'For example: severity = { IL203 = "note" }.',
        "per-layer-ignores": 'For example: "*.lm_head" = ["IL101"] under [tool.initlint.per-layer-ignores].',
        "inputs": 'For example: shape = [[1, 3, 32, 32]] under [tool.initlint.inputs."model.py::Net"].',
        "arguments": 'For example: depth = 4 under [tool.initlint.arguments."model.py::Net"].',
        "memory-limit": 'For example: memory-limit = "8GB" or "80%".',
        "policy": "Policies are tables: [[tool.initlint.policy]].",
        "output-format": f"Formats: {', '.join(OUTPUT_FORMATS)}.",
    }
    return examples.get(key, "See the README on configuration.")
