"""IL330: a low-rank adapter, or the magnitude of one, changes a frozen layer's output from the start."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from initlint.facts import Node, ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.signal import Nominal
from initlint.wiring import SCALED, source

# An adapter that adds less than a tenth of the frozen layer's output starts all but closed (Houlsby et al. 2019,
# section 3.6, measure no loss up to N(0, 0.01)).
_CLOSED = 1e-2
# What half precision loses when it adds the two (unit roundoff 2^-11) is no difference.
_SEEN = 2.0**-22
_MAPS = frozenset({"linear", "conv", "embedding"})

# Functions by which a matrix is divided to have rows or columns of length one.
_NORM = re.compile(r"\b(norm|normalize|vector_norm|linalg_norm|linalg_vector_norm|sqrt|rsqrt)\(")


class LowRankNotClosed(Rule):
    """A low-rank adapter changes the frozen layer before any training: two random factors, or a magnitude left at one.

    ## What it does
    Finds sums of a frozen linear map and of several trainable ones in a row, without anything but a diagonal between,
    of the same input (LoRA, AdaLoRA, VeRA, beside the layer or merged into its weight). Reports adapters of which no
    factor starts at zero and all matrices are drawn at random: a warning where the sum with the frozen layer differs
    from it by more than a tenth, a note below. Where a frozen matrix
    is normalised and multiplied by a trainable magnitude (DoRA), reports magnitudes that are not its norms.

    ## Why is this bad?
    The frozen weights are what somebody trained. LoRA starts with one factor at zero, so that the model starts as it
    was; with random factors only it starts from noise (Hu et al. 2021, section 4.1; of AdaLoRA's three the diagonal is
    zero, Zhang et al. 2023, section 3.1). A
    magnitude of one rescales every frozen row to length one, which trained rows have not.

    ## Example
    ```python
    nn.init.normal_(self.down.weight)
    nn.init.normal_(self.up.weight)
    ```

    ## Use instead
    ```python
    nn.init.normal_(self.down.weight)
    nn.init.zeros_(self.up.weight)
    ```

    ## Known problems
    Factors computed from the frozen weight (PiSSA) are not drawn, and are not meant.

    ## References
    - Hu et al. 2021 (LoRA), section 4.1, arXiv:2106.09685
    - https://github.com/microsoft/LoRA/issues/98
    - Zhang et al. 2023 (AdaLoRA), section 3.1, arXiv:2303.10512; https://github.com/huggingface/peft/issues/1798
    - Liu et al. 2024 (DoRA), equation 5: the magnitude starts at the norms of the frozen weight, arXiv:2402.09353
    """

    code = "IL330"
    name = "low-rank-not-closed"
    family = "architecture"
    severity = Severity.WARNING
    sources = ("Hu et al. 2021, section 4.1, arXiv:2106.09685", "https://github.com/microsoft/LoRA/issues/98")

    def check(self, context: Context) -> Iterator[Outcome]:
        nodes = context.facts.nodes
        sweeps = context.signal.sweeps
        if sweeps is None or context.facts.loaded:
            return
        adapters: dict[str, tuple[_Factors, float]] = {}
        for node in nodes:
            if node.op not in ("add", "sub") or len(node.inputs) != 2:
                continue
            for base, branch in (node.inputs, node.inputs[::-1]):
                found = _adapter(context, base, branch)
                x, y = sweeps[0].states[base], sweeps[0].states[branch]
                if found is None or x.undetermined or y.undetermined or x.q <= 0 or y.q <= _SEEN * x.q:
                    continue
                adapters[_closing(found).name] = found, math.sqrt(y.q / x.q)
        for group in by_cause(_closing(factors) for factors, _ in adapters.values()).values():
            yield self._open(context, [adapters[p.name] for p in group])
        yield from self._magnitudes(context)

    def _open(self, context: Context, group: list[tuple[_Factors, float]]) -> Outcome:
        """Adapters whose factors are all random, by the line that drew those that should be zero."""
        (factors, _), worst = group[0], max(ratio for _, ratio in group)
        closing = [_closing(f) for f, _ in group]
        others = ", ".join(f"`{p.name}`" for p in factors if p.name != closing[0].name)
        more = f" (and so in {len(group) - 1} more):" if len(group) > 1 else ":"
        return self.finding(
            context,
            f"none of `{closing[0].name}`, {others} is zero{more} the adapter adds {worst:.3g} times"
            " the frozen layer's output before any training",
            parameters=list(dict.fromkeys([p.name for p in closing] + [p.name for f, _ in group for p in f])),
            severity=Severity.WARNING if worst**2 > _CLOSED else Severity.NOTE,
            site=site_of(closing[0]),
            expected={"ratio": 0.0},
            actual={"ratio": worst},
            effect=context.effect(
                {p.name: Nominal(0.0, (p.stats.second if p.stats else 1.0) * _CLOSED**2) for p in closing}
            ),
            fix="nn.init.zeros_(weight)  # of one factor, the diagonal or the one that writes the output; no other",
            topic="scale",
        )

    def _magnitudes(self, context: Context) -> Iterator[Outcome]:
        found = {
            m.name: (m, frozen, norm) for node in _normalising(context) for m, frozen, norm in _rescaled(context, node)
        }
        groups = by_cause(m for m, _, _ in found.values())
        for group in groups.values():
            first, frozen, norm = found[group[0].name]
            held = math.sqrt(first.stats.second) if first.stats else 0.0
            more = f" and {len(group) - 1} more" if len(group) > 1 else ""
            yield self.finding(
                context,
                f"`{first.name}`{more} starts at {held:.4g} in the place of the norms of the frozen `{frozen.name}`,"
                f" which are {norm:.3g}: the adapted layer starts {held / norm:.3g} times as large",
                parameters=[p.name for p in group],
                site=site_of(first),
                expected={"magnitude": norm},
                actual={"magnitude": held, "ratio": held / norm},
                effect=context.effect({p.name: Nominal(found[p.name][2], 0.0) for p in group}),
                fix="weight.norm(p=2, dim=1, keepdim=True).detach().clone()  # the norms that the frozen weight has",
                topic="scale",
            )

    @bad
    def both_drawn() -> Any:
        return _adapted(closed=False)

    @good
    def one_zero() -> Any:
        return _adapted(closed=True)

    @good
    def principal_directions() -> Any:
        """PiSSA: the factors are a part of the frozen weight, and are taken off it."""
        import torch

        model, inputs = _adapted(closed=True)
        with torch.no_grad():
            u, s, v = torch.linalg.svd(model.base.weight)
            model.up.weight.copy_(u[:, :4] * s[:4].sqrt())
            model.down.weight.copy_(s[:4].sqrt()[:, None] * v[:4])
            model.base.weight.sub_(model.up.weight @ model.down.weight)
        return model, inputs

    @bad
    def three_factors() -> Any:
        return _singular(0.02)

    @good
    def zero_diagonal() -> Any:
        return _singular(0.0)

    @bad
    def magnitude_of_one() -> Any:
        return _decomposed(norms=False)

    @good
    def magnitude_of_the_norms() -> Any:
        return _decomposed(norms=True)


#: The parameters that an adapter multiplies, from its output back to its input; a diagonal is one of them.
_Factors = tuple[ParameterFacts, ...]


def _adapter(context: Context, base: int, branch: int) -> _Factors | None:
    """The factors of an adapter added to a frozen map of the same input, its matrices drawn or all of one value.

    One of them at least is drawn: what is computed from the frozen weight is no noise.
    """
    facts = context.facts
    frozen = source(facts, base, SCALED)
    fixed = context.parameter(frozen.parameters.get("weight", "")) if frozen.op in _MAPS and frozen.inputs else None
    if fixed is None or fixed.requires_grad or fixed.kind != "parameter":
        return None
    factors = _chain(context, branch, source(facts, frozen.inputs[0], SCALED).index)
    matrices = [p for p in factors if _matrix(p)]
    if len(matrices) < 2 or not any(map(_drawn, matrices)) or not any(p.requires_grad for p in factors):
        return None
    if not all(_drawn(p) or (p.stats is not None and p.stats.distinct == 1) for p in matrices):
        return None
    if any(p.stats is None or p.stats.second == 0 for p in factors):
        return None  # a single zero closes it; the signal is that of the opened adapter
    return factors


def _chain(context: Context, index: int, start: int) -> _Factors:
    """The parameters of a product of linear maps that leads from one node to another; none where there is more to it.

    A diagonal may be multiplied in between (AdaLoRA, VeRA); what a constant divides by is a scale.
    """
    found = list[ParameterFacts]()
    node = source(context.facts, index, SCALED)
    while node.index != start:
        if node.op in _MAPS and len(node.inputs) == 1:
            roles = [role for role in node.parameters if "bias" not in role]
            found += [p for role in roles if (p := context.parameter(node.parameters[role])) is not None]
            following = node.inputs[0]
        elif node.op in ("mul", "div") and len(node.inputs) == 2:
            held = [i for i in node.inputs if source(context.facts, i).op in ("parameter", "constant")]
            if len(held) != 1 or (node.op == "div" and held[0] != node.inputs[1]):
                return ()
            diagonal = source(context.facts, held[0]).parameters.values()
            found += [p for name in diagonal if (p := context.parameter(name)) is not None and p.requires_grad]
            following = node.inputs[0] if held[0] == node.inputs[1] else node.inputs[1]
        else:
            return ()
        node = source(context.facts, following, SCALED)
    return tuple({p.name: p for p in found}.values())


def _matrix(parameter: ParameterFacts) -> bool:
    return sum(size > 1 for size in parameter.shape) >= 2


def _closing(factors: _Factors) -> ParameterFacts:
    """The factor that is zero by convention: the last diagonal (AdaLoRA's E, VeRA's b), else the one at the output."""
    free = [p for p in factors if p.requires_grad]
    constant = next((p for p in free if _matrix(p) and not _drawn(p)), None)  # of one value, and not zero
    return constant or next(
        (p for p in free if not _matrix(p) and math.prod(p.shape) > 1), next((p for p in free), factors[0])
    )


def _normalising(context: Context) -> Iterator[Node]:
    """Nodes that compute something from parameters by a norm."""
    return (node for node in context.facts.nodes if _NORM.search(str(node.attrs.get("expr", ""))))


def _rescaled(context: Context, node: Node) -> Iterator[tuple[ParameterFacts, ParameterFacts, float]]:
    """Magnitudes, each with the frozen matrix whose norms it replaces, and their mean; those that differ."""
    named = [name for role, name in node.parameters.items() if not role.startswith("bias")]
    used = [p for name in named if (p := context.parameter(name)) and p.stats]
    for frozen in used:
        if frozen.requires_grad or len(frozen.shape) != 2 or frozen.stats is None or frozen.stats.second <= 0:
            continue
        sides = [(frozen.shape[0], frozen.stats.rows), (frozen.shape[1], frozen.stats.columns)]
        for m in used:
            if not m.requires_grad or m.stats is None or math.prod(m.shape) not in frozen.shape or m.stats.second <= 0:
                continue
            # (out, 1) scales rows, (1, in) columns
            along = sides if len(m.shape) == 1 else sides[:1] if m.shape[-1] == 1 else sides[1:]
            norms = [math.sqrt(units.energy_mean) for size, units in along if units and size == math.prod(m.shape)]
            near = [n for n in norms if abs(math.log(m.stats.second / n**2)) < 2 * math.log(1 + math.sqrt(_CLOSED))]
            if norms and not near and not any(p.requires_grad and p.shape == frozen.shape for p in used):
                yield m, frozen, norms[0]


def _drawn(parameter: ParameterFacts) -> bool:
    """Whether the values were drawn; what is computed from other tensors (a decomposition of the base) is no noise."""
    write, stats = parameter.last, parameter.stats
    computed = write is None or not write.random or write.args.get("function") == "derived"
    return not computed and stats is not None and stats.second > 0


def _adapted(*, closed: bool) -> Any:
    import torch
    from torch import nn

    class Adapted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base, self.head = nn.Linear(32, 32).requires_grad_(False), nn.Linear(32, 4)
            self.down, self.up = nn.Linear(32, 4, bias=False), nn.Linear(4, 32, bias=False)
            if closed:
                nn.init.zeros_(self.up.weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.base(x) + self.up(self.down(x))))

    return Adapted(), (torch.randn(8, 32),)


def _singular(std: float) -> Any:
    import torch
    from torch import nn

    class Adapted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base, self.head = nn.Linear(32, 32).requires_grad_(False), nn.Linear(32, 4)
            self.left, self.right = nn.Parameter(torch.randn(32, 4)), nn.Parameter(torch.randn(4, 32) * 0.2)
            self.values = nn.Parameter(torch.randn(4, 1) * std)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.base(x) + x @ (self.right * self.values).T @ self.left.T))

    return Adapted(), (torch.randn(8, 32),)


def _decomposed(*, norms: bool) -> Any:
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Decomposed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base, self.head = nn.Linear(32, 48), nn.Linear(48, 4)
            nn.init.normal_(self.base.weight, std=0.02)  # stands for trained weights
            self.base.requires_grad_(False)
            self.down, self.up = nn.Parameter(torch.randn(4, 32) * 0.1), nn.Parameter(torch.zeros(48, 4))
            length = self.base.weight.norm(p=2, dim=1, keepdim=True)
            self.magnitude = nn.Parameter(length.clone() if norms else torch.ones_like(length))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weight = F.normalize(self.base.weight + self.up @ self.down, dim=1) * self.magnitude
            return self.head(torch.relu(F.linear(x, weight, self.base.bias)))

    return Decomposed(), (torch.randn(8, 32),)
