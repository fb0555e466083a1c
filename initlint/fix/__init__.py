"""Source edits that mend findings: planned in every check, verified by a new analysis, applied on request.

``plan`` is part of every check and light; ``verify`` (which applies) is imported when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from initlint.fix.plan import plan_fixes as plan_fixes
    from initlint.fix.verify import apply_fixes as apply_fixes

__all__ = ["apply_fixes", "plan_fixes"]


def __getattr__(name: str) -> Any:
    import importlib

    if name not in __all__:
        raise AttributeError(name)
    return getattr(importlib.import_module(f"initlint.fix.{'plan' if name == 'plan_fixes' else 'verify'}"), name)
