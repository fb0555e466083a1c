"""Keep what the probe found, so that an unchanged model is judged again without building it or importing torch.

An entry holds the facts of one target. Its key is made of all that is known before the build: the target and
the content of its file, the options that change facts, the versions of Python, torch and initlint, and the
environment variables that libraries read at import. The entry itself lists what the build turned out to read or to
look for (project files, data files, folders, third-party packages, environment variables); it counts only while all
of that is unchanged. Rules are
not part of it: they run afresh on the stored facts. Failures are never stored.

Layout: ``.initlint_cache/<version>/<key>.json``, two lines: a header with the dependencies and the digest of
the second line, the facts.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from initlint import __version__
from initlint.codec import from_plain, to_plain
from initlint.errors import InitlintError
from initlint.facts import ModelFacts, NotAnalysed
from initlint.files import listing_digest, write_atomically
from initlint.records import dataclass

#: Raise when the facts or the layout of entries change within one version of initlint.
FORMAT = 7
#: Environment variables that change what a build does, by prefix.
ENVIRONMENT = (
    *("PYTHONPATH", "PYTHONHASHSEED", "PYTHONOPTIMIZE", "PYTHONHOME"),
    *("TORCH", "PYTORCH", "HF_", "TRANSFORMERS_", "TIMM_", "CUDA_"),
)
#: Entries that nobody has asked for in this many seconds (30 days) are removed when a new one is written.
LIFETIME = 30 * 24 * 3600.0

_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# A cache of initlint: https://bford.info/cachedir/\n"


@dataclass(frozen=True, slots=True)
class Entry:
    """What is kept of one target."""

    models: tuple[ModelFacts, ...] = ()
    not_analysed: tuple[NotAnalysed, ...] = ()  # harmless ones only


class Cache:
    """The entries in one folder, for one working directory.

    Args:
        folder: the cache folder; made when the first entry is written.
        directory: what relative paths of dependencies are relative to.
    """

    def __init__(self, folder: Path, directory: Path) -> None:
        self.folder = folder
        self.directory = directory
        self._hashes: dict[str, str] = {}
        self.digests: dict[str, str] = {}  # of the facts, by the key of their entry

    @property
    def versioned(self) -> Path:
        """The folder of this version's entries."""
        return self.folder / f"{__version__}-{FORMAT}"

    def get(self, key: str) -> Entry | None:
        """The entry of that key, if it is whole and everything it was made from is unchanged."""
        file = self.versioned / f"{key}.json"
        try:
            header_line, payload = file.read_bytes().split(b"\n", 1)
            header = json.loads(header_line)
            if header["digest"] != hashlib.sha256(payload).hexdigest() or not self._unchanged(header):
                return None
            entry = from_plain(Entry, json.loads(payload))
            os.utime(file)
            self.digests[key] = header["digest"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None  # absent, cut off, or of another shape: as good as absent
        return entry

    def put(
        self,
        key: str,
        entry: Entry,
        dependencies: Iterable[tuple[str, str]] = (),
        packages: Iterable[str] = (),
        variables: Iterable[str] = (),
    ) -> None:
        """Store an entry, unless it holds a failure. A cache that cannot be written is no error.

        Args:
            key: from ``key_of``.
            entry: the facts.
            dependencies: (path, SHA-256 of its content) of each file that was read; "" for one that was
                looked for and absent; a path that ends in a slash is a folder whose names were listed.
            packages: import names of the third-party packages that the build imported, or looked for in vain.
            variables: names of the environment variables that the project's code asked for.
        """
        if not storable(entry):
            return
        payload = json.dumps(to_plain(entry, compact=True), separators=(",", ":"), allow_nan=False)
        files = sorted((self._shown(path), digest) for path, digest in dependencies)
        header = {
            "digest": hashlib.sha256(payload.encode()).hexdigest(),
            "files": files,
            "packages": {name: package_stamp(name) for name in sorted(packages)},
            "variables": {name: variable_digest(name) for name in sorted(variables)},
        }
        try:
            self._prepare()
            text = json.dumps(header, separators=(",", ":")) + "\n" + payload
            write_atomically(self.versioned / f"{key}.json", text)
            self.digests[key] = str(header["digest"])
            self._prune()
        except (OSError, InitlintError):
            return

    def clean(self) -> int:
        """Remove the whole cache folder. Returns how many entries it held.

        Raises:
            InitlintError: the folder is there and is no cache of initlint, or cannot be removed.
        """
        if not self.folder.exists():
            return 0
        if not (self.folder / "CACHEDIR.TAG").is_file():
            raise InitlintError(f"{self.folder} is not a cache of initlint", "It is left alone: check `cache-dir`.")
        count = sum("-" not in file.name for file in self.folder.glob("*/*.json"))  # the others hold verdicts
        try:
            shutil.rmtree(self.folder)
        except OSError as error:
            raise InitlintError(f"{self.folder} cannot be removed: {error}", "Check its permissions.") from error
        return count

    def _unchanged(self, header: Mapping[str, Any]) -> bool:
        if any(self.digest(path) != expected for path, expected in header["files"]):
            return False
        if any(variable_digest(name) != known for name, known in header["variables"].items()):
            return False
        return all(package_stamp(name) == known for name, known in header["packages"].items())

    def digest(self, path: str) -> str:
        """SHA-256 of a file's content, or of the names in a folder (a path that ends in a slash); "" without one."""
        if path not in self._hashes:
            read = listing_digest if path.endswith(os.sep) else file_digest
            self._hashes[path] = read(self.directory / path)
        return self._hashes[path]

    def _shown(self, path: str) -> str:
        """Relative to the working directory where it lies below it, so that a cache can move between machines."""
        try:
            shown = Path(path).resolve().relative_to(self.directory.resolve()).as_posix()
        except ValueError:
            return path
        return shown + os.sep if path.endswith(os.sep) else shown

    def _prepare(self) -> None:
        self.versioned.mkdir(parents=True, exist_ok=True)
        for name, content in ((".gitignore", "*\n"), ("CACHEDIR.TAG", _TAG)):
            if not (self.folder / name).exists():
                write_atomically(self.folder / name, content)

    def _prune(self) -> None:
        limit = time.time() - LIFETIME
        for item in os.scandir(self.versioned):
            if item.name.endswith(".json") and item.stat().st_mtime < limit:
                os.unlink(item.path)


def storable(entry: Entry) -> bool:
    """Whether an entry is a success through and through.

    A failure, or a trace cut short by a time limit, may be cured by something that leaves no trace here.
    """
    return all(m.status == "analysed" for m in entry.models) and all(n.harmless for n in entry.not_analysed)


def key_of(parts: Mapping[str, Any]) -> str:
    """The key for what is known before a build: a hash of ``parts`` and of the versions and environment."""
    known = {
        **parts,
        "initlint": [__version__, FORMAT],
        "python": [platform.python_implementation(), platform.python_version(), sys.platform, platform.machine()],
        "torch": torch_version(),
        "environment": {k: v for k, v in sorted(os.environ.items()) if k.startswith(ENVIRONMENT)},
    }
    return hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()[:40]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content; "" when it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, ValueError):
        return ""


def variable_digest(name: str) -> str:
    """What tells values of an environment variable apart without showing them; "" when it is not set."""
    value = os.environ.get(name)
    return "" if value is None else hashlib.sha256(value.encode(errors="surrogateescape")).hexdigest()


def stamp(paths: Sequence[str]) -> list[tuple[str, int, int]]:
    """Path, size and time of change of files too large to hash (checkpoints; with an index all files beside it)."""
    stamps = []
    for path in (file for given in paths for file in _parts(given)):
        try:
            status = os.stat(path)
            stamps.append((path, status.st_size, status.st_mtime_ns))
        except OSError:
            stamps.append((path, -1, 0))
    return stamps


def _parts(path: str) -> list[str]:
    if not path.endswith(".index.json"):
        return [path]
    try:
        return sorted(entry.path for entry in os.scandir(os.path.dirname(path) or ".") if entry.is_file())
    except OSError:
        return [path]


def torch_version() -> str:
    """The version of the torch that an import would give, without importing it; "" when there is none."""
    import importlib.util

    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.origin:
        return ""
    # torch/version.py is generated by torch's build and names the exact build (2.6.0+cpu, git hash).
    return file_digest(Path(spec.origin).parent / "version.py") or spec.origin


def package_stamp(name: str) -> str:
    """What tells versions of an installed package apart, by its import name and without importing it."""
    import importlib.util

    version = _installed().get(name.lower().replace("-", "_"))
    if version is not None:
        return version
    # Installed under another name (PIL is Pillow's): its own files say which version it is.
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return ""
    if spec is None or not spec.origin:
        return ""
    origin = Path(spec.origin)
    files = (origin, *(origin.with_name(f"{stem}.py") for stem in ("version", "_version", "__version__")))
    return hashlib.sha256("".join(file_digest(file) for file in files).encode()).hexdigest()


@functools.cache
def _installed() -> Mapping[str, str]:
    """Versions of the installed distributions by normalised name, from the names of their folders alone.

    ``importlib.metadata`` opens files of each distribution; this is one listing for each entry of the path.
    """
    versions: dict[str, str] = {}
    for entry in sys.path:
        try:
            names = os.listdir(entry or ".")
        except OSError:
            continue
        for item in names:
            stem, dot, suffix = item.rpartition(".")
            if dot and suffix in ("dist-info", "egg-info"):
                name, _, version = stem.partition("-")
                versions.setdefault(name.lower().replace(".", "_"), version)
    return versions
