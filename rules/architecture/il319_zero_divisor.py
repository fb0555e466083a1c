"""IL319: a learned factor starts where the forward or its gradient is not finite."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.duals import at
from initlint.facts import Node, ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.wiring import source

_VIEWS = frozenset({"reshape", "select", "identity"})


class ZeroDivisor(Rule):
    """A trainable scale starts at zero and divides, or is read through a function that has no value or slope there.

    ## What it does
    Finds parameters that the forward divides by and that hold zeros at the start, and expressions of a parameter alone
    (`1 / t`, `t ** -1`, `log(t)`, `sqrt(t)`) that are infinite, undefined or infinitely steep at its starting value.

    ## Why is this bad?
    Zero neutralises a factor that multiplies; one that divides becomes infinite. The first forward gives NaN, or the
    first step does.

    ## Example
    ```python
    self.temperature = nn.Parameter(torch.zeros(1))  # logits / self.temperature
    ```

    ## Use instead
    ```python
    self.temperature = nn.Parameter(torch.ones(1))  # or sqrt(head_dim); or read a zero through exp
    ```

    ## Known problems
    Values that a training loop sets before the first forward are not known.

    ## References
    - Radford et al. 2021 (CLIP), section 2.5: the temperature is learned as a logarithm
    """

    code = "IL319"
    name = "zero-divisor"
    family = "architecture"
    severity = Severity.ERROR
    sources = ("Radford et al. 2021 (CLIP), section 2.5, arXiv:2103.00020", "IEEE 754-2019, section 7.3")

    def check(self, context: Context) -> Iterator[Outcome]:
        facts = context.facts
        if facts.loaded or facts.device == "meta":
            return
        found: dict[str, tuple[ParameterFacts, str, str]] = {}
        for node in facts.nodes:
            if node.op == "div" and len(node.inputs) == 2:
                below = source(facts, node.inputs[1], _VIEWS)
                parameter = _owner(context, below)
                if parameter is not None and _zero(below, parameter):
                    text = str(below.attrs.get("expr") or parameter.name)
                    found.setdefault(parameter.name, (parameter, f"the forward divides by {text}", "infinite or NaN"))
            elif node.op == "parameter" and "expr" in node.attrs:
                parameter = _owner(context, node)
                how = _broken(node, parameter) if parameter is not None else ""
                if parameter is not None and how:
                    text = str(node.attrs["expr"])
                    found.setdefault(parameter.name, (parameter, f"the forward reads it as {text}", how))
        for group in by_cause(p for p, _, _ in found.values()).values():
            first, clause, how = found[group[0].name]
            assert first.stats is not None
            value = first.stats.mean if first.stats.distinct == 1 else 0.0
            yield self.finding(
                context,
                f"`{first.name}`"
                + (f" and {len(group) - 1} more" if len(group) > 1 else "")
                + f" starts at {value:g}, and {clause}: {how}",
                parameters=[p.name for p in group],
                site=site_of(first),
                expected={"value": 1.0},
                actual={"value": value},
                effect=f"the first {'step' if 'slope' in how else 'forward'} gives no numbers",
                fix="nn.Parameter(torch.ones(...))  # or read it through exp or softplus",
                topic="value",
            )

    @bad
    def temperature_zero() -> Any:
        return _matcher("divide", 0.0)

    @bad
    def root_of_zero() -> Any:
        return _matcher("root", 0.0)

    @good
    def temperature_one() -> Any:
        return _matcher("divide", 1.0)

    @bad
    def logarithm_of_zero() -> Any:
        return _matcher("log", 0.0)

    @good
    def logarithm_zero() -> Any:
        return _matcher("exp", 0.0)

    @good
    def running_maximum() -> Any:
        return _matcher("maximum", 0.0)


def _owner(context: Context, node: Node) -> ParameterFacts | None:
    """The trainable parameter with finite values that a node reads, if it reads only one."""
    names = set(node.parameters.values())
    parameter = context.parameter(names.pop()) if node.op == "parameter" and len(names) == 1 else None
    if parameter is None or parameter.kind != "parameter" or not parameter.requires_grad or parameter.uninitialised:
        return None
    stats = parameter.stats
    known = stats is not None and not stats.nans and not stats.infs and parameter.dtype.startswith(("float", "bfloat"))
    return parameter if known else None


def _zero(node: Node, parameter: ParameterFacts) -> bool:
    """Whether what is read has zeros: the parameter itself, or an expression that is zero throughout."""
    if "expr" in node.attrs:
        return node.attrs.get("second") == 0
    return parameter.stats is not None and parameter.stats.zeros > 0


def _broken(node: Node, parameter: ParameterFacts) -> str:
    """What is wrong with the expression at the starting value; empty when nothing is, or nothing is known."""
    stats = parameter.stats
    if stats is None:
        return ""
    held = node.attrs.get("mean")
    if held is None and node.attrs.get("masked"):  # -inf, or as low as running maxima start: the text says which
        here = at(str(node.attrs["expr"]), parameter.name, stats.mean) if stats.distinct == 1 else None
        return "infinite or NaN" if here is not None and not math.isfinite(here.value) else ""
    if held is None:  # no finite value at all
        return "infinite or NaN"
    if stats.distinct != 1 or not isinstance(held, (int, float)):
        return ""
    here = at(str(node.attrs["expr"]), parameter.name, stats.mean)
    if here is None or not math.isclose(here.value, held, rel_tol=1e-3, abs_tol=1e-12):
        return ""
    return "" if math.isfinite(here.slope) else "its slope there is infinite"


def _matcher(how: str, value: float) -> Any:
    import torch
    from torch import nn

    class Matcher(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(16, 8), nn.Linear(16, 8)
            self.scale = nn.Parameter(torch.full((1,), value))

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            logits = self.left(a) @ self.right(b).t()
            if how == "divide":
                return logits / self.scale
            if how == "maximum":  # begins lower than any number, as a running maximum does
                lowest = torch.zeros(1) - 1e38
                return logits * torch.exp(lowest - torch.maximum(lowest - self.scale.exp(), torch.zeros(1)))
            return logits * getattr(torch, {"root": "sqrt"}.get(how, how))(self.scale)

    return Matcher()
