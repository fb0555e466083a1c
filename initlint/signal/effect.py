"""Counterfactuals: what would change if some parameters had other moments."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import field, replace

from initlint.facts import ModelFacts, Node
from initlint.records import dataclass
from initlint.signal.diagnostics import dead_share, saturated_share
from initlint.signal.loss import init_loss
from initlint.signal.moments import Nominal, State
from initlint.signal.profile import Point, Span, changed_points, chosen, log10, spans, spans_of
from initlint.signal.propagate import Signal, propagate
from initlint.signal.scene import Scene
from initlint.signal.stretches import Change, Stretches
from initlint.signal.substitute import substituted
from initlint.signal.sweep import Overlay, Sweep, changed_grads, changed_states
from initlint.signal.trunk import WEIGHTED, returned

#: Effects below this (log10 of second moments, nats of loss) are none: 2 % of a second moment.
NOTHING = 0.01
#: Effects below this factor of 1.5 are told in per cent: "1 times larger" would say nothing.
PERCENT = math.log10(1.5)
#: From 9.95 on one decimal reads 10.0.
ROUNDED = -math.log10(0.995)
#: Effects (log10) that differ by less count as alike: the accuracy of the rules (0.15 in std, twice that here).
ALIKE = 0.3
#: Ratios of a span at which a verdict becomes harder, for one optimizer or the other (THEORY 6.1).
LEVELS = (4.0, 6.0, 9.0)
#: Changes of a point (log10) below which the spans are not taken anew: a tenth of that.
UNSEEN = 0.001


@dataclass(frozen=True, slots=True)
class Effect:
    """What the actual weights do, compared with the expected ones.

    ``forward``, ``dependent`` and ``gradient`` are log10 ratios of second moments, actual over expected, the largest
    in magnitude along the trunk and at outputs beside it (gradients relative to the one next to the head); ``local``
    the same at the changed layers' own outputs. ``loss`` is in nats. ``before`` are the spans as they are, ``after``
    as they would be.
    """

    forward: float = 0.0
    gradient: float = 0.0
    dependent: float = 0.0
    loss: float = 0.0
    log10: float = 0.0  # the one of largest magnitude, signed
    local: float = 0.0
    hidden: bool = False  # a norm cancels the scale, or nothing changes
    before: Mapping[str, Span] = field(default_factory=dict)
    after: Mapping[str, Span] = field(default_factory=dict)
    saturated: float = 0.0  # change of the largest saturated share
    dead: float = 0.0  # change of the largest dead share
    head: bool = False  # only the layer that writes the output is concerned
    branch: bool = False  # none of the layers concerned is on the trunk
    touched: int = 0  # nodes that differ
    sentence: str = ""


def counterfactual(facts: ModelFacts, signal: Signal, changes: Mapping[str, Nominal]) -> Effect:
    """The effect of the actual values of these parameters against the given ones.

    Propagation starts again at the nodes that read them and stops where the state has converged.
    """
    if signal.scene is None or signal.sweeps is None:
        signal = propagate(facts)
    scene, sweeps = signal.scene, signal.sweeps
    if scene is None or sweeps is None or not scene.nodes:
        return Effect(hidden=True, sentence="the graph is not known, so that the effect cannot be told")
    base = sweeps[1]
    nodes = substituted(changes, scene)
    if not nodes:
        return Effect(hidden=True, before=signal.spans, after=signal.spans, sentence="no traced op reads these values")
    outputs = returned(scene, facts.outputs)
    stretches = signal.stretches
    change = stretches.changed(nodes) if stretches is not None else None
    if stretches is not None and change is not None:
        return _effect(signal, scene, base, nodes, change, _carried(signal, stretches, change), outputs)
    states = changed_states(nodes, base, scene)
    grads = changed_grads(nodes, states, base, scene, outputs)
    views = Overlay(base.states, states), Overlay(base.grads, grads)
    expected = changed_points(scene, signal.profile, signal.trunk, signal.places, (states, grads), views, signal.guards)
    after = signal.spans
    if any(_shows(signal.profile[place], point) for place, point in expected.items()):
        after = spans([expected.get(place, point) for place, point in enumerate(signal.profile)])
    change = Change(states, touched=len(states) + len(grads))
    return _effect(signal, scene, base, nodes, change, (*_compare(signal.profile, expected), after), outputs)


_Differences = tuple[float, float, float, Mapping[str, Span]]


def _carried(signal: Signal, stretches: Stretches, change: Change) -> _Differences:
    """The same three numbers and the spans of what was carried over stretches."""
    dq, dd, dp = change.shifts
    rows = stretches.columns
    body = chosen(dp, stretches.body)
    common = body[-1] if body else 0.0
    forward, dependent = (-_extreme(chosen(part, stretches.unguarded)) for part in (dq, dd))
    gradient = -_extreme(body, common)
    parts = [chosen(part, places) for part, places in zip(change.shifts, rows.places, strict=True)]
    shown = any(abs(_extreme(part)) > UNSEEN for part in parts)
    return forward, dependent, gradient, spans_of(rows, change.shifts) if shown else signal.spans


def _extreme(values: Sequence[float], common: float = 0.0) -> float:
    """The one that differs most from a common value, less that."""
    if not values:
        return 0.0
    top, bottom = max(values) - common, min(values) - common
    return top if top >= -bottom else bottom


def _effect(
    signal: Signal,
    scene: Scene,
    base: Sweep,
    nodes: Mapping[int, Node],
    change: Change,
    differences: _Differences,
    outputs: Sequence[int],
) -> Effect:
    forward, dependent, gradient, after = differences
    view = Overlay(base.states, change.states)
    moved = {user for index in change.states for user in scene.consumers[index]}
    aside = [i for i in outputs if i not in signal.places]
    forward = _largest([forward, *_between([(base.states[i].q, view[i].q) for i in aside])])
    dependent = _largest([dependent, *_between([(base.states[i].d, view[i].d) for i in aside])])
    actual_loss, wanted_loss = signal.init_loss, init_loss(scene, outputs, view)
    loss = actual_loss.predicted - wanted_loss.predicted if actual_loss and wanted_loss else 0.0
    local = _largest([log10(base.states[i].q) - log10(view[i].q) for i in nodes])
    changed = [i for i in nodes if nodes[i].operator is not None or nodes[i].op != "parameter"]
    guarded = bool(changed) and all(signal.guards[i] for i in changed)
    largest = _largest([forward, dependent, gradient])
    hidden = (abs(largest) < NOTHING and abs(loss) < NOTHING) or (guarded and abs(largest) < 0.3)
    found = Effect(
        forward=forward,
        gradient=gradient,
        dependent=dependent,
        loss=loss,
        log10=largest,
        local=local,
        hidden=hidden,
        before=signal.spans,
        after=after,
        saturated=_more(saturated_share, scene, base.states, view, moved, change.saturated),
        dead=_more(dead_share, scene, base.states, view, moved, change.dead),
        head=_only_head(signal, scene, nodes),
        branch=set(signal.trunk).isdisjoint(nodes),
        touched=change.touched,
    )
    said = _unseen(scene, change, guarded, outputs) if hidden else sentence(found, scene)
    return replace(found, sentence=said)


def _unseen(scene: Scene, change: Change, guarded: bool, outputs: Sequence[int]) -> str:
    """Why a change has no effect: where on its way it ends."""
    if guarded:
        return "no effect on the signal: a norm that follows cancels the scale"
    least = "hardly any effect on the signal: what the net makes of it changes by less than 2 % in second moment"
    if change.shifts or any(index in change.states for index in outputs):
        return least
    ends = {user for index in change.states for user in scene.consumers[index] if user not in change.states}
    if ends and all(scene.nodes[index].op == "norm" for index in ends):
        return "no effect on the signal: a norm that follows cancels the scale"
    # what has no gradient (a step, a sampled index) has no rule either: it stays as it was measured
    last = next((scene.nodes[index] for index in sorted(ends) if scene.nodes[index].op in ("stop", "opaque")), None)
    if last is None:
        return least
    name = last.label or last.op
    if last.op == "opaque":
        return f"the effect is not known behind `{name}`, which is not modelled"
    return f"the effect is not known behind `{name}`, which has no gradient and was measured only as it is"


def _more(
    share: Callable[[Scene, Sequence[State], Collection[int]], float],
    scene: Scene,
    actual: Sequence[State],
    wanted: Sequence[State],
    among: Collection[int],
    elsewhere: tuple[float, float],
) -> float:
    """By how much the largest share exceeds the wanted one; ``elsewhere``: both, where nodes were not gone through."""
    return max(share(scene, actual, among), elsewhere[0]) - max(share(scene, wanted, among), elsewhere[1])


def _compare(actual: Sequence[Point], expected: Mapping[int, Point]) -> tuple[float, float, float]:
    """Largest log ratios along the trunk: q, q(1-c), and gradient energy relative to the point next to the head."""
    pairs = [(actual[place], expected[place]) for place in sorted(expected) if not actual[place].guarded]
    forward = _largest([a.q - b.q for a, b in pairs])
    dependent = _largest([a.dependent - b.dependent for a, b in pairs])
    body = {a.node: a.energy - b.energy for a, b in pairs if a.body and a.energy is not None and b.energy is not None}
    if not body:
        return forward, dependent, 0.0
    last = next(p.node for p in reversed(actual) if p.body and not p.guarded)
    common = body.get(last, 0.0)
    found = [value - common for value in body.values()]
    if common and any(p.body and not p.guarded and p.node not in body for p in actual):
        found.append(-common)  # what is not listed did not change
    return forward, dependent, _largest(found)


def _between(moments: Sequence[tuple[float, float]]) -> list[float]:
    """Log ratios at outputs beside the trunk (a value next to a policy); one that is exactly zero has none."""
    return [log10(actual) - log10(expected) for actual, expected in moments if actual > 0 and expected > 0]


def _shows(actual: Point, expected: Point) -> bool:
    """Whether a change of a point may show in a span."""
    if not (actual.judged or actual.body or expected.body):
        return False
    moved = max(abs(actual.q - expected.q), abs(actual.dependent - expected.dependent))
    if actual.energy is None or expected.energy is None:
        return moved > UNSEEN or actual.energy != expected.energy
    return max(moved, abs(actual.energy - expected.energy)) > UNSEEN


def _largest(values: Sequence[float]) -> float:
    return max(values, key=abs, default=0.0)


def _only_head(signal: Signal, scene: Scene, nodes: Mapping[int, Node]) -> bool:
    head = signal.init_loss.head if signal.init_loss else None
    if head is None:
        last = next((point.node for point in reversed(signal.profile) if point.judged), -1)
        return bool(nodes) and all(index > last for index in nodes)
    return set(nodes) <= {head}


def sentence(effect: Effect, scene: Scene) -> str:
    """An effect that shows, in words, with the number that matters most."""
    parts = {"forward": effect.forward, "gradient": effect.gradient, "dependent": effect.dependent}
    kind = _telling(parts, effect.before)
    value = parts[kind]
    if abs(effect.loss) >= 0.5 and abs(value) < 2.0:
        more = "above" if effect.loss > 0 else "below"
        return f"the loss at initialisation is {abs(effect.loss):.3g} nats {more} what the expected values give"
    if abs(value) < NOTHING:
        return f"the layer's own output changes by a factor {fold(effect.local)}, the rest of the net hardly"
    span, wanted = effect.before.get(kind), effect.after.get(kind)
    what = {"forward": "the signal", "dependent": "the input-dependent signal", "gradient": "the gradient"}[kind]
    # what changes beside the trunk, or in the middle of it, is not told by its ends
    same = span is not None and wanted is not None and abs(span.raw - wanted.raw) < NOTHING
    if span is None or span.raw < 0.5 or span.first < 0 or same:
        size = "larger" if value > 0 else "smaller"
        if abs(value) < PERCENT:
            share = abs(10.0**value - 1.0)
            return f"{what} is {share:.0%} {size} in its second moment than with the expected values"
        return f"{what} is {fold(value)} times {size} in its second moment than with the expected values"
    verb = "shrinks" if span.shrinks else "grows"
    first, last = (place(scene, i) for i in (span.first, span.last))
    start, end = (first, last) if kind != "gradient" else (last, first)
    rest = "about equal" if wanted is None or wanted.raw < 0.5 else f"{fold(wanted.raw)}-fold"
    if wanted is not None and wanted.raw >= 0.5 and wanted.shrinks != span.shrinks:
        rest = f"it {'shrinks' if wanted.shrinks else 'grows'} {rest}"
    # reports show standard deviations beside it: without the word a reader would take the square for wrong
    between = f"at {end}" if start == end else f"from {start} to {end}"
    return f"{what}'s second moment {verb} {fold(span.raw)}-fold {between} (expected: {rest})"


def _telling(parts: Mapping[str, float], before: Mapping[str, Span]) -> str:
    """The part of an effect to name: of those about as large as the largest one whose span is judged hardest."""
    largest = max(abs(value) for value in parts.values())
    least = max(largest - ALIKE, 0.5 * largest)

    def weight(name: str) -> tuple[int, float]:
        span = before.get(name)
        passed = sum(span.value >= level for level in LEVELS) if span is not None else 0
        return passed, round(abs(parts[name]), 6)  # rounding errors do not choose between equal ones

    return max((name for name, value in parts.items() if abs(value) >= least), key=weight)


def fold(log_ratio: float) -> str:
    """A ratio of second moments, given as log10 and without its sign, for reading."""
    value = abs(log_ratio)
    if value < 2.0 - ROUNDED:
        return f"{10.0**value:.2g}"
    exponent = math.floor(value + ROUNDED)
    return f"{10 ** (value - exponent):.1f}e{exponent}"


def place(scene: Scene, index: int) -> str:
    """What a reader should call a node: the layer that it is or that last wrote its signal."""
    seen: set[int] = set()
    front = [index]
    while front:
        node = scene.nodes[front.pop()]
        if node.op in WEIGHTED:
            return node.module or node.label or node.op
        # of a sum or a concatenation the summand that was made last is tried first
        fresh = sorted({source for source in node.inputs if source not in seen})
        seen.update(fresh)
        front += fresh
    node = scene.nodes[index]
    return (node.label or node.op) if node.op == "parameter" else "the input"
