"""IL302: orthogonal initialisation of several stacked matrices at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from initlint.facts import ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of


class StackedOrthogonal(Rule):
    """`orthogonal_` on a matrix that packs several gates or projections: none of them is orthogonal.

    ## What it does
    Finds packed weights (the (4H, H) recurrent matrix of an LSTM, (3H, H) of a GRU, stacked tensors of three axes)
    that were initialised by one call of `orthogonal_`, or of `eye_`, which reaches the first part alone.

    ## Why is this bad?
    The columns of the (4H, H) stack are orthonormal, so each (H, H) gate has only a quarter of the spectral
    mass: std 1/sqrt(4H) instead of 1/sqrt(H), and singular values around 0.44 instead of 1. What orthogonality was
    meant to give, a recurrent step that keeps the norm, is lost.

    ## Example
    ```python
    nn.init.orthogonal_(lstm.weight_hh_l0)
    ```

    ## Use instead
    ```python
    for gate in lstm.weight_hh_l0.chunk(4):
        nn.init.orthogonal_(gate)
    ```

    ## Known problems
    The input-to-hidden matrix is judged only where it is square for each gate.

    ## References
    - https://github.com/vwxyzjn/cleanrl/issues/358
    - Saxe, McClelland and Ganguli 2014
    """

    code = "IL302"
    name = "stacked-orthogonal"
    family = "architecture"
    severity = Severity.WARNING
    sources = ("https://github.com/vwxyzjn/cleanrl/issues/358", "Saxe, McClelland and Ganguli 2014, arXiv:1312.6120")

    def check(self, context: Context) -> Iterator[Outcome]:
        recurrent = {
            name
            for node in context.facts.nodes
            if node.op == "recurrent"
            for role, name in node.parameters.items()
            if "hh" in role
        }
        packed = {layer.weight: layer.layout for layer in context.facts.layers if len(layer.blocks) > 1}
        suspects = [
            p
            for p in context.facts.parameters
            if p.last is not None
            and p.last.op in ("orthogonal_", "eye_")
            and p.last.share >= 1
            and _parts(p, recurrent, packed) > 1
        ]
        for group in by_cause(suspects).values():
            parts = _parts(group[0], recurrent, packed)
            chunk = f"chunk({parts}, 1)" if packed.get(group[0].name) == "in_out" else f"chunk({parts})"
            eye = group[0].last is not None and group[0].last.op == "eye_"
            yield self._identity(context, group, parts, chunk) if eye else self._report(context, group, parts, chunk)

    def _report(self, context: Context, group: list[ParameterFacts], parts: int, chunk: str) -> Outcome:
        ratio = parts**-0.5
        return self.finding(
            context,
            f"orthogonal_ makes the {parts} stacked parts of `{group[0].name}` one semi-orthogonal matrix:"
            f" each part has {ratio:.2g} of the std it would have on its own",
            parameters=[p.name for p in group],
            site=site_of(group[0]),
            expected={"singular_value": 1.0},
            actual={"singular_value_rms": ratio},
            effect=f"no part is orthogonal; each keeps 1/{parts} of the spectral mass",
            fix=f"for part in weight.{chunk}: nn.init.orthogonal_(part)",
            topic="scale",
        )

    def _identity(self, context: Context, group: list[ParameterFacts], parts: int, chunk: str) -> Outcome:
        return self.finding(
            context,
            f"eye_ makes the first of the {parts} stacked parts of `{group[0].name}` the identity and leaves the others"
            " at zero",
            parameters=[p.name for p in group],
            site=site_of(group[0]),
            expected={"identities": parts},
            actual={"identities": 1},
            effect=f"{parts - 1} of {parts} parts start without what the identity is meant to carry",
            fix=f"for part in weight.{chunk}: nn.init.eye_(part)",
            topic="scale",
        )

    @bad
    def whole_lstm_matrix() -> Any:
        import torch
        from torch import nn

        class Agent(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.lstm = nn.LSTM(16, 32, batch_first=True)
                nn.init.orthogonal_(self.lstm.get_parameter("weight_hh_l0"))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.lstm(x)[0]

        return Agent()

    @bad
    def identity_of_the_whole() -> Any:
        from torch import nn

        gru = nn.GRU(16, 16, batch_first=True)
        nn.init.eye_(gru.get_parameter("weight_hh_l0"))
        return gru

    @good
    def each_gate() -> Any:
        import torch
        from torch import nn

        class Agent(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.lstm = nn.LSTM(16, 32, batch_first=True)
                with torch.no_grad():
                    for gate in self.lstm.get_parameter("weight_hh_l0").chunk(4):
                        nn.init.orthogonal_(gate)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.lstm(x)[0]

        return Agent()


def _parts(parameter: ParameterFacts, recurrent: set[str], packed: Mapping[str, str]) -> int:
    """How many square matrices the tensor packs side by side: gates of a recurrent layer, or projections."""
    shape = parameter.shape
    if len(shape) != 2 or not (parameter.name in recurrent or parameter.name in packed):
        return 1
    outputs, inputs = shape[::-1] if packed.get(parameter.name) == "in_out" else shape
    return outputs // inputs if inputs and outputs % inputs == 0 else 1
