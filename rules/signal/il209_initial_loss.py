"""IL209: logits so large that the loss starts far above that of a uniform guess."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, good, site_of
from initlint.signal import Nominal, Span
from initlint.signal.doubt import by_chance, doubt
from initlint.signal.verdict import LOSS, thresholds
from initlint.upstream import contributors, judged, writers

# In units of ln C, as healthy residual nets with a default head start up to 0.9 ln C above it: a note from one ln C
# (the loss is doubled), a warning from two together with logits of std 10 (THEORY 6.2: overconfident), an error from a
# std of 100, where softmax is one-hot in float32 and gradients are those of a perceptron.
_NOTE, _WARNING_STD, _ERROR_STD = 1.0, 10.0, 100.0
#: How much of the band of 2.5 standard deviations counts for the severity: one of them, which five of six draws exceed.
#: (Two logits of one draw may well be twice those of the next.)
_LIKELY = 0.4


class InitialLoss(Rule):
    """The untrained logits are so large that the loss starts far above ln C.

    ## What it does
    Predicts the spread of the logits between classes and from it the cross-entropy at the start, and compares with
    ln C of a uniform guess. Says nothing where the whole net explodes (IL202) or the head is a tied table
    (IL305).

    ## Why is this bad?
    An untrained net knows nothing, so confident answers are wrong: the first steps are spent on shrinking the head
    instead of learning, with gradients that are as large as they get.

    ## Example
    ```python
    nn.init.normal_(self.head.weight)  # std 1 over 512 features: logits of std 22
    ```

    ## Use instead
    ```python
    nn.init.normal_(self.head.weight, std=0.01)
    ```

    ## Known problems
    Any vector output is read as logits; of a regression head the message says how large its outputs are.

    ## References
    - Karpathy 2019, A Recipe for Training Neural Networks: "verify loss @ init"
    """

    code = "IL209"
    name = "initial-loss"
    family = "signal"
    severity = Severity.ERROR
    sources = ("Karpathy 2019, https://karpathy.github.io/2019/04/25/recipe/",)

    def check(self, context: Context) -> Iterator[Outcome]:
        signal, loss = context.signal, context.signal.init_loss
        if loss is None or not judged(context):
            return
        excess = loss.predicted - loss.expected
        if excess < _NOTE * loss.expected:
            return
        explodes = signal.spans["forward"]
        if explodes.value >= thresholds(context.settings.optimizer)[0] and not explodes.shrinks:
            return
        off, chance = self._missed(context)
        missed = max(off, chance)
        if missed >= 2.0 * math.log10(max(loss.logit_std, 1.0)):
            yield self.undetermined(
                context,
                f"logits of std {loss.logit_std:.2g} are in doubt: the forward misses them by 1e{missed / 2:.1f}",
            )
            return
        guilty = self._guilty(context)
        if any(not p.requires_grad for p in guilty):
            return  # a fixed map to the unit of the targets (pixels), and no scores
        if not guilty or any(layer.kind == "embedding" for p in guilty for layer in context.layers_of(p.name)):
            return
        std = loss.logit_std
        severity, sure = Severity.NOTE, std * 10.0 ** (-0.5 * max(off, _LIKELY * chance))
        if excess >= LOSS * loss.expected and sure >= _WARNING_STD:
            severity = Severity.ERROR if sure >= _ERROR_STD else Severity.WARNING
        weight = guilty[0]
        second = weight.stats.second / max(std * std, 1.0) if weight.stats else 0.0
        yield self.finding(
            context,
            f"the outputs start with std {std:.3g}: read as logits of {loss.classes} classes they cost"
            f" {loss.predicted:.3g} nats, a uniform guess {loss.expected:.3g}",
            parameters=[p.name for p in guilty],
            severity=severity,
            site=site_of(weight),
            expected={"loss": loss.expected, "logit_std": 1.0},
            actual={"loss": loss.predicted, "logit_std": std, "classes": loss.classes},
            effect=context.effect({weight.name: Nominal(0.0, second)}),
            fix=f"nn.init.normal_(weight, std={math.sqrt(second):.3g})" if second > 0 else None,
            topic="scale",
            why="Confidence before training is confidence in the wrong answer; it has to be unlearned first.",
        )

    def _missed(self, context: Context) -> tuple[float, float]:
        """Decades of the logits' second moment by which the measured forward differs, and by which it may by chance."""
        signal = context.signal
        if signal.init_loss is None or signal.scene is None or signal.sweeps is None:
            return 0.0, 0.0
        head, states = signal.init_loss.head, signal.sweeps[0].states
        return doubt(signal.scene, states, Span(first=0, last=head)), by_chance(states[head])

    def _guilty(self, context: Context) -> list[Any]:
        """The head if it amplifies more than the body did; otherwise the body's layers that make the signal grow."""
        signal = context.signal
        assert signal.init_loss is not None
        assert signal.scene is not None
        assert signal.sweeps is not None
        head = signal.scene.nodes[signal.init_loss.head]
        weights = [p for p in writers(context, head.index, roles=("weight",)) if p.kind == "parameter"]
        x, y = signal.sweeps[0].states[head.inputs[0]], signal.sweeps[0].states[head.index]
        if x.q <= 1.0 or y.q / x.q >= math.sqrt(max(y.q, 1.0)):
            return weights[:1]
        return contributors(context, lambda point: -point.q) or weights[:1]

    @bad
    def unit_head() -> Any:
        import torch
        from torch import nn

        class Classifier(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.body = nn.Sequential(nn.Linear(64, 512), nn.LayerNorm(512), nn.ReLU())
                self.head = nn.Linear(512, 10)
                nn.init.normal_(self.head.weight)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.head(self.body(x))

        return Classifier()

    @good
    def small_head() -> Any:
        import torch
        from torch import nn

        class Classifier(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.body = nn.Sequential(nn.Linear(64, 512), nn.LayerNorm(512), nn.ReLU())
                self.head = nn.Linear(512, 10)
                nn.init.normal_(self.head.weight, std=0.01)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.head(self.body(x))

        return Classifier()
