"""IL315: a prior bias that does not give the prior: its sign, its logarithm, or where it stands is wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.facts import Layer, Node, ParameterFacts
from initlint.findings import Severity
from initlint.odds import form, prior_of, sigmoid
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.signal.verdict import LOSS
from initlint.wiring import reached, transparent

# The most common prior of a rare class in use is 0.1 (CenterNet writes it as 2.19): from its complement on what is rare
# would be common.
_COMMON = 0.89
_BASES = {"log": math.e, "logit": math.e, "log10": 10.0, "log2": 2.0}
_RECTIFIERS = frozenset({"relu", "leaky_relu", "gelu", "silu", "elu", "relu6", "mish", "selu", "gelu_tanh"})


class PriorBias(Rule):
    """The bias of an output layer is the log-odds of a prior, with the wrong sign or where it has no effect.

    ## What it does
    Looks at biases that are filled with one number. Reports log-odds of a rare class that enter with a positive sign,
    so that every output starts with the probability 1 - p (read from the formula in the code, or from the number
    on a head of several outputs), log-odds in the wrong base, log-odds shared by all classes of a softmax, which
    cancels them, and log-odds on a layer that is followed by a rectifier or norm instead of an output.

    ## Why is this bad?
    The prior bias exists so that the rare class does not flood the loss in the first steps. With the wrong sign every
    anchor starts as an object with a probability of 0.99, which is worse than no prior: the loss per anchor is 4.6
    instead of 0.7, which is an error where the formula shows the slip and the head acts on many positions.

    ## Example
    ```python
    nn.init.constant_(self.cls.bias, math.log((1 - prior) / prior))
    ```

    ## Use instead
    ```python
    nn.init.constant_(self.cls.bias, -math.log((1 - prior) / prior))
    ```

    ## Known problems
    A number without a formula is reported only for heads with several outputs or positions: one class that really is
    common is a fact about the data.

    ## References
    - Lin et al. 2017, Focal Loss for Dense Object Detection, section 4.1
    """

    code = "IL315"
    name = "prior-bias"
    family = "architecture"
    severity = Severity.ERROR
    sources = ("Lin et al. 2017, section 4.1, arXiv:1708.02002",)

    def check(self, context: Context) -> Iterator[Outcome]:
        if context.facts.loaded:
            return
        found: dict[str, tuple[ParameterFacts, float, str, str, bool]] = {}
        for layer in context.facts.layers:
            bias = context.parameter(layer.bias) if layer.bias and layer.kind in ("linear", "conv", "matmul") else None
            value = _constant(bias) if bias is not None else None
            if bias is None or value is None or bias.name in found:
                continue
            wrong = _wrong(context, layer, bias, value)
            if wrong is not None:
                found[bias.name] = (bias, value, *wrong)
        for group in by_cause(p for p, _, _, _, _ in found.values()).values():
            bias, value, clause, effect, flooded = found[group[0].name]
            prior = prior_of(value) or sigmoid(-abs(value))
            yield self.finding(
                context,
                f"`{bias.name}`" + (f" and {len(group) - 1} more" if len(group) > 1 else "") + f" {clause}",
                parameters=[p.name for p in group],
                severity=Severity.ERROR if flooded else Severity.WARNING,
                site=context.computed_at(site_of(bias)) if "sign" in clause or "base" in clause else site_of(bias),
                expected={"bias": -abs(value), "probability": prior},
                actual={"bias": value, "probability": sigmoid(value)},
                effect=effect,
                fix=f"nn.init.constant_(bias, -math.log((1 - {prior:g}) / {prior:g}))",
                topic="bias",
            )

    @bad
    def wrong_sign() -> Any:
        return _detector(math.log((1 - 0.01) / 0.01))

    @bad
    def wrong_sign_on_all_levels() -> Any:
        return _detector(math.log((1 - 0.01) / 0.01), levels=2)

    @bad
    def under_a_softmax() -> Any:
        return _detector(-math.log((1 - 0.01) / 0.01), softmax=True)

    @good
    def right_sign() -> Any:
        return _detector(-math.log((1 - 0.01) / 0.01))

    @good
    def right_sign_on_all_levels() -> Any:
        return _detector(-math.log((1 - 0.01) / 0.01), levels=2)


def _constant(bias: ParameterFacts) -> float | None:
    """The one number that the code filled a trainable bias with."""
    stats, write = bias.stats, bias.last
    if stats is None or write is None or write.origin == "torch" or write.random or not bias.requires_grad:
        return None
    if bias.kind != "parameter" or not stats.mean or not stats.count or stats.minimum != stats.maximum:
        return None
    asked = write.args.get("val", write.args.get("mean"))
    exact = isinstance(asked, (int, float)) and not isinstance(asked, bool)
    # the record holds the number in full; the tensor rounds it to its type
    return float(asked) if exact and math.isclose(float(asked), stats.mean, rel_tol=1e-2) else stats.mean  # type: ignore[arg-type]


def _wrong(context: Context, layer: Layer, bias: ParameterFacts, value: float) -> tuple[str, str, bool] | None:
    """(what is wrong, what it does, whether it floods the loss) with a constant bias."""
    site = site_of(bias)
    computed = context.computed_at(site)
    formula = next((f for s in (site, computed) if s is not None and (f := form(s.text))), None)
    rare = prior_of(value)
    after = _after(context, layer)
    if formula is not None and formula[1] in ("log10", "log2") and (p := prior_of(value, _BASES[formula[1]])):
        return (
            f"is {value:.4g}, log-odds of {p:g} in base {formula[1][3:]}: the forward reads it in base e",
            f"outputs start with the probability {sigmoid(value):.2g} instead of {p:g}",
            False,
        )
    prior = formula is not None or rare is not None
    if prior and after == "softmax":
        return (
            f"holds the log-odds {value:.4g} for all classes of a softmax, which cancels what they share",
            "the classes start equal, as without the bias",
            False,
        )
    if rare is not None and formula is not None and after in ("rectifier", "norm"):
        return (
            f"holds the log-odds {value:.4g} of {rare:g}, but a {after} follows, not an output",
            "units start dead" if after == "rectifier" and value < 0 else "the outputs start without the prior",
            False,
        )
    if value <= 0 or after not in ("sigmoid", "output") or not layer.head or (formula is not None and formula[0] > 0):
        return None
    several = layer.kind == "conv" or bias.shape[0] > 1
    certain = formula is not None and rare is not None
    likely = several and (rare is not None or (after == "sigmoid" and layer.kind == "conv"))
    if not (certain or likely) or sigmoid(value) < _COMMON:
        return None
    loss = math.log1p(math.exp(min(value, 700)))
    return (
        f"is +{value:.4g}: the sign makes what should be rare start with the probability {sigmoid(value):.3g}",
        f"each negative starts with a loss of {loss:.3g} nats",
        # the formula in the code is the evidence; nearly all outputs of a head over positions are negatives
        certain and layer.kind == "conv" and loss - math.log(2) > LOSS * math.log(2),
    )


def _after(context: Context, layer: Layer) -> str:
    """What the output of a layer meets first: sigmoid, softmax, rectifier, norm, output, or another op."""
    facts = context.facts
    if not layer.nodes:
        return ""
    for node in reached(facts, layer.nodes[-1], _handed_on):
        if _handed_on(node) and node.op != "output":
            continue
        if node.op in ("softmax", "log_softmax"):
            return "softmax" if node.attrs.get("axis") == "channel" else ""
        if node.op == "activation":
            fn = str(node.attrs.get("fn"))
            return "rectifier" if fn in _RECTIFIERS else fn
        return node.op
    return "output" if layer.head else ""


def _handed_on(node: Node) -> bool:
    """Whether a node leaves values as they are; a detector joins those of all its levels."""
    return transparent(node) or node.op in ("cat", "stack")


def _detector(value: float, softmax: bool = False, levels: int = 1) -> Any:
    import torch
    from torch import nn

    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU())
            self.cls = nn.Conv2d(16, 9, 1)
            nn.init.constant_(self.cls.get_parameter("bias"), value)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            maps = [self.cls(self.tower(x[..., ::step, ::step])) for step in range(1, levels + 1)]
            if levels > 1:
                return torch.cat([y.flatten(2) for y in maps], 2)
            logits = maps[0]
            return logits.softmax(1) if softmax else torch.sigmoid(logits)

    return Detector(), (torch.randn(2, 3, 8, 8),)
