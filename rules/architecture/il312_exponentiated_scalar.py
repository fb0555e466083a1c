"""IL312: a scale that the forward exponentiates starts at 1."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from initlint.facts import ModelFacts, Node, ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.wiring import users

#: A logarithm is taken in the line.
_LOGARITHM = re.compile(r"\blog(?:10|2|it)?\(")


class ExponentiatedScalar(Rule):
    """A parameter initialised to 1, the neutral factor, is used through exp, where 0 is neutral.

    ## What it does
    Finds scalar or per-channel parameters that are filled with exactly 1 and read only through `exp`. Another positive
    round number there (0.8), which is no logarithm of anything, is a note.

    ## Why is this bad?
    exp(1) = 2.718 is neither neutral nor the temperature of any paper. CLIP's logit scale starts at
    log(1 / 0.07), so that the logits are multiplied by 14.3; with ones they are five times too flat.

    ## Example
    ```python
    self.logit_scale = nn.Parameter(torch.ones([]))  # used as logit_scale.exp()
    ```

    ## Use instead
    ```python
    self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
    ```

    ## Known problems
    A scale that is meant to start at e is reported too.

    ## References
    - https://github.com/huggingface/transformers/pull/13436
    - Radford et al. 2021 (CLIP), section 2.5
    """

    code = "IL312"
    name = "exponentiated-scale-at-one"
    family = "architecture"
    severity = Severity.WARNING
    sources = ("https://github.com/huggingface/transformers/pull/13436", "Radford et al. 2021 (CLIP), section 2.5")

    def check(self, context: Context) -> Iterator[Outcome]:
        raised = _raised(context.facts)
        yield from self._not_a_logarithm(context, raised)
        ones = [p for p in raised if _all_ones(p)]
        for group in by_cause(ones).values():
            first = group[0]
            # one number for the whole model is a temperature; one for each head or channel a factor that is learned
            single = math.prod(first.shape) == 1
            value = math.log(1 / 0.07) if single else 0.0
            yield self.finding(
                context,
                f"`{first.name}`"
                + (f" and {len(group) - 1} more start" if len(group) > 1 else " starts")
                + " at 1; the forward takes exp of it: the factor is e = 2.718",
                parameters=[p.name for p in group],
                site=site_of(first),
                expected={"value": value, "factor": math.exp(value)},
                actual={"value": 1.0, "factor": math.e},
                effect="a factor of 2.718 where 1 (value 0) or a temperature such as 1/0.07 was meant",
                fix="nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # or zeros for a neutral factor"
                if single
                else f"nn.Parameter(torch.zeros({', '.join(map(str, first.shape))}))",
                topic="value",
            )

    def _not_a_logarithm(self, context: Context, raised: Sequence[ParameterFacts]) -> Iterator[Outcome]:
        """A positive round number under exp, which no logarithm gives: a value where its logarithm was meant."""
        round_ones = {p.name: value for p in raised if (value := _round_number(p)) is not None}
        found = [p for p in raised if p.name in round_ones]
        for group in by_cause(found).values():
            first, value = group[0], round_ones[group[0].name]
            yield self.finding(
                context,
                f"`{first.name}`"
                + (f" and {len(group) - 1} more start" if len(group) > 1 else " starts")
                + f" at {value:g}; the forward takes exp of it: {math.exp(value):.3g} is used,"
                f" where log({value:g}) would give {value:g}",
                parameters=[p.name for p in group],
                severity=Severity.NOTE,
                site=site_of(first),
                expected={"value": math.log(value), "factor": value},
                actual={"value": value, "factor": math.exp(value)},
                effect=f"the forward uses {math.exp(value) / value:.3g} times the number that the code sets",
                fix=f"nn.Parameter(torch.full(shape, math.log({value:g})))",
                topic="value",
            )

    @bad
    def logit_scale_one() -> Any:
        return _matcher(1.0)

    @bad
    def deviation_for_its_logarithm() -> Any:
        return _matcher(0.8)

    @bad
    def temperature_of_each_head() -> Any:
        return _heads(1.0)

    @good
    def neutral_temperature_of_each_head() -> Any:
        return _heads(0.0)

    @good
    def negative_exponent() -> Any:
        return _matcher(-0.5)

    @good
    def logit_scale_log() -> Any:
        return _matcher(math.log(1 / 0.07))


def _along_one_axis(parameter: ParameterFacts) -> bool:
    """Whether a parameter is a number, or one for each head, channel or unit, whatever axes it is broadcast over."""
    return sum(size > 1 for size in parameter.shape) <= 1


def _all_ones(parameter: ParameterFacts) -> bool:
    stats = parameter.stats
    return (
        parameter.kind == "parameter"
        and _along_one_axis(parameter)
        and stats is not None
        and stats.count > 0
        and stats.minimum == stats.maximum == 1.0
    )


def _round_number(parameter: ParameterFacts) -> float | None:
    """The one positive number of at most two digits, other than 1, that the code filled a parameter with.

    Logarithms of the numbers that people choose are not round (log 100 is 4.605), and exponents that they choose
    themselves are mostly negative (-0.5 for a standard deviation of 0.6); so this is a note.
    """
    stats, write = parameter.stats, parameter.last
    if parameter.kind != "parameter" or not _along_one_axis(parameter) or stats is None or not stats.count:
        return None
    if stats.minimum != stats.maximum or stats.mean <= 0 or stats.mean == 1 or write is None or write.random:
        return None
    rounded = float(f"{stats.mean:.2g}")
    site = write.site
    logged = site is not None and _LOGARITHM.search(site.text) is not None
    return rounded if math.isclose(stats.mean, rounded, rel_tol=1e-6) and not logged else None


def _raised(facts: ModelFacts) -> list[ParameterFacts]:
    """The parameters that are read by exp alone (possibly folded into an expression of parameters)."""
    readers: dict[str, list[Node]] = {}
    for node in facts.nodes:
        for name in dict.fromkeys(node.parameters.values()):
            readers.setdefault(name, []).append(node)
    return [p for p in facts.parameters if _only_through_exp(facts, p, readers.get(p.name, ()))]


def _only_through_exp(facts: ModelFacts, parameter: ParameterFacts, readers: Sequence[Node]) -> bool:
    if not readers or parameter.stats is None or any(node.op != "parameter" for node in readers):
        return False
    raised = math.exp(2 * parameter.stats.mean) if abs(parameter.stats.mean) < 300 else math.inf
    for node in readers:
        second = node.attrs.get("second")
        folded = (
            "expr" in node.attrs and isinstance(second, (int, float)) and math.isclose(second, raised, rel_tol=1e-4)
        )
        reading = [facts.nodes[index] for index in users(facts)[node.index]]
        direct = bool(reading) and all(n.op == "activation" and n.attrs.get("fn") == "exp" for n in reading)
        if not folded and not direct:
            return False
    return True


def _matcher(value: float) -> Any:
    import torch
    from torch import nn

    class Matcher(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(16, 8), nn.Linear(16, 8)
            self.scale = nn.Parameter(torch.ones([]) if value == 1.0 else torch.tensor(value))

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return self.scale.exp() * self.left(a) @ self.right(b).t()

    return Matcher()


def _heads(value: float) -> Any:
    import torch
    import torch.nn.functional as F
    from torch import nn

    class ChannelAttention(nn.Module):
        """Attention between channels, of unit length, with a learned temperature for each head."""

        def __init__(self) -> None:
            super().__init__()
            self.to_qkv, self.to_out = nn.Linear(32, 96), nn.Linear(32, 32)
            self.temperature = nn.Parameter(torch.full((4, 1, 1), value))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.to_qkv(x).unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 4, 1)
            q, k = F.normalize(q, dim=-1) * self.temperature.exp(), F.normalize(k, dim=-1)
            mixed = (q @ k.transpose(-1, -2)).softmax(-1) @ v
            return self.to_out(mixed.permute(0, 3, 1, 2).flatten(2))

    return ChannelAttention(), (torch.randn(2, 20, 32),)
