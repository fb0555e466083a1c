"""IL003: parameters whose gradient is zero at the start and for ever."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.facts import ModelFacts, ParameterFacts
from initlint.findings import Related, Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.signal.liveness import liveness, zero_of


class ZeroProduct(Rule):
    """Several factors of a product, or the only one of a square, start at zero: no gradient ever reaches them.

    ## What it does
    Follows exact zeros through the graph, forward and backward, opens every parameter that gets a
    gradient as an optimiser step would, and repeats. Parameters that are still without gradient then are stuck.

    ## Why is this bad?
    The gradient of a factor is proportional to the other factors. If two factors of one product are zero, both
    gradients are zero, and gradient descent leaves both where they are. Exactly one zero is fine, and a common
    design (LoRA's B, zero convolutions, zero gamma, adaLN-zero): it opens at the first step. A square counts its
    factor twice (the pair term of a factorisation machine): its slope at zero is zero.

    ## Example
    ```python
    nn.init.zeros_(self.gate[0].weight)
    nn.init.zeros_(self.gate[2].weight)
    ```

    ## Use instead
    ```python
    nn.init.zeros_(self.gate[2].weight)  # the last layer alone: the branch starts at zero, and trains
    ```

    ## Known problems
    Weight decay or noise added to weights would free a stuck parameter; the rule assumes plain gradient descent.

    ## References
    - https://github.com/yz93/LAVT-RIS/issues/25
    - https://github.com/nvidia-cosmos/cosmos-predict2.5/pull/15 (LoRA A and B both zero)
    - Rendle 2010, Factorization Machines, section III.D: latent factors are drawn from N(0, 0.01)
    """

    code = "IL003"
    name = "zero-product"
    family = "values"
    severity = Severity.ERROR
    sources = (
        "https://github.com/yz93/LAVT-RIS/issues/25",
        "https://github.com/nvidia-cosmos/cosmos-predict2.5/pull/15",
    )

    def check(self, context: Context) -> Iterator[Outcome]:
        facts = context.facts
        zeros = zero_of(facts)
        if not zeros or not facts.nodes:
            return
        result = liveness(facts)
        stuck = [p for name in result.stuck if (p := context.parameter(name)) is not None]
        zero_stuck = [p for p in stuck if p.name in zeros]
        if not zero_stuck:
            return
        every = list(by_cause(zero_stuck).values())
        groups = _culprits(facts, every, zeros)
        if len(groups) == 1:
            # zeros by the code that are stuck with it belong to the finding; those that PyTorch sets do not
            with_it = [p for group in every if group is not groups[0] for p in group if _by_code(p)]
            groups = [groups[0] + with_it]
        named = {p.name for group in groups for p in group}
        others = [p for p in stuck if p.name not in named]
        for group in groups:
            # what is stuck without being zero itself is a consequence: named in the effect, not as a culprit
            last = site_of(group[0])
            alone = _by_itself(facts, {p.name for p in group}, zeros)
            more = f"; {len(others)} further parameters upstream are cut off with it" if others else ""
            yield self.finding(
                context,
                f"`{group[0].name}`"
                + (f" and {len(group) - 1} more" if len(group) > 1 else "")
                + (" is" if alone and len(group) == 1 else " are" if alone else " start at")
                + (
                    " zero where the model uses only a square, a product with itself or what is flat at zero:"
                    if alone
                    else " zero together with another factor of the same product: their"
                )
                + f"{' the' if alone else ''} gradient is zero for ever",
                parameters=[p.name for p in group],
                site=last,
                related=[
                    Related(p.created.file, p.created.line, f"{p.name} is created here")
                    for p in group[:3]
                    if p.created and (last is None or p.created.line != last.line)
                ]
                + [
                    Related(at.file, at.line, f"{p.name} is set to zero here")
                    for p in group
                    if (at := site_of(p)) is not None and last is not None and at.line != last.line
                ],
                expected={"zero_factors": 0 if alone else 1},
                actual={"zero_factors": 1 if alone else 2, "stuck_parameters": len(stuck)},
                effect=f"no optimiser step changes these parameters{more}",
                fix="nn.init.normal_(weight, std=0.01)  # small and random: a square has no slope at zero"
                if alone
                else "leave exactly one factor at zero (the branch's last layer); give the others their usual scheme",
                topic="value",
                why="The derivative of w^2 is 2 w: it is zero where w is, and every step by it leaves w there."
                if alone
                else "The gradient of each factor of a product carries the other factors; two zeros block each other.",
            )

    @bad
    def zero_norm_before_a_rectifier() -> Any:
        from torch import nn

        norm = nn.LayerNorm(16)
        nn.init.zeros_(norm.weight)
        return nn.Sequential(nn.Linear(8, 16), norm, nn.ReLU(), nn.Linear(16, 4))

    @bad
    def both_gate_layers() -> Any:
        import torch
        from torch import nn

        class Gated(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                first, last = nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False)
                self.gate = nn.Sequential(first, nn.Tanh(), last)
                self.head = nn.Linear(16, 4)
                nn.init.zeros_(first.weight)
                nn.init.zeros_(last.weight)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.head(x + self.gate(x) * x)

        return Gated()

    @bad
    def squared_factors() -> Any:
        return _machine(0.0)

    @good
    def small_random_factors() -> Any:
        return _machine(0.01)

    @good
    def lora() -> Any:
        import torch
        from torch import nn

        class LoRA(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.base = nn.Linear(16, 16)
                self.down = nn.Linear(16, 4, bias=False)
                self.up = nn.Linear(4, 16, bias=False)
                nn.init.zeros_(self.up.weight)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.base(x) + self.up(self.down(x))

        return LoRA()


def _by_itself(facts: ModelFacts, names: set[str], zeros: set[str]) -> bool:
    """Whether each of these has no gradient although every other zero holds something: its own square blocks it."""
    return all(name in liveness(facts, zeros - {name}).stuck for name in names)


def _machine(std: float) -> Any:
    import torch
    from torch import nn

    class Machine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.factors = nn.Linear(20, 1), nn.Parameter(torch.randn(20, 4) * std)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pairs = (x @ self.factors).pow(2) - x**2 @ self.factors**2
            return self.linear(x) + pairs.sum(1, keepdim=True) / 2

    return Machine()


def _by_code(parameter: ParameterFacts) -> bool:
    return parameter.last is not None and parameter.last.origin != "torch"


def _culprits(facts: ModelFacts, groups: list[list[ParameterFacts]], zeros: set[str]) -> list[list[ParameterFacts]]:
    """The groups that alone keep all others stuck: with other values there, everything would get a gradient.

    Of those, the ones that the code zeroed; biases that PyTorch sets to zero are stuck with them. Where no group is
    enough, the products are several, and all are named.
    """
    if len(groups) < 2:
        return groups
    alone = [group for group in groups if not zeros.intersection(liveness(facts, {p.name for p in group}).stuck)]
    chosen = [group for group in alone if any(_by_code(p) for p in group)]
    return chosen or alone or groups
