"""IL411: shards of a distributed model that are copies of one another, or replicas that differ."""

from __future__ import annotations

from collections.abc import Iterator

from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, site_of


class ShardsOutOfStep(Rule):
    """Processes hold the same random values where each should have its own, or others where they should be equal.

    ## What it does
    For a model with DTensor parameters (FSDP2, tensor parallelism), checked by all its processes at once, the
    beginnings of the shards and the contents of the replicas are compared between processes. Reports shards of one
    tensor that were drawn from the same random numbers, and replicated parts that differ.

    ## Why is this bad?
    When every process seeds alike and fills its own shard, the weight is one block repeated: units of different
    shards compute the same, receive the same gradient and stay equal, and the width is divided by the number of
    processes. Replicas that differ at the start stay different, for what is synchronised is the gradients.

    ## Example
    ```python
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter.to_local(), std=0.02)
    ```

    ## Use instead
    ```python
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.02)  # a DTensor gives each shard its own part of the random numbers
    ```

    ## Known problems
    Shards are compared by their first 64 values; constants are equal by their scheme and not reported. Needs
    `initlint.check(model)` in every process: on the command line a model is built in one.

    ## References
    - https://docs.pytorch.org/docs/stable/distributed.tensor.html
    - https://github.com/pytorch/torchtitan/pull/2450
    """

    code = "IL411"
    name = "shards-out-of-step"
    family = "intent"
    severity = Severity.ERROR
    sources = ("https://docs.pytorch.org/docs/stable/distributed.tensor.html",)
    several = True

    def check(self, context: Context) -> Iterator[Outcome]:
        for kind, what, effect in (
            (
                "identical_shards",
                "holds the same random values in several shards",
                "units of different shards stay equal: the layer is as wide as one shard",
            ),
            (
                "differing_replicas",
                "differs between processes that should hold the same values",
                "the replicas are different models, whose gradients are averaged",
            ),
        ):
            names = [p.name for p in context.facts.parameters if p.replica == kind]
            if not names:
                continue
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            yield self.finding(
                context,
                f"`{names[0]}`{more} {what}",
                parameters=names,
                site=site_of(context.parameter(names[0])),
                severity=Severity.ERROR,
                expected={kind: 0},
                actual={kind: len(names)},
                effect=effect,
                topic="duplicate",
            )
