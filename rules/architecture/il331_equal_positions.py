"""IL331: a fixed table of positions in which most rows are copies of others, or which is all zeros."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from initlint.facts import CONVERSIONS, Node, ParameterFacts, Units
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.wiring import reached, source, transparent

# A table of an H x W grid that leaves one axis out has H or W different rows: at least half of all are copies. Rows of
# zeros for a few extra tokens are far fewer.
_COPIES = 0.5


class EqualPositions(Rule):
    """A fixed table of positions gives many positions the same row: the model cannot tell them apart.

    ## What it does
    Finds tables that no training changes (buffers, frozen parameters), are added to a signal position by position, and
    of whose rows at least half are bit for bit equal to others. Tables of a single row, repeated, are biases and left
    alone. Frozen parameters of zeros that nothing fills are reported as well: the sum with them does nothing, now and
    after training.

    ## Why is this bad?
    What is added to equal positions is equal: attention and pooling treat them as a set, and rows of an image become
    exchangeable. A two-dimensional sine table whose halves both encode the same axis is the usual case; a table that
    was made as frozen zeros, to be filled with sines, and never was, is the other.

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
    A table that is meant to ignore an axis (time that several sensors share) looks the same. Zeros beside other frozen
    weights of the same module are taken for a trained model's that is not loaded here, and not reported.

    ## References
    - https://github.com/facebookresearch/mae/issues/18
    - https://github.com/mindspore-lab/mindone/pull/409
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
        yield from self._never_filled(context, {name for name, node in tables.items() if _whole(context, node, name)})

    def _never_filled(self, context: Context, added: set[str]) -> Iterator[Outcome]:
        """Frozen tables of zeros, as they were made, that a model adds to its signal."""
        empty = [p for p in context.facts.parameters if p.name in added and _left_empty(context, p)]
        for group in by_cause(empty).values():
            first = group[0]
            yield self.finding(
                context,
                f"`{first.name}`"
                + (f" and {len(group) - 1} more are" if len(group) > 1 else " is")
                + " added to the signal, but holds zeros that nothing filled and no training changes",
                parameters=[p.name for p in group],
                site=site_of(first),
                expected={"distinct_rows": "several"},
                actual={"distinct_rows": 1, "value": 0.0},
                effect="the sum does nothing: what the table should tell apart stays the same, after training too",
                fix="table.data.copy_(...)  # the fixed values (sines), or requires_grad=True to learn them",
                topic="value",
            )

    @bad
    def frozen_zeros() -> Any:
        return _frozen(filled=False)

    @good
    def frozen_values() -> Any:
        return _frozen(filled=True)

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


def _whole(context: Context, node: Node, name: str) -> bool:
    """Whether a table is added by its places, not by rows that an input picks (a memory that is written later)."""
    return any(
        table.op == "parameter" and name in table.parameters.values() and "expr" not in table.attrs
        for table in (source(context.facts, index) for index in node.inputs)
    )


def _left_empty(context: Context, parameter: ParameterFacts) -> bool:
    """Whether it is frozen zeros of two axes or more, made as such and written by no method."""
    stats = parameter.stats
    if parameter.kind != "parameter" or parameter.requires_grad or parameter.generated or context.facts.loaded:
        return False
    if stats is None or stats.count == 0 or stats.zeros < stats.count or sum(size > 1 for size in parameter.shape) < 2:
        return False
    if parameter.provenance != "recorded" or parameter.uninitialised > 0:
        return False
    if any(write.op not in CONVERSIONS and write.op != "create" for write in parameter.writes):
        return False
    # a method that did not run here may run in training, or is a finding of its own
    later = [s.target for s in context.facts.statements if not s.reached]
    if any(parameter.local in re.findall(r"\w+", target) for target in later):
        return False
    return not _beside_frozen(context, parameter)


def _beside_frozen(context: Context, parameter: ParameterFacts) -> bool:
    """Whether other weights of the nearest module that has some are frozen too: a trained part that is not loaded."""
    module = parameter.module
    while True:
        prefix = f"{module}." if module else ""
        others = [
            p
            for p in context.facts.parameters
            if p.kind == "parameter" and p.name.startswith(prefix) and p.stats and p.stats.zeros < p.stats.count
        ]
        if others or not module:
            break
        module = module.rpartition(".")[0]
    drawn = [p for p in others if len(p.shape) >= 2 and any(w.random for w in p.writes)]
    return not drawn or any(not p.requires_grad for p in drawn)


def _frozen(*, filled: bool) -> Any:
    import torch
    from torch import nn

    class Frames(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Linear(12, 16), nn.Linear(16, 4)
            self.times = nn.Parameter(torch.zeros(1, 6, 16), requires_grad=False)
            if filled:
                angles = torch.arange(6.0)[:, None] * 10.0 ** -torch.arange(8.0)
                self.times.data.copy_(torch.cat((angles.sin(), angles.cos()), 1)[None])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.embed(x) + self.times).mean(1))

    return Frames(), (torch.randn(2, 6, 12),)


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
