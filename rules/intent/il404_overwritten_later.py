"""IL404: a deliberate value that a later, generic init statement overwrites."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from initlint.facts import InitStatement, ModelFacts, ParameterFacts, Site, Write
from initlint.findings import Related, Severity
from initlint.odds import PRIOR
from initlint.rule import Context, Outcome, Rule, bad, good
from initlint.signal import Nominal
from initlint.signal.verdict import intent
from initlint.theory.schemes import requested
from initlint.wiring import depth_counts

# What a small constant moves to one side all the same: units that open and close.
_BOUNDED = ("sigmoid", "tanh", "softplus", "exp", "hardsigmoid")
# In-place arithmetic keeps what was there, changed.
_CHANGES = ("mul_", "div_", "add_", "sub_", "clamp_", "clip_", "neg_", "abs_", "pow_")
# What hands over values that were made before.
_HANDS_OVER = ("load", "deepcopy")
# A quantity that is off by ten is off by a hundred in second moment: beyond what THEORY 6.1 finds harmless (10).
_HARM = 10.0
# Of the second moment, ten times the std. Heads are drawn at a tenth to a thousandth of a layer's scale on purpose
# (0.01 for policies: Andrychowicz et al. 2020, section 3.2; 0.003: Lillicrap et al. 2015, section 7); schemes for the
# same layer lie closer together.
_FAR_BELOW = 100.0
# Where one class calls the same function with two numbers, one for some weights and then one for all, or where branches
# were drawn smaller by the root of their number, half the std (a quarter of the second moment) is as plain: 1/sqrt(2 n)
# of GPT-2 is that from two layers on.
_NEAR_BELOW = 4.0
# Draws that are given their scale as a number; Kaiming's gain follows from the activation.
_SCALED = frozenset({"normal_", "uniform_", "trunc_normal_", "orthogonal_", "xavier_normal_", "xavier_uniform_"})


class OverwrittenLater(Rule):
    """A value set on purpose is lost to a generic init loop that runs afterwards.

    ## What it does
    Finds parameters whose record shows first a deliberate value (a zero weight, a non-zero constant, a computed
    tensor, a part set apart such as the forget gate's bias, a scale of its own far below that of a layer) from the
    model's own code and then a write of the whole tensor from another statement that sweeps over more parameters. The
    last write wins; both lines are shown. The
    same for an index that turns out to be the whole tensor (`weight[padding_idx] = 0` with `None`), and for a weight
    that is drawn and set to zero by the next statement, or the other way round, while its bias keeps PyTorch's default.

    ## Why is this bad?
    A zero convolution, a time-step bias, a prior or an identity is set in the submodule's constructor, and the outer
    model's `self.apply(init)` replaces it by the generic scheme. The submodule then starts far from where it was
    designed to.

    ## Example
    ```python
    self.dt_proj.bias.copy_(inverse_softplus(dt))  # in the mixer
    self.apply(self._init_weights)                 # in the model: zeros every Linear's bias
    ```

    ## Use instead
    ```python
    self.apply(self._init_weights)
    self.mixer.reset_dt()  # after the sweep
    ```

    ## Known problems
    A random scheme replaced by another one of a like scale is ordinary and not reported.

    ## References
    - https://github.com/athms/mad-lab/issues/3
    - https://github.com/huggingface/transformers/pull/21431
    - https://github.com/PufferAI/PufferLib/issues/459 (the policy head's gain of 0.01, in a wrapper's loop)
    """

    code = "IL404"
    name = "overwritten-later"
    family = "intent"
    severity = Severity.ERROR
    sources = ("https://github.com/athms/mad-lab/issues/3", "https://github.com/huggingface/transformers/pull/21431")

    def check(self, context: Context) -> Iterator[Outcome]:
        wrote = _written_at(context.facts)
        lost: dict[str, tuple[Write, Write]] = {}
        for parameter in context.facts.parameters:
            pair = _lost(context, parameter, wrote) if parameter.kind == "parameter" else None
            if pair is not None:
                lost[parameter.name] = pair
        for group in _by_sweep(context, lost).values():
            first, last = lost[group[0].name]
            harm, effect = _harm(context, group, lost)
            yield self.finding(
                context,
                f"`{group[0].name}`"
                + (f" and {len(group) - 1} more" if len(group) > 1 else "")
                + f": {_said(first)} is overwritten by {last.op} in a sweep over {len(wrote[_place(last)])} tensors",
                parameters=[p.name for p in group],
                severity=Severity.ERROR if harm >= _HARM else self._level(context, group, lost),
                site=self._site(context, [lost[p.name][1] for p in group]),
                related=[
                    Related(w.site.file, w.site.line, f"{name} is set on purpose here")
                    for name, (w, _) in lost.items()
                    if w.site and name in {p.name for p in group}
                ],
                expected={"last_write": _call(first)},
                actual={"last_write": _call(last)},
                effect=effect,
                fix="run the generic init first, or skip this parameter in it",
                topic="reach",
            )
        yield from self._rescaled(context, set(lost))
        yield from self._copies_redrawn(context)
        yield from self._whole_instead_of_part(context)
        yield from self._zeroed_for_the_bias(context)
        yield from self._zero_lost_for_the_bias(context)

    def _rescaled(self, context: Context, known: set[str]) -> Iterator[Outcome]:
        """Weights that were drawn far below a layer's scale, by a number of their own, and again by a sweep."""
        calls = _calls_at(context.facts)
        lost = {
            p.name: found
            for p in context.facts.parameters
            if p.kind == "parameter" and p.name not in known and (found := _scale_lost(context, p, calls)) is not None
        }
        for group in _by_sweep(context, {n: (first, last) for n, (first, last, _) in lost.items()}).values():
            first, last, asked = lost[group[0].name]
            held = math.sqrt(group[0].stats.second) if group[0].stats else 0.0
            effect = context.effect({p.name: Nominal(0.0, lost[p.name][2]) for p in group})
            yield self.finding(
                context,
                f"`{group[0].name}`"
                + (f" and {len(group) - 1} more" if len(group) > 1 else "")
                + f": the std of {math.sqrt(asked):.3g} that {first.op} gave it is overwritten by {last.op} in a sweep"
                f" over {len(calls[_place(last)])} tensors, and is {held:.3g}",
                parameters=[p.name for p in group],
                severity=intent(effect, context.signal, context.settings.optimizer, context.facts.dtype)
                or Severity.NOTE,
                site=last.site,
                related=[
                    Related(w.site.file, w.site.line, f"{p.name} is given its scale here")
                    for p in group
                    for w in [lost[p.name][0]]
                    if w.site
                ],
                expected={"std": math.sqrt(asked)},
                actual={"std": held},
                effect=effect,
                fix="run the generic init first, or over the other layers only",
                topic="reach",
            )

    def _copies_redrawn(self, context: Context) -> Iterator[Outcome]:
        """Frozen copies of other weights (a momentum encoder, a target network) that were drawn anew afterwards."""
        redrawn = {p.name: before for p in context.facts.parameters if (before := _copied_then_drawn(p)) is not None}
        lost = {n: (w, p.last) for n, w in redrawn.items() if (p := context.parameter(n)) is not None and p.last}
        whole = [p for group in _by_sweep(context, lost).values() for p in group]
        if whole:
            copy, last = lost[whole[0].name]
            yield self.finding(
                context,
                f"`{whole[0].name}`"
                + (f" and {len(whole) - 1} more" if len(whole) > 1 else "")
                + f" was copied from another weight and frozen, and {last.op} draws it anew: it is no copy any more",
                parameters=[p.name for p in whole],
                severity=Severity.WARNING,
                site=self._site(context, [lost[p.name][1] for p in whole]),
                related=[Related(copy.site.file, copy.site.line, "copied here")] if copy.site else [],
                expected={"last_write": copy.op},
                actual={"last_write": last.op},
                effect="what should start as a copy starts from another draw, and is not trained",
                fix="copy once more after the initialisation",
                topic="reach",
            )

    def _level(self, context: Context, group: list[ParameterFacts], lost: dict[str, tuple[Write, Write]]) -> Severity:
        """A note where all that is lost are small constants of biases that do not show in the signal."""
        values = {p.name: _constant(lost[p.name][0]) for p in group}
        for parameter in group:
            value, layers = values[parameter.name], context.layers_of(parameter.name)
            gate = any(layer.activation in _BOUNDED or layer.consumer in ("gate", "softmax") for layer in layers)
            whole = lost[parameter.name][0].share >= 1
            if value is None or not whole or abs(value) > PRIOR or len(parameter.shape) > 1 or gate or value == 0.0:
                return Severity.WARNING
        effect = context.effect({name: Nominal(value or 0.0, 0.0) for name, value in values.items()})
        return intent(effect, context.signal, context.settings.optimizer, context.facts.dtype) or Severity.NOTE

    def _site(self, context: Context, writes: list[Write]) -> Site | None:
        """The line that overwrites; where several lines of one sweep do, the condition that selected for them all."""
        if len({_place(write) for write in writes}) == 1:
            return writes[0].site
        return context.selected_at(writes[0].site)

    def _whole_instead_of_part(self, context: Context) -> Iterator[Outcome]:
        """An indexed statement that wiped out the whole: ``weight[padding_idx] = 0`` with ``None``, ``weight[0:]``."""
        causes: dict[_Place, list[tuple[ParameterFacts, InitStatement, Write]]] = {}
        for parameter in context.facts.parameters:
            last = parameter.last
            statement = context.statement_at(last.site) if last is not None else None
            if last is None or statement is None or not statement.index or last.share < 1 or last.random:
                continue
            before = parameter.writes[-2] if len(parameter.writes) > 1 else None
            if before is not None and before.random and before.unused and len(parameter.shape) > 1:
                causes.setdefault(_place(last), []).append((parameter, statement, before))
        for found in causes.values():
            parameter, statement, before = found[0]
            meant = {p.name: requested(w, p.shape) for p, _, w in found}
            effect = context.effect({name: Nominal(asked.mean, asked.var) for name, asked in meant.items() if asked})
            level = intent(effect, context.signal, context.settings.optimizer, matters=True)
            yield self.finding(
                context,
                f"`[{statement.index}]` is all of `{parameter.name}` here: {before.op} before it is lost,"
                f" {parameter.shape[0]} rows instead of a part are set to a constant",
                parameters=[p.name for p, _, _ in found],
                severity=level or Severity.WARNING,
                site=statement.site,
                related=[Related(before.site.file, before.site.line, "is overwritten")] if before.site else [],
                expected={"share_written": "a part"},
                actual={"share_written": 1.0},
                effect=effect,
                fix="write only where there is an index: if padding_idx is not None: ...",
                topic="reach",
            )

    def _zeroed_for_the_bias(self, context: Context) -> Iterator[Outcome]:
        """A weight that is drawn and then set to zero by the next statement for it, while nobody writes its bias."""
        groups: dict[tuple[str, str], list[tuple[ParameterFacts, InitStatement, InitStatement]]] = {}
        for parameter in context.facts.parameters:
            pair = _drawn_then_zeroed(context, parameter)
            if pair is not None:
                site = pair[1].site
                groups.setdefault((site.file, site.function), []).append((parameter, *pair))
        for found in groups.values():
            drawn = {p.name: requested(p.writes[-2], p.shape) for p, _, _ in found}
            effect = context.effect({name: Nominal(asked.mean, asked.var) for name, asked in drawn.items() if asked})
            parameter, first, last = found[0]
            more = f" and {len(found) - 1} more are" if len(found) > 1 else " is"
            yield self.finding(
                context,
                f"`{parameter.name}`{more} drawn by {first.op} and set to zero by the next statement, while the bias"
                " keeps PyTorch's default: the zero was meant for the bias",
                parameters=[p.name for p, _, _ in found],
                severity=Severity.WARNING,
                site=last.site,
                related=[
                    Related(s.site.file, s.site.line, f"{p.name} is {what} here")
                    for p, *both in found
                    for s, what in zip(both, ("drawn", "set to zero"), strict=True)
                    if s is not last
                ],
                expected={"weight": "random", "bias": 0.0},
                actual={"weight": 0.0, "bias": "PyTorch's default"},
                effect=effect,
                fix=f"nn.init.zeros_({last.target.replace('weight', 'bias')})",
                topic="reach",
            )

    def _zero_lost_for_the_bias(self, context: Context) -> Iterator[Outcome]:
        """A weight that is set to zero and drawn by the next statement for it, while nobody writes its bias."""
        groups: dict[tuple[str, str], list[tuple[ParameterFacts, ParameterFacts, InitStatement, InitStatement]]] = {}
        for parameter in context.facts.parameters:
            pair = _one_after_the_other(context, parameter)
            if pair is not None and _constant(parameter.writes[-2]) == 0.0 and parameter.writes[-1].random:
                site = pair[0].site
                for bias in _default_biases(context, parameter):
                    groups.setdefault((site.file, site.function), []).append((parameter, bias, *pair))
        for found in groups.values():
            parameter, bias, first, last = found[0]
            effect = context.effect({b.name: Nominal(0.0, 0.0) for _, b, _, _ in found})
            level = intent(effect, context.signal, context.settings.optimizer, context.facts.dtype)
            more = f" and {len(found) - 1} more are" if len(found) > 1 else " is"
            yield self.finding(
                context,
                f"`{parameter.name}`{more} set to zero, then drawn by {last.op} in the next statement; `{bias.name}`"
                " keeps PyTorch's default: the zero was meant for the bias",
                parameters=[b.name for _, b, _, _ in found],
                # no default bias of a head harms anybody, and what else the zero may have been for cannot be told
                severity=min(level or Severity.NOTE, Severity.NOTE if effect.head else Severity.WARNING),
                site=first.site,
                related=[Related(s.site.file, s.site.line, f"{p.name} is drawn here") for p, _, _, s in found],
                expected={"bias": 0.0},
                actual={"bias": "PyTorch's default"},
                effect=effect,
                fix=f"nn.init.zeros_({first.target.replace('weight', 'bias')})",
                topic="reach",
            )

    @bad
    def zero_writer_redrawn() -> Any:
        return _net(special_last=False)

    @good
    def biases_by_their_names() -> Any:
        import torch
        from torch import nn

        class Ensemble(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.held = nn.ParameterDict(
                    {"0_weight": nn.Parameter(torch.empty(3, 16, 8)), "0_bias": nn.Parameter(torch.randn(3, 1, 8))}
                )
                for name, parameter in self.held.items():
                    if parameter.shape[1] > 1:
                        nn.init.trunc_normal_(parameter, std=0.25)
                        nn.init.zeros_(self.held[name.replace("weight", "bias")])

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.einsum("bi,kio->kbo", x, self.held["0_weight"]) + self.held["0_bias"]

        return Ensemble()

    @good
    def special_after_sweep() -> Any:
        return _net(special_last=True)

    @bad
    def target_redrawn() -> Any:
        return _target(copied_last=False)

    @good
    def target_copied_last() -> Any:
        return _target(copied_last=True)

    @bad
    def small_head_redrawn() -> Any:
        return _policy(head_last=False)

    @good
    def small_head_after_the_loop() -> Any:
        return _policy(head_last=True)

    @bad
    def asked_for_on_the_meta_device() -> Any:
        return _net(special_last=False, meta=True)

    @good
    def set_again_after_the_meta_device() -> Any:
        return _net(special_last=True, meta=True)


_Place = tuple[str, int]


def _drawn_then_zeroed(context: Context, parameter: ParameterFacts) -> tuple[InitStatement, InitStatement] | None:
    """The statements that draw a weight and set it to zero, both for the same parameters, in one function.

    A sweep that draws more than what is zeroed afterwards is the ordinary way to a closed branch or head.
    """
    pair = _one_after_the_other(context, parameter)
    drawn = pair is not None and parameter.writes[-2].random and _constant(parameter.writes[-1]) == 0.0
    return pair if drawn and _default_biases(context, parameter) else None


def _default_biases(context: Context, parameter: ParameterFacts) -> list[ParameterFacts]:
    """Biases of a weight's layers that hold PyTorch's draw."""
    biases = [context.parameter(layer.bias) for layer in context.layers_of(parameter.name) if layer.bias]
    return [b for b in biases if b is not None and b.last is not None and b.last.origin == "torch" and b.last.random]


def _one_after_the_other(context: Context, parameter: ParameterFacts) -> tuple[InitStatement, InitStatement] | None:
    """Two statements of one function that write a whole weight, both for the same parameters, the first for nothing."""
    if len(parameter.writes) < 2 or len(parameter.shape) < 2:
        return None
    first, last = parameter.writes[-2:]
    if not first.unused or not first.origin == last.origin == "user" or min(first.share, last.share) < 1:
        return None
    statements = context.statement_at(first.site), context.statement_at(last.site)
    if statements[0] is None or statements[1] is None or statements[0].site.function != statements[1].site.function:
        return None
    same = statements[0].parameters == statements[1].parameters and statements[0].target == statements[1].target
    return (statements[0], statements[1]) if same else None


def _place(write: Write) -> _Place:
    return (write.site.file, write.site.line) if write.site else ("", 0)


def _by_sweep(
    context: Context, lost: dict[str, tuple[Write, Write]]
) -> dict[tuple[str, str, str], list[ParameterFacts]]:
    """One cause is one sweeping function that overwrites one module: its lines for weight and bias belong together."""
    groups: dict[tuple[str, str, str], list[ParameterFacts]] = {}
    for parameter in context.facts.parameters:
        if parameter.name in lost:
            site = lost[parameter.name][1].site
            key = (site.file if site else "", site.function if site else "", parameter.module)
            groups.setdefault(key, []).append(parameter)
    merged: dict[tuple[str, str, str], list[ParameterFacts]] = {}
    for (file, function, module), group in groups.items():
        # the same slots of several equal modules are one cause as well
        merged.setdefault((file, function, ",".join(sorted(p.local for p in group)) or module), []).extend(group)
    return merged


def _written_at(facts: ModelFacts) -> dict[_Place, set[str]]:
    """The tensors that each line makes or writes as a whole, itself or through what it calls."""
    wrote: dict[_Place, set[str]] = {}
    for parameter in facts.parameters:
        for write in parameter.writes:
            if write.origin in ("user", "torch") and write.share >= 1:
                for place in {_place(write), *((site.file, site.line) for site in write.stack)}:
                    wrote.setdefault(place, set()).add(parameter.name)
    return wrote


def _apart(first: Write, last: Write) -> tuple[Write, Write]:
    """The two with the lines at which they part: where one helper made both writes, those that called it."""
    for one, other in zip(first.stack, last.stack, strict=False):
        if (one.file, one.line) != (other.file, other.line):
            return replace(first, site=one), replace(last, site=other)
    return first, last


def _calls_at(facts: ModelFacts) -> dict[_Place, dict[str, str]]:
    """The tensors that each line writes as a whole, each with the arguments of the last such write."""
    found: dict[_Place, dict[str, str]] = {}
    for parameter in facts.parameters:
        for write in parameter.writes:
            if write.origin == "user" and write.share >= 1:
                found.setdefault(_place(write), {})[parameter.name] = repr(sorted(write.args.items()))
    return found


def _scale_lost(
    context: Context, parameter: ParameterFacts, calls: dict[_Place, dict[str, str]]
) -> tuple[Write, Write, float] | None:
    """What gave a weight a small scale of its own, the sweep that drew it again, and the second moment that was asked.

    The sweep wrote more than that line wrote with the same numbers: a general init with special ones after it is the
    other way round.
    """
    last, stats = parameter.last, parameter.stats
    if last is None or last.site is None or last.origin != "user" or not last.random or last.share < 1:
        return None
    if stats is None or len(parameter.shape) < 2 or last.op == "create":
        return None
    chosen, factor = None, 1.0
    for write in reversed(parameter.writes[:-1]):
        if write.origin == "user" and write.share >= 1 and write.op in ("mul_", "div_"):
            by = write.args.get("other")
            if not isinstance(by, (int, float)) or by == 0:
                return None
            factor *= by**2 if write.op == "mul_" else 1 / by**2
            chosen = chosen or write
            continue
        if write.origin == "user" and write.op in _SCALED:
            chosen = chosen or write
        meant = requested(write, parameter.shape)
        if chosen is None or chosen.site is None or meant is None or meant.mean != 0 or _place(chosen) == _place(last):
            return None
        asked = meant.second * factor
        place, swept = calls.get(_place(chosen), {}), set(calls.get(_place(last), ()))
        own = {name for name, args in place.items() if args == place.get(parameter.name)} | {parameter.name}
        near = _one_author(chosen, last) or _scaled_for_depth(context, place, chosen, last)
        apart = _NEAR_BELOW if near else _FAR_BELOW
        return (chosen, last, asked) if 0 < asked * apart <= stats.second and own < swept else None
    return None


def _one_author(first: Write, last: Write) -> bool:
    """Whether two methods of one class call the same function, so that only the numbers differ."""
    classes = [w.site.function.rpartition(".")[0] if w.site else "" for w in (first, last)]
    return first.op == last.op and classes[0] == classes[1] != ""


def _copied_then_drawn(parameter: ParameterFacts) -> Write | None:
    """The copy of a drawn weight in a frozen one, which a draw of the user's replaced."""
    last = parameter.last
    if parameter.kind != "parameter" or parameter.requires_grad or last is None or len(parameter.writes) < 2:
        return None
    if not last.random or last.origin != "user" or last.share < 1 or last.op in ("create", "copy_", *_HANDS_OVER):
        return None
    before = parameter.writes[-2]
    chain = before.args.get("chain")
    copied = before.op in ("copy_", "load") and isinstance(chain, list) and set(chain[1:]) == {"copy"}
    return before if copied and before.origin == "user" and before.share >= 1 and before.random else None


def _scaled_for_depth(context: Context, place: dict[str, str], first: Write, last: Write) -> bool:
    """Whether a line drew branches smaller by the root of their number, and one function drew all of its tensors again.

    Nothing is left of a scheme that goes by the role of a layer then, under one that does not.
    """
    found = [p for name in place if (p := context.parameter(name)) is not None]
    ends = [p.last.site for p in found if p.last is not None and p.last.site is not None]
    swept = [site for site in ends if last.site and (site.file, site.function) == (last.site.file, last.site.function)]
    if len(swept) < len(place) or not first.unused or any(_place(first) == (at.file, at.line) for at in ends):
        return False
    drawn = [requested(w, p.shape) for p in found for w in p.writes if _place(w) == _place(first)]
    stds = {round(asked.std, 12) for asked in drawn if asked is not None}
    meant = requested(first, found[0].shape) if found else None
    roots = [math.sqrt(n) for n in depth_counts(context.facts) if n > 1]
    return meant is not None and any(
        math.isclose(std, meant.std * root, rel_tol=1e-3) for std in stds for root in roots
    )


def _lost(context: Context, parameter: ParameterFacts, wrote: dict[_Place, set[str]]) -> tuple[Write, Write] | None:
    """The deliberate write and the sweep that replaced it.

    A sweep wrote other tensors of the same name in their modules beside those that the deliberate line wrote. What
    PyTorch's own reset writes counts as the last write where the model's code asked for it afterwards.
    """
    last = parameter.last
    if (
        last is None
        or last.site is None
        or last.share < 1
        or last.op in (*_CHANGES, *_HANDS_OVER)
        or last.origin not in ("user", "torch")
    ):
        return None
    end = last
    for earlier in reversed(parameter.writes[:-1]):
        before, (write, last) = earlier.site, _apart(earlier, end)
        if write.origin != "user" or write.site is None or _place(write) == _place(last):
            continue
        if write.site != before and write.args == end.args:  # one function did the same twice
            continue
        own = {n for n in wrote.get(_place(write), ()) if n.rpartition(".")[2] == parameter.local} | {parameter.name}
        swept = wrote.get(_place(last), set())
        if _deliberate(context, write, parameter) and own < swept and _differs(write, last):
            return write, last
        if write.share >= 1 and not _empties(write):
            return None
    return None


def _empties(write: Write) -> bool:
    """Whether memory was given and no value: what was written on the meta device is asked for all the same."""
    return write.op == "to_empty" or write.args.get("function") in ("empty", "empty_like")


def _deliberate(context: Context, write: Write, parameter: ParameterFacts) -> bool:
    """A value with a meaning: computed, a constant other than the usual one, an identity, a part set apart."""
    if write.op == "create":
        return _meaningful(write)
    if write.op == "load":
        return True
    if write.op in ("copy_", "eye_", "dirac_") or write.op.startswith("data"):
        # a draw that went through exp, log or the like is a computed value; scaled noise is a random scheme
        return not write.random or write.args.get("function") == "derived"
    value = _constant(write)
    if value is None:
        return False
    if write.share < 1:
        return True
    if len(parameter.shape) >= 2:
        return value != 1.0
    layers = context.layers_of(parameter.name)
    if any(layer.kind == "norm" for layer in layers):
        gain = any(layer.weight == parameter.name for layer in layers)
        return value not in (0.0, 1.0) or (gain and value == 0.0)
    biased = any(layer.bias == parameter.name for layer in layers)
    return value != 0.0 if biased else value not in (0.0, 1.0)


def _meaningful(write: Write) -> bool:
    """Whether a parameter was made from given values: a table, pretrained vectors, an identity; no placeholder."""
    function = write.args.get("function")
    if write.random or function in ("empty", "unknown", None):
        return False
    value = write.args.get("val", write.args.get("mean") if write.args.get("std") == 0.0 else None)
    if isinstance(value, (int, float)):
        return value not in (0.0, 1.0)
    return function not in ("zeros", "ones")


def _constant(write: Write) -> float | None:
    if write.op in ("zeros_", "zero_"):
        return 0.0
    if write.op in ("ones_",):
        return 1.0
    value = write.args.get("val", write.args.get("value"))
    return float(value) if write.op in ("constant_", "fill_", "setitem") and isinstance(value, (int, float)) else None


def _differs(first: Write, last: Write) -> bool:
    """Whether the last write changed anything; a table that a constant replaced may have held that constant."""
    if last.random or first.share < 1:
        return last.random or _constant(first) != _constant(last)
    before, after = _constant(first), _constant(last)
    if before is None:
        mean = first.args.get("actual_mean", first.args.get("mean"))
        before = float(mean) if isinstance(mean, (int, float)) else None
        return before is not None and (after is None or abs(before - after) > 1e-6 * max(1.0, abs(before)))
    return before != after


def _call(write: Write) -> str:
    """A write with the value that it gives, where it gives one."""
    value = _constant(write)
    known = value is not None and write.op in ("constant_", "fill_", "setitem")
    return f"{write.op}({value:g})" if known else write.op


def _said(write: Write) -> str:
    value = _constant(write)
    if write.op in ("create", "load"):
        return "what it was made from" if write.op == "create" else "what was loaded"
    part = f" of {write.region}" if write.region else ""
    return f"the deliberate {write.op}{part}" + (f" ({value:g})" if value is not None else "")


def _harm(context: Context, group: list[ParameterFacts], lost: dict[str, tuple[Write, Write]]) -> tuple[float, str]:
    """How far a quantity that the forward computes from the value moved: the argument of softplus, exp or sigmoid."""
    worst, sentence = 1.0, "the submodule does not start where it was designed to"
    for parameter in group:
        args = lost[parameter.name][0].args
        mean = args.get("actual_mean", args.get("mean"))
        stats = parameter.stats
        fn = next((layer.activation for layer in context.facts.layers if parameter.name == layer.bias), None)
        if not isinstance(mean, (int, float)) or stats is None or fn not in ("softplus", "exp", "sigmoid"):
            continue
        before, after = _apply(fn, float(mean)), _apply(fn, stats.mean)
        ratio = max(before, after) / max(min(before, after), 1e-30)
        if ratio > worst:
            worst = ratio
            sentence = (
                f"{fn} of `{parameter.name}` starts at {after:.3g} instead of {before:.3g}, {ratio:.3g} times off"
            )
    return worst, sentence


def _apply(fn: str, x: float) -> float:
    if fn == "exp":
        return math.exp(min(x, 60.0))
    if fn == "sigmoid":
        return 1 / (1 + math.exp(-x))
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _target(*, copied_last: bool) -> Any:
    import torch
    from torch import nn

    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.online, self.target = nn.Linear(16, 8), nn.Linear(16, 8).requires_grad_(False)
            if not copied_last:
                self.sync()
            for layer in (self.online, self.target):
                nn.init.xavier_uniform_(layer.weight)
            if copied_last:
                self.sync()

        @torch.no_grad()
        def sync(self) -> None:
            for parameter, other in zip(self.target.parameters(), self.online.parameters(), strict=True):
                parameter.copy_(other)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.online(x) - self.target(x)

    return Twins()


def _policy(*, head_last: bool) -> Any:
    from torch import nn

    body, head = nn.Linear(16, 64), nn.Linear(64, 4)
    if not head_last:
        nn.init.orthogonal_(head.weight, 0.01)
    model = nn.Sequential(body, nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), head)
    for p in model.parameters():
        if p.dim() > 1:
            nn.init.orthogonal_(p, 1.0)
    if head_last:
        nn.init.orthogonal_(head.weight, 0.01)
    return model


def _net(special_last: bool, *, meta: bool = False) -> Any:
    import torch
    from torch import nn

    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)
            self.close()

        def close(self) -> None:
            nn.init.zeros_(self.down.weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.down(torch.relu(self.up(x)))

    with torch.device("meta" if meta else "cpu"):
        branch = Branch()
        model = nn.Sequential(nn.Linear(8, 16), branch, nn.Linear(16, 4))
    if meta:
        model.to_empty(device="cpu")
    for m in model.modules():
        if isinstance(m, nn.Linear):
            nn.init.kaiming_normal_(m.weight)
    if special_last:
        branch.close()
    return model
