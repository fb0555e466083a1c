"""IL902 failed-rule."""

from __future__ import annotations

from collections.abc import Iterable

from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule


class FailedRule(Rule):
    """A rule raised an exception on this model.

    ## What it does

    Reports that a rule could not be checked because its own code failed, with the exception and the place.
    The other rules are not affected. The exit code is 2: something that should have been checked was not.

    ## Why is this bad?

    What a failed rule would have found is unknown, and unknown is not fine.

    ## Example

    ```python
    class MyRule(Rule):
        def check(self, context):
            yield self.finding(context, f"std {context.facts.parameters[0].stats.var}")  # stats may be None
    ```

    ## Use instead

    ```python
    class MyRule(Rule):
        def check(self, context):
            for parameter in context.facts.parameters:
                if parameter.stats is not None:
                    ...
    ```

    ## Known problems

    None. For a rule that ships with initlint, please report it; until it is mended, `--ignore` that rule.

    ## References

    - docs/rules.md says what a rule may rely on.
    """

    code = "IL902"
    name = "failed-rule"
    family = "tool"
    severity = Severity.NOTE
    sources = ("docs/rules.md",)
    by_engine = True

    def check(self, context: Context) -> Iterable[Outcome]:
        """Nothing: the engine reports it."""
        return ()
