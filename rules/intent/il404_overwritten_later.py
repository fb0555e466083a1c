"""IL404: a deliberate value that a later, generic init statement overwrites."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.facts import ModelFacts, ParameterFacts, Write
from initlint.findings import Related, Severity
from initlint.rule import Context, Outcome, Rule, bad, good

# What is overwritten by a statement that wrote at least this many times as many tensors was overwritten by a sweep.
_SWEEP = 2
# A quantity that is off by ten is off by a hundred in second moment: beyond what THEORY 6.1 finds harmless (10).
_HARM = 10.0


class OverwrittenLater(Rule):
    """A value set on purpose is lost to a generic init loop that runs afterwards.

    ## What it does
    Finds parameters whose record shows first a deliberate value (a zero weight, a non-zero constant, a computed
    tensor) from the model's own code and then a write of the whole tensor from another statement that sweeps over
    many parameters. The last write wins; both lines are shown.

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
    A random scheme replaced by another one is ordinary and not reported.

    ## References
    - https://github.com/athms/mad-lab/issues/3
    - https://github.com/huggingface/transformers/pull/21431
    """

    code = "IL404"
    name = "overwritten-later"
    family = "intent"
    severity = Severity.ERROR
    sources = ("https://github.com/athms/mad-lab/issues/3", "https://github.com/huggingface/transformers/pull/21431")

    def check(self, context: Context) -> Iterator[Outcome]:
        breadth = _breadth(context.facts)
        lost: dict[str, tuple[Write, Write]] = {}
        for parameter in context.facts.parameters:
            pair = _lost(parameter, breadth)
            if pair is not None and parameter.kind == "parameter":
                lost[parameter.name] = pair
        for group in _by_sweep(context, lost).values():
            first, last = lost[group[0].name]
            harm, effect = _harm(context, group, lost)
            yield self.finding(
                context,
                f"`{group[0].name}`"
                + (f" and {len(group) - 1} more" if len(group) > 1 else "")
                + f": {_said(first)} is overwritten by {last.op} in a sweep over {breadth[_place(last)]} tensors",
                parameters=[p.name for p in group],
                severity=Severity.ERROR if harm >= _HARM else Severity.WARNING,
                site=context.selected_at(last.site),
                related=[
                    Related(w.site.file, w.site.line, f"{name} is set on purpose here")
                    for name, (w, _) in lost.items()
                    if w.site and name in {p.name for p in group}
                ],
                expected={"last_write": first.op},
                actual={"last_write": last.op},
                effect=effect,
                fix="run the generic init first, or skip this parameter in it",
                topic="reach",
            )

    @bad
    def zero_writer_redrawn() -> Any:
        return _net(special_last=False)

    @good
    def special_after_sweep() -> Any:
        return _net(special_last=True)


_Place = tuple[str, int]


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


def _breadth(facts: ModelFacts) -> dict[_Place, int]:
    """How many tensors each init line writes as a whole."""
    wrote: dict[_Place, set[str]] = {}
    for parameter in facts.parameters:
        for write in parameter.writes:
            if write.origin == "user" and write.share >= 1 and write.op != "create":
                wrote.setdefault(_place(write), set()).add(parameter.name)
    return {place: len(names) for place, names in wrote.items()}


def _lost(parameter: ParameterFacts, breadth: dict[_Place, int]) -> tuple[Write, Write] | None:
    """The deliberate write and the sweep that replaced it."""
    writes = [
        w for w in parameter.writes if w.origin == "user" and w.share >= 1 and w.op != "create" and w.site is not None
    ]
    if len(writes) < 2 or parameter.last is not writes[-1]:
        return None
    last = writes[-1]
    for write in reversed(writes[:-1]):
        if _place(write) == _place(last):
            continue
        swept = breadth.get(_place(last), 0) >= _SWEEP * breadth.get(_place(write), 1)
        if swept and _deliberate(write, parameter) and _differs(write, last):
            return write, last
        return None
    return None


def _deliberate(write: Write, parameter: ParameterFacts) -> bool:
    """A value with a meaning: computed, a constant other than the usual one, an identity."""
    if write.op in ("copy_", "eye_", "dirac_") or write.op.startswith("data"):
        # a draw that went through exp, log or the like is a computed value; scaled noise is a random scheme
        return not write.random or write.args.get("function") == "derived"
    value = _constant(write)
    if value is None:
        return False
    weight = len(parameter.shape) >= 2
    return value == 0 if weight and value == 0 else value not in (0.0, 1.0)


def _constant(write: Write) -> float | None:
    if write.op in ("zeros_", "zero_"):
        return 0.0
    if write.op in ("ones_",):
        return 1.0
    value = write.args.get("val", write.args.get("value"))
    return float(value) if write.op in ("constant_", "fill_") and isinstance(value, (int, float)) else None


def _differs(first: Write, last: Write) -> bool:
    return last.random or _constant(first) is None or _constant(first) != _constant(last)


def _said(write: Write) -> str:
    value = _constant(write)
    return f"the deliberate {write.op}" + (f" ({value:g})" if value is not None else "")


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


def _net(special_last: bool) -> Any:
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

    branch = Branch()
    model = nn.Sequential(nn.Linear(8, 16), branch, nn.Linear(16, 4))
    for m in model.modules():
        if isinstance(m, nn.Linear):
            nn.init.kaiming_normal_(m.weight)
    if special_last:
        branch.close()
    return model
