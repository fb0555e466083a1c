"""IL010: an index or routing table that is left at zero."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.facts import ModelFacts, Node, ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, good, site_of


class ZeroIndexTable(Rule):
    """An integer table that selects weights holds only zeros: everything is routed to entry 0.

    ## What it does
    Reports integer buffers (or parameters) that are all zero, come from no checkpoint, are looked
    up by the input, and whose values select among stacked weights (experts, relations).

    ## Why is this bad?
    A routing table meant to be filled from a checkpoint or a hash sends every token to expert 0 when it is not:
    the other experts never get a gradient.

    ## Example
    ```python
    self.register_buffer("routes", torch.zeros(vocab, top_k, dtype=torch.long))
    ```

    ## Use instead
    ```python
    self.register_buffer("routes", torch.randint(n_experts, (vocab, top_k)))
    ```

    ## Known problems
    Tables of types or positions that are zero by design index a plain embedding and are not meant.

    ## References
    - https://github.com/NVIDIA-NeMo/Automodel/pull/2991
    """

    code = "IL010"
    name = "zero-index-table"
    family = "values"
    severity = Severity.ERROR
    sources = ("https://github.com/NVIDIA-NeMo/Automodel/pull/2991",)

    def check(self, context: Context) -> Iterator[Outcome]:
        for parameter in context.facts.parameters:
            if not _zero_table(parameter):
                continue
            chosen = _selects(context.facts, parameter.name)
            if chosen is None:
                continue
            weight = context.parameter(chosen)
            entries = weight.shape[0] if weight is not None else 0
            yield self.finding(
                context,
                f"the table `{parameter.name}` is all zeros: it always selects entry 0 of the {entries} in `{chosen}`",
                parameters=[parameter.name],
                site=site_of(parameter),
                expected={"distinct_entries": entries},
                actual={"distinct_entries": 1},
                effect=f"{entries - 1} of {entries} entries of `{chosen}` never receive a gradient",
                fix=f"fill the table: torch.randint({entries}, {tuple(parameter.shape)}) or the intended assignment",
                topic="value",
            )

    @bad
    def zero_routes() -> Any:
        import torch
        from torch import nn

        class HashMoE(nn.Module):
            routes: torch.Tensor

            def __init__(self) -> None:
                super().__init__()
                self.embed = nn.Embedding(32, 8)
                self.experts = nn.Parameter(torch.randn(4, 8, 8) * 8**-0.5)
                self.register_buffer("routes", torch.zeros(32, dtype=torch.long))

            def forward(self, ids: torch.Tensor) -> torch.Tensor:
                return torch.einsum("btd,btde->bte", self.embed(ids), self.experts[self.routes[ids]])

        return HashMoE()

    @good
    def zero_types() -> Any:
        import torch
        from torch import nn

        class Typed(nn.Module):
            types: torch.Tensor

            def __init__(self) -> None:
                super().__init__()
                self.embed = nn.Embedding(32, 8)
                self.kind = nn.Embedding(2, 8)
                self.register_buffer("types", torch.zeros(16, dtype=torch.long))

            def forward(self, ids: torch.Tensor) -> torch.Tensor:
                return self.embed(ids) + self.kind(self.types[: ids.shape[1]])

        return Typed()


def _zero_table(parameter: ParameterFacts) -> bool:
    stats = parameter.stats
    return (
        parameter.dtype.startswith(("int", "uint"))
        and stats is not None
        and stats.count > 1
        and stats.zeros == stats.count
        and parameter.provenance != "loaded"
    )


def _selects(facts: ModelFacts, table: str) -> str | None:
    """The stacked weight (three axes or more) whose leading axis is indexed by values of the table."""
    shapes = {p.name: p.shape for p in facts.parameters}
    tainted: set[int] = set()
    for node in facts.nodes:
        reads = table in node.parameters.values() or any(i in tainted for i in node.inputs)
        if not reads:
            continue
        chosen = _stacked(facts, node, shapes, table)
        if chosen is not None:
            return chosen
        # indices stay indices through lookups and reshapes
        if node.dtype.startswith(("int", "uint")):
            tainted.add(node.index)
    return None


def _stacked(facts: ModelFacts, node: Node, shapes: dict[str, tuple[int, ...]], table: str) -> str | None:
    names = list(node.parameters.values())
    for source in node.inputs:
        if facts.nodes[source].op == "parameter":
            names += facts.nodes[source].parameters.values()
    return next((name for name in names if name != table and len(shapes.get(name, ())) >= 3), None)
