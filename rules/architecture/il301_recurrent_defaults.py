"""IL301: a recurrent layer left at PyTorch's defaults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.facts import Node, ParameterFacts
from initlint.findings import Severity
from initlint.records import dataclass
from initlint.rule import Context, Outcome, Rule, bad, good, site_of

# Jozefowicz et al. 2015 set 1; with E[f] = sigmoid(0.5) memory halves in 1.5 steps. Below that sum the gate starts
# by forgetting.
_FORGET_BIAS = 0.5
# |W W^T / g^2 - I|_max of an orthogonal float32 matrix is below 1e-5, of bfloat16 below 1e-2 (THEORY 3.3).
_ORTHOGONAL = 1e-2


@dataclass(frozen=True, slots=True)
class _Left:
    """What of a recurrent layer is left at its default."""

    layer: str
    cell: str  # "rnn" | "lstm" | "gru"
    steps: object  # over which it runs, where that is known
    parameters: tuple[ParameterFacts, ...]
    hidden: tuple[ParameterFacts, ...]  # hidden-to-hidden matrices that are not orthogonal
    forget: float | None  # mean bias of the forget gates of an LSTM
    low: bool  # it is too small to remember


class RecurrentDefaults(Rule):
    """An RNN, LSTM or GRU keeps PyTorch's default: uniform recurrent weights, forget gates at zero.

    ## What it does
    Reports recurrent layers whose hidden-to-hidden matrix is the default U(-1/sqrt(H), 1/sqrt(H)) and, for an LSTM,
    whose forget gate has a bias near zero (the sum of `bias_ih` and `bias_hh`).

    ## Why is this bad?
    The default recurrent matrix has spectral radius 0.58: a gradient loses a factor 4 of its second moment at every
    step of a plain RNN. With a forget bias of 0 an LSTM keeps half of its cell at each step, so it remembers 1.4
    steps at the start. Orthogonal recurrent weights and a forget bias of 1 are the usual remedy, and cost nothing.

    ## Example
    ```python
    self.lstm = nn.LSTM(32, 64)
    ```

    ## Use instead
    ```python
    self.lstm = nn.LSTM(32, 64)
    for name, p in self.lstm.named_parameters():
        if name.startswith("weight_hh"):
            for gate in p.chunk(4):
                nn.init.orthogonal_(gate)
        elif name.startswith("bias_ih"):
            p.data[p.numel() // 4 : p.numel() // 2] = 1.0
    ```

    ## Known problems
    Short sequences train well with the defaults: this is a note.

    ## References
    - Jozefowicz, Zaremba and Sutskever 2015 (forget bias), Saxe et al. 2014 (orthogonal)
    - https://github.com/pytorch/pytorch/issues/20102
    """

    code = "IL301"
    name = "recurrent-defaults"
    family = "architecture"
    severity = Severity.NOTE
    sources = (
        "Jozefowicz, Zaremba and Sutskever 2015, An Empirical Exploration of Recurrent Network Architectures",
        "https://github.com/pytorch/pytorch/issues/20102",
    )

    def check(self, context: Context) -> Iterator[Outcome]:
        seen: set[tuple[str, ...]] = set()  # a cell that is called at every step is one cell
        groups: dict[tuple[object, ...], list[_Left]] = {}  # by the line that makes them, and what is left
        for node in context.facts.nodes:
            names = tuple(node.parameters.values())
            if node.op == "recurrent" and names not in seen:
                seen.add(names)
                left = self._left(context, node)
                if left is not None:
                    made = left.parameters[0].created
                    place = (made.file, made.line) if made is not None else names
                    groups.setdefault((place, left.cell, bool(left.hidden), left.low), []).append(left)
        for group in groups.values():
            yield self._report(context, group)

    def _left(self, context: Context, node: Node) -> _Left | None:
        """What of a recurrent layer is left at its default."""
        names = [name for role, name in node.parameters.items() if "hh" in role or "bias" in role]
        facts = [p for name in names if (p := context.parameter(name)) is not None]
        untouched = [p for p in facts if p.writes and p.writes[-1].origin == "torch"]
        if context.facts.loaded or context.facts.unrun or not untouched:  # initialised later than we can see
            return None
        cell, steps = str(node.attrs.get("cell", "rnn")), node.attrs.get("steps")
        if node.attrs.get("single"):
            steps = sum(other.parameters == node.parameters for other in context.facts.nodes)
        hidden = [p for p in untouched if len(p.shape) == 2 and not _orthogonal(p.stats)]
        forget = _forget_bias(node) if cell == "lstm" else None
        # biases that the code has set are its choice (or another rule's matter)
        kept = [p for p in untouched if len(p.shape) == 1]
        low = forget is not None and forget < _FORGET_BIAS and bool(kept)
        if not hidden and not low:
            return None
        return _Left(node.module or node.label, cell, steps, tuple(untouched), tuple(hidden), forget, low)

    def _report(self, context: Context, group: list[_Left]) -> Outcome:
        """One finding for the layers that one line makes: what is said of the first holds for all."""
        first = group[0]
        said = []
        if first.hidden:
            said.append("the recurrent matrices are the default uniform ones, not orthogonal")
        if first.low:
            said.append(
                f"the forget gates start with bias {first.forget:.2g}, so half of the cell is lost at each step"
            )
        more = f" and {len(group) - 1} more" if len(group) > 1 else ""
        steps = first.steps
        return self.finding(
            context,
            f"`{first.layer}`{more} ({first.cell.upper()}) {'keep' if more else 'keeps'} PyTorch's default: "
            + " and ".join(said),
            parameters=[p.name for left in group for p in (left.parameters if left.low else left.hidden)],
            site=first.parameters[0].created or site_of(first.parameters[0]),
            expected={"recurrent": "orthogonal for each gate", "forget_bias": 1.0 if first.cell == "lstm" else None},
            actual={"recurrent": "uniform(-1/sqrt(H), 1/sqrt(H))", "forget_bias": first.forget},
            effect=f"memory of about {_memory(first.forget):.1f}{f' of {steps}' if steps else ''} steps at the start"
            if first.forget is not None
            else f"a gradient shrinks 4-fold in second moment at each {f'of {steps} steps' if steps else 'step'}",
            fix="for gate in weight_hh.chunk(4): nn.init.orthogonal_(gate); bias_ih[H:2*H].fill_(1.0)"
            if first.cell == "lstm"
            else "nn.init.orthogonal_(weight_hh)",
            topic="convention",
        )

    @bad
    def default_lstm() -> Any:
        import torch
        from torch import nn

        class Tagger(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.lstm = nn.LSTM(16, 32, batch_first=True)
                self.head = nn.Linear(32, 4)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.head(self.lstm(x)[0][:, -1])

        return Tagger()

    @good
    def initialised_lstm() -> Any:
        import torch
        from torch import nn

        class Tagger(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.lstm = nn.LSTM(16, 32, batch_first=True)
                self.head = nn.Linear(32, 4)
                with torch.no_grad():
                    for name, parameter in self.lstm.named_parameters():
                        if name.startswith("weight_hh"):
                            for gate in parameter.chunk(4):
                                nn.init.orthogonal_(gate)
                        elif name.startswith("bias"):
                            parameter.zero_()
                            parameter[32:64] = 0.5  # both biases add up: 1.0

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.head(self.lstm(x)[0][:, -1])

        return Tagger()


def _orthogonal(stats: object) -> bool:
    residual = getattr(stats, "gram_residual", None)
    chunks = getattr(stats, "chunks", {}) or {}
    parts = [c.gram_residual for group in chunks.values() for c in group if c.gram_residual is not None]
    return (residual is not None and residual < _ORTHOGONAL) or any(r < _ORTHOGONAL for r in parts)


def _forget_bias(node: Node) -> float | None:
    value = node.attrs.get("forget_bias")
    if isinstance(value, list):
        numbers = [v for v in value if isinstance(v, (int, float))]
        return min(numbers) if numbers else None
    return float(value) if isinstance(value, (int, float)) else None


def _memory(forget: float | None) -> float:
    """Steps until the cell has lost a factor e, for a gate at its bias: -1 / ln sigmoid(b) (THEORY 5.7)."""
    import math

    return -1.0 / math.log(1.0 / (1.0 + math.exp(-(forget or 0.0))))
