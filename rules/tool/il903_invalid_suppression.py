"""IL903 invalid-suppression."""

from __future__ import annotations

from collections.abc import Iterable

from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule


class InvalidSuppression(Rule):
    """A suppression comment names no rule, or one that does not exist.

    ## What it does

    Reports comments that start with `# initlint:` and cannot be followed: without rules in brackets (there is no
    blanket form), with a code or name that no rule has, or with another word than `ignore` and `ignore-file`.

    ## Why is this bad?

    Who wrote the comment believes that something is silenced. It is not.

    ## Example

    ```python
    self.fc = nn.Linear(64, 64)  # initlint: ignore
    ```

    ## Use instead

    ```python
    self.fc = nn.Linear(64, 64)  # initlint: ignore[IL101]
    ```

    ## Known problems

    Rules of a pack that is not configured in this run do not exist for it.

    ## References

    - ruff warns about unknown codes in `noqa` comments in the same way.
    """

    code = "IL903"
    name = "invalid-suppression"
    family = "tool"
    severity = Severity.WARNING
    sources = ("https://docs.astral.sh/ruff/linter/#error-suppression",)
    by_engine = True

    def check(self, context: Context) -> Iterable[Outcome]:
        """Nothing: the engine reports it, when it reads the comments."""
        return ()
