"""Anonymous files that forks share."""

from __future__ import annotations

import contextlib
import os
from typing import IO


def scratch() -> IO[bytes]:
    """An anonymous file, in memory where the system has that; it vanishes when it is closed."""
    if hasattr(os, "memfd_create"):
        with contextlib.suppress(OSError):
            return os.fdopen(os.memfd_create("initlint"), "w+b")
    import tempfile

    return tempfile.TemporaryFile()
