"""Files that lie beside the model's file and are asked for by a relative path, as from that folder."""

from __future__ import annotations

import os


def folder_of(error: BaseException, path: str) -> tuple[str, str] | None:
    """The folder of the model's file ``path`` and what is missing from the working directory and lies there.

    ``None`` where the exception (or its cause) is about no such file.
    """
    cause = error if isinstance(error, FileNotFoundError) else error.__cause__
    name = cause.filename if isinstance(cause, FileNotFoundError) else None
    if not isinstance(name, (str, os.PathLike)):
        return None
    name, folder = os.fspath(name), os.path.dirname(path)
    if not isinstance(name, str) or os.path.isabs(name) or os.path.exists(name):
        return None
    return (folder, name) if os.path.isabs(folder) and os.path.exists(os.path.join(folder, name)) else None
