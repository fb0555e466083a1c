"""What a cached analysis depends on: what the build imported, read, looked for and did not find.

Files and folders of the project, third-party packages, and environment variables that the project's own code reads.
What is not there counts too: a configuration file that appears, or a module whose absence was caught.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from initlint.files import listing_digest
from initlint.probe.standins_einops import is_stand_in

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
    """Notes what is opened, listed, imported and asked for from its creation on."""

    def __init__(self) -> None:
        self.before = frozenset(sys.modules)
        self.opened: set[str] = set()
        self.listed: set[str] = set()
        self.imported: set[str] = set()  # also what was not found
        self.variables: set[str] = set()
        own = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        torch = os.path.dirname(os.path.dirname(str(sys.modules["torch"].__file__)))
        self.libraries = tuple({sys.prefix, sys.base_prefix, torch, own})

    def watch(self) -> None:
        """Begin (an audit hook cannot be removed)."""

        def hook(event: str, args: tuple[Any, ...]) -> None:
            if event == "open":
                if not _quiet and isinstance(args[0], (str, bytes)) and _reads(args):
                    self.opened.add(os.path.abspath(os.fsdecode(args[0])))
            elif event == "import":
                self.imported.add(str(args[0]))
            elif event in ("os.listdir", "os.scandir") and not _quiet and not isinstance(args[0], int):
                caller = sys._getframe(1).f_code.co_filename
                if not caller.startswith("<frozen importlib"):  # the import system lists folders to find modules
                    self.listed.add(os.path.abspath(os.fsdecode(args[0] or ".")))

        sys.addaudithook(hook)
        watching = self._asked

        class Watched(type(os.environ)):  # type: ignore[misc]
            """The environment, which notes what is asked for."""

            def __getitem__(self, key: Any) -> Any:
                watching(key)
                return super().__getitem__(key)

        os.environ.__class__ = Watched

    def _asked(self, key: object) -> None:
        """Code asks for a variable; only the project's own counts, for libraries ask for dozens."""
        frame: Any = sys._getframe(2)
        while frame is not None and frame.f_code.co_filename.startswith(("<frozen ", os.__file__)):
            frame = frame.f_back  # os.getenv, Mapping.get
        if isinstance(key, str) and frame is not None and not self._is_library(frame.f_code.co_filename):
            self.variables.add(key)

    def found(self) -> dict[str, Any]:
        """``files`` with hashes ("": absent; folders end in a slash), ``packages`` with versions, ``variables``."""
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
        for name in sorted(self.imported):
            if name not in sys.modules or is_stand_in(sys.modules[name]):
                paths.update(self._would_be(name))
                packages.setdefault(name.split(".")[0], "")
        with unwatched():
            files = {path: _hash(path) for path in paths if not self._is_library(path)}
            files |= {os.path.join(p, ""): listing_digest(p) for p in self.listed if not self._is_library(p)}
        return {"files": files, "packages": packages, "variables": sorted(self.variables)}

    def _would_be(self, name: str) -> Iterator[str]:
        """Where in the project a module would lie that was not found."""
        parent, _, last = name.rpartition(".")
        if parent and parent not in sys.modules:
            return
        folders = getattr(sys.modules[parent], "__path__", ()) if parent else sys.path
        for folder in folders:
            if not self._is_library(os.path.abspath(folder)):
                yield os.path.join(os.path.abspath(folder), f"{last}.py")
                yield os.path.join(os.path.abspath(folder), last, "__init__.py")

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
