"""Propagation of a model's facts: moments of every node, forward and backward, and the profile over depth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import field, replace

from initlint.facts import ModelFacts
from initlint.records import dataclass
from initlint.signal.confirmed import standard_inputs
from initlint.signal.doubt import doubted
from initlint.signal.loss import InitLoss, init_loss
from initlint.signal.moments import Moments, Nominal
from initlint.signal.opening import FALLS, opened
from initlint.signal.profile import Culprit, Point, Span, culprits, points, spans
from initlint.signal.rewrite import fuse
from initlint.signal.scene import Scene, number, text
from initlint.signal.stretches import LONG, Stretches
from initlint.signal.substitute import substituted
from initlint.signal.sweep import Sweep, contradicted, moments, sweep
from initlint.signal.trunk import WEIGHTED, guarded, returned, trunk


@dataclass(frozen=True, slots=True)
class Signal:
    """What propagation predicts of a model.

    ``built`` is the model as it is, ``opened`` with exact-zero and deliberately tiny branch writers passing a little:
    depth verdicts use the second. Spans are log10 ratios of second moments along the trunk beyond chance.
    """

    built: tuple[Moments, ...]
    opened: tuple[Moments, ...]
    trunk: tuple[int, ...] = ()
    profile: tuple[Point, ...] = ()
    spans: Mapping[str, Span] = field(default_factory=dict)
    culprits: tuple[Culprit, ...] = ()
    init_loss: InitLoss | None = None
    unsupported: Mapping[str, int] = field(default_factory=dict)
    undetermined: int = 0  # nodes of which nothing is known
    numeric: int = 0  # nodes that rest on measurements
    steps: int = 1  # how often the trunk applies one and the same weight: steps of time, which are not depth
    scene: Scene | None = field(default=None, repr=False, compare=False)
    sweeps: tuple[Sweep, Sweep] | None = field(default=None, repr=False, compare=False)
    guards: tuple[bool, ...] = field(default=(), repr=False, compare=False)
    places: Mapping[int, int] = field(default_factory=dict, repr=False, compare=False)  # of nodes, in the profile
    stretches: Stretches | None = field(default=None, repr=False, compare=False)  # of a long graph

    @property
    def forward_span(self) -> float:
        """Span of the second moment q along the trunk."""
        return self.spans["forward"].value if self.spans else 0.0

    @property
    def gradient_span(self) -> float:
        """Span of gradient energy per sample along the trunk, a factor common to all divided out."""
        return self.spans["gradient"].value if self.spans else 0.0

    @property
    def dependent_span(self) -> float:
        """Span of the input-dependent part q(1-c) along the trunk."""
        return self.spans["dependent"].value if self.spans else 0.0

    @property
    def logit_second(self) -> float | None:
        """Second moment of the logits, where the output is a vector of logits."""
        return self.init_loss.logit_std**2 if self.init_loss else None

    @property
    def classes(self) -> int | None:
        """Number of logits."""
        return self.init_loss.classes if self.init_loss else None


def propagate(
    facts: ModelFacts,
    nominal: Mapping[str, Nominal] | None = None,
    actual: Signal | None = None,
) -> Signal:
    """Predict the moments of every node of a traced model, without data, from the actual weights.

    Args:
        facts: a traced model; without nodes the result is empty.
        nominal: moments to use in place of the actual ones, by parameter name (what the record confirms); inputs
            drawn from N(0, 1) take its moments then, too. None: everything as it was drawn.
        actual: what was found of the same facts without ``nominal``, if it is known already.
    """
    nodes = fuse(facts.nodes)
    scene = Scene(nodes, facts)
    if not nodes:
        return Signal((), (), scene=scene)
    outputs = returned(scene, facts.outputs)
    known = actual.sweeps if actual is not None else None
    built = known[0] if known is not None else sweep(nodes, scene, outputs)
    overruled = contradicted(built)
    swapped = {} if nominal is None else {**standard_inputs(nodes, facts), **substituted(nominal, scene)}
    if actual is not None and not swapped:
        return actual
    if swapped:
        nodes = tuple(swapped.get(node.index, node) for node in nodes)
        scene = Scene(nodes, facts, overruled)
        built = sweep(nodes, scene, outputs)
    openings = opened(scene)
    opened_scene, second = Scene(nodes, facts, overruled), built
    if openings:
        opened_scene = Scene([openings.get(node.index, node) for node in nodes], facts, overruled)
        second = sweep(opened_scene.nodes, opened_scene, outputs)
    path, guards = trunk(scene, outputs), guarded(scene)
    profile = points(scene, path, guards, second.states, second.grads)
    public = moments(built)
    found = spans(profile)
    shut = any(built.states[i].q == 0.0 or built.grads[i].p == 0.0 for i in path)
    if openings and shut and any(span.shrinks and span.value >= FALLS for span in found.values()):
        wide = Scene([opened(scene, 1.0).get(node.index, node) for node in nodes], facts, overruled)
        swept = sweep(wide.nodes, wide, outputs)
        found = less_of_opening(found, spans(points(wide, path, guards, swept.states, swept.grads)))
    return Signal(
        built=public,
        opened=public if second is built else moments(second),
        trunk=path,
        profile=profile,
        spans=doubted(scene, built.states, found, path),
        culprits=culprits(scene, profile, guards),
        # what a part returns goes on into others: no logits
        init_loss=None if facts.trace.parts else init_loss(scene, outputs, built.states),
        unsupported=_unsupported(scene, built),
        undetermined=sum(x.undetermined is not None for x in built.states),
        numeric=sum(x.numeric for x in built.states),
        steps=_steps(scene, path),
        scene=opened_scene,
        sweeps=(built, second),
        guards=guards,
        places={point.node: place for place, point in enumerate(profile)},
        stretches=Stretches(opened_scene, second, profile, outputs) if len(nodes) >= LONG else None,
    )


def less_of_opening(found: Mapping[str, Span], wide: Mapping[str, Span]) -> Mapping[str, Span]:
    """The spans less what falls because zero writers were opened to so little alone.

    Several of them in line, with no way around, take so much each, and none of it once training has opened them.
    ``wide``: the spans where they pass all that they get.
    """
    kept = dict(found)
    for name, span in found.items():
        then = wide.get(name)
        if span.shrinks and then is not None and (not then.shrinks or then.value < span.value):
            kept[name] = replace(span, value=then.value if then.shrinks else 0.0, raw=then.raw if then.shrinks else 0.0)
    return kept


def _steps(scene: Scene, path: Sequence[int]) -> int:
    """Largest number of times that one weight acts along the trunk; a recurrent layer counts its steps."""
    counts: Counter[str] = Counter()
    longest = 1
    for index in path:
        node = scene.nodes[index]
        if node.op == "recurrent":
            longest = max(longest, int(number(node, "steps", 1.0)))
        elif node.op in WEIGHTED and "weight" in node.parameters:
            counts[scene.proper(node.parameters["weight"])] += 1
    return max(longest, *counts.values()) if counts else longest


def _unsupported(scene: Scene, found: Sweep) -> Mapping[str, int]:
    """Ops without a rule whose result something reads, by name, with counts."""
    counts: Counter[str] = Counter()
    for node in scene.nodes:
        if (
            node.op == "opaque"
            and scene.consumers[node.index]
            and (found.states[node.index].undetermined or node.response is None)
        ):
            counts[text(node, "name", node.label or "opaque")] += 1
    return dict(counts)
