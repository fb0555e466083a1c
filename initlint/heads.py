"""The layer that writes the logits, and biases: what they have to do with them, and lines that mend them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from initlint.facts import ParameterFacts
from initlint.records import dataclass
from initlint.rule import Context, site_of
from initlint.signal import Effect, Nominal
from initlint.signal.verdict import depth
from initlint.theory.record import stated

#: Variances of layers that one line draws agree up to the chance of the draw: 2 % for the 10^4 weights of a layer,
#: 20 % for a hundred. One std for layers that differ by more would be another scheme.
_ALIKE = 1.2
#: Share of the variance between logits from which the bias is their cause: it makes more of it than all before it.
_MOSTLY = 0.5


@dataclass(frozen=True, slots=True)
class Cure:
    """A line that makes logits smaller, what the rest of the net makes of it, and what it sets."""

    line: str
    effect: Effect
    parameters: tuple[ParameterFacts, ...]


def attribute(parameter: ParameterFacts) -> str:
    """A parameter as code in its model spells it: ``self.stages[1].weight``."""
    parts = (f"[{part}]" if part.isdecimal() else f".{part}" for part in parameter.name.split("."))
    return f"self{''.join(parts)}"


def drawn(parameter: ParameterFacts) -> bool:
    """Whether the values are a draw by the record, PyTorch's default among them: nobody chose one rather than another.

    Values that were assigned one by one (the logarithms of class priors) are somebody's choice.
    """
    asked = stated(parameter)
    return asked is not None and asked.std > 0.0


def of_layer(context: Context, index: int, role: str) -> ParameterFacts | None:
    """The parameter that a node reads in this role, where it is trained as it is and its values are known."""
    found = context.parameter(context.facts.nodes[index].parameters.get(role, ""))
    known = found is not None and not found.generated and found.stats is not None
    return found if known else None


def zeros(*parameters: ParameterFacts) -> str:
    """The line that sets parameters to zero."""
    return "; ".join(f"nn.init.zeros_({attribute(parameter)})" for parameter in parameters)


def biased(context: Context, head: int) -> float:
    """Share of the variance between logits that the bias of their layer makes."""
    signal = context.signal
    operator = signal.scene.nodes[head].operator if signal.scene is not None else None
    if operator is None or signal.sweeps is None:
        return 0.0
    whole = signal.sweeps[0].states[head].v
    own = max(operator.bias_second - operator.bias_mean**2, 0.0)
    return min(own / whole, 1.0) if whole > 0 else 0.0


def loud_bias(context: Context, head: int) -> ParameterFacts | None:
    """The bias of the layer that writes the logits, where it makes most of their variance."""
    return of_layer(context, head, "bias") if biased(context, head) > _MOSTLY else None


def smaller_head(context: Context, weight: ParameterFacts, ratio: float, *, named: bool = False) -> Cure | None:
    """The weight of the head drawn so that the second moment of the logits falls by ``ratio``.

    The head is named where that is asked for (the finding is about others), and where the same line draws other weights
    that are right as they are.
    """
    second = weight.stats.second / ratio if weight.stats is not None else 0.0
    if second <= 0.0:
        return None
    alone = not named and len(written_with(context, [weight])) < 2
    target = "weight" if alone else attribute(weight)
    line = f"nn.init.normal_({target}, std={math.sqrt(second):.3g})"
    return Cure(line, context.effect({weight.name: Nominal(0.0, second)}), (weight,))


def smaller_series(context: Context, guilty: Sequence[ParameterFacts], ratio: float, most: float) -> Cure | None:
    """One std for all layers that the lines of the guilty ones draw, so that together they make ``ratio`` less.

    Of n layers in series each has to give its n-th root: a line that made all of it n times would leave no signal.
    ``None`` where that is no cure, by propagation: branches that are added up, steps of time, biases. The loss has to
    start below ``most`` and the depth profile has to be sound.
    """
    together = written_with(context, guilty)
    seconds = [p.stats.second for p in together if p.stats is not None]
    if len(seconds) < len(together) or min(seconds) <= 0.0 or max(seconds) > _ALIKE * min(seconds):
        return None
    second = sum(seconds) / len(seconds) * ratio ** (-1.0 / len(seconds))
    effect = context.effect({p.name: Nominal(0.0, second) for p in together})
    if not _cures(context, effect, most):
        return None
    several = f"  # for each of these {len(together)} layers" if len(together) > 1 else ""
    return Cure(f"nn.init.normal_(weight, std={math.sqrt(second):.3g}){several}", effect, tuple(together))


def without_biases(context: Context, guilty: Sequence[ParameterFacts], most: float) -> Cure | None:
    """Zeros for the biases of these layers, and of others that the same lines write, where that alone is the cure."""
    together = biases_with(context, guilty)
    if not together:
        return None
    effect = context.effect({p.name: Nominal(0.0, 0.0) for p in together})
    if not _cures(context, effect, most):
        return None
    several = f"  # for each of these {len(together)} layers"
    line = zeros(together[0]) if len(together) == 1 else f"nn.init.zeros_(bias){several}"
    return Cure(line, effect, tuple(together))


def biases_with(context: Context, guilty: Sequence[ParameterFacts]) -> list[ParameterFacts]:
    """Biases of the layers of these weights and all others that the same lines write; none where they are zero."""
    owners = {p.module for p in guilty}
    known = {p.name: p for layer in context.facts.layers if layer.bias and (p := context.parameter(layer.bias))}
    own = {p.name: p for p in known.values() if p.module in owners and p.stats is not None and p.stats.second > 0.0}
    lines = {_line(p) for p in own.values()} - {None}
    return [p for p in known.values() if p.name in own or _line(p) in lines]


def written_with(context: Context, guilty: Sequence[ParameterFacts]) -> list[ParameterFacts]:
    """These weights and all others of layers that the same lines write."""
    lines = {_line(p) for p in guilty} - {None}
    weights = {p.name: p for layer in context.facts.layers if (p := context.parameter(layer.weight))}
    names = {p.name for p in guilty}
    return [*guilty, *(p for p in weights.values() if p.name not in names and _line(p) in lines)]


def _line(parameter: ParameterFacts) -> tuple[str, int, int | None] | None:
    site = site_of(parameter)
    return (site.file, site.line, site.column) if site is not None else None


def _cures(context: Context, effect: Effect, most: float) -> bool:
    """Whether the loss starts low enough, and neither signals nor gradients are lost over the depth."""
    loss = context.signal.init_loss
    lower = loss is not None and loss.predicted - effect.loss < most
    return lower and depth(effect.after, context.settings.optimizer) is None
