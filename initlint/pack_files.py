"""Find rule packs and their files: folders, no code is run and no rule is imported.

A pack is a folder. ``pack.toml`` gives its ``name``, ``version`` and the ``prefix`` of its codes; a pack of a project
may leave it out and is then named after its folder. Every ``*.py`` in it or in its family folders, unless its name
starts with an underscore, defines rules.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from initlint import resources
from initlint.errors import RuleError
from initlint.records import dataclass

#: Entry points of installed distributions that provide packs: a path, or a module in the pack's folder.
ENTRY_POINTS = "initlint.packs"


@dataclass(frozen=True, slots=True)
class Pack:
    """A folder of rules."""

    name: str
    path: Path
    prefix: str = ""  # what its codes start with; "" for any
    version: str = ""


def shipped() -> Pack:
    """The pack that initlint ships."""
    return read(resources.rules_dir())


def read(path: Path) -> Pack:
    """The pack at ``path``, a folder or a single rule file.

    Raises:
        RuleError: there is nothing, or its ``pack.toml`` is malformed.
    """
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
    if unknown:
        raise RuleError(f"{marker}: unknown key `{unknown[0]}`", "The keys are name, version and prefix.")
    if not all(isinstance(value, str) for value in table.values()):
        raise RuleError(f"{marker}: name, version and prefix are texts", 'For example: prefix = "MY".')
    return Pack(table.get("name", path.name), path.resolve(), table.get("prefix", ""), table.get("version", ""))


def rule_files(pack: Pack) -> tuple[Path, ...]:
    """The rule files of a pack, sorted by path; underscore files are the author's helpers."""
    if pack.path.is_file():
        return (pack.path,)
    files = [*pack.path.glob("*.py"), *pack.path.glob("*/*.py")]
    return tuple(sorted(file for file in files if not file.name.startswith("_")))


def installed() -> list[Pack]:
    """The packs that installed distributions announce under the entry point group ``initlint.packs``.

    Raises:
        RuleError: one of them cannot be loaded.
    """
    if not any(_announcements()):
        return []
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
        packs.append(read(Path(value)))
    return packs


def _announcements() -> Iterator[bool]:
    """For each installed distribution whether its entry points name the group.

    ``importlib.metadata`` takes 50 ms to import and to ask a hundred distributions; this takes 2 ms, and most
    environments have no pack.
    """
    group = f"[{ENTRY_POINTS}]".encode()
    for entry in sys.path:
        try:
            names = os.listdir(entry or ".")
        except OSError:
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                try:
                    with open(os.path.join(entry, name, "entry_points.txt"), "rb") as stream:
                        yield group in stream.read()
                except OSError:
                    continue
