"""IL333: codes whose own lengths decide which of them is nearest, whatever is to be coded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.codebooks import codebooks
from initlint.facts import ParameterFacts, Units
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.signal import Nominal

# The nearest code is that of the least |e|^2 - 2 z e. Where |e|^2 spreads three times as far over the codes as 2 z e
# does, 2 to 5 of 512 codes are used (the exponential of the entropy of 300 choices from Gaussian scores, 3 draws), and
# 1 to 3 of 64; at equal spreads 17 to 30, and 6 to 13.
_DECIDED = 3.0


class CodebookOutOfScale(Rule):
    """The codes of a vector quantiser are far longer than what they code, so that few of them are ever chosen.

    ## What it does
    Finds tables from which the entry nearest to a signal is chosen, and compares how the two parts of the distance
    |e|^2 - 2 z e differ between entries: the length of the code, which is the same for all inputs, and its product with
    the signal, predicted at that place. Also reports codes that are all equal, where a forward reads them so.

    ## Why is this bad?
    Where the lengths differ three times as much as the products, the shortest codes are nearest to every input: a
    handful of 512 is used, the others get no gradient and no update, and the decoder starts from a constant. Codes
    should start at the scale of the encoder's outputs (Łańcucki et al. 2020, section 3), or below.

    ## Example
    ```python
    self.codebook = nn.Parameter(torch.randn(512, 64))  # behind an encoder whose outputs have std 0.1
    ```

    ## Use instead
    ```python
    nn.init.uniform_(self.codebook, -1 / 512, 1 / 512)  # or the first outputs of the encoder
    ```

    ## Known problems
    Tables that are replaced by the data before the first step (k-means) are judged as they are, unless they are equal.

    ## References
    - Łańcucki et al. 2020, Robust training of vector quantized bottleneck models, arXiv:2005.08520
    - van den Oord et al. 2017 (VQ-VAE), section 3.2, arXiv:1711.00937
    """

    code = "IL333"
    name = "codebook-out-of-scale"
    family = "architecture"
    severity = Severity.WARNING
    sources = ("Łańcucki et al. 2020, arXiv:2005.08520", "van den Oord et al. 2017, section 3.2, arXiv:1711.00937")

    def check(self, context: Context) -> Iterator[Outcome]:
        sweeps = context.signal.sweeps
        if sweeps is None or context.facts.loaded:
            return
        found: dict[str, tuple[ParameterFacts, float, float]] = {}
        equal: dict[str, ParameterFacts] = {}
        for table, source in codebooks(context.facts):
            x, units, dim = sweeps[0].states[source], _codes(table), table.shape[-1]
            if units is not None and units.duplicates == units.count - 1 and _read_as_they_are(context, table):
                equal[table.name] = table
            if x.undetermined or x.q <= 0 or units is None or table.stats is None:
                continue
            lengths = math.sqrt(units.energy_var)
            products = 2.0 * math.sqrt(dim * x.q * table.stats.var)
            if products > 0 and lengths > _DECIDED * products:
                found[table.name] = table, lengths / products, math.sqrt(x.q)
        for group in by_cause(table for table, _, _ in found.values()).values():
            yield self._report(context, [found[p.name] for p in group])
        for group in by_cause(equal.values()).values():
            yield self._equal(context, group)

    def _equal(self, context: Context, group: list[ParameterFacts]) -> Outcome:
        table, units = group[0], _codes(group[0])
        more = f" and {len(group) - 1} more" if len(group) > 1 else ""
        return self.finding(
            context,
            f"all codes of `{table.name}`{more} start equal, and the forward does not replace them: the first of them"
            " is nearest to every input",
            parameters=[p.name for p in group],
            site=site_of(table),
            expected={"distinct_codes": units.count if units is not None else 0},
            actual={"distinct_codes": 1},
            effect="one code is chosen and updated, the decoder starts from a constant",
            fix="nn.init.normal_(codebook, std=...)  # of the encoder's outputs, or their first values",
            topic="symmetry",
        )

    def _report(self, context: Context, group: list[tuple[ParameterFacts, float, float]]) -> Outcome:
        table, ratio, signal = max(group, key=lambda entry: entry[1])
        std = math.sqrt(table.stats.second) if table.stats else 0.0
        more = f" and {len(group) - 1} more" if len(group) > 1 else ""
        return self.finding(
            context,
            f"the codes of `{table.name}`{more} have std {std:.3g}, what they code {signal:.3g}: their lengths differ"
            f" {ratio:.3g} times as much as their products with it, so that the shortest are nearest to every input",
            parameters=[p.name for p, _, _ in group],
            site=site_of(table),
            expected={"std": signal},
            actual={"std": std, "signal_std": signal, "ratio": ratio},
            effect=context.effect({p.name: Nominal(0.0, x * x) for p, _, x in group}),
            fix=f"nn.init.normal_(codebook, std={signal:.2g})  # or smaller, or the first outputs of the encoder",
            topic="scale",
        )

    @bad
    def unit_codes() -> Any:
        return _quantiser(1.0)

    @bad
    def equal_codes() -> Any:
        return _quantiser(0.0)

    @good
    def codes_of_the_signal() -> Any:
        return _quantiser(0.05)

    @good
    def compared_by_their_directions() -> Any:
        """Codes of unit length: none is shorter."""
        return _quantiser(1.0, unit=True)


def _read_as_they_are(context: Context, table: ParameterFacts) -> bool:
    """Whether equal codes were looked up in a forward as they are: one that starts from data writes others first."""
    names, nodes = {table.name, *table.aliases}, context.facts.nodes
    read = [n for n in nodes if n.op == "embedding" and names.intersection(n.parameters.values())]
    second = table.stats.second if table.stats is not None else 0.0
    return any(n.measured is not None and math.isclose(n.measured.second, second, rel_tol=1e-4) for n in read)


def _codes(table: ParameterFacts) -> Units | None:
    """The entries of a table: the axis before the last."""
    if table.stats is None or len(table.shape) < 2 or table.shape[-1] < 2:
        return None
    sizes = [size for size in table.shape[:-1] if size > 1]
    units = table.stats.rows if table.shape[0] > 1 else table.stats.columns
    return units if len(sizes) == 1 and units is not None and units.count == sizes[0] else None


def _quantiser(std: float, *, unit: bool = False) -> Any:
    import torch
    from torch import nn

    class Quantised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = nn.Linear(12, 32), nn.Linear(32, 12)
            nn.init.normal_(self.encoder.weight, std=0.02)
            self.codes = nn.Parameter(torch.randn(128, 32) * std)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = self.encoder(x)
            codes = nn.functional.normalize(self.codes, dim=-1) if unit else self.codes
            distance = z.pow(2).sum(-1, keepdim=True) - 2 * z @ codes.t() + codes.pow(2).sum(-1)
            chosen = nn.functional.embedding(distance.argmin(-1), codes)
            return self.decoder(z + (chosen - z).detach())

    return Quantised(), (torch.randn(8, 12),)
