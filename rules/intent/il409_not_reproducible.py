"""IL409: weights that differ between two builds under one seed."""

from __future__ import annotations

from collections.abc import Iterator

from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, site_of


class NotReproducible(Rule):
    """Two builds under the same seed give different weights.

    ## What it does
    With `--thorough` the model is built twice under one seed (torch, NumPy and Python's random) and the
    parameters are compared. Uninitialised memory is IL001 and not counted here.

    ## Why is this bad?
    Runs cannot be repeated, and a difference between two experiments may be the draw. Typical sources: iteration
    over a set, a generator seeded from the clock, `os.urandom`.

    ## Example
    ```python
    generator = torch.Generator().manual_seed(time.time_ns())
    ```

    ## Use instead
    ```python
    generator = torch.Generator().manual_seed(seed)
    ```

    ## Known problems
    Needs `--thorough`, since it costs a second build.

    ## References
    - https://github.com/pytorch/pytorch/issues/65049
    """

    code = "IL409"
    name = "not-reproducible"
    family = "intent"
    severity = Severity.WARNING
    sources = ("https://github.com/pytorch/pytorch/issues/65049",)
    thorough = True

    def check(self, context: Context) -> Iterator[Outcome]:
        for rebuild in context.facts.rebuilds:
            if rebuild.kind != "same_seed" or not rebuild.differing:
                continue
            names = list(rebuild.differing)
            yield self.finding(
                context,
                f"`{names[0]}`"
                + (f" and {len(names) - 1} more" if len(names) > 1 else "")
                + " differ between two builds under one seed",
                parameters=names,
                site=site_of(context.parameter(names[0])),
                expected={"differing": 0},
                actual={"differing": len(names)},
                effect="runs cannot be repeated",
                topic="duplicate",
            )
