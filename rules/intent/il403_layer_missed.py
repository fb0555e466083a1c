"""IL403: a layer that the model's own init function should have reached."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

from initlint.diagnosis import suspects
from initlint.facts import InitStatement, ParameterFacts, Site
from initlint.findings import Related, Severity
from initlint.intent_rule import asked_for, judged, owners, still_default
from initlint.rule import Context, Outcome, Rule, bad, good
from initlint.signal import Nominal
from initlint.signal.verdict import intent, mistake
from initlint.theory.schemes import requested

# From three layers on that are initialised one by one, one left out is an oversight and no division into two kinds.
_MOST = 3
# A list of blocks has two of them at least.
_LISTED = 2
_WHY = {
    "early": ("it did not exist yet when this ran", "initialise at the end of __init__, when all layers exist"),
    "lazy": ("it was a lazy layer without weights when this ran", "run the model on one batch before this"),
    "cut": ("this ends the loop in its first round", "move it behind the loop"),
    "left": ("the loop is left here before it comes to any of them", "write `continue`, which goes on with the next"),
    "type": ("comparing the type leaves out subclasses", "use isinstance"),
    "or": ("`isinstance(m, A or B)` tests A alone", "write isinstance(m, (A, B))"),
    "shadowed": ("an earlier branch takes it, as the test there is wider", "test for the special case first"),
    "idle": ("this does nothing: it is neither called nor consumed", "call it: add the parentheses, or write a loop"),
    "children": ("the loop visits direct children only, and this lies deeper", "loop over self.modules()"),
}


class LayerMissed(Rule):
    """A layer keeps PyTorch's default although its kin were initialised by the model's own function.

    ## What it does
    Finds weights at PyTorch's default beside layers of the same operation that one init statement of the model reached,
    where the record shows the slip: the statement ran for this layer too but wrote another one (`self.proj` in the
    place of the argument); `apply` or the loop ran before the layer existed, was left in its first round, or visited
    direct children only. A layer whose own branch stands below one that tests for its base class, which takes it first.
    A module whose neighbour is given to the same init function twice, by two equal calls, and which never is itself.
    As a note, a layer that a loop over one list of blocks sets to zero, in blocks of the same class in another list.

    ## Why is this bad?
    The layer starts from another distribution than its designer says: several times larger or smaller than its kin,
    with biases where there should be none.

    ## Example
    ```python
    def _init_weights(self, module):
        if isinstance(module, nn.Linear):
            nn.init.normal_(self.proj.weight, std=0.02)  # always the same layer
    ```

    ## Use instead
    ```python
    def _init_weights(self, module):
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
    ```

    ## Known problems
    A final layer left at its default is a choice and not reported.

    ## References
    - https://github.com/huggingface/nanoVLM/issues/158
    - https://github.com/huggingface/transformers/pull/44575
    """

    code = "IL403"
    name = "layer-missed"
    family = "intent"
    severity = Severity.WARNING
    sources = (
        "https://github.com/huggingface/nanoVLM/issues/158",
        "https://github.com/huggingface/transformers/pull/44575",
    )

    def check(self, context: Context) -> Iterator[Outcome]:
        if context.facts.loaded:
            return
        for statement in context.facts.statements:
            missed = self._repeated(context, statement)
            if missed:
                yield self._report(context, statement, missed)
        causes: dict[tuple[str, int, str], list[InitStatement]] = {}
        for statement in context.facts.statements:
            at = statement.missed_at
            if at is not None and _unmet(context, statement):
                causes.setdefault((at.file, at.line, statement.missed_why), []).append(statement)
        for (_, _, why), statements in causes.items():
            yield self._unreached(context, why, statements)
        yield from self._pasted(context)
        yield from self._called_twice(context)
        yield from self._packed(context)
        yield from self._forgotten(context)
        for statement in context.facts.statements:
            passed = _other_lists(context, statement)
            if passed:
                yield self._list_passed_over(context, statement, passed)

    def _pasted(self, context: Context) -> Iterator[Outcome]:
        """The same statement twice for the same parameters, while their like elsewhere was forgotten."""
        alike: dict[tuple[str, str, str, str], list[InitStatement]] = {}
        for statement in context.facts.statements:
            if statement.runs and statement.parameters:
                key = statement.site.file, statement.site.function, statement.op, statement.target
                alike.setdefault(key, []).append(statement)
        for first, second in (pair for group in alike.values() for pair in pairwise(group)):
            written = [p for name in second.parameters if (p := context.parameter(name)) is not None]
            if first.parameters != second.parameters or first.site == second.site or not written:
                continue
            if not all(any(w.site == first.site and w.unused for w in p.writes) for p in written):
                continue
            tested = _tested_instead(context, second, written)
            if tested:
                yield self._drawn_again(context, second, written[0], tested)
                continue
            kin = [
                p
                for p in context.facts.parameters
                if _default(p) and any(p.local == w.local and _same_class(context, p, w) for w in written)
            ]
            if len(written) == 1:
                kin = [p for p in kin if p.module.rpartition(".")[0] == written[0].module.rpartition(".")[0]]
            if kin:
                lost = second if _same_args(first, second) else first
                yield self._twice(context, lost, written[0], kin)

    def _drawn_again(
        self, context: Context, statement: InitStatement, written: ParameterFacts, tested: list[ParameterFacts]
    ) -> Outcome:
        """A condition on one parameter of a module in front of a statement that draws another one again."""
        effect = context.effect({p.name: Nominal(0.0, 0.0) for p in tested})
        more = f" and {len(tested) - 1} more keep" if len(tested) > 1 else " keeps"
        return self.finding(
            context,
            f"`{statement.guards[0].text}` is asked, and `{written.local}` is drawn a second time: `{tested[0].name}`"
            f"{more} PyTorch's default",
            parameters=[p.name for p in tested],
            severity=intent(effect, context.signal, context.settings.optimizer, context.facts.dtype) or Severity.NOTE,
            site=statement.site,
            expected={"initialised": len(tested)},
            actual={"initialised": 0},
            effect=effect,
            fix=f"nn.init.zeros_({statement.target.rpartition('.')[0]}.{tested[0].local})",
            topic="reach",
        )

    def _called_twice(self, context: Context) -> Iterator[Outcome]:
        """The same call of an init function twice in a row for one module, while its neighbour was forgotten."""
        twice: dict[tuple[Site, Site], list[ParameterFacts]] = {}
        for parameter in context.facts.parameters:
            calls = _repeated_call(parameter)
            if calls is not None:
                twice.setdefault(calls, []).append(parameter)
        for (first, second), written in twice.items():
            owner, own = _handed_over(context, second, written)
            if not own:
                continue
            classes = {_class(context, p)[0] for p in written}
            beside = [p for p in context.facts.parameters if _within(p.module, owner) and not _within(p.module, own)]
            kin = [p for p in beside if _default(p) and _class(context, p)[0] in classes]
            others = {_child(p.module, owner) for p in kin}
            # a neighbour of which something was initialised is not the forgotten one
            others -= {_child(p.module, owner) for p in beside if not _default(p)}
            kin = [p for p in kin if _child(p.module, owner) in others]
            if kin:
                given = {p.local: s for p in written if p.last and (s := context.statement_at(p.last.site)) is not None}
                yield self._call_twice(context, (first, second), own, kin, given, sure=len(others) == 1)

    def _call_twice(
        self,
        context: Context,
        calls: tuple[Site, Site],
        own: str,
        kin: list[ParameterFacts],
        given: Mapping[str, InitStatement],
        *,
        sure: bool,
    ) -> Outcome:
        first, second = calls
        verdict = judged(context, {p.name: given[p.local] for p in kin if p.local in given})
        return self.finding(
            context,
            f"`{own}` is initialised twice by the same call, and `{kin[0].name}`"
            + (f" and {len(kin) - 1} more" if len(kin) > 1 else "")
            + " beside it never",
            parameters=[p.name for p in kin],
            # the second call may have meant another init function, and of several neighbours one
            severity=min(verdict.severity, Severity.WARNING if sure else Severity.NOTE),
            site=second,
            related=[Related(first.file, first.line, "the same call")],
            expected={"modules_initialised": 2},
            actual={"modules_initialised": 1},
            effect=verdict.effect,
            fix=f"call it for the module of {kin[0].name}",
            topic="reach",
        )

    def _forgotten(self, context: Context) -> Iterator[Outcome]:
        """One layer left out where single statements initialise all the others of its class in one module."""
        named: dict[tuple[str, str, str], dict[str, InitStatement]] = {}
        for statement in context.facts.statements:
            if statement.runs and len(statement.parameters) == 1 and statement.target.startswith("self."):
                written = context.parameter(statement.parameters[0])
                if written is not None and len(written.shape) > 1 and statement.runs == 1:
                    outer = written.module.rpartition(".")[0]
                    key = statement.site.file, statement.site.function, outer
                    named.setdefault(key, {})[written.name] = statement
        for (_, _, outer), statements in named.items():
            for classes in {_class(context, context.parameter(name)) for name in statements}:
                own = [n for n in statements if _class(context, context.parameter(n)) == classes]
                left = [
                    p
                    for p in context.facts.parameters
                    if p.module.rpartition(".")[0] == outer
                    and p.name not in own
                    and len(p.shape) > 1
                    and _class(context, p) == classes
                    and not any(layer.head for layer in context.layers_of(p.name))  # that is a choice
                ]
                if len(own) >= _MOST and len(left) == 1 and _default(left[0]):
                    outcome = self._left_out(context, left[0], [statements[n] for n in own])
                    if outcome is not None:
                        yield outcome

    def _left_out(self, context: Context, left: ParameterFacts, others: list[InitStatement]) -> Outcome | None:
        """A finding where the others all get one scheme and the effect on the one left out is a mistake's."""
        if len({(s.op, str(sorted(s.args.items()))) for s in others}) != 1:
            return None
        verdict = judged(context, {left.name: others[0]})
        if isinstance(verdict.effect, str) or verdict.severity < Severity.WARNING:
            return None
        level = mistake(verdict.effect, context.signal, context.settings.optimizer, context.facts.dtype)
        return self.finding(
            context,
            f"{others[0].op} initialises {len(others)} layers one by one, and `{left.name}` of their class is left out",
            parameters=[left.name],
            severity=level or Severity.NOTE,
            site=left.created,
            related=[Related(s.site.file, s.site.line, f"initialises {s.parameters[0]}") for s in others[:3]],
            expected={"initialised": len(others) + 1},
            actual={"initialised": len(others)},
            effect=verdict.effect,
            fix=f"initialise {left.name} with the others",
            topic="reach",
        )

    def _list_passed_over(self, context: Context, statement: InitStatement, passed: list[ParameterFacts]) -> Outcome:
        """A loop that closes the blocks of one list, while blocks of the same class in another list stay open."""
        kept = passed[0].last.site if passed[0].last is not None else None
        more = f" and {len(passed) - 1} more keep" if len(passed) > 1 else " keeps"
        return self.finding(
            context,
            f"{statement.op} closes `{statement.parameters[0]}` in all blocks of one list, and `{passed[0].name}`{more}"
            " what the sweep before gave both: blocks of this class in another list are not visited",
            parameters=[p.name for p in passed],
            severity=Severity.NOTE,  # one half of a model may be meant to start open
            site=statement.site,
            related=[Related(kept.file, kept.line, "wrote it last")] if kept is not None else [],
            expected={"blocks_closed": len(statement.parameters) + len(passed)},
            actual={"blocks_closed": len(statement.parameters)},
            effect=context.effect({p.name: Nominal(0.0, 0.0) for p in passed}),
            fix="loop over the blocks of both lists",
            topic="reach",
        )

    def _twice(
        self, context: Context, statement: InitStatement, written: ParameterFacts, kin: list[ParameterFacts]
    ) -> Outcome:
        # a final layer may be left at its default, but not where a value meant for another one went to its neighbour
        meant = context.statement_at(written.last.site if written.last else None) is not statement
        write = next((w for w in written.writes if w.site == statement.site), None)
        at = None if write is None or not meant else replace(statement, args=write.args, settled=True, parameters=())
        verdict = judged(context, {p.name: at or statement for p in kin}, choice=not meant)
        return self.finding(
            context,
            f"`{written.name}` is initialised twice{', the first time for nothing' if meant else ' in the same way'},"
            f" and `{kin[0].name}` never",
            parameters=[p.name for p in kin],
            severity=verdict.severity,
            site=statement.site,
            related=[
                Related(p.created.file, p.created.line, f"{p.name} is created here") for p in kin[:3] if p.created
            ],
            expected={"tensors_written": 2},
            actual={"tensors_written": 1},
            effect=verdict.effect,
            fix=f"write it for {kin[0].name}",
            topic="reach",
        )

    def _packed(self, context: Context) -> Iterator[Outcome]:
        """A layer of torch that holds a packed weight of its own beside the sublayer that an init function reached."""
        causes: dict[tuple[str, int], list[tuple[ParameterFacts, InitStatement]]] = {}
        for module in context.facts.modules:
            if module.library != "torch" or not any(base.endswith(".MultiheadAttention") for base in module.bases):
                continue
            own = [
                p for name in module.parameters if (p := context.parameter(name)) and len(p.shape) == 2 and _default(p)
            ]
            inner = [
                p
                for p in context.facts.parameters
                if p.module.startswith(f"{module.name}.") and len(p.shape) == 2 and p.last and p.last.origin == "user"
            ]
            statement = context.statement_at(inner[0].last.site) if inner and inner[0].last else None
            if statement is not None and any(g.kind in ("isinstance", "type") for g in statement.guards):
                for p in own:
                    causes.setdefault((statement.site.file, statement.site.line), []).append((p, statement))
        for found in causes.values():
            names = [p.name for p, _ in found]
            statement = found[0][1]
            verdict = judged(context, {p.name: s for p, s in found})
            yield self.finding(
                context,
                f"{statement.op} reaches the output projection of an attention, but not its packed `{names[0]}`"
                + (f" and {len(names) - 1} more" if len(names) > 1 else "")
                + ", which is no layer of its own",
                parameters=names,
                severity=verdict.severity,
                site=context.selected_at(statement.site),
                expected={"reached": len(names)},
                actual={"reached": 0},
                effect=verdict.effect,
                fix="initialise module.in_proj_weight where module is an nn.MultiheadAttention",
                topic="reach",
            )

    def _unreached(self, context: Context, why: str, statements: list[InitStatement]) -> Outcome:
        """What a loop or ``apply`` over the modules should have reached and did not."""
        names = list(dict.fromkeys(name for s in statements for name in _unmet(context, s)))
        meant = owners(statements, names)
        shadowed = why == "shadowed"
        verdict = judged(context, meant, choice=not shadowed)  # what a branch of its own names is not left by choice
        reason, remedy = _WHY[why]
        effect = _started(context, meant) or verdict.effect if shadowed else verdict.effect
        kept = "PyTorch's default" if still_default(context, names[:1]) else "another init"
        more = f" and {len(names) - 1} more keep" if len(names) > 1 else " keeps"
        return self.finding(
            context,
            f"`{names[0]}`{more} {kept} although {statements[0].op} is meant for it: {reason}",
            parameters=names,
            severity=verdict.severity,
            site=statements[0].missed_at,
            related=[Related(s.site.file, s.site.line, "does not reach it") for s in statements[:3]],
            expected={"reached": len(names)},
            actual={"reached": 0},
            effect=effect,
            fix=remedy,
            topic="reach",
        )

    def _repeated(self, context: Context, statement: InitStatement) -> list[ParameterFacts]:
        """What a statement that ran again and again on one tensor was meant to write: its selection says so."""
        guard = next((g for g in statement.guards if g.kind in ("isinstance", "type") and g.matched), None)
        if guard is None or statement.runs < 2 or len(statement.parameters) != 1 or statement.lost:
            return []
        if statement.runs < (guard.matched or 0) or (guard.matched or 0) < 2:
            return []
        written = context.parameter(statement.parameters[0])
        if written is None:
            return []
        return [
            p
            for p in context.facts.parameters
            if p.local == written.local and p.name != written.name and _default(p) and _same_class(context, p, written)
        ]

    def _report(self, context: Context, statement: InitStatement, missed: list[ParameterFacts]) -> Outcome:
        owners = {p.module for p in missed}
        companions = [
            p
            for p in context.facts.parameters
            if p.module in owners and _default(p) and p not in missed and len(p.shape) == 1
        ]
        changes = {s.parameter.name: Nominal(0.0, s.expected) for s in suspects(context.facts) if s.parameter in missed}
        names = [p.name for p in (*missed, *companions)]
        return self.finding(
            context,
            f"the statement ran {statement.runs} times and always wrote `{statement.parameters[0]}`:"
            f" `{missed[0].name}`"
            + (f" and {len(missed) - 1} more keep" if len(missed) > 1 else " keeps")
            + " PyTorch's default",
            parameters=names,
            severity=Severity.WARNING,
            site=statement.site,
            related=[
                Related(p.created.file, p.created.line, f"{p.name} is created here") for p in missed[:3] if p.created
            ],
            expected={"tensors_written": statement.runs},
            actual={"tensors_written": 1},
            effect=context.effect(changes)
            if changes
            else "the missed layers start from another distribution than their kin",
            fix=statement.site.text.replace("self." + statement.target.split(".")[1], "module")
            if statement.target.startswith("self.")
            else None,
            topic="reach",
        )

    @bad
    def self_for_module() -> Any:
        import torch
        from torch import nn

        class Projector(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.proj = nn.Linear(32, 32)
                self.gate = nn.Linear(32, 32)
                self.apply(self._init_weights)

            def _init_weights(self, module: nn.Module) -> None:
                if isinstance(module, nn.Linear):
                    nn.init.normal_(self.proj.weight, std=0.02)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.proj(x) * torch.sigmoid(self.gate(x))

        return Projector()

    @bad
    def base_class_first() -> Any:
        import torch
        from torch import nn

        class Residual(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = nn.Conv2d(8, 16, 3, stride=2, padding=1)
                self.outer = nn.ConvTranspose2d(16, 8, 2, stride=2)
                self.apply(self._init_weights)

            def _init_weights(self, module: nn.Module) -> None:
                if isinstance(module, nn.modules.conv._ConvNd):
                    nn.init.kaiming_normal_(module.weight)
                elif isinstance(module, nn.ConvTranspose2d):
                    nn.init.zeros_(module.weight)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x + self.outer(torch.relu(self.inner(x)))

        return Residual()

    @good
    def special_case_first() -> Any:
        import torch
        from torch import nn

        class Residual(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = nn.Conv2d(8, 16, 3, stride=2, padding=1)
                self.outer = nn.ConvTranspose2d(16, 8, 2, stride=2)
                self.apply(self._init_weights)

            def _init_weights(self, module: nn.Module) -> None:
                if isinstance(module, nn.ConvTranspose2d):
                    nn.init.zeros_(module.weight)
                elif isinstance(module, nn.modules.conv._ConvNd):
                    nn.init.kaiming_normal_(module.weight)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x + self.outer(torch.relu(self.inner(x)))

        return Residual()

    @good
    def the_argument() -> Any:
        import torch
        from torch import nn

        class Projector(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.proj = nn.Linear(32, 32)
                self.gate = nn.Linear(32, 32)
                self.apply(self._init_weights)

            def _init_weights(self, module: nn.Module) -> None:
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, std=0.02)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.proj(x) * torch.sigmoid(self.gate(x))

        return Projector()


def _unmet(context: Context, statement: InitStatement) -> list[str]:
    """What a statement missed and nobody else gave a value, or an earlier branch gave another one than it would."""
    if statement.missed_why != "shadowed":
        return still_default(context, statement.missed)
    found = (context.parameter(name) for name in statement.missed)
    return [p.name for p in found if p is not None and _taken(context, statement, p)]


def _taken(context: Context, statement: InitStatement, parameter: ParameterFacts) -> bool:
    """Whether the branches before a statement, in its own function, had the last word, and said something else."""
    last, at = parameter.last, statement.missed_at
    if last is None or last.origin == "torch":
        return bool(still_default(context, [parameter.name]))
    own = (statement.site.file, statement.site.function)
    before = [s for s in last.stack or (last.site,) if s is not None and (s.file, s.function) == own]
    if at is None or not before or before[0].line >= at.line:
        return False  # set elsewhere, or further down: that would have replaced what the statement gives
    earlier = context.statement_at(last.site)
    if earlier is not None and earlier.site.text == statement.site.text:
        return False
    given, asked = requested(last, parameter.shape), asked_for(context, statement, parameter)
    if given is None or asked is None:
        return True
    alike = math.isclose(given.mean, asked.mean) and math.isclose(given.std, asked.std)
    return not (alike and given.family == asked.family)


def _started(context: Context, meant: Mapping[str, InitStatement]) -> str:
    """The effect where the counterfactual is no distribution to compare with: zeros, or what cannot be told."""
    found = {name: p for name in meant if (p := context.parameter(name)) is not None}
    asked = [asked_for(context, meant[name], p) for name, p in found.items()]
    if any(item is not None and (item.mean or item.std) for item in asked):
        return ""
    if not all(asked):
        return "these parameters start with what the earlier branch gives all of its kind"
    return "these parameters were to start at zero: what they scale takes part from the first step"


def _tested_instead(context: Context, statement: InitStatement, written: list[ParameterFacts]) -> list[ParameterFacts]:
    """Parameters that a statement's condition asks for beside what it writes, of the same modules, at their default."""
    base, _, local = statement.target.removesuffix(".data").rpartition(".")
    asked = re.fullmatch(r"(.+)\.(\w+) is not None", statement.guards[0].text) if statement.guards else None
    if asked is None or not base or asked[1] != base or asked[2] == local:
        return []
    beside = [context.parameter(f"{p.module}.{asked[2]}".lstrip(".")) for p in written]
    return [p for p in beside if p is not None and _default(p)]


def _same_args(first: InitStatement, second: InitStatement) -> bool:
    """Whether two statements ask for the same values: then nobody can tell which of them names the wrong layer."""
    return dict(first.args) == dict(second.args) and first.settled and second.settled


def _repeated_call(parameter: ParameterFacts) -> tuple[Site, Site] | None:
    """Two lines of one function, one below the other and alike, that both led to the same write of a parameter."""
    writes = [w for w in parameter.writes if w.origin == "user" and w.share >= 1 and len(w.stack) > 1]
    for first, second in pairwise(writes):
        if not first.unused or first.site != second.site or len(first.stack) != len(second.stack):
            continue
        pairs = [(a, b) for a, b in zip(first.stack, second.stack, strict=True) if a != b]
        if len(pairs) == 1:
            one, other = pairs[0]
            if (one.file, one.function, one.text) == (other.file, other.function, other.text) and one.line < other.line:
                return one, other
    return None


def _handed_over(context: Context, call: Site, written: list[ParameterFacts]) -> tuple[str, str]:
    """The module that a call names as ``self.net`` and the one that it belongs to, where all it wrote lies in there."""
    found: set[tuple[str, str]] = set()
    for path in re.findall(r"\bself\.(\w+(?:\.\w+|\[\d+\])*)", call.text):
        local = re.sub(r"\[(\d+)\]", r".\1", path)
        for name in {m.name for m in context.facts.modules}:
            for part in (local, local.rpartition(".")[0]):  # with and without ``.apply``
                if (
                    part
                    and (name == part or name.endswith(f".{part}"))
                    and all(_within(p.module, name) for p in written)
                ):
                    # the neighbours are what stands beside it in the same container or class
                    found.add((name.rpartition(".")[0], name))
    return next(iter(found)) if len(found) == 1 else ("", "")


def _within(module: str, outer: str) -> bool:
    return not outer or module == outer or module.startswith(f"{outer}.")


def _child(module: str, owner: str) -> str:
    """The direct child of a module that another one lies in."""
    return module[len(owner) + 1 if owner else 0 :].partition(".")[0]


def _default(parameter: ParameterFacts) -> bool:
    known = parameter.kind == "parameter" and parameter.provenance == "recorded"
    return known and parameter.last is not None and parameter.last.origin == "torch"


def _other_lists(context: Context, statement: InitStatement) -> list[ParameterFacts]:
    """The same weight in blocks of other lists, where a statement sets that of all blocks of its lists to zero."""
    written = [p for name in statement.parameters if (p := context.parameter(name)) is not None]
    zeros = bool(written) and all(p.stats is not None and p.stats.zeros == p.stats.count for p in written)
    if not zeros or len(written) < _LISTED or any(len(p.shape) < 2 for p in written):
        return []
    classes = {m.name: m.cls for m in context.facts.modules if m.library == "user"}
    for depth in range(1, written[0].name.count(".") + 1):  # the smallest block that is one of a list
        blocks = {p.name.rsplit(".", depth)[0] for p in written}
        inner = {p.name.split(".", p.name.count(".") + 1 - depth)[-1] for p in written}
        kinds = {classes.get(block, "") for block in blocks}
        lists = {block.rpartition(".")[0] for block in blocks if block.rpartition(".")[2].isdigit()}
        if len(inner) != 1 or len(kinds) != 1 or "" in kinds or not lists:
            continue
        alike = [name for name, cls in classes.items() if cls in kinds and name.rpartition(".")[2].isdigit()]
        own = [name for name in alike if name.rpartition(".")[0] in lists]
        beside = [name for name in alike if name not in own]
        left = [p for name in beside if (p := context.parameter(f"{name}.{next(iter(inner))}")) is not None]
        swept = {w.site for p in written for w in p.writes[:-1] if w.site is not None}
        same = all(p.last is not None and p.last.random and p.last.site in swept for p in left)
        return left if set(own) == blocks and len(left) >= _LISTED and same else []
    return []


def _class(context: Context, parameter: ParameterFacts | None) -> tuple[str, str]:
    """Class of the module and local name."""
    if parameter is None:
        return "", ""
    cls = next((m.cls for m in context.facts.modules if m.name == parameter.module), "")
    return cls, parameter.local


def _same_class(context: Context, first: ParameterFacts, second: ParameterFacts) -> bool:
    classes = {m.name: m.cls for m in context.facts.modules}
    return classes.get(first.module) == classes.get(second.module)
