"""What the code asked for against what the tensors hold: shared by the rules on intent (IL4xx).

A statement that did not reach its parameters is judged by the values it would have given them (the counterfactual),
not by the fact that it did not run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from initlint.diagnosis import suspects
from initlint.facts import InitStatement, ParameterFacts, Write
from initlint.findings import Severity
from initlint.records import dataclass
from initlint.rule import Context
from initlint.signal import Effect, Nominal
from initlint.signal.verdict import intent
from initlint.theory.schemes import Requested, requested
from initlint.upstream import with_moments

#: A factor 2 of the second moment counts where there is evidence of a mistake (DESIGN, section 4).
_COUNTS = 2.0
#: A share of the second moment that the depth profile's first threshold for Adam calls collapsed (DESIGN, section 4).
_COLLAPSED = 1e-6
#: The init of torch's own linear layers and convolutions, by itself and packed with others; U(-1, 1) / sqrt(fan_in).
_DEFAULT, _DEFAULT_VARIANCE, _PACKED = "kaiming_uniform_", 1.0 / 3.0, frozenset({"stack", "cat", "detach", "clone"})
#: How far a second moment may be from that by chance: the values of the smallest tensors that are packed are hundreds.
_CHANCE = 0.2
#: Gates of torch's recurrent layers, stacked along axis 0.
_GATES = {"lstm": 4, "gru": 3, "rnn": 1}


@dataclass(frozen=True, slots=True)
class Judged:
    """How much it matters that parameters are not what the code asked for."""

    severity: Severity
    effect: Effect | str


def still_default(context: Context, names: Iterable[str]) -> list[str]:
    """Those of the parameters that nobody but PyTorch's own reset wrote."""
    found = (context.parameter(name) for name in dict.fromkeys(names))
    kept = [p for p in found if p is not None and not p.generated and not (p.provenance == "unknown" and p.writes)]
    return [p.name for p in kept if p.last is None or p.last.origin == "torch" or _packed_defaults(p)]


def _packed_defaults(parameter: ParameterFacts) -> bool:
    """Whether a tensor is made of the weights of layers that keep their default, one beside the other (an ensemble)."""
    stats, write = parameter.stats, parameter.last
    chain = write.args.get("chain") if write is not None and write.op == "create" else None
    if not isinstance(chain, list) or chain[0] != _DEFAULT or not _PACKED.issuperset(chain[1:]) or stats is None:
        return False
    variance = _DEFAULT_VARIANCE / math.prod(parameter.shape[2:])  # of a stack of (out, in, ...)
    return len(parameter.shape) > 2 and math.isclose(stats.second, variance, rel_tol=_CHANCE)


def asked_for(context: Context, statement: InitStatement, parameter: ParameterFacts) -> Requested | None:
    """The distribution that a statement would have given a parameter; ``None`` where it cannot be told."""
    for name in statement.parameters:  # it ran for others: with these arguments
        other = context.parameter(name)
        for write in other.writes if other is not None else ():
            if write.site is not None and (write.site.file, write.site.line) == (
                statement.site.file,
                statement.site.line,
            ):
                return requested(write, _part(context, statement, parameter))
    if not statement.settled:
        return None
    write = Write(op=statement.op, order=0, args=statement.args)
    return requested(write, _part(context, statement, parameter))


def _part(context: Context, statement: InitStatement, parameter: ParameterFacts) -> tuple[int, ...]:
    """The shape that the statement's target has: of one gate, where a plain variable runs over parts."""
    shape = parameter.shape
    layers = context.layers_of(parameter.name)
    kinds = [m.cls.rpartition(".")[2].lower() for m in context.facts.modules if m.name == parameter.module]
    gates = next((_GATES[kind] for kind in kinds if kind in _GATES), 1)
    in_parts = statement.parts and any(layer.kind == "recurrent" for layer in layers)
    return (shape[0] // gates, *shape[1:]) if in_parts and len(shape) == 2 and shape[0] % gates == 0 else shape


def judged(context: Context, asked: Mapping[str, InitStatement], *, choice: bool = True) -> Judged:
    """The verdict on parameters that were not given what these statements ask for.

    ``choice``: a final layer that was not reached may have been left at its default on purpose.
    """
    changes: dict[str, Nominal] = {}
    ratios: dict[str, float] = {}
    textbook = {s.parameter.name: s.expected for s in suspects(context.facts)}
    for name, statement in asked.items():
        parameter = context.parameter(name)
        stats = parameter.stats if parameter is not None else None
        if parameter is None or stats is None:
            continue
        meant = asked_for(context, statement, parameter)
        if meant is not None:
            changes[name] = Nominal(meant.mean, meant.var, meant.family == "orthogonal")
        elif name in textbook:
            changes[name] = Nominal(0.0, textbook[name])
        if name in changes and len(parameter.shape) > 1 and stats.second > 0:
            ratios[name] = changes[name].second / stats.second
    if not changes:
        return Judged(Severity.NOTE, "these parameters keep PyTorch's default")
    effect = context.effect(changes)
    severity = intent(effect, context.signal, context.settings.optimizer, context.facts.dtype) or Severity.NOTE
    if choice and effect.head and severity is Severity.WARNING:
        return Judged(Severity.NOTE, effect)
    if severity is Severity.WARNING and effect.branch and _behind_a_shut_branch(context, changes):
        return Judged(Severity.NOTE, effect)
    if severity is Severity.NOTE and _remembers(context, ratios):
        # what a recurrent matrix does over time does not show in one pass over the graph
        off = max(ratios.values(), key=lambda ratio: abs(ratio - 1))
        return Judged(Severity.WARNING, f"the second moment is {off:.3g} times that of what is there, at every step")
    return Judged(severity, effect)


def _behind_a_shut_branch(context: Context, changes: Mapping[str, Nominal]) -> bool:
    """Whether the trunk, as it is built, would hardly change: what follows is scaled by 1e-5 (LayerScale), or by zero.

    The effect is judged with such branches open, for they open in training; what matters then is no more than a note.
    """
    signal = context.signal
    if signal.sweeps is None or signal.sweeps[0] is signal.sweeps[1]:
        return False
    then = with_moments(context, changes).built
    pairs = [(signal.built[i], then[i]) for i in signal.trunk if signal.built[i].q > 0 and then[i].q > 0]
    second = [(a.q, b.q) for a, b in pairs]
    # a class token sees the input through such branches alone: how little there is of it at first is their design
    second += [(a.dependent, b.dependent) for a, b in pairs if max(a.dependent / a.q, b.dependent / b.q) > _COLLAPSED]
    return all(1 / _COUNTS < a / b < _COUNTS for a, b in second if a > 0 and b > 0)


def _remembers(context: Context, ratios: Mapping[str, float]) -> bool:
    """Whether a recurrent matrix is off by more than a factor that counts."""
    return any(
        layer.kind == "recurrent" and not 1 / _COUNTS < ratio < _COUNTS
        for name, ratio in ratios.items()
        for layer in context.layers_of(name)
    )


def owners(statements: Iterable[InitStatement], names: Iterable[str]) -> dict[str, InitStatement]:
    """For each parameter the first statement that was meant for it."""
    wanted = set(names)
    found: dict[str, InitStatement] = {}
    for statement in statements:
        for name in (*statement.affected, *statement.missed):
            if name in wanted:
                found.setdefault(name, statement)
    return found
