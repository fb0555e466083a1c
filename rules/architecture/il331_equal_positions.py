"""IL331: a fixed table of positions in which most rows are copies of others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.facts import Node, ParameterFacts, Units
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, good, site_of
from initlint.wiring import reached, source, transparent

# A table of an H x W grid that leaves one axis out has H or W different rows: at least half of all are copies. Rows of
# zeros for a few extra tokens are far fewer.
_COPIES = 0.5


class EqualPositions(Rule):
    """A fixed table of positions gives many positions the same row: the model cannot tell them apart.

    ## What it does
    Finds tables that no training changes (buffers, frozen parameters), are added to a signal position by position, and
    of whose rows at least half are bit for bit equal to others. Tables of a single row, repeated, are biases and left
    alone.

    ## Why is this bad?
    What is added to equal positions is equal: attention and pooling treat them as a set, and rows of an image become
    exchangeable. A two-dimensional sine table whose halves both encode the same axis is the usual case.

    ## Example
    ```python
    emb_h = encode(dim // 2, grid[0])
    emb_w = encode(dim // 2, grid[0])
    ```

    ## Use instead
    ```python
    emb_h = encode(dim // 2, grid[0])
    emb_w = encode(dim // 2, grid[1])
    ```

    ## Known problems
    A table that is meant to ignore an axis (time that several sensors share) looks the same.

    ## References
    - https://github.com/facebookresearch/mae/issues/18
    """

    code = "IL331"
    name = "equal-positions"
    family = "architecture"
    severity = Severity.WARNING
    sources = ("https://github.com/facebookresearch/mae/issues/18",)

    def check(self, context: Context) -> Iterator[Outcome]:
        tables = {name: node for node in context.facts.nodes for name in _added(context, node)}
        for parameter in context.facts.parameters:
            node = tables.get(parameter.name)
            rows = _rows(parameter)
            if node is None or rows is None:
                continue
            left = rows.count - rows.duplicates
            if rows.duplicates < _COPIES * rows.count or left < 2:
                continue
            yield self.finding(
                context,
                f"`{parameter.name}` holds {rows.count} positions, of which only {left} are different, and stays so",
                parameters=[parameter.name],
                site=context.computed_at(site_of(parameter)),
                expected={"distinct_rows": rows.count},
                actual={"distinct_rows": left},
                effect=f"{rows.duplicates} of {rows.count} positions are told from no other",
                fix="compute each half of the table from its own axis of the grid",
                topic="value",
            )

    @bad
    def one_axis_twice() -> Any:
        return _encoder((0, 0))

    @good
    def both_axes() -> Any:
        return _encoder((0, 1))

    @good
    def one_row_for_all() -> Any:
        return _encoder(())


def _rows(parameter: ParameterFacts) -> Units | None:
    """How the rows of a table (..., positions, channels) compare, if nothing trains it."""
    stats, shape = parameter.stats, parameter.shape
    trained = parameter.kind == "parameter" and parameter.requires_grad
    if trained or stats is None or stats.sampled or parameter.provenance == "loaded" or len(shape) < 2:
        return None
    if not parameter.dtype.startswith(("float", "bfloat")) or any(size != 1 for size in shape[:-2]) or shape[-1] < 2:
        return None
    return {2: stats.rows, 3: stats.columns}.get(len(shape))


def _added(context: Context, node: Node) -> Iterator[str]:
    """Tables that a node adds to a signal, row by row; not to the logits of an attention."""
    facts = context.facts
    if node.op != "add" or node.shape is None or len(node.shape) < 2:
        return
    if any(after.op == "softmax" for after in reached(facts, node.index, transparent)):
        return
    for index in node.inputs:
        table = source(facts, index)
        name = table.parameters.get("value", table.parameters.get("weight", ""))
        parameter = context.parameter(name) if table.op in ("parameter", "embedding") else None
        if parameter is not None and len(parameter.shape) > 1 and parameter.shape[-1] == node.shape[-1]:
            yield parameter.name


def _encoder(axes: tuple[int, ...]) -> Any:
    import torch
    from torch import nn

    def encode(at: torch.Tensor) -> torch.Tensor:
        angles = at.reshape(-1, 1) * 10.0 ** -torch.arange(8.0)
        return torch.cat((angles.sin(), angles.cos()), 1)

    class Encoder(nn.Module):
        positions: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 32, 4, stride=4)
            grid = torch.stack(torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij"))
            rows = [encode(grid[axis]) for axis in axes] or [torch.randn(1, 32).expand(64, 32)]
            self.register_buffer("positions", torch.cat(rows, 1)[None])
            self.block = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
            self.head = nn.Linear(32, 10)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            x = self.patches(image).flatten(2).transpose(1, 2) + self.positions
            return self.head(self.block(x).mean(1))

    return Encoder()
