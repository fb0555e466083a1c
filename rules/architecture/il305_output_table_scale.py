"""IL305: an embedding table that is also the output projection, at the scale of an embedding."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.facts import Layer
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, good, site_of
from initlint.signal import Nominal
from initlint.wiring import SCALED, users

# THEORY 6.2, logit std s: above 1 a note, above 3 a warning, above 10 an error; the loss at init exceeds ln C by about
# s^2 / 2 there.
_NOTE, _WARNING, _ERROR = 1.0, 3.0, 10.0


class OutputTableScale(Rule):
    """A tied table is drawn at the scale of an embedding, and the logits explode.

    ## What it does
    Looks at embedding tables that are also the output projection (tied weights) and predicts the standard
    deviation of the logits from their actual values.

    ## Why is this bad?
    A table of N(0, 1) is fine as an input embedding. As an output projection over d channels it gives logits
    of standard deviation sqrt(d): the loss starts far above ln C and the first steps are spent on undoing it.

    ## Example
    ```python
    self.tok = nn.Embedding(vocab, d)  # N(0, 1)
    self.lm_head.weight = self.tok.weight
    ```

    ## Use instead
    ```python
    nn.init.normal_(self.tok.weight, std=0.02)  # or d ** -0.5
    ```

    ## Known problems
    Models that scale the hidden state down before the head (T5) are judged by what reaches the logits.

    ## References
    - https://github.com/pytorch/pytorch/issues/3121
    - https://github.com/Modalities/modalities/pull/456
    - https://github.com/huggingface/transformers/pull/26441
    """

    code = "IL305"
    name = "output-table-scale"
    family = "architecture"
    severity = Severity.ERROR
    sources = ("https://github.com/Modalities/modalities/pull/456", "https://github.com/pytorch/pytorch/issues/3121")

    def check(self, context: Context) -> Iterator[Outcome]:
        if context.facts.loaded:
            return
        for parameter in context.facts.parameters:
            layers = context.layers_of(parameter.name)
            heads = [layer for layer in layers if layer.head and layer.kind in ("linear", "matmul")]
            if not heads or not any(layer.kind == "embedding" for layer in layers) or parameter.stats is None:
                continue
            outcome = self._judge(context, parameter.name, heads[0])
            if outcome is not None:
                yield outcome

    def _judge(self, context: Context, name: str, head: Layer) -> Outcome | None:
        moments = context.signal.built[_logits(context, head.nodes[-1])]
        if moments.undetermined:
            return self.undetermined(context, f"the scale of the logits is not known: {moments.undetermined}", [name])
        logit_std = math.sqrt(moments.q)
        if logit_std <= _NOTE:
            return None
        parameter = context.parameter(name)
        assert parameter is not None
        assert parameter.stats is not None
        width = head.fan_in or 1.0
        severity = Severity.ERROR if logit_std > _ERROR else Severity.WARNING if logit_std > _WARNING else Severity.NOTE
        loss = context.signal.init_loss
        known = loss is not None and loss.head == head.nodes[-1]
        return self.finding(
            context,
            f"`{name}` is embedding and output projection at once, with std {math.sqrt(parameter.stats.second):.3g}:"
            f" the logits have std {logit_std:.3g}",
            parameters=[name],
            severity=severity,
            site=site_of(parameter),
            expected={"std": width**-0.5, "logit_std": 1.0} | ({"loss": loss.expected} if loss and known else {}),
            actual={"std": math.sqrt(parameter.stats.second), "logit_std": logit_std}
            | ({"loss": loss.predicted} if loss and known else {}),
            effect=context.effect({name: Nominal(0.0, 1.0 / width)}),
            fix=f"nn.init.normal_(weight, std={min(0.02, width**-0.5) if width > 400 else width**-0.5:.3g})",
            topic="scale",
            why="Each logit sums over all channels of the hidden state: its std is that of the table times their root.",
        )

    @bad
    def tied_unit_table() -> Any:
        import torch
        from torch import nn

        class Bigram(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.table = nn.Embedding(100, 256)
                self.norm = nn.LayerNorm(256)
                self.head = nn.Linear(256, 100, bias=False)
                self.head.weight = self.table.weight

            def forward(self, ids: torch.Tensor) -> torch.Tensor:
                return self.head(self.norm(self.table(ids)))

        return Bigram()

    @good
    def tied_small_table() -> Any:
        import torch
        from torch import nn

        class Bigram(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.table = nn.Embedding(100, 256)
                self.norm = nn.LayerNorm(256)
                self.head = nn.Linear(256, 100, bias=False)
                self.head.weight = self.table.weight
                nn.init.normal_(self.table.weight, std=0.02)

            def forward(self, ids: torch.Tensor) -> torch.Tensor:
                return self.head(self.norm(self.table(ids)))

        return Bigram()


def _logits(context: Context, index: int) -> int:
    """The node of the logits: behind a constant that the product is divided by (T5's root of the width)."""
    readers, nodes = users(context.facts), context.facts.nodes
    while len(readers[index]) == 1 and nodes[readers[index][0]].op in SCALED:
        index = readers[index][0]
    return index
