"""Writing files so that nobody ever reads half of one."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from initlint.errors import UsageError


def write_atomically(path: Path, text: str | bytes) -> None:
    """Write ``text`` so that readers see the old content or the new. Missing folders are made; a string is UTF-8.

    Devices and pipes (``/dev/stdout``) are written to directly; a symbolic link keeps pointing where it does.

    Raises:
        UsageError: the file cannot be written.
    """
    data = text.encode("utf-8") if isinstance(text, str) else text
    try:
        target = path.resolve()
        if target.exists() and not target.is_file():
            with path.open("wb") as stream:
                stream.write(data)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace(target, data)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror or error}", "Check the path and folder."
        ) from error


def _replace(target: Path, data: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        # mkstemp makes files that only their owner can read; keep the old mode, or what open() would have given.
        os.chmod(temporary, target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


#: What initlint and Python themselves put into folders.
_OWN = ("__pycache__", ".initlint_cache")


def listing_digest(path: str | Path) -> str:
    """SHA-256 of the names in a folder; "" when it cannot be listed."""
    try:
        names = sorted(name for name in os.listdir(path) if name not in _OWN)
    except OSError:
        return ""
    return hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()
