"""IL502: the head's bias says nothing of the class frequencies that the configuration gives."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from initlint.facts import Layer, ParameterFacts
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, site_of

# THEORY 6.2: an imbalance of 10 between the most and the least frequent class is worth a word, 100 harms (Lin et al.
# 2017: with 1 : 1000 training of RetinaNet diverges without the prior).
_NOTE, _WARNING = 10.0, 100.0
# A bias counts as set when its values span at least half of what the log priors span.
_SPANS = 0.5


class ClassPrior(Rule):
    """Class frequencies are very unequal, and the head's bias does not say so.

    ## What it does
    With `class-priors = [0.99, 0.01]` in the configuration, compares the bias of the layer that writes the logits
    with the logarithms of the priors. A binary head with one output is compared with log(p / (1 - p)).

    ## Why is this bad?
    With rare classes, the first thing that training learns is the frequencies, with large gradients from the frequent
    class alone that swamp the rare one. A bias of log prior starts there (Lin et al. 2017, section 4.1).

    ## Example
    ```python
    self.head = nn.Linear(128, 2)  # 1 % positives
    ```

    ## Use instead
    ```python
    with torch.no_grad():
        self.head.bias.copy_(torch.tensor([0.99, 0.01]).log())
    ```

    ## Known problems
    Which class a bias entry belongs to is not checked, only the range of values.

    ## References
    - Lin et al. 2017, Focal Loss for Dense Object Detection, section 4.1, arXiv:1708.02002
    """

    code = "IL502"
    name = "class-prior"
    family = "responsible"
    severity = Severity.WARNING
    needs_config = True
    sources = ("Lin et al. 2017, section 4.1, arXiv:1708.02002",)

    def check(self, context: Context) -> Iterator[Outcome]:
        priors = [p for p in context.settings.class_priors if p > 0]
        if len(priors) < 2 or context.facts.loaded:
            return
        imbalance = max(priors) / min(priors)
        if imbalance <= _NOTE:
            return
        for layer in context.facts.layers:
            classes = _classes(context, layer)
            if layer.head and (classes == len(priors) or (classes == 1 and len(priors) == 2)):
                outcome = self._judge(context, layer, priors, imbalance, binary=classes == 1)
                if outcome is not None:
                    yield outcome

    def _judge(
        self, context: Context, layer: Layer, priors: Sequence[float], imbalance: float, *, binary: bool
    ) -> Outcome | None:
        bias = context.parameter(layer.bias) if layer.bias else None
        wanted = math.log(imbalance)
        spans = _spans(bias, binary=binary)
        if spans >= _SPANS * wanted:
            return None
        names = [bias.name] if bias else [layer.weight]
        entropy = -sum(p * math.log(p) for p in priors)
        return self.finding(
            context,
            f"classes differ {imbalance:.3g}-fold in frequency, but "
            + (f"`{bias.name}` spans {spans:.2g} instead of {wanted:.3g}" if bias else f"`{layer.name}` has no bias"),
            parameters=names,
            severity=Severity.WARNING if imbalance > _WARNING else Severity.NOTE,
            site=site_of(context.parameter(names[0])),
            expected={"bias_range": wanted, "loss": entropy},
            actual={"bias_range": spans, "loss": math.log(len(priors))},
            effect=f"the loss starts at {math.log(len(priors)):.3g} nats instead of {entropy:.3g}",
            fix="bias.copy_(torch.log(priors))" if not binary else f"nn.init.constant_(bias, {_log_odds(priors):.3g})",
            topic="bias",
        )


def _classes(context: Context, layer: Layer) -> int:
    operator = context.facts.nodes[layer.nodes[-1]].operator if layer.nodes else None
    return operator.width_out if operator else 0


def _spans(bias: ParameterFacts | None, *, binary: bool) -> float:
    """Range of the bias; of a single output its distance from even odds."""
    if bias is None or bias.stats is None:
        return 0.0
    return abs(bias.stats.mean) if binary else bias.stats.maximum - bias.stats.minimum


def _log_odds(priors: Sequence[float]) -> float:
    return math.log(priors[1] / priors[0])
