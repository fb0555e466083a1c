"""One finding per cause: where several rules see the same fault, the most specific one stands.

The one that stands takes over the highest severity and the largest effect of those that it absorbs, and
points at their places.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from initlint.findings import Finding, Related, Severity
from initlint.rule import Rule

#: Families from the most specific to the least: what nobody can train, then what the code meant to do, then
#: single layers, conventions, and the whole graph.
FAMILY_ORDER = ("values", "intent", "variance", "architecture", "signal", "responsible", "tool")

#: Share of a finding's parameters that more specific findings must cover. Not 1: the signal's culprits are
#: found by attribution, which may name a neighbouring bias or gain too.
COVERED = 0.8

#: The same for verdicts on depth beside an equally severe finding on single layers.
HALF = 0.5

#: What can make signals vanish, explode or die; a finding on such a topic explains one on the scale of signals.
SCALE_CAUSES = frozenset({"scale", "memory", "value", "reach", "norm", "symmetry", "range", "head", "bias"})


def absorb(findings: Iterable[Finding], rules: Mapping[str, Rule]) -> list[Finding]:
    """The findings without those that others explain. ``rules`` gives families, by code."""
    models: dict[str, list[Finding]] = {}
    for finding in findings:
        models.setdefault(finding.model, []).append(finding)
    return [finding for group in models.values() for finding in _absorb_model(group, rules)]


def _absorb_model(findings: Sequence[Finding], rules: Mapping[str, Rule]) -> list[Finding]:
    standing: list[Finding] = []
    for finding in sorted(findings, key=lambda f: _rank(f, rules)):
        hosts = [
            i
            for i, host in enumerate(standing)
            if _explains(host, finding, rules) and _accounted_for(finding, [host]) > 0.0
        ]
        causes = [standing[i] for i in hosts]
        if hosts and _accounted_for(finding, causes) >= _needed(finding, causes, rules):
            strongest = max(hosts, key=lambda i: _strength(standing[i], finding))
            standing[strongest] = _merge(standing[strongest], finding)
        else:
            standing.append(finding)
    return _one_line(standing, rules)


def _one_line(standing: Sequence[Finding], rules: Mapping[str, Rule]) -> list[Finding]:
    """Without symptoms at a part of what a cause names that was reported later: one line drew the head and all before.

    A general rule on single layers stands after specific symptoms, so that one weight alone has the symptom's name.
    """
    found = list(standing)
    for finding in standing:
        if not _family(finding, rules, "signal"):
            continue
        wider = [
            i
            for i, host in enumerate(found)
            if host.topic == finding.topic
            and _family(host, rules, "variance")
            and set(host.parameters) > set(finding.parameters)
        ]
        if wider and finding.parameters:
            found[wider[0]] = _merge(found[wider[0]], finding)
            found.remove(finding)
    return found


def _family(finding: Finding, rules: Mapping[str, Rule], family: str) -> bool:
    rule = rules.get(finding.code)
    return rule is not None and rule.family == family


def _rank(finding: Finding, rules: Mapping[str, Rule]) -> tuple[bool, int, int, int]:
    """Where a finding comes in the order of standing; smaller stands first."""
    rule = rules.get(finding.code)
    family = rule.family if rule else "tool"
    return (bool(rule and rule.generic), FAMILY_ORDER.index(family), -finding.severity, -len(finding.parameters))


def _explains(host: Finding, finding: Finding, rules: Mapping[str, Rule]) -> bool:
    """Whether ``host`` may be the cause of what ``finding`` reports, should the parameters agree."""
    if host.code == finding.code or "tool" in (host.topic, finding.topic):
        return False  # a rule tells its own causes apart
    if host.topic == finding.topic:
        # two symptoms: one that is itself no more than a note is not why something louder happens
        symptom = (known := rules.get(host.code)) is not None and known.family in ("signal", "responsible")
        return not symptom or host.severity >= Severity.WARNING or finding.severity <= Severity.NOTE
    # what no statement reached is not what the code asked for, in its scale, too; nor what a convention asks for
    scale = finding.topic == "scale" and _family(finding, rules, "variance")
    convention = finding.topic == "convention" and _family(finding, rules, "architecture")
    if host.topic == "reach" and (scale or (convention and _family(host, rules, "intent"))):
        return host.severity >= Severity.WARNING or finding.severity <= Severity.NOTE
    rule = rules.get(finding.code)
    whole_graph = rule is not None and rule.family == "signal" and finding.topic == "scale"
    return whole_graph and host.topic in SCALE_CAUSES and host.severity >= Severity.WARNING


def _needed(finding: Finding, hosts: Sequence[Finding], rules: Mapping[str, Rule]) -> float:
    """The share of its parameters that causes must cover. Of a verdict on depth, half, where a finding on single layers
    is as severe: it was judged by the same depth, and attribution names layers beside those that are to be mended."""
    rule = rules.get(finding.code)
    deep = rule is not None and rule.generic and rule.family == "signal"
    worst = max((h.severity for h in hosts if _family(h, rules, "variance")), default=Severity.NOTE)
    return HALF if deep and worst >= max(finding.severity, Severity.WARNING) else COVERED


def _accounted_for(finding: Finding, hosts: Sequence[Finding]) -> float:
    """Share of a finding's parameters that belong to its causes, too.

    Biases that switch units off stand for their layers: the signal is seen to die at the weights they are added to.
    """
    covered = {name for host in hosts for name in host.parameters}.intersection(finding.parameters)
    shares = [len(covered) / max(len(set(finding.parameters)), 1)]
    layers = {name for host in hosts if host.topic == "bias" for name in host.layers}.intersection(finding.layers)
    if layers:
        shares.append(len(layers) / len(set(finding.layers)))
    return max(shares)


def _strength(host: Finding, finding: Finding) -> tuple[float, int]:
    """How much of the absorbed finding's effect a host accounts for: its own effect, then how much it covers."""
    return (abs(host.effect_log10 or 0.0), len(set(host.parameters).intersection(finding.parameters)))


def _merge(host: Finding, absorbed: Finding) -> Finding:
    larger = absorbed.effect and abs(absorbed.effect_log10 or 0.0) > abs(host.effect_log10 or 0.0)
    related = [*host.related]
    site = absorbed.site
    places = {(place.file, place.line) for place in related}
    if host.site is not None:
        places.add((host.site.file, host.site.line))
    if site is not None and (site.file, site.line) not in places:
        related.append(Related(site.file, site.line, f"{absorbed.code} {absorbed.name}"))
    return replace(
        host,
        severity=max(host.severity, absorbed.severity),
        effect=absorbed.effect if larger or not host.effect else host.effect,
        effect_log10=absorbed.effect_log10 if larger or host.effect_log10 is None else host.effect_log10,
        related=tuple(related),
    )
