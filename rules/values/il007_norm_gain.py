"""IL007: a normalisation layer whose gain starts at something else than one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.facts import Node, ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.signal import Nominal
from initlint.signal.liveness import cuts_input
from initlint.signal.verdict import MISTAKE, mismatch
from initlint.theory.schemes import requested

# A gain drawn around 0 has a mean within a few standard errors of 0: 5 keeps chance below 1e-6 for each tensor.
_MEAN_SIGMAS = 5.0
# Below this root-mean-square every norm on the way takes more than a factor 10 of the second moment: two or three
# of them pass the 1e3 at which THEORY 6.1 measures lost accuracy.
_RMS_ERROR = 0.3
# An effective gain within this factor of 1 changes the second moment by less than 2, which is noise for training.
_FACTOR = 2**0.5

# Beyond every gain in use for norms whose output has unit variance: 16 times the second moment.
_LARGE = 4.0
# An l2 norm spreads one unit over all channels, and its gain of 20 is right (Liu et al. 2016, SSD).
_UNIT_OUTPUT = ("batch", "layer", "group", "instance", "rms")
# Gains of one norm that differ by this factor weigh the second moments of channels by a hundred, ten times beyond what
# THEORY 6.1 measures as harmless; N(1, 0.02) stays within 1.2 for thousands of channels.
_UNEVEN = 10.0
# A shift feeds a rectifier, or the next layer; before gates and outputs it sets a prior.
_SHIFTED_INTO = ("activation", "linear")
# One shift may be meant for its place; the same on several norms is a habit of the code.
_SEVERAL = 2
# A gain before a softmax or on the logits is a temperature.
_SHARPENED = ("attention", "softmax", "output", "loss")


class NormGain(Rule):
    """The gain of a normalisation layer starts at zero, at random around zero, or away from one.

    ## What it does
    Looks at the effective gain, `weight` or `1 + weight` as the forward uses it. It reports gains that are drawn
    around zero, gains that are all zero where no other path carries the signal, and gains off by the other
    convention (ones in a norm that multiplies by `1 + weight`, a bias of one in a generated gain `1 + gamma`). A gain
    above 4, gains drawn from an interval that begins near zero, and shifts as large as the gain on several norms, are
    judged by what they do to the net; a gain between 1.4 and 4 that doubles a second moment somewhere is a note.

    ## Why is this bad?
    A normalisation layer is there to hand on a signal of unit scale. A gain around 0 takes the signal away and
    flips half of the channels; a zero gain on the only path makes the output constant; gain and bias swapped do so
    too.

    ## Example
    ```python
    nn.init.normal_(norm.weight, 0.0, 0.02)
    ```

    ## Use instead
    ```python
    nn.init.normal_(norm.weight, 1.0, 0.02)  # or nn.init.ones_
    ```

    ## Known problems
    A zero gain at the end of a residual branch (zero gamma) is a good design and not reported.

    ## References
    - https://github.com/tensorflow/examples/pull/81
    - https://github.com/google/objax/pull/94
    - https://github.com/huggingface/transformers/pull/40796
    """

    code = "IL007"
    name = "norm-gain"
    family = "values"
    severity = Severity.ERROR
    sources = (
        "https://github.com/tensorflow/examples/pull/81",
        "https://github.com/google/objax/pull/94",
        "https://github.com/huggingface/transformers/pull/40796",
    )

    def check(self, context: Context) -> Iterator[Outcome]:
        by_kind: dict[str, dict[str, tuple[ParameterFacts, Node]]] = {}
        for node in context.facts.nodes:
            parameter = context.parameter(node.parameters.get("weight", "")) if node.op == "norm" else None
            kind = _kind(parameter, node) if parameter is not None else ""
            if parameter is not None and kind:
                by_kind.setdefault(kind, {})[parameter.name] = (parameter, node)
        for kind, found in by_kind.items():
            for group in by_cause(p for p, _ in found.values()).values():
                outcome = self._report(context, kind, group, found[group[0].name][1])
                if outcome is not None:
                    yield outcome
        yield from self._generated(context)
        yield from self._shifts(context)

    def _generated(self, context: Context) -> Iterator[Outcome]:
        """Gains that a layer makes from a style or a condition: 1 + gamma, whose bias starts at one as well."""
        found: dict[str, tuple[ParameterFacts, float]] = {}
        for node in context.facts.nodes:
            if node.op == "mul" and len(node.inputs) == 2:
                for gain, signal in (node.inputs, node.inputs[::-1]):
                    made = _made_gain(context, gain) if _normalised(context, signal) else None
                    if made is not None:
                        found[made[0].name] = made
        for group in by_cause(p for p, _ in found.values()).values():
            size = found[group[0].name][1]
            yield self.finding(
                context,
                f"`{group[0].name}` starts at {size - 1:.3g} in a gain of 1 + what it gives: the gain is {size:.3g}",
                parameters=[p.name for p in group],
                severity=Severity.WARNING,
                site=site_of(group[0]),
                expected={"gain_mean": 1.0},
                actual={"gain_mean": size},
                effect=f"each of these norms multiplies the signal by {size:.3g}",
                fix="nn.init.zeros_(layer.bias)  # the formula adds the one already",
                topic="norm",
            )

    def _shifts(self, context: Context) -> Iterator[Outcome]:
        """Constant shifts as large as the signal itself, on several norms."""
        found: dict[str, ParameterFacts] = {}
        for node in context.facts.nodes:
            bias = context.parameter(node.parameters.get("bias", "")) if node.op == "norm" else None
            gain = context.parameter(node.parameters.get("weight", "")) if node.op == "norm" else None
            if bias is not None and gain is not None and _shifted(context, bias, gain):
                found[bias.name] = bias
        for group in by_cause(found.values()).values():
            value = next(p.stats.mean for p in group if p.stats)
            if len(group) < _SEVERAL:
                continue
            effect = context.effect({p.name: Nominal(0.0, 0.0) for p in group})
            yield self.finding(
                context,
                f"the shift of `{group[0].name}` and {len(group) - 1} more is {value:.3g}, as large as the signal",
                parameters=[p.name for p in group],
                severity=mismatch(effect, context.signal, context.settings.optimizer, context.facts.dtype),
                site=site_of(group[0]),
                expected={"shift": 0.0},
                actual={"shift": value},
                effect=effect,
                fix="nn.init.zeros_(norm.bias)",
                topic="norm",
            )

    def _report(self, context: Context, kind: str, group: list[ParameterFacts], node: Node) -> Outcome | None:
        stats = group[0].stats
        assert stats is not None
        offset = 1.0 if node.attrs.get("unit_offset") else 0.0
        rms = (stats.var + (stats.mean + offset) ** 2) ** 0.5
        names = [p.name for p in group]
        partners = [b for p in group for b in _biases(context, p.name)]
        actual = {"gain_mean": stats.mean + offset, "gain_rms": rms}
        if kind == "zero":
            if not cuts_input(context.facts, set(names)):
                return None  # zero gamma at the end of a branch: another path carries the signal
            return self.finding(
                context,
                f"the gain of `{names[0]}` is zero on the only path: the output does not depend on the input",
                parameters=[*names, *partners],
                site=site_of(group[0]),
                expected={"gain_mean": 1.0},
                actual=actual,
                effect="every input gives the same output, and nothing before the norm receives a gradient",
                fix="nn.init.ones_(norm.weight)" if not offset else "nn.init.zeros_(norm.weight)",
                topic="norm",
            )
        if kind == "uneven":
            return self._uneven(context, group, actual)
        if kind == "large":
            return self._large(context, group, rms, actual)
        if kind == "random":
            return self.finding(
                context,
                f"the gain of `{names[0]}` is drawn around {stats.mean + offset:.2g} (rms {rms:.3g}), not 1",
                parameters=names,
                severity=Severity.ERROR if rms < _RMS_ERROR else Severity.WARNING,
                site=site_of(group[0]),
                expected={"gain_mean": 1.0},
                actual=actual,
                effect=f"each norm multiplies the signal by {rms:.3g} and flips the sign of half the channels",
                fix="nn.init.ones_(norm.weight)  # or nn.init.normal_(norm.weight, 1.0, 0.02)",
                topic="norm",
            )
        return self.finding(
            context,
            f"`{names[0]}` is {stats.mean:.3g} in a norm that multiplies by (1 + weight): the gain is {rms:.3g}",
            parameters=names,
            severity=Severity.WARNING,
            site=site_of(group[0]),
            expected={"gain_mean": 1.0},
            actual=actual,
            effect=f"each of these norms multiplies the signal by {rms:.3g}",
            fix="nn.init.zeros_(norm.weight)  # this norm multiplies by (1 + weight)",
            topic="norm",
        )

    def _uneven(self, context: Context, group: list[ParameterFacts], actual: dict[str, float]) -> Outcome:
        """Gains drawn from an interval that reaches down to zero, U(0.02, 1) for N(1, 0.02)."""
        bounds = [found for p in group if (found := _drawn_between(p)) is not None]
        low, high = min(low for low, _ in bounds), max(high for _, high in bounds)
        effect = context.effect({p.name: Nominal(1.0, 0.0) for p in group})
        more = f" and {len(group) - 1} more are" if len(group) > 1 else " is"
        return self.finding(
            context,
            f"the gain of `{group[0].name}`{more} drawn between {low:.3g} and {high:.3g}: a norm makes channels equal,"
            f" and this one weighs them as unevenly",
            parameters=[p.name for p in group],
            severity=mismatch(effect, context.signal, context.settings.optimizer, context.facts.dtype),
            site=site_of(group[0]),
            expected={"gain_mean": 1.0},
            actual={**actual, "gain_minimum": low, "gain_maximum": high},
            effect=effect,
            fix="nn.init.normal_(norm.weight, 1.0, 0.02)  # or nn.init.ones_",
            topic="norm",
        )

    def _large(
        self, context: Context, group: list[ParameterFacts], rms: float, actual: dict[str, float]
    ) -> Outcome | None:
        """A gain above one; beyond any convention it is judged like a scheme meant for something else."""
        chosen = [p for p in group if all(x.consumer not in _SHARPENED for x in context.layers_of(p.name))]
        if not chosen:
            return None
        effect = context.effect({p.name: Nominal(1.0, 0.0) for p in chosen})
        severity = mismatch(effect, context.signal, context.settings.optimizer, context.facts.dtype)
        if rms <= _LARGE:  # some value of one's own: a choice, worth a word where it doubles a second moment
            if abs(effect.log10) < MISTAKE:
                return None
            severity = Severity.NOTE
        return self.finding(
            context,
            f"the gain of `{chosen[0].name}` is {rms:.3g} instead of 1",
            parameters=[p.name for p in chosen],
            severity=severity,
            site=site_of(chosen[0]),
            expected={"gain_mean": 1.0},
            actual=actual,
            effect=effect,
            fix="nn.init.ones_(norm.weight)",
            topic="norm",
        )

    @bad
    def drawn_around_zero() -> Any:
        from torch import nn

        norm = nn.InstanceNorm2d(16, affine=True)
        nn.init.normal_(norm.weight, 0.0, 0.02)
        return nn.Sequential(nn.Conv2d(3, 16, 3), norm, nn.ReLU(), nn.Conv2d(16, 3, 3))

    @bad
    def swapped_gain_and_bias() -> Any:
        from torch import nn

        norm = nn.LayerNorm(16)
        nn.init.zeros_(norm.weight)
        nn.init.ones_(norm.bias)
        return nn.Sequential(nn.Linear(16, 16), norm, nn.ReLU(), nn.Linear(16, 4))

    @bad
    def shifts_of_one() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for channels in (3, 16, 16):
            norm = nn.BatchNorm2d(16)
            nn.init.ones_(norm.bias)
            layers += [nn.Conv2d(channels, 16, 3), norm, nn.ReLU()]
        return nn.Sequential(*layers, nn.Conv2d(16, 3, 3))

    @bad
    def one_plus_one() -> Any:
        import torch

        return _adaptive(1.0), (torch.randn(2, 3, 8, 8), torch.randn(2, 4))

    @good
    def one_plus_zero() -> Any:
        import torch

        return _adaptive(0.0), (torch.randn(2, 3, 8, 8), torch.randn(2, 4))

    @bad
    def large_gain() -> Any:
        from torch import nn

        norm = nn.LayerNorm(16)
        nn.init.constant_(norm.weight, 20.0)
        return nn.Sequential(nn.Linear(16, 16), norm, nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))

    @bad
    def interval_for_moments() -> Any:
        return _drawn_gains(0.02, 1.0)

    @good
    def interval_around_one() -> Any:
        return _drawn_gains(0.9, 1.1)

    @good
    def zero_gamma_in_a_branch() -> Any:
        import torch
        from torch import nn

        class Residual(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.fc = nn.Linear(16, 16)
                self.norm = nn.LayerNorm(16)
                self.head = nn.Linear(16, 4)
                nn.init.zeros_(self.norm.weight)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.head(x + self.norm(self.fc(x)))

        return Residual()


def _drawn_gains(low: float, high: float) -> Any:
    from torch import nn

    layers: list[nn.Module] = []
    for channels in (3, 32, 32):
        norm = nn.BatchNorm2d(32)
        nn.init.uniform_(norm.weight, low, high)
        layers += [nn.Conv2d(channels, 32, 3), norm, nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(32, 3, 3))


def _kind(parameter: ParameterFacts, node: Node) -> str:
    """ "zero", "random" (around zero), "uneven", "large", "offset" (the other convention), or "" for a sound gain."""
    stats = parameter.stats
    if stats is None or stats.count < 2 or parameter.uninitialised > 0 or stats.nans:
        return ""
    offset = 1.0 if node.attrs.get("unit_offset") else 0.0
    mean = stats.mean + offset
    if stats.var == 0 and mean == 0:
        return "zero"
    if stats.var > 0 and abs(mean) < _MEAN_SIGMAS * (stats.var / stats.count) ** 0.5:
        return "random"
    low, high = _drawn_between(parameter) or (1.0, 1.0)
    if not offset and low >= 0 and high > _UNEVEN * low:
        return "uneven"
    if not offset and mean > _FACTOR and node.attrs.get("kind") in _UNIT_OUTPUT:
        return "large"
    if offset and not 1 / _FACTOR < (stats.var + mean**2) ** 0.5 < _FACTOR:
        return "offset"
    return ""


def _drawn_between(parameter: ParameterFacts) -> tuple[float, float] | None:
    """The bounds that the code draws a gain between: those that it asks for, else those of the values."""
    write, stats = parameter.last, parameter.stats
    if write is None or stats is None or not write.random or write.origin != "user":
        return None
    asked = requested(write, parameter.shape)
    if asked is not None and asked.bound_low is not None and asked.bound_high is not None:
        return asked.bound_low, asked.bound_high
    return stats.minimum, stats.maximum


def _shifted(context: Context, bias: ParameterFacts, gain: ParameterFacts) -> bool:
    """A constant shift, by the code, of at least the size of a gain of one, that no gate or output asks for."""
    stats, gains = bias.stats, gain.stats
    if stats is None or gains is None or stats.distinct != 1 or stats.count < 2 or bias.last is None:
        return False
    layers = context.layers_of(gain.name)
    chosen = bias.last.origin == "user" and abs(gains.mean) > 0
    return chosen and abs(stats.mean) >= abs(gains.mean) and all(x.consumer in _SHIFTED_INTO for x in layers)


def _normalised(context: Context, index: int) -> bool:
    """Whether a signal is the output of a norm without a gain of its own."""
    node = context.facts.nodes[index]
    while node.op in ("reshape", "identity") and len(node.inputs) == 1:
        node = context.facts.nodes[node.inputs[0]]
    return node.op == "norm" and node.attrs.get("kind") in _UNIT_OUTPUT


def _made_gain(context: Context, index: int) -> tuple[ParameterFacts, float] | None:
    """(bias, gain) where a gain is 1 + a part of a layer's output whose bias is a constant far from zero."""
    nodes, rows = context.facts.nodes, None
    added: float = 0.0
    node = nodes[index]
    while node.op in ("reshape", "identity", "shift", "select") and len(node.inputs) == 1:
        value = node.attrs.get("value", 0.0) if node.op == "shift" else 0.0
        if not isinstance(value, (int, float)) or (node.op == "shift" and rows is not None):
            return None
        added += value
        rows = rows or (node.attrs.get("rows") if node.op == "select" else None)
        node = nodes[node.inputs[0]]
    bias = context.parameter(node.parameters.get("bias", "")) if node.op == "linear" else None
    part = _part_mean(bias, rows) if bias is not None else None
    if bias is None or part is None or added != 1.0 or 1 / _FACTOR < abs(added + part) < _FACTOR:
        return None
    return bias, added + part


def _part_mean(bias: ParameterFacts, rows: object) -> float | None:
    """The constant that these rows of a bias hold; ``None`` when they hold several values."""
    stats, total = bias.stats, bias.shape[0] if bias.shape else 0
    if stats is None:
        return None
    if not isinstance(rows, list) or rows == [0, total]:
        return stats.mean if stats.distinct == 1 else None
    start, stop = (int(r) if isinstance(r, (int, float)) else 0 for r in rows[:2])
    size = stop - start
    parts = stats.chunks.get(str(total // size), ()) if size > 0 and total % size == 0 and start % size == 0 else ()
    part = parts[start // size] if parts else None
    return part.mean if part is not None and part.minimum == part.maximum else None


def _adaptive(bias: float) -> Any:
    import torch
    from torch import nn

    class Adaptive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.out = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 3, 3)
            self.norm, self.style = nn.InstanceNorm2d(8), nn.Linear(4, 8)
            nn.init.constant_(self.style.bias, bias)

        def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
            gamma = self.style(condition)[..., None, None]
            return self.out(torch.relu((1 + gamma) * self.norm(self.conv(x))))

    return Adaptive()


def _biases(context: Context, weight: str) -> list[str]:
    return [
        node.parameters["bias"]
        for node in context.facts.nodes
        if node.op == "norm" and node.parameters.get("weight") == weight and "bias" in node.parameters
    ]
