"""IL007: a normalisation layer whose gain starts at something else than one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.facts import Node, ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.signal import Nominal
from initlint.signal.liveness import cuts_input
from initlint.signal.verdict import mismatch

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
# A gain before a softmax or on the logits is a temperature.
_SHARPENED = ("attention", "softmax", "output", "loss")


class NormGain(Rule):
    """The gain of a normalisation layer starts at zero, at random around zero, or away from one.

    ## What it does
    Looks at the effective gain, `weight` or `1 + weight` as the forward uses it. It reports gains that are drawn
    around zero, gains that are all zero where no other path carries the signal, and gains off by the other
    convention (ones in a norm that multiplies by `1 + weight`). A gain above 4 is judged by what it does to the net.

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

    def _large(
        self, context: Context, group: list[ParameterFacts], rms: float, actual: dict[str, float]
    ) -> Outcome | None:
        """A gain beyond any convention: judged like a scheme meant for something else, from a factor 100."""
        chosen = [p for p in group if all(x.consumer not in _SHARPENED for x in context.layers_of(p.name))]
        if not chosen:
            return None
        effect = context.effect({p.name: Nominal(1.0, 0.0) for p in chosen})
        severity = mismatch(effect, context.signal, context.settings.optimizer, context.facts.dtype)
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
    def large_gain() -> Any:
        from torch import nn

        norm = nn.LayerNorm(16)
        nn.init.constant_(norm.weight, 20.0)
        return nn.Sequential(nn.Linear(16, 16), norm, nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))

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


def _kind(parameter: ParameterFacts, node: Node) -> str:
    """ "zero", "random" (around zero), "offset" (the other convention), or "" for a sound gain."""
    stats = parameter.stats
    if stats is None or stats.count < 2 or parameter.uninitialised > 0 or stats.nans:
        return ""
    offset = 1.0 if node.attrs.get("unit_offset") else 0.0
    mean = stats.mean + offset
    if stats.var == 0 and mean == 0:
        return "zero"
    if stats.var > 0 and abs(mean) < _MEAN_SIGMAS * (stats.var / stats.count) ** 0.5:
        return "random"
    if not offset and mean > _LARGE and node.attrs.get("kind") in _UNIT_OUTPUT:
        return "large"
    if offset and not 1 / _FACTOR < (stats.var + mean**2) ** 0.5 < _FACTOR:
        return "offset"
    return ""


def _biases(context: Context, weight: str) -> list[str]:
    return [
        node.parameters["bias"]
        for node in context.facts.nodes
        if node.op == "norm" and node.parameters.get("weight") == weight and "bias" in node.parameters
    ]
