"""The common body of the rules on the depth profile: one finding for each way in which depth spoils a net."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from typing import ClassVar

from initlint.carry import shut_by_gates
from initlint.facts import ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, site_of
from initlint.signal import Nominal, Span, propagate
from initlint.signal.verdict import UNROLLED, depth, thresholds
from initlint.temperature import by_temperature, projections
from initlint.theory.suitable import textbook
from initlint.upstream import scale_of, with_moments
from initlint.wiring import uses_in_line

#: The culprits named are the fewest layers that together explain this share of what all layers in the span do.
_EXPLAINED = 0.9
#: Share of a growing span that has to be made up to its last layer: where it is less, weights are not what it is from.
_MOST = 0.5
#: Weights whose scale moves a span by less than this share of it are not what it comes from: of gates beside a trunk of
#: norms it is 0.004, of weights in line 0.2 to 2.
_FELT = 0.1
#: Second moment of a gain within a factor of two of one. Of others it is asked whether all is well with them at one.
_NEAR_ONE = 0.25


class DepthRule(Rule):
    """A rule that judges one span of the trunk's profile in one direction."""

    abstract: ClassVar[bool] = True
    generic = True  # a rule that names the cause stands before the symptom
    span: ClassVar[str]  # "forward" | "gradient" | "dependent"
    shrinks: ClassVar[bool]
    what: ClassVar[str]  # "activations", "gradients" ...
    remedy: ClassVar[str] = 'nn.init.kaiming_normal_(w, nonlinearity="relu")  # or the scheme of the activation'

    def check(self, context: Context) -> Iterator[Outcome]:
        for part in context.parts:
            yield from self._judged(part)

    def _judged(self, context: Context) -> Iterator[Outcome]:
        facts = context.facts
        # what a net with uninitialised weights does is chance
        if not facts.nodes or facts.loaded or any(p.uninitialised for p in facts.parameters):
            return
        span = context.signal.spans.get(self.span)
        if span is None or span.shrinks != self.shrinks:
            return
        warning = thresholds(context.settings.optimizer)[0]
        found = depth({"": span}, context.settings.optimizer)
        if found is None:
            if span.value + span.doubt >= warning:
                missed = f"by 1e{span.doubt:.1f}, for what is unknown on its way or missed of the measured forward"
                yield self.undetermined(context, f"the {self.span} span is in doubt: {missed}")
            elif self.span == "dependent" and self.shrinks and (at := _constant(context)) is not None:
                same = f"{_label(context, at)} was measured the same for all inputs"
                yield self.undetermined(context, f"how far differences between inputs shrink is not known: {same}")
            return
        if self.span == "gradient" and (at := _silent(context, span)) is not None:
            yield self.undetermined(
                context, f"what gradients pass is not known: no signal reaches {_label(context, at)}"
            )
            return
        culprits = culprits_of(context, span)
        steps = _steps(context, span, culprits)
        severity = _capped(found, steps)
        gains = _gains(context, self.span, warning)
        sharp = by_temperature(context, self.span, warning)
        if sharp:  # IL211 tells what is wrong with them
            culprits = list({p.name: p for index in sharp for p in projections(context, index)}.values()) or culprits
        elif self.span == "gradient" and not gains and _by_norms(context, span, culprits):
            if severity is Severity.ERROR and not self.shrinks:  # nets of this depth do not train (Yang et al. 2019)
                yield self._grown(context, span)
            return
        if not culprits or shut_by_gates(context):
            return
        if not sharp and not self.shrinks and made_by_layers(context, span, self.span) < _MOST * span.raw:
            yield self.undetermined(
                context, f"most of the growth of the {self.span} span is that of no layer's weights"
            )
            return
        if facts.unrun and all(p.last is None or p.last.origin == "torch" for p in culprits):
            yield self.undetermined(context, f"its init function, called at {facts.unrun[0]}, was not run")
            return
        first, last = _label(context, span.first), _label(context, span.last)
        verb = "shrink" if self.shrinks else "grow"
        yield self.finding(
            context,
            f"{self.what} {verb} 1e{span.raw / 2:.0f}-fold (standard deviation) between {first} and {last}",
            parameters=[p.name for p in gains or culprits],
            severity=severity,
            site=site_of((gains or culprits)[0]),
            expected={"log10_ratio": 0.0, "threshold": warning},
            actual={"log10_ratio": -span.raw if self.shrinks else span.raw, "band": span.noise},
            effect=f"the second moment changes 1e{span.raw:.0f}-fold, {span.value:.1f} decades beyond chance"
            + (f", over {steps} steps of one weight" if steps else ""),
            fix="nn.init.ones_(norm.weight)" if gains else _scheme(context, culprits[0], self.shrinks) or self.remedy,
            topic="scale",
        )

    def _grown(self, context: Context, span: Span) -> Outcome:
        """Growth that no scale of a weight changes: told, but nothing that an initialisation could mend."""
        first, last = _label(context, span.first), _label(context, span.last)
        return self.finding(
            context,
            f"{self.what} grow 1e{span.raw / 2:.0f}-fold (standard deviation) between {first} and {last}, whatever the"
            " scale of the weights, which norms divide out",
            severity=Severity.NOTE,
            expected={"log10_ratio": 0.0},
            actual={"log10_ratio": span.raw, "band": span.noise},
            effect=f"the second moment changes 1e{span.raw:.0f}-fold, {span.value:.1f} decades beyond chance",
            fix="x = x + block(x)",
            topic="depth",
        )


def _scheme(context: Context, culprit: ParameterFacts, shrinks: bool) -> str | None:
    """The line of the scheme that does the most against it, of those derived for what follows a culprit: deep sigmoids
    want Glorot's with gain 4, and no ReLU's. None where none does anything."""
    layer = next((each for each in context.layers_of(culprit.name) if each.weight == culprit.name), None)
    schemes = textbook(layer) if layer is not None and layer.activation is not None else ()
    if not schemes or culprit.stats is None:
        return None
    best = max(schemes, key=lambda s: s.var) if shrinks else min(schemes, key=lambda s: s.var)
    helps = best.var > culprit.stats.second if shrinks else best.var < culprit.stats.second
    return best.line("weight") if helps else None


def _silent(context: Context, span: Span) -> int | None:
    """An end of the span that no signal reaches: a norm of zeros multiplies gradients by the root of its epsilon, which
    they would not meet once there is a signal. Rules on values tell what is zero."""
    return next(
        (p.node for p in context.signal.profile if p.node in (span.first, span.last) and p.forward_std == 0.0), None
    )


def _by_norms(context: Context, span: Span, culprits: list[ParameterFacts]) -> bool:
    """Whether a span of gradients comes from norms, more than there are layers to blame, and from no weight's scale."""
    low, high = sorted((span.first, span.last))
    norms = sum(node.op == "norm" for node in context.facts.nodes[max(low, 0) : high + 1])
    return norms > len(culprits) and not _theirs(context, span, culprits)


def _theirs(context: Context, span: Span, culprits: list[ParameterFacts]) -> bool:
    """Whether the culprits' scale moves a span of gradients: it is changed by what would level it, were they in line.

    Where norms follow the weights of the trunk, what is left to blame are weights beside it, such as those of gates.
    Spans are compared as they are: what was measured of the model as built says nothing of a changed one.
    """
    known = {p.name: p.stats.second for p in culprits if p.stats is not None and p.stats.second > 0}
    if not known:
        return bool(culprits)
    step = span.raw / len(known)
    for sign in (-1.0, 1.0):
        changes = {name: Nominal(0.0, second * 10.0 ** (sign * step)) for name, second in known.items()}
        then = with_moments(context, changes).spans.get("gradient")
        if then is None or then.shrinks != span.shrinks or abs(then.raw - span.raw) > _FELT * span.raw:
            return True
    return False


def _gains(context: Context, span: str, warning: float) -> list[ParameterFacts]:
    """Gains of norms that start elsewhere than at one, where the net is sound once they start there."""
    found: dict[str, ParameterFacts] = {}
    for node in context.facts.nodes:
        gain = context.parameter(node.parameters.get("weight", "")) if node.op == "norm" else None
        second = gain.stats.second if gain is not None and gain.stats is not None else 1.0
        if gain is not None and second > 0.0 and not _NEAR_ONE <= second <= 1.0 / _NEAR_ONE:
            found[gain.name] = gain
    if not found:
        return []
    mended = propagate(context.facts, dict.fromkeys(found, Nominal(1.0, 0.0)), context.signal).spans.get(span)
    return list(found.values()) if mended is not None and mended.raw < warning else []


def _constant(context: Context) -> int | None:
    """The node from which on what was measured on a few inputs is the same for all of them, to the end of the trunk.

    A step function of a handful of samples may give one value: how much differs between more of them is not known.
    """
    signal = context.signal
    tail = list(takewhile(lambda point: point.share <= 0, reversed([p for p in signal.profile if p.forward_std > 0])))
    if not tail or signal.sweeps is None:
        return None
    first = tail[-1].node
    # zeros among the weights are known, and the rules on values judge them
    rests = signal.sweeps[1].states[first].numeric or context.facts.nodes[first].op == "stop"
    return first if rests else None


def _label(context: Context, index: int) -> str:
    nodes = context.facts.nodes
    return f"`{nodes[index].label or nodes[index].op}`" if 0 <= index < len(nodes) else "the input"


def severity_of(context: Context, span: Span) -> Severity | None:
    """What a span amounts to by itself."""
    found = depth({"": span}, context.settings.optimizer)
    return None if found is None else _capped(found, _steps(context, span, culprits_of(context, span)))


def _capped(severity: Severity, steps: int) -> Severity:
    """Steps of time are not depth (DESIGN, section 4)."""
    return min(severity, Severity.WARNING) if steps else severity


def _steps(context: Context, span: Span, culprits: list[ParameterFacts]) -> int:
    """Over how many steps of time the span runs; 0 where it is depth."""
    low, high = sorted((span.first, span.last))
    uses = uses_in_line(context.facts)
    inside = context.facts.nodes[max(low, 0) : high + 1]
    recurrent = [uses.get(name, 1) for n in inside if n.op == "recurrent" for name in n.parameters.values()]
    # written out by hand: one weight acts on its own results, the others are used at each of its steps
    calls = [max((len(layer.nodes) for layer in context.layers_of(p.name)), default=0) for p in culprits]
    longest = max((uses.get(p.name, 1) for p in culprits), default=1)
    unrolled = longest >= UNROLLED and min(calls) >= UNROLLED
    return max(recurrent, default=longest if unrolled else 0)


def made_by_layers(context: Context, span: Span, name: str) -> float:
    """Decades that a span grows up to the last layer of the trunk; the rest is that of constants behind it (boxes in
    units of pixels)."""
    low, high = sorted((span.first, span.last))
    layers = {node for layer in context.facts.layers for node in layer.nodes}
    sizes = [(p.node, p.energy if name == "gradient" else p.q) for p in context.signal.profile if p.node >= low]
    known = [(node, size) for node, size in sizes if size is not None]
    last = max((node for node, _ in known if node in layers), default=-1)
    if last >= high:
        return span.raw
    return abs(next((size for node, size in known if node == last), known[0][1]) - known[0][1]) if known else 0.0


def culprits_of(context: Context, span: Span) -> list[ParameterFacts]:
    """Weights of the layers that write the span, those of residual blocks among them, largest contribution first."""
    low, high = sorted((span.first, span.last))
    size = {c.node: max(abs(c.forward), abs(c.gradient)) for c in context.signal.culprits if low <= c.node <= high}
    worst = max(size.values(), default=0.0)
    found: list[tuple[float, ParameterFacts]] = []
    for layer in context.facts.layers:
        inside = [n for n in layer.nodes if n in size and size[n] >= 0.1 * worst]
        for parameter in scale_of(context, layer) if inside else ():
            if all(parameter is not p for _, p in found):
                found.append((sum(size[n] for n in inside), parameter))
    found.sort(key=lambda item: -item[0])
    whole, so_far, chosen = sum(size for size, _ in found), 0.0, []
    for amount, parameter in found:
        if so_far >= _EXPLAINED * whole:
            break
        so_far += amount
        chosen.append(parameter)
    return chosen
