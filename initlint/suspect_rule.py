"""The common body of the variance rules: one finding for each line with the rule's reason, judged by its effect."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import ClassVar

from initlint.asked import nominal_second
from initlint.diagnosis import Suspect, at_fault, grouped, suspects
from initlint.facts import Node, Site
from initlint.findings import Related, Severity
from initlint.rule import Context, Outcome, Rule, site_of
from initlint.signal import Effect, Nominal
from initlint.signal.verdict import MISTAKE, UNROLLED, mismatch, mistake
from initlint.wiring import reached, users, uses_in_line

#: Below a factor 2 of the second moment a mistake is not worth a word unless it is certain (DESIGN, severity).
_SILENT = math.log10(1.05)


#: Ratios that differ by less are one (what padding takes of a fan).
_ALIKE = 1.1
#: How many of the calls that use a formula are named.
_USES = 4
#: What is said of a scale that a norm takes out again.
_HIDDEN = "no effect on the signal: a norm that follows cancels the scale"


class SuspectRule(Rule):
    """A rule that reports the suspects of one reason (see ``initlint.diagnosis``)."""

    abstract: ClassVar[bool] = True
    reason: ClassVar[str]
    kind: ClassVar[str] = "mistake"  # which row of the severity table applies: "mistake" | "mismatch"

    def check(self, context: Context) -> Iterator[Outcome]:
        for group in grouped(suspects(context.facts), self.reason).values():
            outcome = self.judge(context, group)
            if outcome is not None:
                yield outcome

    def judge(self, context: Context, group: list[Suspect]) -> Outcome | None:
        """The finding for one line, or ``None`` when its effect is nothing."""
        effect = context.effect({s.parameter.name: Nominal(0.0, s.expected) for s in group})
        if self.reason != "nonzero_mean" and all(normalised_away(context, s.parameter.name) for s in group):
            effect = replace(effect, hidden=True, sentence=_HIDDEN)
        local = math.log10(max(s.actual / s.expected for s in group) if group else 1.0)
        low = math.log10(min(s.actual / s.expected for s in group))
        if max(abs(local), abs(low)) < _SILENT:
            return None
        level = self.level(context, group, effect)
        steps = steps_of(context, [s.parameter.name for s in group])
        if steps >= UNROLLED and level > Severity.NOTE:  # unrolled time is not depth: its T is stated, and no error
            level = min(level, Severity.WARNING)
            effect = replace(effect, sentence=f"{effect.sentence}, over {steps} steps of one weight")
        return self.report(context, group, effect, level)

    def level(self, context: Context, group: list[Suspect], effect: Effect) -> Severity:
        """The severity by DESIGN's table."""
        judge = mistake if self.kind == "mistake" else mismatch
        # "only smaller" excuses what is inside a residual branch, not one of several parallel paths
        if effect.branch and not all(s.layer.branch or inside_branch(context, s.parameter.name) for s in group):
            effect = replace(effect, branch=False)
        found = judge(effect, context.signal, context.settings.optimizer, context.facts.dtype) or Severity.NOTE
        if found is Severity.NOTE and self.kind == "mistake" and self._cut(context, group):
            return Severity.WARNING
        return found

    def _cut(self, context: Context, group: list[Suspect]) -> bool:
        """Whether the weights act through something that has no gradient (argmin, a detached value): the propagation
        sees no effect there, so the layer itself is judged, by the factor 2 of the severity table."""
        off = max(abs(math.log10(s.actual / s.expected)) for s in group)
        return off >= MISTAKE and any(_reaches_stop(context, s.parameter.name) for s in group)

    def report(self, context: Context, group: list[Suspect], effect: Effect, severity: Severity) -> Outcome:
        """One finding for the group, with the worst suspect in the message."""
        worst = max(group, key=lambda s: abs(math.log(s.actual / s.expected)))
        ratio, mean = _ratio(worst), self.reason == "nonzero_mean"
        count = len(group)
        differ = _differ(group)
        # of members that are off by other factors the one that is named is told, then the range of the others
        names = f"`{worst.parameter.name}`" + (f" and {count - 1} more" if count > 1 and not differ else "")
        off = (
            ("the root mean square is " if mean else "")
            + _off(ratio)
            + (f"; {_others(group, worst)}" if differ else "")
        )
        of = {"of": worst.parameter.name} if differ else {}
        site = at_fault(worst)
        written = {(at.file, at.line): at for s in group if (at := site_of(s.parameter)) is not None}
        related = [Related(at.file, at.line, "used here") for at in [*written.values()][:_USES] if not _same(at, site)]
        related += [
            Related(s.layer.site.file, s.layer.site.line, f"{s.layer.name} is constructed here")
            for s in group[:3]
            if s.layer.site and (site is None or s.layer.site.line != site.line)
        ]
        return self.finding(
            context,
            f"{names}: {worst.evidence}; {off}",
            parameters=[s.parameter.name for s in group],
            severity=severity,
            site=site,
            related=related,
            expected={
                **of,
                **({"mean": 0.0} if mean else {}),
                "std": math.sqrt(worst.expected),
                "variance": worst.expected,
                **({"scheme": worst.scheme.name} if worst.scheme else {}),
            },
            actual={**of, **_actual(worst, mean), "ratio": ratio},
            effect=effect,
            fix=(f"{worst.remedy}  # {worst.parameter.name}" if differ and worst.remedy else worst.remedy) or None,
            topic="scale",
        )


def _actual(suspect: Suspect, mean: bool) -> dict[str, float]:
    """What a weight has: of one with a mean the std is not the root of its second moment."""
    if not mean:
        return {"std": math.sqrt(suspect.actual), "variance": suspect.actual}
    stats = suspect.parameter.stats
    _, asked = nominal_second(suspect.parameter)
    centre = (asked.mean if asked is not None else stats.mean if stats is not None else 0.0) or 0.0
    variance = max(suspect.actual - centre * centre, 0.0)
    return {"mean": centre, "std": math.sqrt(variance), "variance": variance, "rms": math.sqrt(suspect.actual)}


def _ratio(suspect: Suspect) -> float:
    return math.sqrt(suspect.actual / suspect.expected)


def _off(ratio: float) -> str:
    return f"{ratio:.3g}x the std expected" if ratio >= 1 else f"{1 / ratio:.3g}x too small a std"


def _differ(group: list[Suspect]) -> bool:
    """Whether one ratio does not stand for all members of a group."""
    ratios = [_ratio(s) for s in group]
    return max(ratios) > _ALIKE * min(ratios)


def _others(group: list[Suspect], worst: Suspect) -> str:
    """By how much the other members are off: "and 2 more, from 1.5x too small a std to 1.9x the std expected"."""
    others = sorted((s for s in group if s is not worst), key=_ratio)
    low, high = _off(_ratio(others[0])), _off(_ratio(others[-1]))
    what = f"`{others[0].parameter.name}`" if len(others) == 1 else f"and {len(others)} more"
    return f"{what} {low}" if low == high else f"{what}, from {low} to {high}"


def _same(one: Site, other: Site | None) -> bool:
    return other is not None and (one.file, one.line) == (other.file, other.line)


def steps_of(context: Context, names: Collection[str]) -> int:
    """How often these weights act on what they made themselves; 1 where one of them does not."""
    uses = uses_in_line(context.facts)
    return min((uses.get(name, 1) for name in names), default=1)


def leads_only_to(
    context: Context, name: str, end: Callable[[Context, Node], bool], through: Callable[[Context, Node], bool]
) -> bool:
    """Whether every way from a weight to the outputs passes a node that is an end, by nodes that let it pass."""
    facts = context.facts
    readers = users(facts)
    starts = [node for layer in context.layers_of(name) if layer.weight == name for node in layer.nodes]
    todo, seen = list(starts), set(starts)
    while todo:
        index = todo.pop()
        if end(context, facts.nodes[index]):
            continue
        following = readers[index]
        if not following or (index not in starts and not through(context, facts.nodes[index])):
            return False
        todo += [user for user in following if user not in seen]
        seen.update(following)
    return bool(starts)


def normalised_away(context: Context, name: str) -> bool:
    """Whether the scale of a weight is divided out again on every way, by norms behind ops that only hand it on.

    A depthwise convolution whose pointwise one is normalised: what is between is of another scale, and that is all.
    """
    nodes = [context.facts.nodes[i] for layer in context.layers_of(name) for i in layer.nodes]
    alone = all(hands_on(context, node) for node in nodes)
    return alone and leads_only_to(context, name, lambda context, node: node.op == "norm", hands_on)


def inside_branch(context: Context, name: str) -> bool:
    """Whether every way from a weight to the outputs passes the writer of a residual branch: it scales the branch."""
    writers = {node for layer in context.facts.layers if layer.branch for node in layer.nodes}
    return leads_only_to(context, name, lambda _, node: node.index in writers, lambda _, node: True)


def hands_on(context: Context, node: Node) -> bool:
    """Whether an op of c x is c times the op of x, for c > 0."""
    if node.op in ("linear", "conv", "conv_transpose"):
        bias = context.parameter(node.parameters.get("bias", ""))
        return bias is None or (bias.stats is not None and bias.stats.second == 0.0)
    if node.op == "activation":
        return node.attrs.get("fn") in ("relu", "leaky_relu", "prelu", "abs", "identity")
    return node.op in ("reshape", "select", "identity", "dropout", "scale", "pool")


def _reaches_stop(context: Context, name: str) -> bool:
    """Whether what the weight writes is detached or turned into indices before another layer reads it."""
    facts = context.facts
    weighted = {node for layer in facts.layers for node in layer.nodes}
    starts = [node for layer in context.layers_of(name) for node in layer.nodes]
    onward = [
        node for start in starts for node in reached(facts, start, lambda n: n.op != "stop" and n.index not in weighted)
    ]
    return any(node.op == "stop" and node.index not in weighted for node in onward)
