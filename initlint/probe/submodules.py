"""Sub-modules by their paths, also of scripted modules, whose ``get_submodule`` is not supported."""

from __future__ import annotations

from typing import Any

from torch import nn


def submodule(root: nn.Module, path: str) -> nn.Module:
    """The module at a dotted path; the root itself for ``""``.

    Raises:
        AttributeError: there is none.
    """
    found: Any = root
    for name in path.split(".") if path else ():
        found = getattr(found, name)
    if not isinstance(found, nn.Module):
        raise AttributeError(f"{path} is no module")
    return found
