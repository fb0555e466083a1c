"""IL325: the gain by which deep transformers scale the weights of their branches is another one, or elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from initlint.depth_gains import EXACT, Branches, Part, branches, known_gain, round_number
from initlint.findings import Related, Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.signal import Effect, Nominal
from initlint.signal.verdict import mistake

# Wang et al. 2022, table 1: without the gains, transformers with the norm behind the sum diverge from 18 layers on,
# that is, 36 residual branches.
_DEEP = 36


class DepthGain(Rule):
    """The gain by which deep transformers scale the weights of their branches is another one, or went elsewhere.

    ## What it does
    Knows the gains that DeepNorm and T-Fixup give to Xavier's scheme in values, outputs and feed-forward layers: for N
    layers (8 N)^-1/4, (12 N)^-1/4, (9 N)^-1/4 and 0.67 N^-1/4. Reports branches whose gain is the factor of the skip
    instead, or the inverse of a known gain; queries and keys that have it in the place of values and outputs; and kinds
    of weights that were left at Xavier's scheme while the others have it.

    ## Why is this bad?
    The gain bounds how much all branches together change the stream with one step. Queries and keys only choose; what
    they choose is as large as before. Drawn with the skip's factor, each branch is larger instead of smaller, and
    weights that are left out are a branch at full strength.

    ## Example
    ```python
    alpha = (2 * n_layers) ** 0.25  # x = norm(alpha * x + branch(x))
    nn.init.xavier_normal_(self.fc2.weight, gain=alpha)
    ```

    ## Use instead
    ```python
    beta = (8 * n_layers) ** -0.25
    nn.init.xavier_normal_(self.fc2.weight, gain=beta)
    ```

    ## Known problems
    Gains are read from the record to rounding; numbers of at most two digits (0.5 is (8 N)^-1/4 for N = 2) say nothing.

    ## References
    - Wang et al. 2022 (DeepNet), figure 2 and table 1, arXiv:2203.00555
    - Huang et al. 2020 (T-Fixup), section 3.2
    """

    code = "IL325"
    name = "depth-gain"
    family = "architecture"
    severity = Severity.WARNING
    sources = ("Wang et al. 2022, figure 2, arXiv:2203.00555", "Huang et al. 2020 (T-Fixup), section 3.2")

    def check(self, context: Context) -> Iterator[Outcome]:
        if context.facts.loaded:
            return
        found = branches(context)
        if found is None:
            return
        inside = [*found.values, *found.writers, *found.inner]
        swapped = [p for p in inside if p.skip > 1 and math.isclose(p.gain, p.skip, rel_tol=EXACT)]
        inverse = [p for p in inside if p.gain > 1 and p not in swapped and known_gain(1 / p.gain, found.count)]
        chosen = {round(p.gain, 9) for p in found.selectors}
        if swapped and not round_number(swapped[0].gain):
            what = f"the factor {swapped[0].gain:.4g} of the skip is the gain of the branch's own weights"
            yield self._each(context, found, swapped, what, 1 / math.sqrt(2) / swapped[0].gain)
        elif inverse:
            gain = 1 / inverse[0].gain
            what = f"the gain {inverse[0].gain:.4g} is the inverse of {known_gain(gain, found.count)}"
            yield self._each(context, found, inverse, what, gain)
        elif len(chosen) == 1 and (name := known_gain(min(chosen), found.count)) and all(p.plain for p in inside):
            yield self._elsewhere(context, found, inside, min(chosen), name)
        else:
            yield from self._left_out(context, found)

    def _each(self, context: Context, found: Branches, parts: Sequence[Part], what: str, gain: float) -> Outcome:
        parts = sorted(parts, key=lambda p: p.parameter.last.order if p.parameter.last else 0)
        first, *others = by_cause(p.parameter for p in parts).values()
        more = f" and {len(parts) - 1} more" if len(parts) > 1 else ""
        sites = [(group[0].name, site_of(group[0])) for group in others]
        related = [Related(at.file, at.line, f"{name} is initialised here") for name, at in sites if at is not None]
        return self._report(context, found, parts, f"`{first[0].name}`{more}: {what}", gain, related)

    def _elsewhere(self, context: Context, found: Branches, inside: Sequence[Part], gain: float, name: str) -> Outcome:
        first, kept = found.selectors[0].parameter, inside[0].parameter
        where = site_of(kept)
        message = (
            f"`{first.name}` and {len(found.selectors) - 1} more choose what is attended to and have the gain"
            f" {gain:.4g}, {name}; `{kept.name}` and {len(inside) - 1} more, which write, do not"
        )
        related = [Related(where.file, where.line, f"{kept.name} is initialised here")] if where else []
        return self._report(context, found, inside, message, gain, related, at=found.selectors)

    def _left_out(self, context: Context, found: Branches) -> Iterator[Outcome]:
        """Kinds of weights that have Xavier's gain where all others have a known one."""
        behind = [p for p in found.writers if p.attention], [p for p in found.writers if not p.attention]
        kinds = [kind for kind in (found.values, *behind, found.inner) if kind]
        gains = [{round(p.gain, 9) for p in kind} for kind in kinds]
        scaled = {gain for known in gains for gain in known if known_gain(gain, found.count)}
        if len(scaled) != 1:
            return
        gain = scaled.pop()
        kept = [p for kind in kinds for p in kind if all(other.plain for other in kind)]
        others = [p for kind in kinds for p in kind if p not in kept]
        if len(kept) < 2 or not all(math.isclose(p.gain, gain, rel_tol=EXACT) for p in others):
            return
        first, other = kept[0].parameter, others[0].parameter
        message = (
            f"`{first.name}` and {len(kept) - 1} more keep Xavier's gain of one; `{other.name}` and the other weights"
            f" of the branches have {gain:.4g}, {known_gain(gain, found.count)}"
        )
        where = site_of(other)
        related = [Related(where.file, where.line, f"{other.name} is initialised here")] if where else []
        yield self._report(context, found, kept, message, gain, related)

    def _report(
        self,
        context: Context,
        found: Branches,
        parts: Sequence[Part],
        message: str,
        gain: float,
        related: Sequence[Related],
        at: Sequence[Part] = (),
    ) -> Outcome:
        changes = {p.parameter.name: Nominal(0.0, (gain * p.xavier) ** 2) for p in parts}
        effect = context.effect(changes)
        first = parts[0]
        return self.finding(
            context,
            message,
            parameters=[p.parameter.name for p in (*at, *parts)],
            severity=_level(context, effect, found, deep=first.gain >= 1.0),
            site=context.selected_at(site_of((at or parts)[0].parameter)),
            related=related,
            expected={"gain": gain, "std": gain * first.xavier},
            actual={"gain": first.gain, "std": first.gain * first.xavier},
            effect=effect,
            fix=f"nn.init.xavier_normal_(weight, gain={gain:.4g})",
            topic="scale",
        )

    @bad
    def skip_factor_in_the_branch() -> Any:
        return _post_norm(alpha_for_beta=True)

    @good
    def deep_norm() -> Any:
        return _post_norm(alpha_for_beta=False)

    @bad
    def queries_and_keys() -> Any:
        return _attentive(("query", "key"))

    @bad
    def values_left_out() -> Any:
        return _attentive(("out", "up", "down"))

    @good
    def t_fixup() -> Any:
        return _attentive(("value", "out", "up", "down"))


def _level(context: Context, effect: Effect, found: Branches, *, deep: bool) -> Severity:
    """By the effect; where a norm behind each sum hides it, by the depth at which the literature shows the harm."""
    level = mistake(effect, context.signal, context.settings.optimizer, context.facts.dtype) or Severity.NOTE
    return Severity.WARNING if deep and found.count >= _DEEP else level


def _post_norm(alpha_for_beta: bool, depth: int = 12) -> Any:
    import torch
    from torch import nn

    alpha, beta = (2 * depth) ** 0.25, (8 * depth) ** -0.25

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down, self.norm = nn.Linear(32, 64), nn.Linear(64, 32), nn.LayerNorm(32)
            for layer in (self.up, self.down):
                nn.init.xavier_normal_(layer.weight, gain=alpha if alpha_for_beta else beta)
                nn.init.zeros_(layer.bias)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(alpha * x + self.down(torch.relu(self.up(x))))

    return nn.Sequential(*[Block() for _ in range(depth)], nn.Linear(32, 4))


def _attentive(scaled: tuple[str, ...], depth: int = 6) -> Any:
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value, self.out = (nn.Linear(32, 32, bias=False) for _ in range(4))
            self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)
            for name, layer in self.named_children():
                weight = layer.get_parameter("weight")
                nn.init.xavier_uniform_(weight, gain=0.67 * depth**-0.25 if name in scaled else 1.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.query(x), self.key(x), self.value(x)
            x = x + self.out(F.scaled_dot_product_attention(q, k, v))
            return x + self.down(F.relu(self.up(x)))

    return nn.Sequential(*[Block() for _ in range(depth)], nn.Linear(32, 4)), (torch.randn(2, 8, 32),)
