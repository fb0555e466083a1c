"""IL412: tensors that were one when the model was built, and are several since."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.facts import ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, good, site_of


class TieLost(Rule):
    """Tied weights come apart when the memory of a model is given anew, and are initialised one by one.

    ## What it does
    Finds parameters that were one tensor until `to_empty` gave each module memory of its own, as after a build on the
    meta device, and that nobody tied again.

    ## Why is this bad?
    The model was built with an embedding that is its output projection, and trains with two tables: other gradients,
    more parameters, and logits that do not start where a tied head puts them. A checkpoint of either kind does not fit
    the other.

    ## Example
    ```python
    with torch.device("meta"):
        model = Net()  # ties head.weight to embed.weight
    model.to_empty(device="cpu")
    model.apply(init)
    ```

    ## Use instead
    ```python
    model.to_empty(device="cpu")
    model.tie_weights()
    model.apply(init)
    ```

    ## Known problems
    None known.

    ## References
    - https://github.com/Modalities/modalities/issues/387
    - Press and Wolf 2017, Using the output embedding to improve language models
    """

    code = "IL412"
    name = "tie-lost"
    family = "intent"
    severity = Severity.WARNING
    sources = ("Press and Wolf 2017, arXiv:1608.05859",)

    def check(self, context: Context) -> Iterator[Outcome]:
        if context.facts.loaded:
            return
        one: dict[int, list[ParameterFacts]] = {}
        for parameter in context.facts.parameters:
            order = _before_emptied(parameter)
            if order is not None:
                one.setdefault(order, []).append(parameter)
        for group in one.values():
            if len(group) < 2:
                continue
            names = [p.name for p in group]
            yield self.finding(
                context,
                f"`{names[0]}` and "
                + (f"`{names[1]}`" if len(names) == 2 else f"{len(names) - 1} more")
                + " were one tensor before to_empty gave each module memory of its own: the tie is lost",
                parameters=names,
                site=next((w.site for w in group[0].writes if w.op == "to_empty"), None) or site_of(group[0]),
                expected={"tensors": 1},
                actual={"tensors": len(names)},
                effect="the tables start from different draws and train apart",
                fix="tie them again after to_empty, before the initialisation",
                topic="reach",
            )

    @bad
    def tied_on_meta() -> Any:
        return _tied(again=False)

    @good
    def tied_again() -> Any:
        return _tied(again=True)


def _before_emptied(parameter: ParameterFacts) -> int | None:
    """The number of the last write to what was a parameter's memory before ``to_empty``."""
    for before, write in zip(parameter.writes, parameter.writes[1:], strict=False):
        if write.op == "to_empty":
            return before.order
    return None


def _tied(*, again: bool) -> Any:
    import torch
    from torch import nn

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(40, 16), nn.Linear(16, 40, bias=False)
            self.tie()

        def tie(self) -> None:
            self.head.weight = self.embed.weight

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.head(self.embed(tokens))

    with torch.device("meta"):
        model = Tied()
    model.to_empty(device="cpu")
    if again:
        model.tie()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.02)
    return model, (torch.randint(0, 40, (2, 7)),)
