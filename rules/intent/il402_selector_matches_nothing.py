"""IL402: an init statement whose condition selects nothing in this model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.diagnosis import suspects
from initlint.facts import Guard, InitStatement, ParameterFacts, Site
from initlint.findings import Related, Severity
from initlint.intent_rule import Judged, judged, owners, still_default
from initlint.odds import PRIOR, sigmoid
from initlint.rule import Context, Outcome, Rule, bad, good
from initlint.signal import Nominal
from initlint.signal.verdict import intent
from initlint.theory.record import stated
from initlint.wiring import reached, transparent

# Both stds come from one formula in the code, and agree with it to rounding.
_EXACT = 1e-4


class SelectorMatchesNothing(Rule):
    """An init branch that never runs because its condition matches no module or parameter of the model.

    ## What it does
    Evaluates the conditions around init statements (isinstance checks, comparisons of parameter and class names,
    names of schemes) against the modules and parameters that the model has. Reports one that matches nothing while
    layers of the same operation stay at PyTorch's default, and a branch for the chosen scheme that does nothing.
    Patterns (`re`, `fnmatch`) that would match names without what wrappers put into them, or without their beginning.
    Marks (`hasattr(m, "zero_init")`) that no module has, where some have one of nearly that name that nothing reads.
    A prior for the head of one name, in a loop over names of which none is that one, where a head feeds a sigmoid.
    A std that goes by the depth of the residual stream, for writers of a name that the model has not.

    ## Why is this bad?
    `isinstance(m, nn.Conv2d)` in a 3-D model and a name filter from another model fail without a sign: the
    layers they were written for keep the default.

    ## Example
    ```python
    if isinstance(m, nn.Conv2d):  # the model has nn.Conv3d only
        nn.init.xavier_normal_(m.weight)
    ```

    ## Use instead
    ```python
    if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        nn.init.xavier_normal_(m.weight)
    ```

    ## Known problems
    Init functions shared by many models have branches for layers this model lacks. They are not reported: something
    must have been left at its default that the branch would have suited.

    ## References
    - https://github.com/SCIInstitute/ShapeWorks/issues/1900
    - https://github.com/cchallu/nbeatsx/issues/1
    - https://github.com/Modalities/modalities/pull/460 (names behind a wrapper)
    """

    code = "IL402"
    name = "selector-matches-nothing"
    family = "intent"
    severity = Severity.ERROR
    sources = ("https://github.com/SCIInstitute/ShapeWorks/issues/1900", "https://github.com/cchallu/nbeatsx/issues/1")

    def check(self, context: Context) -> Iterator[Outcome]:
        if context.facts.loaded:
            return
        causes: dict[tuple[str, int | None, str], list[tuple[InitStatement, Guard, list[str]]]] = {}
        for statement in context.facts.statements:
            if statement.runs and statement.op != "pass":
                continue
            if statement.op != "pass" and not statement.reached:
                continue  # a function that is never called is IL401's
            guard = next((g for g in statement.guards if g.matched == 0), None)
            if statement.op == "pass" and statement.runs:
                guard = statement.guards[0] if statement.guards else None
            missed = still_default(context, statement.affected) or _kept_from_sweep(context, statement, guard)
            if guard is not None and missed:
                place = statement.selector or statement.site
                line = place.line if statement.selector else guard.line
                causes.setdefault((place.file, line, guard.text), []).append((statement, guard, missed))
            elif guard is not None and guard.kind == "name" and not statement.affected:
                packed = _packed_elsewhere(context, statement)
                if packed:
                    yield self._packed(context, statement, guard, packed)
                elif writers := _unscaled_writers(context, statement):
                    yield self._unscaled(context, statement, guard, writers)
        for found in causes.values():
            yield self._report(context, found)
        for statement in context.facts.statements:
            guard = next((g for g in statement.guards if g.matched == 0 and g.kind == "value" and g.values), None)
            lacking = _without_prior(context, statement) if guard is not None else []
            if guard is not None and lacking:
                yield self._prior(context, statement, guard, lacking)

    def _report(self, context: Context, found: list[tuple[InitStatement, Guard, list[str]]]) -> Outcome:
        statement, guard, _ = found[0]
        missed = list(dict.fromkeys(name for _, _, names in found for name in names))
        nothing = statement.op == "pass"
        tensor = statement.selector is not None and guard.kind == "hasattr"
        # a layer that was given a mark is not left as it is by choice
        asked = {} if nothing else owners([s for s, _, _ in found], missed)
        verdict = judged(context, asked, choice=guard.kind != "mark")
        if nothing:
            verdict = self._textbook(context, missed)
        severity = max(verdict.severity, Severity.WARNING) if _prior_lost(context, found) else verdict.severity
        written = None if still_default(context, missed) else context.parameter(missed[0])
        other = written.last.site if written is not None and written.last is not None else None
        site = statement.selector or (statement.site if nothing else _place(guard, statement))
        sites = {(s.site.file, s.site.line): s.site for s, _, _ in found}
        return self.finding(
            context,
            (
                f"the branch `{guard.text}` does nothing"
                if nothing
                else f"`{guard.text}` never holds for a tensor, and this call hands one over"
                if tensor
                else f"`{guard.text}` matches nothing in this model"
            )
            + f": {missed[0]}"
            + (f" and {len(missed) - 1} more keep" if len(missed) > 1 else " keeps")
            + (f" what `{other.text}` gives them all" if other is not None else " PyTorch's default"),
            parameters=missed,
            severity=severity,
            site=site,
            related=[
                Related(at.file, at.line, "never runs for it")
                for at in sites.values()
                if not nothing and (at.file, at.line) != (site.file, site.line)
            ],
            expected={"matched": len(missed)},
            actual={"matched": 0},
            effect=verdict.effect,
            fix="initialise there: nn.init.normal_(module.weight, std=fan_in ** -0.5)"
            if nothing
            else "hand over the layer, not its weight"
            if tensor
            else "use one name for the mark, where it is set and where it is asked for"
            if guard.kind == "mark"
            else f"select the classes or names that the model has, as in `{missed[0]}`",
            topic="reach",
        )

    def _textbook(self, context: Context, missed: list[str]) -> Judged:
        """For a branch that does nothing: against what suits the layers."""
        changes = {
            s.parameter.name: Nominal(0.0, s.expected) for s in suspects(context.facts) if s.parameter.name in missed
        }
        if not changes:
            return Judged(Severity.WARNING, "the chosen scheme is the default of PyTorch")
        effect = context.effect(changes)
        found = intent(effect, context.signal, context.settings.optimizer, context.facts.dtype)
        return Judged(found or Severity.NOTE, effect)

    def _packed(
        self, context: Context, statement: InitStatement, guard: Guard, packed: dict[str, InitStatement]
    ) -> Outcome:
        first = next(iter(packed))
        other = packed[first]
        return self.finding(
            context,
            f"`{guard.text}` matches nothing in this model: the projections are packed in `{first}`"
            + (f" and {len(packed) - 1} more" if len(packed) > 1 else "")
            + ", which falls to the other branch as a whole",
            parameters=list(packed),
            severity=Severity.WARNING,
            site=other.site,
            related=[Related(statement.site.file, statement.site.line, "selects by name")],
            expected={"matched": len(packed)},
            actual={"matched": 0},
            effect="the part that the filter means keeps the scale of the others",
            fix="initialise the rows of the packed weight apart: q, k, v = weight.chunk(3)",
            topic="reach",
        )

    def _unscaled(
        self, context: Context, statement: InitStatement, guard: Guard, writers: list[ParameterFacts]
    ) -> Outcome:
        """The scale by depth of what writes into the residual stream is chosen by a name that nothing has."""
        std, given = float(str(statement.args["std"])), stated(writers[0])
        assert given is not None
        more = f" and {len(writers) - 1} more" if len(writers) > 1 else ""
        return self.finding(
            context,
            f"`{guard.text}` matches nothing in this model: `{writers[0].name}`{more} write into the residual stream"
            f" with a std of {given.std:.3g}, not the {std:.3g} that goes by its depth",
            parameters=[p.name for p in writers],
            severity=Severity.WARNING,
            site=_place(guard, statement),
            related=[Related(statement.site.file, statement.site.line, "never runs for them")],
            expected={"std": std},
            actual={"std": given.std},
            effect=context.effect({p.name: Nominal(0.0, std * std) for p in writers}),
            fix=f"select the names that the model has, as in `{writers[0].name}`",
            topic="reach",
        )

    def _prior(
        self, context: Context, statement: InitStatement, guard: Guard, lacking: list[ParameterFacts]
    ) -> Outcome:
        """A prior for the head of one name among the texts that a loop runs over, none of which is that name."""
        value = statement.args["val"]
        assert isinstance(value, (int, float))
        more = f" and {len(lacking) - 1} more start" if len(lacking) > 1 else " starts"
        return self.finding(
            context,
            f"`{guard.text}` never holds in this model: `{lacking[0].name}`{more} without the prior {value:g}, before a"
            " sigmoid",
            parameters=[p.name for p in lacking],
            severity=Severity.WARNING,
            site=_place(guard, statement),
            related=[Related(statement.site.file, statement.site.line, "never runs")],
            expected={"bias": float(value), "probability": sigmoid(value)},
            actual={"bias": 0.0, "probability": 0.5},
            effect=f"outputs start with the probability 0.5 instead of {sigmoid(value):.2g}",
            fix=f"select the names that the model has, as in `{lacking[0].name}`",
            topic="reach",
        )

    @bad
    def conv2d_in_a_3d_model() -> Any:
        import torch
        from torch import nn

        class Volume(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                layers: list[nn.Module] = []
                for i in range(6):
                    layers += [nn.Conv3d(1 if i == 0 else 8, 8, 3, padding=1), nn.ReLU()]
                self.body = nn.Sequential(*layers)
                self.head = nn.Linear(8, 4)
                for m in self.modules():
                    if isinstance(m, nn.Conv2d):
                        nn.init.kaiming_normal_(m.weight)
                    elif isinstance(m, nn.Linear):
                        nn.init.xavier_normal_(m.weight)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.head(self.body(x).mean(dim=(2, 3, 4)))

        return Volume()

    @good
    def spare_branch() -> Any:
        import torch
        from torch import nn

        class Image(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.Conv2d(3, 8, 3)
                self.head = nn.Linear(8, 4)
                for m in self.modules():
                    if isinstance(m, (nn.Conv2d, nn.Linear)):
                        nn.init.kaiming_normal_(m.weight)
                    elif isinstance(m, nn.ConvTranspose2d):
                        nn.init.normal_(m.weight, std=0.01)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.head(torch.relu(self.conv(x)).mean(dim=(2, 3)))

        return Image()


def _place(guard: Guard, statement: InitStatement) -> Site:
    """The line of a condition."""
    if guard.line is None or guard.line == statement.site.line:
        return statement.site
    return Site(statement.site.file, guard.line, None, statement.site.function, guard.text)


def _prior_lost(context: Context, found: list[tuple[InitStatement, Guard, list[str]]]) -> bool:
    """Whether what did not run would have given a prior to a bias before a sigmoid."""
    for statement, _, missed in found:
        value = statement.args.get("val")
        if not isinstance(value, (int, float)) or abs(value) <= PRIOR:
            continue
        for layer in (layer for name in missed for layer in context.layers_of(name) if layer.bias == name):
            if any(_before_sigmoid(context, index) for index in layer.nodes):
                return True
    return False


def _without_prior(context: Context, statement: InitStatement) -> list[ParameterFacts]:
    """Biases before a sigmoid, at zero, of the layers that other statements of this kind in the function write."""
    value = statement.args.get("val")
    base, _, local = statement.target.removesuffix(".data").rpartition(".")
    prior = isinstance(value, (int, float)) and abs(value) > PRIOR
    if statement.runs or not statement.reached or not prior or local != "bias" or not base:
        return []
    beside = [
        name
        for other in context.facts.statements
        if other.site.file == statement.site.file and other.site.function == statement.site.function and other.runs
        if other.target.removesuffix(".data").rpartition(".")[0] == base
        for name in other.parameters
    ]
    layers = [layer for name in dict.fromkeys(beside) for layer in context.layers_of(name) if layer.weight == name]
    squashed = [layer for layer in layers if any(_before_sigmoid(context, index) for index in layer.nodes)]
    biases = [p for layer in squashed if layer.bias and (p := context.parameter(layer.bias)) is not None]
    return [p for p in biases if p.stats is not None and p.stats.zeros == p.stats.count]


def _before_sigmoid(context: Context, index: int) -> bool:
    found = reached(context.facts, index, transparent)
    return any(node.op == "activation" and node.attrs.get("fn") == "sigmoid" for node in found)


def _kept_from_sweep(context: Context, statement: InitStatement, guard: Guard | None) -> list[str]:
    """What the statement would have set apart from a sweep that gives all weights one value.

    The names that the condition asks for exist, longer than it thinks (``name == "proj.weight"`` and
    ``"blocks.0.proj.weight"``), or the attribute does, of another class or spelt otherwise; and what wrote them last
    wrote others as well.
    """
    if guard is None or guard.kind not in ("name", "together", "mark") or statement.op == "pass":
        return []
    ends = [
        n for n in statement.affected if guard.kind != "name" or any(n.endswith(f".{value}") for value in guard.values)
    ]
    found = []
    for name in ends:
        parameter = context.parameter(name)
        last = parameter.last if parameter is not None else None
        sweep = context.statement_at(last.site) if last is not None and last.origin == "user" else None
        if sweep is not None and set(sweep.parameters) - set(ends):
            found.append(name)
    return found


def _unscaled_writers(context: Context, statement: InitStatement) -> list[ParameterFacts]:
    """The weights that write into the residual stream, all with one std, where the statement's is that one divided by
    the root of their number, of half of it or twice it (GPT-2 counts blocks or what is in them)."""
    std = statement.args.get("std")
    writers = [
        p for layer in context.facts.layers if layer.branch and (p := context.parameter(layer.weight)) is not None
    ]
    asked = [stated(p) for p in writers]
    stds = {one.std for one in asked if one is not None}
    if len(writers) < 2 or None in asked or len(stds) != 1 or not isinstance(std, int | float) or std <= 0:
        return []
    square = (stds.pop() / std) ** 2
    meant = any(math.isclose(square, len(writers) * by, rel_tol=_EXACT) for by in (0.5, 1.0, 2.0))
    return writers if meant and square > 1.0 else []


def _packed_elsewhere(context: Context, statement: InitStatement) -> dict[str, InitStatement]:
    """Packed projections that another statement of the same function initialises as a whole.

    A filter on a name that exists nowhere is harmless where nothing of the kind exists (shared init code). Where
    projections are packed into one weight, a filter for single ones cannot match, and the whole goes the other way.
    """
    packed = {
        layer.weight
        for layer in context.facts.layers
        if len(layer.blocks) > 1 and layer.consumer == "attention" and _whole(context, layer.weight)
    }
    found: dict[str, InitStatement] = {}
    for other in context.facts.statements:
        if other is statement or other.site.function != statement.site.function or not other.runs:
            continue
        found |= {name: other for name in other.parameters if name in packed}
        for parameter in context.facts.parameters:
            last = parameter.last
            if (
                parameter.name in packed
                and last is not None
                and last.site is not None
                and last.site.line == other.site.line
            ):
                found[parameter.name] = other
    return found


def _whole(context: Context, name: str) -> bool:
    """Whether the weight was last written as a whole; somebody who writes its parts knows that it is packed."""
    parameter = context.parameter(name)
    return parameter is not None and parameter.last is not None and parameter.last.share >= 1
