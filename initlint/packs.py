"""Load rule packs: run their files and take the rules out, whoever wrote them.

The shipped pack goes through the same loader as everybody's; ``initlint.pack_files`` says what a pack is.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from initlint import pack_files
from initlint.errors import RuleError
from initlint.pack_files import Pack
from initlint.rule import FAMILIES, Rule


def load(paths: Iterable[Path | str] = (), *, shipped: bool = True, installed: bool = True) -> tuple[Rule, ...]:
    """The rules of the shipped pack, of installed packs and of the packs at ``paths``, sorted by code.

    Raises:
        RuleError: a pack or a rule file is malformed, or a code or name is taken twice.
    """
    packs = [pack_files.shipped()] if shipped else []
    packs += pack_files.installed() if installed else []
    packs += [pack_files.read(Path(path)) for path in paths]
    rules = [rule for pack in packs for rule in load_pack(pack)]
    _check_unique(rules)
    return tuple(sorted(rules, key=lambda rule: rule.code))


def load_pack(pack: Pack) -> tuple[Rule, ...]:
    """All rules of a pack. Raises ``RuleError`` with ``file:line`` when a file is malformed."""
    return tuple(rule for file in pack_files.rule_files(pack) for rule in rules_of(file, pack))


# -- one file ------------------------------------------------------------------------------------


def rules_of(file: Path, pack: Pack) -> Iterator[Rule]:
    """The rules that a file defines. Raises ``RuleError`` with ``file:line`` when it is malformed."""
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
    inside = file.with_suffix("").relative_to(pack.path if pack.path.is_dir() else file.parent)
    name = f"initlint_rules_{salt}.{'.'.join(inside.parts)}"
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
