"""IL309: a scheme that counts outputs took the stacked gates of a recurrent cell for one matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.facts import Layer, ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of

# Below a factor 1.3 of the variance the count is not worth a word (DESIGN, as for other fans).
_FACTOR = 1.3


class PackedGateFans(Rule):
    """Xavier on the stacked gates of an LSTM or GRU counts the outputs of all gates.

    ## What it does
    Finds recurrent matrices of several gates, (4H, in) of an LSTM or (3H, in) of a GRU, that one call of `xavier_*_`
    or of `kaiming_*_` with `mode="fan_out"` has filled as a whole.

    ## Why is this bad?
    Each gate is a matrix of its own with H outputs. Counting 4H makes the variance of every gate smaller than
    Glorot's: by 2.5 for a square one.

    ## Example
    ```python
    nn.init.xavier_normal_(lstm.weight_ih_l0)
    ```

    ## Use instead
    ```python
    for gate in lstm.weight_ih_l0.chunk(4):
        nn.init.xavier_normal_(gate)
    ```

    ## Known problems
    Gates saturate softly and smaller weights train too: this is a note.

    ## References
    - Glorot and Bengio 2010, equation 16
    - https://github.com/pytorch/pytorch/issues/166378 (the same of packed attention projections)
    """

    code = "IL309"
    name = "packed-gate-fans"
    family = "architecture"
    severity = Severity.NOTE
    sources = ("Glorot and Bengio 2010, equation 16", "https://github.com/pytorch/pytorch/issues/166378")

    def check(self, context: Context) -> Iterator[Outcome]:
        if context.facts.loaded:
            return
        found: dict[str, tuple[ParameterFacts, int, float]] = {}
        for layer in context.facts.layers:
            parameter = context.parameter(layer.weight)
            if layer.kind == "recurrent" and len(layer.blocks) > 1 and parameter is not None:
                ratio = _ratio(layer, parameter)
                if ratio >= _FACTOR:
                    found[parameter.name] = (parameter, len(layer.blocks), ratio)
        for group in by_cause(p for p, _, _ in found.values()).values():
            worst, gates, ratio = max((found[p.name] for p in group), key=lambda entry: entry[2])
            op = worst.last.op if worst.last else ""
            std = math.sqrt(worst.stats.second) if worst.stats else None
            yield self.finding(
                context,
                f"{op} takes the {gates} stacked gates of `{worst.name}` for one matrix of {worst.shape[0]} outputs:"
                f" each gate has {worst.shape[0] // gates}, and gets {ratio:.3g} times too little variance",
                parameters=[p.name for p in group],
                site=site_of(group[0]),
                expected={"fan_out": worst.shape[0] // gates, "std": std * math.sqrt(ratio) if std else None},
                actual={"fan_out": worst.shape[0], "std": std, "ratio": ratio**-0.5},
                effect=f"what the gates see is {math.sqrt(ratio):.3g} times smaller than the scheme intends",
                fix=f"for gate in weight.chunk({gates}): nn.init.{op}(gate)",
                topic="scale",
            )

    @bad
    def whole_matrices() -> Any:
        return _tagger(chunked=False)

    @good
    def each_gate() -> Any:
        return _tagger(chunked=True)


def _ratio(layer: Layer, parameter: ParameterFacts) -> float:
    """The variance that a gate should have over the one that the call gave it; 1 where the call does not count."""
    write = parameter.last
    if write is None or write.share < 1 or write.region or len(parameter.shape) != 2:
        return 1.0
    rows, inputs = parameter.shape
    own = rows // len(layer.blocks)
    if write.op.startswith("xavier"):
        return (inputs + rows) / (inputs + own)
    if write.op.startswith("kaiming") and write.args.get("mode") == "fan_out":
        return rows / own
    return 1.0


def _tagger(chunked: bool) -> Any:
    import torch
    from torch import nn

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(16, 32, batch_first=True)
            self.head = nn.Linear(32, 4)
            for name, parameter in self.lstm.named_parameters():
                if name.startswith("weight"):
                    for part in parameter.data.chunk(4) if chunked else (parameter,):
                        nn.init.xavier_uniform_(part)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.lstm(x)[0][:, -1])

    return Tagger()
