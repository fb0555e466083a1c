"""IL113: of two tables that are added, one is left at PyTorch's N(0, 1), and the other is small beside it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from initlint.facts import ParameterFacts
from initlint.findings import Severity
from initlint.records import dataclass
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.signal import Nominal
from initlint.wiring import SCALED, source

# The part of a sum that is a hundredth of it has a tenth of its length (a ratio of second moments of 1e2 is where the
# severity table starts to speak of a choice that does harm).
_DROWNED = 100.0
# A factor before the sum that is there to make a small table as large as the other (Vaswani et al. 2017: tables of std
# d^-1/2, times d^1/2): from 2 on, for 1 and what rounds to it are no such factor.
_MAGNIFIED = 2.0


class OneTableDrownsAnother(Rule):
    """Tables that are added to one another differ so much in scale that one of them is hardly in the sum.

    ## What it does
    Looks at sums of looked-up tables (tokens, positions, segments) or of a table and a bare parameter. Reports those at
    N(0, 1), PyTorch's default or `torch.randn`, whose second moment in the sum is at least a hundred times that of a
    table which the code initialised itself; or of any table, fixed ones as well, where a factor such as sqrt(d) makes
    the one at N(0, 1) larger still.

    ## Why is this bad?
    A norm that follows rescales the sum, not its parts: with tokens at 0.02 and positions at 1, 2500 parts of 2501 of
    what the first layer reads are positions, the same for every input.

    ## Example
    ```python
    nn.init.normal_(self.tokens.weight, std=0.02)  # self.positions keeps N(0, 1)
    ```

    ## Use instead
    ```python
    nn.init.normal_(self.tokens.weight, std=0.02)
    nn.init.normal_(self.positions.weight, std=0.02)
    ```

    ## Known problems
    Sinusoids are compared only with a table that is magnified.

    ## References
    - Vaswani et al. 2017, section 3.4: tables are multiplied by sqrt(d), and were drawn at d^-1/2
    - Radford et al. 2019 (GPT-2), section 2.3: both tables at N(0, 0.02)
    """

    code = "IL113"
    name = "one-table-drowns-another"
    family = "variance"
    severity = Severity.WARNING
    sources = ("Radford et al. 2019, section 2.3", "Vaswani et al. 2017, section 3.4")

    def check(self, context: Context) -> Iterator[Outcome]:
        sweeps = context.signal.sweeps
        if sweeps is None or context.facts.loaded:
            return
        found: dict[str, _Sum] = {}
        sums: dict[int, list[tuple[ParameterFacts, int]]] = {}  # by node the tables in a sum
        for node in context.facts.nodes:
            if node.op != "add":
                continue
            sides = [_parts(context, i, sums) for i in dict.fromkeys(node.inputs)]
            sums[node.index] = [part for side in sides for part in side]
            # what meets here: the tables of one side have met before
            for one, other in itertools.permutations(sides, 2):
                for (loud, strong), (quiet, weak) in itertools.product(one, other):
                    if not _left(loud) or not quiet.stats or not loud.stats:
                        continue
                    there = sweeps[0].states
                    pair = _Sum(loud, quiet, there[strong].q, there[weak].q, loud.stats.second)
                    if pair.ratio >= _DROWNED and (_chosen(quiet) or pair.factor >= _MAGNIFIED):
                        found[loud.name] = pair
        for group in by_cause(pair.loud for pair in found.values()).values():
            yield self._said(context, found[group[0].name], group)

    def _said(self, context: Context, pair: _Sum, group: list[ParameterFacts]) -> Outcome:
        loud, parts = pair.loud.name, pair.ratio + 1
        times = f" times {pair.factor:.3g}" if pair.factor >= _MAGNIFIED else ""
        return self.finding(
            context,
            f"`{loud}` is N(0, 1){times} and is added to `{pair.quiet.name}` of std {math.sqrt(pair.weak):.3g}:"
            f" {pair.ratio:.3g} parts of {parts:.3g} of the sum are `{loud}`",
            parameters=[p.name for p in group],
            site=site_of(pair.loud),
            expected={"std": pair.fitting},
            actual={"std": math.sqrt(pair.second), "ratio": pair.ratio},
            effect=context.effect({p.name: Nominal(0.0, pair.fitting**2) for p in group}),
            fix=f"nn.init.normal_({loud}, std={pair.fitting:.3g})",
            topic="scale",
        )

    @bad
    def positions_left_at_one() -> Any:
        return _tagger(None)

    @good
    def positions_like_tokens() -> Any:
        return _tagger(0.02)

    @bad
    def default_table_times_root_of_width() -> Any:
        return _scaled(1.0)

    @good
    def small_table_times_root_of_width() -> Any:
        return _scaled(128**-0.5)


@dataclass(frozen=True, slots=True)
class _Sum:
    """Two tables that meet in a sum, and second moments: of what each adds to it, and of the loud one's values."""

    loud: ParameterFacts
    quiet: ParameterFacts
    strong: float
    weak: float
    second: float

    @property
    def ratio(self) -> float:
        return self.strong / max(self.weak, 1e-300)

    @property
    def factor(self) -> float:
        """What the loud table is multiplied by on its way."""
        return math.sqrt(self.strong / self.second)

    @property
    def fitting(self) -> float:
        """The std of a loud table that adds as much as the quiet one, or for which the factor is meant."""
        return 1.0 / self.factor if self.factor >= _MAGNIFIED else math.sqrt(self.weak)


def _parts(
    context: Context, enters: int, sums: Mapping[int, list[tuple[ParameterFacts, int]]]
) -> list[tuple[ParameterFacts, int]]:
    """The tables in an operand of a sum, each with the node at which it enters."""
    node = source(context.facts, enters, SCALED)
    if node.op == "add":
        return sums[node.index]
    role = {"embedding": "weight", "parameter": "value"}.get(node.op, "")
    table = context.parameter(node.parameters.get(role, ""))
    several = table is not None and sum(size > 1 for size in table.shape) > 1
    return [(table, enters)] if table is not None and several and "expr" not in node.attrs else []


def _left(parameter: ParameterFacts) -> bool:
    """Whether a trainable table is at N(0, 1) without anybody having chosen that."""
    write, stats = parameter.last, parameter.stats
    if write is None or stats is None or not parameter.requires_grad or parameter.kind != "parameter":
        return False
    plain = write.op == "create" and write.args.get("function") == "randn" and not write.args.get("derived")
    return write.origin == "torch" or plain


def _chosen(parameter: ParameterFacts) -> bool:
    """Whether the code drew a trainable table at a scale of its own."""
    write, stats = parameter.last, parameter.stats
    drawn = write is not None and write.random and write.origin != "torch"
    return drawn and parameter.requires_grad and stats is not None and stats.second > 0


def _tagger(std: float | None) -> Any:
    import torch
    from torch import nn

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.positions = nn.Embedding(50, 32), nn.Embedding(16, 32)
            self.norm, self.body, self.head = nn.LayerNorm(32), nn.Linear(32, 32), nn.Linear(32, 5)
            nn.init.normal_(self.tokens.weight, std=0.02)
            if std is not None:
                nn.init.normal_(self.positions.weight, std=std)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
            return self.head(torch.relu(self.body(self.norm(x))).mean(1))

    return Tagger(), (torch.randint(0, 50, (4, 9)),)


def _scaled(std: float) -> Any:
    import torch
    from torch import nn

    class Encoder(nn.Module):
        positions: torch.Tensor

        def __init__(self, width: int = 128) -> None:
            super().__init__()
            self.tokens, self.factor = nn.Embedding(50, width), width**0.5
            if std != 1.0:
                nn.init.normal_(self.tokens.weight, std=std)
            angles = torch.arange(16.0)[:, None] * 10000.0 ** (-torch.arange(0.0, width, 2) / width)
            self.register_buffer("positions", torch.cat((angles.sin(), angles.cos()), 1))
            self.norm, self.body, self.head = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, 5)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            x = self.tokens(tokens) * self.factor + self.positions[: tokens.shape[1]]
            return self.head(torch.relu(self.body(self.norm(x))).mean(1))

    return Encoder(), (torch.randint(0, 50, (4, 9)),)
