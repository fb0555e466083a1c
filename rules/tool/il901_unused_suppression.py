"""IL901 unused-suppression."""

from __future__ import annotations

from collections.abc import Iterable

from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule


class UnusedSuppression(Rule):
    """A suppression comment silences nothing.

    ## What it does

    Reports `# initlint: ignore[...]` and `# initlint: ignore-file[...]` comments that no finding of this run
    needed. Comments that name rules which are switched off are left alone, as are comments on models that
    could not be analysed.

    ## Why is this bad?

    A comment that silences nothing today silences the next fault on that line, which nobody has looked at.

    ## Example

    ```python
    self.fc = nn.Linear(64, 64)  # initlint: ignore[IL001]
    ```

    ## Use instead

    ```python
    self.fc = nn.Linear(64, 64)
    ```

    ## Known problems

    A finding that hangs on chance may come and go with the seed, and its suppression with it.

    ## References

    - ruff's RUF100 and ESLint's `--report-unused-disable-directives` do the same.
    """

    code = "IL901"
    name = "unused-suppression"
    family = "tool"
    severity = Severity.NOTE
    sources = ("https://docs.astral.sh/ruff/rules/unused-noqa/",)
    by_engine = True

    def check(self, context: Context) -> Iterable[Outcome]:
        """Nothing: the engine reports it, after all rules have run."""
        return ()
