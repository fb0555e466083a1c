"""Load rule packs: folders of rule files, one rule a file, whoever wrote them.

A pack is a folder. ``pack.toml`` gives its ``name``, ``version`` and the ``prefix`` of its codes; a pack of
a project may leave it out and is then named after its folder. Every ``*.py`` in it or in its family
folders, unless its name starts with an underscore, defines one or more ``Rule`` subclasses. The shipped
pack goes through the same loader as everybody's.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from initlint import resources
from initlint.errors import RuleError
from initlint.rule import FAMILIES, Rule

#: Entry points of installed distributions that provide packs: a path, or a module in the pack's folder.
ENTRY_POINTS = "initlint.packs"


@dataclass(frozen=True, slots=True)
class Pack:
    """A folder of rules."""

    name: str
    path: Path
    prefix: str = ""  # what its codes start with; "" for any
    version: str = ""


def load(paths: Iterable[Path | str] = (), *, shipped: bool = True, installed: bool = True) -> tuple[Rule, ...]:
    """The rules of the shipped pack, of installed packs and of the packs at ``paths``, sorted by code.

    Raises:
        RuleError: a pack or a rule file is malformed, or a code or name is taken twice.
    """
    packs = [read_pack(resources.rules_dir())] if shipped else []
    packs += installed_packs() if installed else []
    packs += [read_pack(Path(path)) for path in paths]
    rules = [rule for pack in packs for rule in load_pack(pack)]
    _check_unique(rules)
    return tuple(sorted(rules, key=lambda rule: rule.code))


def load_one(code: str) -> Rule | None:
    """The shipped rule of that code, without reading the other files; ``None`` when there is none.

    Raises:
        RuleError: its file is malformed.
    """
    pack = read_pack(resources.rules_dir())
    for file in rule_files(pack):
        if file.stem.upper().split("_")[0] == code.upper():
            return next((rule for rule in _rules_of(file, pack) if rule.code == code.upper()), None)
    return None


def read_pack(path: Path) -> Pack:
    """The description of the pack at ``path``. Raises ``RuleError`` when it is no pack."""
    if not path.exists():
        raise RuleError(f"{path}: there is no such rule pack", "Check `rule-packs`: paths are relative to its file.")
    marker = path / "pack.toml"
    if not marker.is_file():
        return Pack(path.stem, path.resolve())
    try:
        table = tomllib.loads(marker.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RuleError(f"{marker}: {error}", "pack.toml holds the keys name, version and prefix.") from error
    unknown = sorted(table.keys() - {"name", "version", "prefix"})
    if unknown or not all(isinstance(value, str) for value in table.values()):
        raise RuleError(f"{marker}: only text keys name, version and prefix", f"Remove {', '.join(unknown)}.")
    return Pack(table.get("name", path.name), path.resolve(), table.get("prefix", ""), table.get("version", ""))


def rule_files(pack: Pack) -> tuple[Path, ...]:
    """The rule files of a pack, sorted by path; underscore files are the author's helpers."""
    if pack.path.is_file():
        return (pack.path,)
    files = [*pack.path.glob("*.py"), *pack.path.glob("*/*.py")]
    return tuple(sorted(file for file in files if not file.name.startswith("_")))


def load_pack(pack: Pack) -> tuple[Rule, ...]:
    """All rules of a pack. Raises ``RuleError`` with ``file:line`` when a file is malformed."""
    return tuple(rule for file in rule_files(pack) for rule in _rules_of(file, pack))


def installed_packs() -> list[Pack]:
    """The packs that installed distributions announce under the entry point group ``initlint.packs``."""
    from importlib.metadata import entry_points

    packs = []
    for point in entry_points(group=ENTRY_POINTS):
        try:
            value = point.load()
        except Exception as error:
            raise RuleError(
                f"the rule pack `{point.name}` could not be loaded: {error}", f"Uninstall or mend `{point.value}`."
            ) from error
        if isinstance(value, ModuleType):
            value = Path(value.__file__ or "").parent
        packs.append(read_pack(Path(value)))
    return packs


# -- one file ------------------------------------------------------------------------------------


def _rules_of(file: Path, pack: Pack) -> Iterator[Rule]:
    module = _execute(file, pack)
    classes = [value for value in vars(module).values() if _is_rule(value, module)]
    if not classes:
        raise RuleError(f"{file}:1: defines no rule", "Define a subclass of initlint.rule.Rule, or rename it to _*.py.")
    for cls in classes:
        if not cls.code.startswith(pack.prefix):
            raise RuleError(
                f"{_line(cls, file)}: code {cls.code} does not start with the pack's prefix {pack.prefix}",
                f"The prefix is set in {pack.path / 'pack.toml'}.",
            )
        if file.parent.name in FAMILIES and cls.family != file.parent.name:
            raise RuleError(
                f"{_line(cls, file)}: a rule of the family {cls.family} lies in the folder {file.parent.name}",
                f"Move the file to {cls.family}/.",
            )
        yield cls()


def _is_rule(value: object, module: ModuleType) -> bool:
    return (
        isinstance(value, type)
        and issubclass(value, Rule)
        and value.__module__ == module.__name__
        and not value.__dict__.get("abstract", False)
    )


def _execute(file: Path, pack: Pack) -> ModuleType:
    """Import a rule file under a name that no other file has, with Python's usual bytecode cache."""
    # Two packs may have the same name and the same file names: the folder's hash tells them apart.
    salt = hashlib.sha256(str(pack.path).encode()).hexdigest()[:8]
    name = f"initlint_rules_{salt}.{'.'.join(file.relative_to(pack.path).with_suffix('').parts) or file.stem}"
    known = sys.modules.get(name)
    if known is not None:
        return known
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise RuleError(f"{file}:1: cannot be read as Python", "Rule files end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, RuleError | KeyboardInterrupt):
            raise
        raise RuleError(
            f"{file}:{_fault(error, file)}: {type(error).__name__}: {error}", "A rule file must import without errors."
        ) from error
    return module


def _fault(error: BaseException, file: Path) -> int:
    """The innermost line of ``file`` that the error passed through."""
    if isinstance(error, SyntaxError) and error.lineno:
        return error.lineno
    import traceback

    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
    return (lines[-1] if lines else None) or 1


def _line(cls: type, file: Path) -> str:
    import inspect

    try:
        return f"{file}:{inspect.getsourcelines(cls)[1]}"
    except (OSError, TypeError):
        return f"{file}:1"


def _check_unique(rules: Sequence[Rule]) -> None:
    taken: dict[str, Rule] = {}
    for rule in rules:
        for key in (rule.code, rule.name, *rule.aliases):
            other = taken.setdefault(key, rule)
            if other is not rule:
                raise RuleError(
                    f"{_place(rule)}: `{key}` is taken by {_place(other)}", "Codes, names and aliases are unique."
                )


def _place(rule: Rule) -> str:
    module = sys.modules[type(rule).__module__]
    return _line(type(rule), Path(module.__file__ or "?"))


def by_code(rules: Iterable[Rule]) -> Mapping[str, Rule]:
    """The rules by their codes."""
    return {rule.code: rule for rule in rules}
