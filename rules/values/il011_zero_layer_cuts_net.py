"""IL011: a layer of zeros on the only path, so that the output does not depend on the input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.facts import Layer
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.signal.liveness import cuts_input, zero_of


class ZeroLayerCutsNet(Rule):
    """A layer between other layers starts at zero, and no other path carries the signal past it.

    ## What it does
    Finds weights that are exactly zero and without which no input reaches any output. The last layer of a net is
    exempt (a zero head is a choice), and so is everything that a residual connection goes around.

    ## Why is this bad?
    The net outputs the same for every input, and nothing before the layer receives a gradient in the first step. With
    a smooth activation it opens afterwards, one step late and from an unplanned scale; with more zeros around it never
    does (IL003).

    ## Example
    ```python
    nn.init.zeros_(self.layers[3].weight)
    ```

    ## Use instead
    ```python
    nn.init.kaiming_normal_(self.layers[3].weight, nonlinearity="relu")
    ```

    ## Known problems
    None known.

    ## References
    - Zhang et al. 2019 (Fixup), section 3: zeros belong at the end of a residual branch
    """

    code = "IL011"
    name = "zero-layer-cuts-net"
    family = "values"
    severity = Severity.WARNING
    sources = ("Zhang et al. 2019 (Fixup), section 3, arXiv:1901.09321",)

    def check(self, context: Context) -> Iterator[Outcome]:
        facts = context.facts
        zeros = zero_of(facts)
        if not zeros or facts.loaded:
            return
        cutting = [layer.weight for layer in facts.layers if layer.weight in zeros and self._cuts(context, layer)]
        chosen = [p for name in dict.fromkeys(cutting) if (p := context.parameter(name)) is not None]
        for group in by_cause(chosen).values():
            yield self.finding(
                context,
                f"`{group[0].name}` is all zeros on the only path: the output does not depend on the input",
                parameters=[p.name for p in group],
                site=site_of(group[0]),
                expected={"zero_share": 0.0},
                actual={"zero_share": 1.0},
                effect="every input gives the same output, and nothing before the layer receives a gradient at first",
                fix='nn.init.kaiming_normal_(weight, nonlinearity="relu")  # or the scheme of the other layers',
                topic="value",
            )

    def _cuts(self, context: Context, layer: Layer) -> bool:
        # a weight that is also the output, or feeds it only through a bounded function, is a zero head
        ends = layer.head or layer.consumer in ("output", "loss", "softmax")
        weighty = layer.kind in ("linear", "conv", "conv_transpose", "matmul", "bilinear")
        return weighty and not ends and self._followed(context, layer) and cuts_input(context.facts, {layer.weight})

    def _followed(self, context: Context, layer: Layer) -> bool:
        """Whether another layer with weights reads what this one writes; otherwise it is the output, in some form."""
        facts = context.facts
        weighted = {node for other in facts.layers if other.kind not in ("norm", "scale") for node in other.nodes}
        downstream = set(layer.nodes)
        for node in facts.nodes:
            if any(source in downstream for source in node.inputs):
                if node.index in weighted:
                    return True
                downstream.add(node.index)
        return False

    @bad
    def zero_in_the_middle() -> Any:
        from torch import nn

        middle = nn.Linear(32, 32)
        nn.init.zeros_(middle.weight)
        return nn.Sequential(nn.Linear(16, 32), nn.SELU(), middle, nn.SELU(), nn.Linear(32, 4))

    @good
    def zero_head() -> Any:
        from torch import nn

        head = nn.Linear(32, 4)
        nn.init.zeros_(head.weight)
        return nn.Sequential(nn.Linear(16, 32), nn.SELU(), head)

    @good
    def zero_branch() -> Any:
        import torch
        from torch import nn

        class Residual(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.stem, self.fc, self.head = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4)
                nn.init.zeros_(self.fc.weight)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                x = self.stem(x)
                return self.head(x + self.fc(torch.tanh(x)))

        return Residual()
