"""Checks of single configuration values: each turns what TOML gave into what ``Config`` holds, or says what is due."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from initlint.findings import Severity

OUTPUT_FORMATS = ("text", "concise", "json", "sarif", "github", "gitlab", "junit", "markdown", "html")
OPTIMIZERS = ("sgd", "adam")
FAIL_ON = ("error", "warning", "note", "never")

_MEMORY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(%|[KMGT]i?B?|B)?\s*", re.IGNORECASE)


def texts(value: Any) -> tuple[str, ...]:
    """A list of texts. Raises ``ValueError``."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("a list of texts")
    return tuple(value)


def text(value: Any) -> str:
    """A text. Raises ``ValueError``."""
    if not isinstance(value, str):
        raise ValueError("a text")
    return value


def boolean(value: Any) -> bool:
    """``true`` or ``false``. Raises ``ValueError``."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def whole(minimum: int) -> Callable[[Any], int]:
    """A check for whole numbers from ``minimum``."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise ValueError(f"a whole number from {minimum}")
        return value

    return check


def seconds(value: Any) -> float:
    """A positive number of seconds. Raises ``ValueError``."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError("a positive number of seconds")
    return float(value)


def memory(value: Any) -> str:
    """An amount of memory: ``"8GB"``, ``"512MiB"``, ``"80%"``, or a number of bytes. Raises ``ValueError``."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    match = _MEMORY.fullmatch(value) if isinstance(value, str) else None
    if match is None or float(match[1]) <= 0:
        raise ValueError('an amount of memory such as "8GB" or "80%"')
    return str(value).strip()


def one_of(*options: str) -> Callable[[Any], str]:
    """A check for one of these words."""

    def check(value: Any) -> str:
        if value not in options:
            raise ValueError("one of " + ", ".join(options))
        return str(value)

    return check


def severity(value: Any) -> Severity:
    """A severity's name. Raises ``ValueError``."""
    # Imported here: the command line reads the words of this module for --help.
    from initlint.findings import Severity

    if isinstance(value, str) and value.upper() in Severity.__members__:
        return Severity.parse(value)
    raise ValueError("error, warning or note")


def fail_on(value: Any) -> Severity | None:
    """A severity's name, or ``never``. Raises ``ValueError``."""
    if value == "never":
        return None
    try:
        return severity(value)
    except ValueError:
        raise ValueError("one of " + ", ".join(FAIL_ON)) from None


def severities(value: Any) -> dict[str, Severity]:
    """A table from selectors to severities. Raises ``ValueError``."""
    if not isinstance(value, dict):
        raise ValueError("a table from rules to error, warning or note")
    try:
        return {key: severity(item) for key, item in value.items()}
    except ValueError:
        raise ValueError("a table from rules to error, warning or note") from None


def tables(value: Any) -> dict[str, Any]:
    """A table of tables (or lists). Raises ``ValueError``."""
    if not isinstance(value, dict) or not all(isinstance(item, dict | list) for item in value.values()):
        raise ValueError("a table of tables")
    return value


def lists(value: Any) -> dict[str, tuple[str, ...]]:
    """A table of lists of texts. Raises ``ValueError``."""
    if not isinstance(value, dict):
        raise ValueError("a table of lists")
    try:
        return {key: texts(item) for key, item in value.items()}
    except ValueError:
        raise ValueError("a table of lists of texts") from None


def flat_table(value: Any) -> dict[str, Any]:
    """A table of scalars or lists of scalars. Raises ``ValueError``."""
    if not isinstance(value, dict):
        raise ValueError("a table")
    return value


def flat_tables(value: Any) -> tuple[dict[str, Any], ...]:
    """A list of tables. Raises ``ValueError``."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError("a list of tables")
    return tuple(value)


def options(value: Any) -> dict[str, dict[str, Any]]:
    """Options of single rules: a table of tables. Raises ``ValueError``."""
    if not isinstance(value, dict):
        raise ValueError("a table of tables")
    return {key: flat_table(item) for key, item in value.items()}


def priors(value: Any) -> tuple[float, ...]:
    """Class priors: non-negative numbers, normalised to sum to one. Raises ``ValueError``."""
    if not isinstance(value, list) or not all(isinstance(x, int | float) and not isinstance(x, bool) for x in value):
        raise ValueError("a list of numbers")
    if len(value) < 2 or min(value) < 0 or sum(value) <= 0:
        raise ValueError("a list of two or more non-negative shares or counts")
    total = float(sum(value))
    return tuple(x / total for x in value)


#: For each field of ``Config`` the check of its value.
CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "targets": texts,
    "select": texts,
    "extend_select": texts,
    "ignore": texts,
    "severity": severities,
    "fail_on": fail_on,
    "baseline": text,
    "rule_packs": texts,
    "inputs": tables,
    "arguments": tables,
    "per_layer_ignores": lists,
    "optimizer": one_of(*OPTIMIZERS),
    "class_priors": priors,
    "policy": flat_tables,
    "presets": texts,
    "rules": options,
    "timeout": seconds,
    "memory_limit": memory,
    "jobs": whole(1),
    "seed": whole(0),
    "cache_dir": text,
    "cacheable": boolean,
    "output_format": one_of(*OUTPUT_FORMATS),
}
