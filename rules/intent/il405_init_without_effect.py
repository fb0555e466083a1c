"""IL405: an init statement whose result the model never sees."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.facts import InitStatement, ParameterFacts, Site, Tag
from initlint.findings import Related, Severity
from initlint.intent_rule import Judged, asked_for, judged
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.signal import Nominal
from initlint.signal.verdict import intent
from initlint.theory.schemes import requested

_WHY = {
    "generated": "the weight is recomputed from other parameters before every forward (weight_norm, parametrize)",
    "temporary": "it writes a temporary tensor that is no parameter of the model",
    "replaced": "the tensor it wrote was replaced by another one later",
    "returned": "it returns a new module, which nothing keeps, and leaves the one that it is called on as it is",
    "unkept": "it returns a new tensor, which nothing keeps, and leaves the one that it is given as it is",
}
_REMEDY = {
    "generated": "initialise before wrapping, or set the originals: weight_norm needs both weight_g and weight_v",
    "temporary": "write the parameter itself: nn.init.normal_(self.weight)",
    "replaced": "initialise after the parameter has been replaced",
    "unkept": "copy the result: with torch.no_grad(): self.weight.copy_(init(self.weight))",
    "returned": "keep the result: self.embedding = nn.Embedding.from_pretrained(matrix, freeze=False)",
}
# Of the second moment, ten times the std: a policy head of .003 or .01 (Fujimoto et al. 2018, Andrychowicz et al. 2020)
# is asked for to be far below its neighbours, and is then of their size.
_RESCALED = 100.0


class InitWithoutEffect(Rule):
    """An init statement runs and changes nothing that the model uses.

    ## What it does
    Finds init statements that wrote a weight which `weight_norm`, `spectral_norm` or a parametrization recomputes
    from other parameters, a temporary tensor, or a tensor that was replaced afterwards; results that are computed and
    given to a name that nothing reads, thrown away (`F.normalize(self.weight)`, `self.weight.clone().zero_()`,
    `self.embedding.from_pretrained(matrix)`, which returns a new module, a function of the project's own that returns
    a new tensor), or handed back to `apply`, which throws results away; the scale of `weight_v` under `weight_norm`,
    the gain under `spectral_norm`, and the small std of an output layer there.
    As a note, a number for the init function (`self.block.std = 0.01`) on a module that it does not read it from.

    ## Why is this bad?
    `weight_norm` keeps `weight_g` and `weight_v` and overwrites `.weight` before each forward. `normal_(m.weight,
    0, 0.01)` after wrapping is lost in the first forward, and the layer runs with its default.

    ## Example
    ```python
    layer = weight_norm(nn.ConvTranspose1d(64, 32, 8, 4, 2))
    layer.weight.data.normal_(0, 0.01)
    ```

    ## Use instead
    ```python
    layer = nn.ConvTranspose1d(64, 32, 8, 4, 2)
    layer.weight.data.normal_(0, 0.01)
    layer = weight_norm(layer)
    ```

    ## Known problems
    None known.

    ## References
    - https://github.com/jik876/hifi-gan/issues/145
    - https://github.com/pytorch/pytorch/issues/180968
    """

    code = "IL405"
    name = "init-without-effect"
    family = "intent"
    severity = Severity.WARNING
    sources = ("https://github.com/jik876/hifi-gan/issues/145", "https://github.com/pytorch/pytorch/issues/180968")

    def check(self, context: Context) -> Iterator[Outcome]:
        causes: dict[tuple[str, int, str], list[InitStatement]] = {}
        for statement in context.facts.statements:
            if statement.lost and statement.lost_reason in _WHY and statement.affected:
                at = _slip(statement)
                causes.setdefault((at.file, at.line, statement.lost_reason), []).append(statement)
        for statements in causes.values():
            yield self._report(context, statements)
        yield from self._direction_only(context)
        yield from self._gain_divided_out(context)
        yield from self._head_rescaled(context)
        for tag in context.facts.tags:
            yield self._mark_unread(context, tag)

    def _mark_unread(self, context: Context, tag: Tag) -> Outcome:
        """A number for the init function on the block around the layer that it reads such numbers from."""
        more = f" and {len(tag.parameters) - 1} more" if len(tag.parameters) > 1 else ""
        inner = context.parameter(tag.parameters[0])
        return self.finding(
            context,
            f"`{tag.name}` of `{tag.module}` is read by no init statement: `{tag.parameters[0]}`{more} inside it is"
            " initialised without it",
            parameters=list(tag.parameters),
            severity=Severity.NOTE,
            site=tag.site,
            related=[Related(tag.reader.file, tag.reader.line, f"looks for {tag.name} in the layer itself")],
            expected={tag.name: tag.value},
            actual={tag.name: "not found"},
            effect="the layer starts with the value that is meant for those without a mark",
            fix=f"mark the layer: {inner.module}.{tag.name} = {tag.value:g}" if inner is not None else None,
            topic="reach",
        )

    def _report(self, context: Context, statements: list[InitStatement]) -> Outcome:
        first = max(
            statements, key=lambda s: max((len(p.shape) for n in s.affected if (p := context.parameter(n))), default=0)
        )
        reason = first.lost_reason
        verdict = self._verdict(context, statements)
        return self.finding(
            context,
            f"{first.op} on `{first.target}` has no effect: {_WHY[reason]}",
            parameters=[name for s in (first, *statements) for name in s.affected],
            severity=verdict.severity,
            site=_slip(first),
            related=[Related(s.site.file, s.site.line, "writes in vain") for s in statements if _slip(s) is not s.site],
            expected={"writes_kept": sum(s.lost for s in statements)},
            actual={"writes_kept": 0},
            effect=verdict.effect,
            fix=_REMEDY[reason],
            topic="reach",
        )

    def _verdict(self, context: Context, statements: list[InitStatement]) -> Judged:
        kept = "the parameters keep the values that they had before"
        if statements[0].lost_reason == "replaced":
            return Judged(Severity.NOTE, kept)  # a table tied to another after both were initialised, on purpose
        if statements[0].lost_reason == "returned" and all(
            p.last is not None and p.last.origin == "user" and (p.last.op in ("copy_", "load") or not p.last.random)
            for s in statements
            for name in s.affected
            if (p := context.parameter(name))
        ):
            return Judged(Severity.NOTE, "the parameters have values that the code gave them by other means")
        asked = {
            name: statement
            for statement in statements
            for name in statement.affected
            if (parameter := context.parameter(name)) is not None
            and statements[0].lost_reason == "temporary"
            and asked_for(context, statement, parameter) is not None
        }
        return judged(context, asked, choice=False) if asked else Judged(Severity.WARNING, kept)

    def _direction_only(self, context: Context) -> Iterator[Outcome]:
        """``weight_v`` drawn after ``weight_norm``: the weight is g v / |v|, so that its scale does not count."""
        causes: dict[tuple[str, int], list[tuple[ParameterFacts, ParameterFacts, float, float]]] = {}
        for weight in context.facts.parameters:
            found = _magnitude(context, weight) if weight.generated and "weight_norm" in weight.origin else None
            if found is not None:
                site = found[1].last.site if found[1].last is not None else None
                causes.setdefault((site.file, site.line) if site else ("", 0), []).append(found)
        for group in causes.values():
            gain, direction, asked, actual = group[0]
            effect = context.effect(
                {g.name: Nominal((a / b * g.stats.second) ** 0.5, 0.0) for g, _, a, b in group if g.stats}
            )
            severity = intent(effect, context.signal, context.settings.optimizer, context.facts.dtype)
            yield self.finding(
                context,
                f"`{direction.name}` is drawn with std {asked**0.5:.3g} after weight_norm, which takes the direction:"
                f" by `{gain.name}` the weight has std {actual**0.5:.3g}",
                parameters=[p.name for g, v, _, _ in group for p in (v, g)],
                severity=severity or Severity.NOTE,
                site=direction.last.site if direction.last is not None else None,
                expected={"std": asked**0.5},
                actual={"std": actual**0.5},
                effect=effect,
                fix="initialise before weight_norm, or set weight_g to the norms of weight_v afterwards",
                topic="reach",
            )

    def _gain_divided_out(self, context: Context) -> Iterator[Outcome]:
        """An orthogonal matrix with a gain under ``spectral_norm``, which divides by the largest singular value."""
        groups = by_cause(
            source
            for weight in context.facts.parameters
            if weight.generated and "spectral_norm" in weight.origin
            for source in filter(None, map(context.parameter, weight.sources))
            if source.last is not None
            and source.last.origin == "user"
            and source.last.op == "orthogonal_"
            and source.last.args.get("gain", 1) not in (1, 1.0)
        )
        for group in groups.values():
            last = group[0].last
            gain = last.args.get("gain") if last is not None else None
            yield self.finding(
                context,
                f"the gain {gain} of `{group[0].name}` has no effect: spectral_norm divides by the largest singular"
                " value",
                parameters=[p.name for p in group],
                severity=Severity.NOTE,
                site=last.site if last is not None else None,
                expected={"largest_singular_value": gain if isinstance(gain, (int, float)) else None},
                actual={"largest_singular_value": 1.0},
                effect="the weight starts orthogonal with gain 1",
                fix="scale the output of the layer instead",
                topic="reach",
            )

    def _head_rescaled(self, context: Context) -> Iterator[Outcome]:
        """An output layer that was given a small scale of its own, which ``spectral_norm`` divides out again."""
        heads = {name for layer in context.facts.layers if layer.head for name in layer.parameters}
        rescaled: dict[str, tuple[ParameterFacts, float, float]] = {}
        drawn: dict[str, set[str]] = {}
        for weight in context.facts.parameters:
            if not weight.generated or "spectral_norm" not in weight.origin or weight.stats is None:
                continue
            for source in filter(None, map(context.parameter, weight.sources)):
                last = source.last
                asked = requested(last, source.shape) if last is not None and last.origin == "user" else None
                if asked is None or asked.second <= 0:
                    continue
                drawn.setdefault(str(site_of(source)), set()).add(weight.name)
                if weight.stats.second >= _RESCALED * asked.second:
                    rescaled[source.name] = (weight, asked.second**0.5, weight.stats.second**0.5)
        # a line that initialises hidden layers as well gives no layer a scale of its own
        of_heads = {site for site, names in drawn.items() if names <= heads}
        chosen = [p for p in map(context.parameter, rescaled) if p is not None and str(site_of(p)) in of_heads]
        for group in by_cause(chosen).values():
            first, small, large = rescaled[group[0].name]
            yield self.finding(
                context,
                f"the small std {small:.3g} of `{first.name}` has no effect: spectral_norm divides by the largest"
                f" singular value, and the weight has std {large:.3g}",
                parameters=[name for p in group for name in (rescaled[p.name][0].name, p.name)],
                severity=Severity.NOTE,
                site=site_of(group[0]),
                expected={"std": small},
                actual={"std": large},
                effect=f"the output starts {large / small:.3g} times as large as asked for",
                fix="scale the output of the layer, or leave this layer without spectral_norm",
                topic="reach",
            )

    @bad
    def after_weight_norm() -> Any:
        from torch import nn
        from torch.nn.utils import weight_norm

        layer = weight_norm(nn.Conv1d(8, 8, 3, padding=1))
        layer.weight.data.normal_(0.0, 0.01)
        return nn.Sequential(layer, nn.ReLU(), nn.Conv1d(8, 4, 3))

    @bad
    def small_head_under_spectral_norm() -> Any:
        from torch import nn
        from torch.nn.utils.parametrizations import spectral_norm

        hidden, head = nn.Linear(8, 32), nn.Linear(32, 2)
        nn.init.orthogonal_(hidden.weight)
        nn.init.uniform_(head.weight, -3e-3, 3e-3)
        return nn.Sequential(spectral_norm(hidden), nn.ReLU(), spectral_norm(head))

    @good
    def one_init_for_all_under_spectral_norm() -> Any:
        from torch import nn
        from torch.nn.utils.parametrizations import spectral_norm

        hidden, head = nn.Linear(8, 32), nn.Linear(32, 2)
        for layer in (hidden, head):
            nn.init.normal_(layer.weight, std=1e-3)
        return nn.Sequential(spectral_norm(hidden), nn.ReLU(), spectral_norm(head))

    @good
    def before_weight_norm() -> Any:
        from torch import nn
        from torch.nn.utils import weight_norm

        layer = nn.Conv1d(8, 8, 3, padding=1)
        layer.weight.data.normal_(0.0, 0.01)
        return nn.Sequential(weight_norm(layer), nn.ReLU(), nn.Conv1d(8, 4, 3))


def _slip(statement: InitStatement) -> Site:
    """Where to mend it: an init function is right in itself and called at the wrong time, unless it writes nothing."""
    at_call = statement.op == "assign" or statement.lost_reason in ("returned", "unkept")
    return statement.site if at_call else statement.caller or statement.site


def _magnitude(context: Context, weight: ParameterFacts) -> tuple[ParameterFacts, ParameterFacts, float, float] | None:
    """g, v, and the second moments that were asked of v and that g gives, where they differ by a factor 2."""
    parts = sorted(filter(None, map(context.parameter, weight.sources)), key=lambda p: math.prod(p.shape))
    if len(parts) != 2 or parts[0].stats is None or parts[0].last is None or parts[1].last is None:
        return None
    gain, direction = parts
    last = direction.last
    if last is None or last.origin != "user" or last.share < 1 or parts[0].last.order > last.order:
        return None
    asked = requested(last, direction.shape)
    if asked is None or asked.second <= 0:
        return None
    actual = parts[0].stats.second * math.prod(gain.shape) / math.prod(direction.shape)
    return (gain, direction, asked.second, actual) if not 0.5 < actual / asked.second < 2.0 else None
