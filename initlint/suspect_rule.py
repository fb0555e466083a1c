"""The common body of the variance rules: one finding for each line with the rule's reason, judged by its effect."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

from initlint.diagnosis import Suspect, grouped, suspects
from initlint.findings import Related, Severity
from initlint.rule import Context, Outcome, Rule, site_of
from initlint.signal import Effect, Nominal
from initlint.signal.verdict import mismatch, mistake

#: Below a factor 2 of the second moment a mistake is not worth a word unless it is certain (DESIGN, severity).
_SILENT = math.log10(1.05)


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
        local = math.log10(max(s.actual / s.expected for s in group) if group else 1.0)
        low = math.log10(min(s.actual / s.expected for s in group))
        if max(abs(local), abs(low)) < _SILENT:
            return None
        return self.report(context, group, effect, self.level(context, group, effect))

    def level(self, context: Context, group: list[Suspect], effect: Effect) -> Severity:
        """The severity by DESIGN's table."""
        judge = mistake if self.kind == "mistake" else mismatch
        found = judge(effect, context.signal, context.settings.optimizer, context.facts.dtype)
        return found or Severity.NOTE

    def report(self, context: Context, group: list[Suspect], effect: Effect, severity: Severity) -> Outcome:
        """One finding for the group, with the worst suspect in the message."""
        worst = max(group, key=lambda s: abs(math.log(s.actual / s.expected)))
        ratio = math.sqrt(worst.actual / worst.expected)
        count = len(group)
        names = f"`{worst.parameter.name}`" + (f" and {count - 1} more" if count > 1 else "")
        off = f"{ratio:.3g}x the std expected" if ratio >= 1 else f"{1 / ratio:.3g}x too small a std"
        site = site_of(worst.parameter)
        related = [
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
                "std": math.sqrt(worst.expected),
                "variance": worst.expected,
                "scheme": worst.scheme.name if worst.scheme else None,
            },
            actual={"std": math.sqrt(worst.actual), "variance": worst.actual, "ratio": ratio},
            effect=effect,
            fix=worst.remedy or None,
            topic="scale",
        )
