"""IL408: a constructor that resets the global random number generator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, good


class ReseedsGlobalRng(Rule):
    """Building the model resets the global random number generator of PyTorch.

    ## What it does
    Reports calls of `torch.manual_seed` and `torch.seed` during construction that are not undone by `fork_rng`.

    ## Why is this bad?
    The seed that the training script sets is lost: data order, dropout and every model built afterwards
    repeat the same stream whatever the user asks for, and runs with different seeds share their weights.

    ## Example
    ```python
    class Net(nn.Module):
        def __init__(self):
            torch.manual_seed(0)
    ```

    ## Use instead
    ```python
    torch.manual_seed(args.seed)  # in the script
    model = Net()
    ```

    ## Known problems
    Code at the top level of a script that seeds once is not construction and not reported.

    ## References
    - https://github.com/pytorch/pytorch/issues/98200 (generator= for torch.nn.init)
    """

    code = "IL408"
    name = "reseeds-global-rng"
    family = "intent"
    severity = Severity.NOTE
    sources = ("https://github.com/pytorch/pytorch/issues/98200",)

    def check(self, context: Context) -> Iterator[Outcome]:
        for reseed in context.facts.reseeds:
            if reseed.forked or reseed.stream or reseed.site is None or reseed.site.function in ("", "<module>"):
                continue
            yield self.finding(
                context,
                f"building the model sets the global seed to {reseed.seed}"
                + (f" {reseed.times} times" if reseed.times > 1 else ""),
                site=reseed.site,
                expected={"reseeds": 0},
                actual={"reseeds": reseed.times, "seed": reseed.seed},
                effect="the seed of the training script is lost; runs with different seeds start from the same weights",
                fix="pass a torch.Generator to the init functions, or wrap in torch.random.fork_rng()",
                topic="duplicate",
            )

    @bad
    def seeds_itself() -> Any:
        import torch
        from torch import nn

        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                torch.manual_seed(0)
                self.fc = nn.Linear(4, 4)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.fc(x)

        return Net()

    @good
    def leaves_the_seed_alone() -> Any:
        from torch import nn

        return nn.Sequential(nn.Linear(4, 4))
