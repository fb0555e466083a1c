"""IL009: weights in a half type that underflow or fall below its normal range."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from initlint.facts import ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.signal import Nominal
from initlint.signal.verdict import intent
from initlint.theory.schemes import Requested, stated

# The least positive float16, 2^-24; anything below its half is rounded to zero.
_LEAST = 2.0**-24
# One subnormal per ten weights: a normal draw of std 1e-3 leaves 5 % below 6.1e-5, the least in float16.
_SHARE = 0.10


class HalfUnderflow(Rule):
    """A float16 or bfloat16 tensor holds mostly subnormal numbers or zeros that a draw cannot give.

    ## What it does
    Counts subnormal values, and exact zeros in randomly drawn tensors, of parameters stored in half types; and reports
    tensors of zeros that were asked to hold something else, which the type cannot.

    ## Why is this bad?
    Below 6.1e-5 float16 loses precision bit by bit and below 6e-8 everything is zero. Weights there
    carry little information and their gradients underflow.

    ## Example
    ```python
    nn.init.normal_(layer.half().weight, std=1e-6)
    ```

    ## Use instead
    ```python
    nn.init.normal_(layer.weight, std=1e-6)  # keep the master weights in float32
    ```

    ## Known problems
    None known.

    ## References
    - IEEE 754-2019, table 3.5 (binary16)
    - https://github.com/pytorch/torchtitan/issues/2269
    """

    code = "IL009"
    name = "half-underflow"
    family = "values"
    severity = Severity.WARNING
    sources = ("IEEE 754-2019, table 3.5 (binary16)", "https://github.com/pytorch/torchtitan/issues/2269")

    def check(self, context: Context) -> Iterator[Outcome]:
        yield from self._lost(context)
        suspects = [p for p in context.facts.parameters if p.kind == "parameter" and _share(p) > _SHARE]
        for group in by_cause(suspects).values():
            share = max(_share(p) for p in group)
            yield self.finding(
                context,
                f"{share:.0%} of `{group[0].name}` lies below the normal range of {group[0].dtype}",
                parameters=[p.name for p in group],
                site=site_of(group[0]),
                expected={"subnormal_share": 0.0},
                actual={"subnormal_share": share},
                effect="these weights have lost precision and their gradients underflow",
                fix="keep the weights in float32, or choose a scheme with a larger standard deviation",
                topic="range",
            )

    def _lost(self, context: Context) -> Iterator[Outcome]:
        """Tensors that were asked for other values than zero, and hold nothing but zeros in their type."""
        asked = {p.name: value for p in context.facts.parameters if (value := _underflowed(p)) is not None}
        # the line to mend gives the value; the conversion of the whole model comes after it
        suspects = [_before_conversion(p) for p in context.facts.parameters if p.name in asked]
        for group in by_cause(suspects).values():
            value = asked[group[0].name]
            effect = context.effect({p.name: Nominal(asked[p.name].mean, asked[p.name].var) for p in group})
            yield self.finding(
                context,
                f"`{group[0].name}` is exactly zero: {value.second**0.5:.3g} is less than {group[0].dtype} can hold",
                parameters=[p.name for p in group],
                severity=intent(effect, context.signal, context.settings.optimizer, context.facts.dtype),
                site=site_of(group[0]),
                expected={"rms": value.second**0.5},
                actual={"rms": 0.0},
                effect=effect,
                fix=f"keep {group[0].local} in float32, or start it above {_LEAST:g}",
                topic="range",
            )

    @bad
    def scale_of_zero() -> Any:
        import torch
        from torch import nn

        class Scaled(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.fc, self.scale = nn.Linear(8, 8), nn.Parameter(torch.full((8,), 1e-8))
                self.half()

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x + self.scale * self.fc(x)

        return Scaled()

    @bad
    def tiny_half() -> Any:
        import torch
        from torch import nn

        layer = nn.Linear(64, 64).to(torch.float16)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(64, 64) * 1e-6)
        return layer

    @good
    def usual_half() -> Any:
        import torch
        from torch import nn

        return nn.Linear(64, 64).to(torch.float16)


def _before_conversion(parameter: ParameterFacts) -> ParameterFacts:
    """The parameter as it was written, without the conversions to another type that followed."""
    return replace(parameter, writes=tuple(w for w in parameter.writes if w.op != "to"))


def _underflowed(parameter: ParameterFacts) -> Requested | None:
    """What a half tensor of zeros was asked to hold before it was converted."""
    stats = parameter.stats
    if stats is None or parameter.dtype != "float16" or parameter.kind != "parameter" or stats.zeros < stats.count:
        return None
    asked = stated(_before_conversion(parameter))
    return asked if asked is not None and 0 < asked.second**0.5 < _LEAST else None


def _share(parameter: ParameterFacts) -> float:
    stats = parameter.stats
    if stats is None or not stats.count or parameter.dtype not in ("float16", "bfloat16") or stats.distinct == 1:
        return 0.0
    drawn = any(write.random for write in parameter.writes)
    return (stats.subnormals + (stats.zeros if drawn and stats.zeros < stats.count else 0)) / stats.count
