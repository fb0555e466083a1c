"""IL322: of a packed modulation the wrong rows were set to zero: shifts and scales instead of the gates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.facts import Layer, ModelFacts, Node, ParameterFacts
from initlint.findings import Severity
from initlint.records import dataclass
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.theory.record import segments
from initlint.wiring import reached, transparent


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a modulation and what they do."""

    start: int
    stop: int
    role: str  # "gate" | "scale" | "shift"
    zero: bool  # weight and bias start at zero
    open: bool  # a gate whose bias was set to let the branch through


class ModulationGates(Rule):
    """The rows of an adaLN modulation that were zeroed are not those of the gates.

    ## What it does
    Finds layers whose output is cut into shifts, scales and gates of residual branches, and of which only some rows
    were set to zero. Reports gates left random while shifts or scales were zeroed, and gates of which only some
    were zeroed.

    ## Why is this bad?
    adaLN-Zero closes the gates, so that every block starts as the identity. Zero shifts and scales with random gates do
    the opposite: the modulation is off, and each branch enters with a random factor of its own sign in every channel.
    The order of the six parts differs between implementations.

    ## Example
    ```python
    shift, scale, gate = self.ada(c).chunk(3, dim=-1)
    self.ada.weight.data[: 2 * d].zero_()
    ```

    ## Use instead
    ```python
    nn.init.zeros_(self.ada.weight)  # all of it, or at least the rows of the gate
    nn.init.zeros_(self.ada.bias)
    ```

    ## Known problems
    A modulation that is drawn at random throughout is a choice (adaLN) and not reported.

    ## References
    - Peebles and Xie 2023 (DiT), section 3.2 and figure 5, arXiv:2212.09748
    """

    code = "IL322"
    name = "modulation-gates"
    family = "architecture"
    severity = Severity.WARNING
    sources = ("Peebles and Xie 2023, section 3.2, arXiv:2212.09748",)

    def check(self, context: Context) -> Iterator[Outcome]:
        if context.facts.loaded:
            return
        found: dict[str, tuple[ParameterFacts, list[Part]]] = {}
        for layer in context.facts.layers:
            weight = context.parameter(layer.weight)
            if layer.kind == "linear" and weight is not None and any(w.region for w in weight.writes):
                parts = _parts(context, layer, weight)
                gates = [p for p in parts if p.role == "gate"]
                if any(not p.zero and not p.open for p in gates) and any(p.zero for p in parts):
                    found[weight.name] = (weight, parts)
        for group in by_cause(p for p, _ in found.values()).values():
            weight, parts = found[group[0].name]
            zero = [p for p in parts if p.zero]
            left = next(p for p in parts if p.role == "gate" and not p.zero)
            rest = sorted({p.role for p in zero})
            yield self.finding(
                context,
                f"`{weight.name}`"
                + (f" and {len(group) - 1} more" if len(group) > 1 else "")
                + f": rows {', '.join(f'{p.start}:{p.stop}' for p in zero)} were zeroed, which are"
                f" {' and '.join(f'{role}s' for role in rest)}; the gate in rows {left.start}:{left.stop} starts at"
                " random",
                parameters=[p.name for p in group],
                site=site_of(weight),
                expected={"zero_rows": ", ".join(f"{p.start}:{p.stop}" for p in parts if p.role == "gate")},
                actual={"zero_rows": ", ".join(f"{p.start}:{p.stop}" for p in zero)},
                effect="the branches enter with random factors instead of starting closed",
                fix="nn.init.zeros_(ada.weight); nn.init.zeros_(ada.bias)",
                topic="convention",
            )

    @bad
    def shifts_and_scales() -> Any:
        return _block(0, 2)

    @good
    def the_gate() -> Any:
        return _block(2, 3)

    @good
    def all_of_it() -> Any:
        return _block(0, 3)


def _parts(context: Context, layer: Layer, weight: ParameterFacts) -> list[Part]:
    facts = context.facts
    bias = context.parameter(layer.bias) if layer.bias else None
    cut = [n for n in reached(facts, layer.nodes[0], transparent) if n.op == "select" and _rows(n) is not None]
    outermost = [n for n in cut if not any(other.index in n.inputs for other in cut)]
    found = []
    for node in outermost:
        rows, role = _rows(node), _role(facts, node, {n.index for n in outermost})
        if rows is None or not role:
            continue
        value = _constant(bias, *rows) if bias is not None else 0.0
        closed = _constant(weight, *rows) == 0.0
        found.append(Part(*rows, role, closed and value == 0.0, value is not None and abs(value) > 0.0))
    return found


def _rows(node: Node) -> tuple[int, int] | None:
    rows = node.attrs.get("rows")
    if isinstance(rows, list) and len(rows) == 2 and all(isinstance(r, int) for r in rows):
        return int(rows[0]), int(rows[1])  # type: ignore[arg-type]
    return None


def _role(facts: ModelFacts, part: Node, siblings: set[int]) -> str:
    """What a part of the modulation does to the signal that it meets."""
    for node in reached(facts, part.index, transparent):
        if transparent(node):
            continue
        if node.op in ("add", "sub"):
            return "shift"
        if node.op == "shift":  # 1 + scale
            return "scale"
        if node.op != "mul":
            return ""
        # a gate's product enters a sum with another signal; a scale's product meets the shift or a layer
        after = next((n for n in reached(facts, node.index, transparent) if not transparent(n)), None)
        if after is None or after.op not in ("add", "sub"):
            return "scale"
        others = [i for i in after.inputs if i != node.index]
        return "scale" if any(_of(facts, i, siblings) for i in others) else "gate"
    return ""


def _of(facts: ModelFacts, index: int, siblings: set[int]) -> bool:
    """Whether a signal is a part of the same modulation."""
    while index not in siblings:
        node = facts.nodes[index]
        if not transparent(node) or not node.inputs:
            return False
        index = node.inputs[0]
    return True


def _constant(parameter: ParameterFacts, start: int, stop: int) -> float | None:
    """The one value that the record gives these rows; ``None`` for draws and for what is not known."""
    values = set()
    for segment in segments(parameter):
        if segment.start < stop and segment.stop > start:
            if segment.asked is None or segment.asked.std != 0 or segment.mixed:
                return None
            values.add(segment.asked.mean)
    return values.pop() if len(values) == 1 else None


def _block(start: int, stop: int) -> Any:
    import torch
    from torch import nn

    class Modulated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(16, elementwise_affine=False)
            self.ada, self.mlp, self.head = nn.Linear(8, 48), nn.Linear(16, 16), nn.Linear(16, 4)
            nn.init.xavier_uniform_(self.ada.weight)
            nn.init.zeros_(self.ada.bias)
            self.ada.weight.data[start * 16 : stop * 16].zero_()

        def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            shift, scale, gate = self.ada(c).chunk(3, dim=-1)
            return self.head(x + gate * self.mlp(self.norm(x) * (1 + scale) + shift))

    return Modulated(), (torch.randn(4, 16), torch.randn(4, 8))
