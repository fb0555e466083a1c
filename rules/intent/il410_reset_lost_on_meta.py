"""IL410: a model that cannot be initialised after it was built on the meta device."""

from __future__ import annotations

from collections.abc import Iterator

from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, site_of


class ResetLostOnMeta(Rule):
    """Built on the meta device, the model's own reset functions do not restore its initialisation.

    ## What it does
    With `--thorough` the model is also built on the meta device, moved with `to_empty`, and initialised by its own
    reset functions, as FSDP and large-model loaders do. Reports parameters that nothing writes then, or that come
    out with other statistics than in an ordinary build.

    ## Why is this bad?
    Values set in `__init__` outside of any reset function are lost on meta: the parameter holds garbage, or keeps the
    generic scheme where a special one was meant.

    ## Example
    ```python
    def __init__(self):
        self.weight = nn.Parameter(torch.ones(dim))  # lost on meta: no reset_parameters
    ```

    ## Use instead
    ```python
    def reset_parameters(self):
        nn.init.ones_(self.weight)
    ```

    ## Known problems
    Needs `--thorough`. A model that is never built on meta is not affected, so this is at most a warning, and a note
    where no module but torch's has a reset function: such a model was not made for the meta device.

    ## References
    - https://github.com/mosaicml/llm-foundry/pull/1745
    - https://github.com/pytorch/pytorch/pull/104189
    """

    code = "IL410"
    name = "reset-lost-on-meta"
    family = "intent"
    severity = Severity.WARNING
    sources = ("https://github.com/mosaicml/llm-foundry/pull/1745", "https://github.com/pytorch/pytorch/pull/104189")
    thorough = True

    def check(self, context: Context) -> Iterator[Outcome]:
        for rebuild in context.facts.rebuilds:
            if rebuild.kind != "meta":
                continue
            if rebuild.reason:
                yield self.undetermined(context, rebuild.reason)
            for names, what in (
                (rebuild.lost, "is never written after a build on the meta device"),
                (rebuild.changed, "comes out of a build on the meta device with other statistics"),
            ):
                if names:
                    yield self.finding(
                        context,
                        f"`{names[0]}`" + (f" and {len(names) - 1} more: each" if len(names) > 1 else "") + f" {what}",
                        parameters=names,
                        site=site_of(context.parameter(names[0])),
                        expected={"initialised_on_meta": "as in an ordinary build"},
                        actual={"parameters": len(names)},
                        effect="a sharded or deferred build starts from other weights than an ordinary one",
                        fix="write these values in reset_parameters()",
                        topic="memory",
                        severity=None if rebuild.own else Severity.NOTE,
                    )
