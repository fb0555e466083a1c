"""A run in which every text is hostile: what a model could smuggle into a report through names and messages."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from initlint.findings import Run

#: Terminal escapes, markup of HTML, XML, Markdown and workflow commands, NUL, text reordering, a lone surrogate.
POISON = (
    "\x1b]0;owned\x07\x1b[31m</script><script>alert(1)</script><img src=x onerror=alert(2)>'\"`&amp;]]>"
    "\n::error::injected\r\n| @team [link](javascript:alert(3)) \x00\x9b31m\u202e\udc80 %0A,: {{ 7*7 }} {% raw %}"
)
#: Words with a meaning of their own, which a probe and not a model chooses.
_KEPT = {"status", "severity", "op", "method", "kind", "applicability", "fingerprint", "dtype"}


def poisoned(value: Any, name: str = "") -> Any:
    """The same data with the poison appended to every text."""
    if isinstance(value, str):
        return value if name in _KEPT else value + POISON
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = {field.name: poisoned(getattr(value, field.name), field.name) for field in dataclasses.fields(value)}
        return type(value)(**changed)
    if isinstance(value, tuple):
        return tuple(poisoned(entry, name) for entry in value)
    if isinstance(value, Mapping):
        return {key: poisoned(entry, str(key)) for key, entry in value.items()}
    return value


def poison_run(run: Run) -> Run:
    """The run, poisoned throughout."""
    result: Run = poisoned(run)
    return result
