"""IL304: the zero row at padding_idx was overwritten."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.facts import ParameterFacts
from initlint.findings import Related, Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of


class PaddingRowOverwritten(Rule):
    """An init call on the whole table overwrote the zero row at `padding_idx`.

    ## What it does
    Reports embeddings with a `padding_idx` whose row there is not zero, because a later write filled the whole table.

    ## Why is this bad?
    `nn.Embedding(padding_idx=i)` sets row i to zero once, in its own reset, and blocks its gradient. An
    `nn.init` call on `.weight` afterwards fills it with noise that no step will ever change: every padded position
    adds the same random vector.

    ## Example
    ```python
    self.embed = nn.Embedding(1000, 64, padding_idx=0)
    nn.init.normal_(self.embed.weight, std=0.02)
    ```

    ## Use instead
    ```python
    nn.init.normal_(self.embed.weight, std=0.02)
    nn.init.zeros_(self.embed.weight[self.embed.padding_idx])  # under torch.no_grad()
    ```

    ## Known problems
    A model that masks every padded position never sees the row; ignore the rule on its line then.

    ## References
    - https://github.com/pytorch/pytorch/issues/6495
    - https://github.com/microsoft/Graphormer/issues/41
    """

    code = "IL304"
    name = "padding-row-overwritten"
    family = "architecture"
    severity = Severity.WARNING
    sources = ("https://github.com/pytorch/pytorch/issues/6495", "https://github.com/microsoft/Graphormer/issues/41")

    def check(self, context: Context) -> Iterator[Outcome]:
        padded = {}
        for module in context.facts.modules:
            index = module.attrs.get("padding_idx")
            if "include_last_offset" in module.attrs:  # an EmbeddingBag, which leaves that row out of its sums
                continue
            weight = next((name for name in module.parameters if name.rpartition(".")[2] == "weight"), None)
            parameter = context.parameter(weight) if weight else None
            if isinstance(index, int) and parameter is not None and _overwritten(parameter, index):
                padded[parameter.name] = (parameter, index)
        for group in by_cause(p for p, _ in padded.values()).values():
            index = padded[group[0].name][1]
            yield self.finding(
                context,
                f"the row at padding_idx={index} of `{group[0].name}` is no longer zero:"
                " a later write filled the whole table",
                parameters=[p.name for p in group],
                site=site_of(group[0]),
                related=[
                    Related(p.created.file, p.created.line, f"padding_idx={padded[p.name][1]} is set here")
                    for p in group[:3]
                    if p.created
                ],
                expected={"padding_row": "zeros"},
                actual={"padding_row": "random"},
                effect="every padded position adds the same random vector, which never trains away",
                fix="with torch.no_grad(): embed.weight[embed.padding_idx].zero_()",
                topic="padding",
            )

    @bad
    def overwritten() -> Any:
        from torch import nn

        table = nn.Embedding(50, 16, padding_idx=0)
        nn.init.normal_(table.weight, std=0.02)
        return table

    @good
    def zeroed_again() -> Any:
        import torch
        from torch import nn

        table = nn.Embedding(50, 16, padding_idx=0)
        nn.init.normal_(table.weight, std=0.02)
        with torch.no_grad():
            table.weight[0].zero_()
        return table


def _overwritten(parameter: ParameterFacts, index: int) -> bool:
    """Whether the padding row is non-zero, by the zero slices of the values, else by the record."""
    stats = parameter.stats
    if len(parameter.shape) != 2 or stats is None or stats.rows is None or parameter.uninitialised:
        return False
    row = index % parameter.shape[0]
    if row in stats.zero_slices or stats.zeros == stats.count:
        return False
    if stats.rows.zeros > len(stats.zero_slices):  # only the first few zero rows are listed: ask the record
        return not any(w.start == row and w.stop == row + 1 and not w.random for w in parameter.writes)
    last = parameter.last
    return last is not None and last.origin != "torch"
