"""Project files that a build imported or read, and third-party packages it imported: what a cache depends on."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator
from typing import Any

_quiet = 0  # > 0 while initlint itself reads files
_extra: set[str] = set()


@contextlib.contextmanager
def unwatched() -> Iterator[None]:
    """Files opened meanwhile do not count: initlint looks around, the build does not depend on them."""
    global _quiet
    _quiet += 1
    try:
        yield
    finally:
        _quiet -= 1


def depends_on(path: str) -> None:
    """Count a file although it was read unwatched: what it says was used."""
    _extra.add(path)


class Files:
    """Notes what is opened and imported from its creation on."""

    def __init__(self) -> None:
        self.before = frozenset(sys.modules)
        self.opened: set[str] = set()
        own = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        torch = os.path.dirname(os.path.dirname(str(sys.modules["torch"].__file__)))
        self.libraries = tuple({sys.prefix, sys.base_prefix, torch, own})

    def watch(self) -> None:
        """Note every file that is opened for reading from now on (an audit hook cannot be removed)."""
        opened = self.opened

        def hook(event: str, args: tuple[Any, ...]) -> None:
            if event == "open" and not _quiet and isinstance(args[0], (str, bytes)) and _reads(args):
                opened.add(os.path.abspath(os.fsdecode(args[0])))

        sys.addaudithook(hook)

    def found(self) -> dict[str, Any]:
        """``files`` with their hashes and ``packages`` with their versions."""
        paths = self.opened | _extra
        packages: dict[str, str] = {}
        for name in [name for name in sys.modules if name not in self.before]:
            path = getattr(sys.modules[name], "__file__", None)
            if not isinstance(path, str):
                continue
            if not self._is_library(path):
                paths.add(os.path.abspath(path))
            elif "-packages" in path:  # not the standard library
                top = name.split(".")[0]
                packages.setdefault(top, _version(top))
        with unwatched():
            files = {path: digest for path in paths if not self._is_library(path) and (digest := _hash(path))}
        return {"files": files, "packages": packages}

    def _is_library(self, path: str) -> bool:
        if "site-packages" in path or "dist-packages" in path or path.endswith(".pyc"):
            return True
        return path.startswith((*self.libraries, "/proc/", "/sys/", "/dev/"))


def _reads(args: tuple[Any, ...]) -> bool:
    mode = args[1] if len(args) > 1 else None
    if isinstance(mode, str):
        return not any(letter in mode for letter in "wax+")
    flags = args[2] if len(args) > 2 and isinstance(args[2], int) else 0
    return not flags & (os.O_WRONLY | os.O_RDWR)


def _version(name: str) -> str:
    version = getattr(sys.modules.get(name), "__version__", None)
    if isinstance(version, str):
        return version
    import importlib.metadata

    try:
        return importlib.metadata.version(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return ""


def _hash(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
