"""Errors that initlint reports to people: a message, and a hint that says what to do."""

from __future__ import annotations


class InitlintError(Exception):
    """An error of use or of the tool, shown as one line and a hint; never as a traceback.

    Args:
        message: what is wrong, a sentence.
        hint: what would make it work, a sentence; empty when nothing is known.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(InitlintError):
    """The command line or a target is malformed (exit code 2)."""


class ConfigError(InitlintError):
    """The configuration is malformed: unknown key, wrong type (exit code 2)."""


class RuleError(InitlintError):
    """A rule file is malformed; the message starts with ``file:line`` (exit code 2)."""


class ProbeError(InitlintError):
    """A target could not be imported, built or traced; it becomes a ``NotAnalysed`` entry."""
