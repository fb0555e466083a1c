"""IL321: a learned scale of similarities that starts as its own logarithm, its inverse, or its exponential."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.duals import Dual, at
from initlint.facts import ModelFacts, Node, ParameterFacts
from initlint.findings import Severity
from initlint.records import dataclass
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.signal.verdict import LOGITS
from initlint.wiring import reached, source, transparent

# CLIP clips the learned factor at 100 (Radford et al. 2021, section 2.5); published starts are 1 to 64 (LUCIR 1, SimCLR
# 2, SigLIP and Swin v2 10, CLIP and MoCo 14.3, CosFace 64).
_HIGHEST = 100.0
# A tenth: the temperature of 0.07 to 0.1 itself in place of its inverse. Cosines of at most 1 then span so little that
# every softmax is uniform and the gradient is ten times too small.
_LOWEST = 0.1
# Features that are not normalised have scales of their own: only what no such scale explains is reported.
_ANY_FEATURES = 1e3
# Scales are scalars, or one for each head.
_MOST = 256
_VIEWS = frozenset({"reshape", "select", "identity", "dropout"})


@dataclass(frozen=True, slots=True)
class Scaled:
    """A product with a learned factor."""

    parameter: ParameterFacts
    node: Node  # the product or quotient
    factor: float  # what the similarities are multiplied by at the start
    slope: float
    text: str  # how the factor is read
    raw: bool  # the parameter itself, not a function of it
    cosine: bool  # the similarities are those of normalised features


class LogitScale(Rule):
    """A learned temperature is stored in one form and read in another.

    ## What it does
    Looks at trainable scalars that multiply or divide similarities and works out the factor at the start. Reports
    factors above 100 for normalised features (a scale that is exponentiated without having been stored as a
    logarithm), factors of at most a tenth (a temperature that multiplies, a scale that divides), a logarithm that
    is used as the factor, and a factor that is clamped where its gradient is zero.

    ## Why is this bad?
    Cosines lie between -1 and 1. Multiplied by exp(14.3) they saturate every softmax; multiplied by 0.07 they leave it
    uniform. CLIP stores log(1 / 0.07) and multiplies by its exponential, 14.3.

    ## Example
    ```python
    self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07))  # used as logit_scale.exp()
    ```

    ## Use instead
    ```python
    self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
    ```

    ## Known problems
    Similarities in custom kernels are not seen.

    ## References
    - Radford et al. 2021 (CLIP), section 2.5
    - https://github.com/huggingface/transformers/pull/13436
    """

    code = "IL321"
    name = "logit-scale"
    family = "architecture"
    severity = Severity.ERROR
    sources = (
        "Radford et al. 2021 (CLIP), section 2.5, arXiv:2103.00020",
        "https://github.com/huggingface/transformers/pull/13436",
    )

    def check(self, context: Context) -> Iterator[Outcome]:
        if context.facts.loaded:
            return
        found: dict[str, tuple[Scaled, str, Severity]] = {}
        for scaled in _scales(context):
            wrong = _wrong(context, scaled)
            if wrong is not None:
                found.setdefault(scaled.parameter.name, (scaled, *wrong))
        for group in by_cause(scaled.parameter for scaled, _, _ in found.values()).values():
            scaled, clause, severity = found[group[0].name]
            wanted = scaled.text.startswith("exp") or "exp(" in scaled.text
            value = math.log(1 / 0.07) if wanted else 1 / 0.07 if _multiplies(scaled) else 0.07
            stats = scaled.parameter.stats
            yield self.finding(
                context,
                f"`{scaled.parameter.name}`"
                + (f" and {len(group) - 1} more" if len(group) > 1 else "")
                + f": {clause}",
                parameters=[p.name for p in group],
                severity=severity,
                site=site_of(scaled.parameter),
                expected={"value": value, "factor": 1 / 0.07},
                actual={"value": stats.mean if stats else None, "factor": scaled.factor},
                effect=f"similarities are multiplied by {scaled.factor:.3g}; 14.3 (a temperature of 0.07) is usual",
                fix=f"nn.Parameter(torch.tensor({_written(wanted, _multiplies(scaled))}))",
                topic="value",
            )

    @bad
    def raw_scale_exponentiated() -> Any:
        return _matcher(1 / 0.07, "exp"), _inputs()

    @bad
    def temperature_multiplies() -> Any:
        return _matcher(0.07, "raw"), _inputs()

    @bad
    def logarithm_as_factor() -> Any:
        return _matcher(math.log(1 / 0.07), "raw"), _inputs()

    @good
    def logarithm_exponentiated() -> Any:
        return _matcher(math.log(1 / 0.07), "exp"), _inputs()

    @good
    def scale_as_factor() -> Any:
        return _matcher(10.0, "raw"), _inputs()


def _scales(context: Context) -> Iterator[Scaled]:
    facts = context.facts
    for node in facts.nodes:
        if node.op not in ("mul", "div") or len(node.inputs) != 2:
            continue
        for mine, other in ((0, 1), (1, 0)) if node.op == "mul" else ((1, 0),):
            below = source(facts, node.inputs[mine], _VIEWS)
            parameter = _scalar(context, below)
            here = _read(below, parameter) if parameter is not None else None
            if parameter is None or here is None or not here.value:
                continue
            similar = _similarity(facts, node, node.inputs[other])
            yield Scaled(
                parameter,
                node,
                here.value if node.op == "mul" else 1 / here.value,
                here.slope,
                str(below.attrs.get("expr") or parameter.name),
                "expr" not in below.attrs,
                similar is not None and _cosine(facts, similar),
            )


def _scalar(context: Context, node: Node) -> ParameterFacts | None:
    names = set(node.parameters.values())
    parameter = context.parameter(names.pop()) if node.op == "parameter" and len(names) == 1 else None
    if parameter is None or parameter.kind != "parameter" or not parameter.requires_grad or parameter.stats is None:
        return None
    # one number, or one for each head: only one axis may be longer than 1
    spread = sum(size > 1 for size in parameter.shape)
    return parameter if parameter.stats.distinct == 1 and parameter.stats.count <= _MOST and spread <= 1 else None


def _read(node: Node, parameter: ParameterFacts) -> Dual | None:
    """The factor at the start, and its slope."""
    value = parameter.stats.mean if parameter.stats else 0.0
    if "expr" not in node.attrs:
        return Dual(value, 1.0)
    here = at(str(node.attrs["expr"]), parameter.name, value)
    held = node.attrs.get("mean")
    agrees = here is not None and isinstance(held, (int, float)) and math.isclose(here.value, held, rel_tol=1e-3)
    return here if agrees else None


def _similarity(facts: ModelFacts, node: Node, other: int) -> Node | None:
    """The product of features that the factor scales: before it, or after it when features are scaled."""
    before = source(facts, other, _VIEWS)
    if before.op in ("matmul", "linear"):
        return before
    after = next((n for n in reached(facts, node.index, transparent) if n.op in ("matmul", "linear")), None)
    return after if before.op == "norm" else None


def _cosine(facts: ModelFacts, similar: Node) -> bool:
    """Whether both factors of a product were normalised to length 1."""
    if similar.op == "linear":
        text = str(similar.attrs.get("expr", ""))
        return _unit(facts, similar.inputs[0]) and ("normalize" in text or "norm(" in text)
    return len(similar.inputs) == 2 and all(_unit(facts, i) for i in similar.inputs)


def _unit(facts: ModelFacts, index: int) -> bool:
    node = source(facts, index, _VIEWS)
    if node.op in ("mul", "div"):  # features that were scaled after they were normalised
        rest = [i for i in node.inputs if source(facts, i, _VIEWS).op != "parameter"]
        return len(rest) == 1 and _unit(facts, rest[0])
    return node.op == "norm" and node.attrs.get("kind") == "l2"


def _wrong(context: Context, scaled: Scaled) -> tuple[str, Severity] | None:
    stats = scaled.parameter.stats
    value = stats.mean if stats else 0.0
    through = f"starts at {value:.4g}"
    if not scaled.raw:
        through += f" and is read as {scaled.text}"
    if scaled.slope == 0 and "clamp" in scaled.text and "exp" in scaled.text:
        return f"{through}, which is clamped there: no gradient ever reaches it", Severity.WARNING
    factor = abs(scaled.factor)
    exponential = "exp" in scaled.text and not scaled.raw
    if factor > _HIGHEST * 1.01 and (scaled.cosine or (exponential and factor > _ANY_FEATURES)):
        after = context.signal.built[scaled.node.index]
        heads = _logits(context, scaled)
        large = not after.undetermined and max(heads, default=math.sqrt(after.q)) > LOGITS
        level = Severity.ERROR if large and exponential else Severity.WARNING
        return f"{through}: similarities are multiplied by {factor:.3g}", level
    if not scaled.cosine:
        return None
    if scaled.raw and _multiplies(scaled) and _logarithm(value):
        kept = math.exp(value)
        return f"{through}, the logarithm of {kept:.4g}, and multiplies as it is", Severity.WARNING
    if factor <= _LOWEST * 1.01:
        verb = "multiplies" if _multiplies(scaled) else "divides"
        return f"{through} and {verb}: cosines are scaled to {factor:.3g} of their size", Severity.WARNING
    return None


def _logits(context: Context, scaled: Scaled) -> list[float]:
    """Standard deviations of the products of features behind the factor."""
    nodes = reached(context.facts, scaled.node.index, transparent)
    states = [context.signal.built[n.index] for n in nodes if n.op in ("matmul", "linear")]
    return [math.sqrt(s.q) for s in states if not s.undetermined]


def _multiplies(scaled: Scaled) -> bool:
    return scaled.node.op == "mul"


def _logarithm(value: float) -> bool:
    """Whether a number is the logarithm of a round one (two digits, or one over two digits), and not round itself."""
    if value <= 0 or math.isclose(value, float(f"{value:.3g}"), rel_tol=1e-6):
        return False
    kept = math.exp(value)
    return any(math.isclose(x, float(f"{x:.2g}"), rel_tol=2e-6) for x in (kept, 1 / kept))


def _written(exponential: bool, multiplies: bool) -> str:
    if exponential:
        return "math.log(1 / 0.07)" if multiplies else "math.log(0.07)"
    return "1 / 0.07" if multiplies else "0.07"


def _inputs() -> Any:
    import torch

    return torch.randn(8, 16), torch.randn(8, 16)


def _matcher(value: float, read: str) -> Any:
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Matcher(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(16, 8), nn.Linear(16, 8)
            self.scale = nn.Parameter(torch.tensor(value))

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            left, right = F.normalize(self.left(a), dim=-1), F.normalize(self.right(b), dim=-1)
            return (self.scale.exp() if read == "exp" else self.scale) * left @ right.t()

    return Matcher()
