"""IL406: a condition around an init statement that does not test what it plainly means."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.facts import InitStatement, Misread, ParameterFacts, Site, Write
from initlint.findings import Related, Severity
from initlint.intent_rule import asked_for
from initlint.rule import Context, Outcome, Rule, bad, good
from initlint.signal import Effect, Nominal
from initlint.signal.verdict import intent
from initlint.theory.schemes import Requested, requested


class ConditionMisread(Rule):
    """The condition around an init statement is always true, or tests one thing where it names two.

    ## What it does
    `"conv" or "head" in name`, `cls == "Conv" or "Linear"` and `isinstance(m, nn.Conv2d) or nn.Linear` hold for
    everything, since a text that is not empty and a class are true; `("conv" or "head") in name` tests the first text
    alone. Reads such conditions as they are meant, each text compared and each class in `isinstance`, and reports
    the parameters that the branch wrote and should not have, or did not write and should have.

    ## Why is this bad?
    The branch takes what another one is for: a backbone gets the scheme of the heads, and what stands under `else`
    never runs. Nothing fails.

    ## Example
    ```python
    if "conv_list" or "header" in name:  # always true
        nn.init.normal_(module.weight, std=0.01)
    else:
        nn.init.kaiming_uniform_(module.weight)
    ```

    ## Use instead
    ```python
    if "conv_list" in name or "header" in name:
        nn.init.normal_(module.weight, std=0.01)
    else:
        nn.init.kaiming_uniform_(module.weight)
    ```

    ## Known problems
    Constants that switch a branch on or off (`True or ...`, a variable) are not reported, and no text or class whose
    comparison cannot be told from what stands beside it.

    ## References
    - https://github.com/zylo117/Yet-Another-EfficientDet-Pytorch/issues/722
    - https://docs.python.org/3/faq/programming.html
    """

    code = "IL406"
    name = "condition-misread"
    family = "intent"
    severity = Severity.ERROR
    sources = ("https://github.com/zylo117/Yet-Another-EfficientDet-Pytorch/issues/722",)

    def check(self, context: Context) -> Iterator[Outcome]:
        if context.facts.loaded:
            return
        for misread in context.facts.misread:
            due = _due(context, misread)
            for names, what in ((misread.beyond, _beyond), (misread.lacking, _lacking)):
                found = (context.parameter(name) for name in names)
                wrong = [p for p in found if p is not None and what(misread, p, due)]
                moments = {p.name: _meant(context, misread, p, due) for p in wrong}
                wrong = [p for p in wrong if not _alike(p, moments[p.name])]
                if wrong:
                    yield self._report(context, misread, wrong, moments, due, too_many=what is _beyond)

    def _report(
        self,
        context: Context,
        misread: Misread,
        wrong: list[ParameterFacts],
        moments: dict[str, Requested | None],
        due: dict[str, InitStatement],
        *,
        too_many: bool,
    ) -> Outcome:
        changes = {
            p.name: Nominal(asked.mean, asked.var, asked.family == "orthogonal")
            for p in wrong
            if (asked := moments[p.name]) is not None
        }
        effect: Effect | str = "these parameters start from another distribution than the code says"
        severity = None
        if changes:
            effect = context.effect(changes)
            severity = intent(effect, context.signal, context.settings.optimizer, context.facts.dtype)
        others = {(s.site.file, s.site.line): s for p in wrong if (s := due.get(p.name)) is not None}
        first = next(iter(others.values()), None)
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        given = "" if first is None else f" away from {first.op}" if too_many else f" should get {first.op} here"
        taken = given or ", which it does not mean"
        message = f"always holds: it takes `{wrong[0].name}`{more}{taken}"
        if not too_many:
            message = f"tests less than it names: `{wrong[0].name}`{more}{given}"
        return self.finding(
            context,
            f"`{misread.text}` {message}",
            parameters=[p.name for p in wrong],
            severity=severity or Severity.NOTE,
            site=misread.site,
            related=[Related(s.site.file, s.site.line, "is for them") for s in others.values()],
            expected={"condition": misread.meant},
            actual={"condition": misread.text},
            effect=effect,
            fix=f"write `if {misread.meant}:`",
            topic="reach",
        )

    @bad
    def text_that_is_true() -> Any:
        import torch
        from torch import nn

        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.trunk = nn.ModuleList([nn.Linear(16, 16) for _ in range(4)])
                self.head = nn.Linear(16, 4)
                for name, module in self.named_modules():
                    if isinstance(module, nn.Linear):
                        if "head" or "final" in name:  # noqa: SIM222
                            nn.init.normal_(module.weight, std=0.01)
                        else:
                            nn.init.kaiming_normal_(module.weight)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                for layer in self.trunk:
                    x = torch.relu(layer(x))
                return self.head(x)

        return Net()

    @good
    def each_text_compared() -> Any:
        import torch
        from torch import nn

        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.trunk = nn.ModuleList([nn.Linear(16, 16) for _ in range(4)])
                self.head = nn.Linear(16, 4)
                for name, module in self.named_modules():
                    if isinstance(module, nn.Linear):
                        if "head" in name or "final" in name:
                            nn.init.normal_(module.weight, std=0.01)
                        else:
                            nn.init.kaiming_normal_(module.weight)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                for layer in self.trunk:
                    x = torch.relu(layer(x))
                return self.head(x)

        return Net()


def _due(context: Context, misread: Misread) -> dict[str, InitStatement]:
    """The statements that parameters would get if the condition were what it means."""
    places = {_place(s.site): s for s in context.facts.statements}
    known = [(due, places[_place(due.site)]) for due in misread.due if _place(due.site) in places]
    return {name: statement for due, statement in known for name in due.parameters}


def _place(site: Site) -> tuple[str, int, int | None]:
    return site.file, site.line, site.column


def _inside(misread: Misread, write: Write | None) -> bool:
    """Whether a write was asked for by the branch that the condition opens."""
    sites = () if write is None else write.stack or tuple(filter(None, (write.site,)))
    return any(s.file == misread.site.file and misread.first <= s.line <= misread.last for s in sites)


def _beyond(misread: Misread, parameter: ParameterFacts, due: dict[str, InitStatement]) -> bool:
    """Whether the branch had the last word on a parameter."""
    return _inside(misread, parameter.last)


def _lacking(misread: Misread, parameter: ParameterFacts, due: dict[str, InitStatement]) -> bool:
    """Whether a parameter that the branch has a statement for kept its default, or went to a branch below."""
    last = parameter.last
    if parameter.name not in due or _inside(misread, last):
        return False
    if last is None or last.origin == "torch":
        return True
    own = [s for s in last.stack or (last.site,) if s is not None and s.file == misread.site.file]
    return any(s.function == misread.site.function and s.line > misread.last for s in own) and misread.otherwise


def _meant(
    context: Context, misread: Misread, parameter: ParameterFacts, due: dict[str, InitStatement]
) -> Requested | None:
    """What a parameter would hold: what the other statement gives, or without another branch what it had before."""
    statement = due.get(parameter.name)
    if statement is not None:
        return asked_for(context, statement, parameter)
    before = [write for write in parameter.writes if not _inside(misread, write)]
    return requested(before[-1], parameter.shape) if before and not misread.otherwise else None


def _alike(parameter: ParameterFacts, meant: Requested | None) -> bool:
    """Whether the parameter holds what it would hold as well if the condition were what it means."""
    given = requested(parameter.last, parameter.shape) if parameter.last is not None else None
    if given is None or meant is None:
        return False
    return math.isclose(given.mean, meant.mean) and math.isclose(given.std, meant.std) and given.family == meant.family
