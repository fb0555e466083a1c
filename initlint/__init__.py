"""initlint: a linter for the initialisation of PyTorch models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from initlint.api import check as check

__all__ = ["__version__", "check"]


def __getattr__(name: str) -> Any:
    # ``initlint.check`` is imported on first use: ``import initlint`` must stay free of torch.
    if name == "check":
        from initlint.api import check

        return check
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
