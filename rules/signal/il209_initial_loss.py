"""IL209: logits so large that the loss starts far above that of a uniform guess."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from initlint.depth_rule import culprits_of, severity_of
from initlint.facts import ParameterFacts
from initlint.findings import Severity
from initlint.heads import Cure, biased, drawn, loud_bias, smaller_head, smaller_series, without_biases, zeros
from initlint.rule import Context, Outcome, Rule, bad, good, site_of
from initlint.signal import Nominal, Span
from initlint.signal.doubt import by_chance, doubt
from initlint.signal.verdict import LOSS, UNROLLED
from initlint.upstream import contributors, judged, writers

# In units of ln C, as healthy residual nets with a default head start up to 0.9 ln C above it: a note from one ln C
# (the loss is doubled), a warning from two together with logits of std 10 (THEORY 6.2: overconfident), an error from a
# std of 100, where softmax is one-hot in float32 and gradients are those of a perceptron.
_NOTE, _WARNING_STD, _ERROR_STD = 1.0, 10.0, 100.0
#: How much of the band of 2.5 standard deviations counts for the severity: one of them, which five of six draws exceed.
#: (Two logits of one draw may well be twice those of the next.)
_LIKELY = 0.4


def _over_time(context: Context, guilty: Sequence[ParameterFacts]) -> bool:
    """Whether what grows is unrolled time, which is not depth (DESIGN, section 4): weights that act again and again."""
    uses = (len(layer.nodes) for p in guilty for layer in context.layers_of(p.name))
    return max(context.signal.steps, *uses, 1) >= UNROLLED


class InitialLoss(Rule):
    """The untrained logits are so large that the loss starts far above ln C.

    ## What it does
    Predicts the spread of the logits between classes and from it the cross-entropy at the start, and compares with
    ln C of a uniform guess. Names what makes them large: the head's weight or bias, or what grows before it. Says
    nothing where the whole net explodes and IL202 is as severe, or where the head is a tied table (IL305).

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
        loss = context.signal.init_loss
        if loss is None or not judged(context):
            return
        excess = loss.predicted - loss.expected
        if excess < _NOTE * loss.expected:
            return
        off, chance = self._missed(context)
        missed = max(off, chance)
        if missed >= 2.0 * math.log10(max(loss.logit_std, 1.0)):
            yield self.undetermined(
                context,
                f"logits of std {loss.logit_std:.2g} are in doubt: the forward misses them by 1e{missed / 2:.1f}",
            )
            return
        std = loss.logit_std
        guilty, cure = self._cause(context, (1.0 + _NOTE) * loss.expected)
        if any(not p.requires_grad for p in guilty):
            return  # a fixed map to the unit of the targets (pixels), and no scores
        if not guilty or any(layer.kind == "embedding" for p in guilty for layer in context.layers_of(p.name)):
            return
        severity = self._severity(context, guilty, std * 10.0 ** (-0.5 * max(off, _LIKELY * chance)))
        if self._told(context, guilty, severity):
            return
        own = loud_bias(context, loss.head) is not None
        by_bias = f"; {biased(context, loss.head):.0%} of their variance is that of the bias" if own else ""
        yield self.finding(
            context,
            f"the outputs start with std {std:.3g}: read as logits of {loss.classes} classes they cost"
            f" {loss.predicted:.3g} nats, a uniform guess {loss.expected:.3g}{by_bias}",
            parameters=[p.name for p in guilty],
            severity=severity,
            site=site_of(guilty[0]),
            expected={"loss": loss.expected, "logit_std": 1.0},
            actual={"loss": loss.predicted, "logit_std": std, "classes": loss.classes},
            effect=cure.effect if cure is not None else None,
            fix=cure.line if cure is not None else None,
            topic="scale",
            why="Confidence before training is confidence in the wrong answer; it has to be unlearned first.",
        )

    def _severity(self, context: Context, guilty: Sequence[ParameterFacts], sure: float) -> Severity:
        """By the excess of the loss and by the std of the logits that all but a few draws exceed."""
        loss = context.signal.init_loss
        assert loss is not None
        bias = loud_bias(context, loss.head)
        if bias is not None and not drawn(bias):
            return Severity.NOTE  # the logarithms of priors are somebody's choice, and no draw
        if loss.predicted - loss.expected < LOSS * loss.expected or sure < _WARNING_STD:
            return Severity.NOTE
        timed = bias is None and not self._of_head(context) and _over_time(context, guilty)
        return Severity.ERROR if sure >= _ERROR_STD and not timed else Severity.WARNING

    def _missed(self, context: Context) -> tuple[float, float]:
        """Decades of the logits' second moment by which the measured forward differs, and by which it may by chance."""
        signal = context.signal
        if signal.init_loss is None or signal.scene is None or signal.sweeps is None:
            return 0.0, 0.0
        head, states = signal.init_loss.head, signal.sweeps[0].states
        return doubt(signal.scene, states, Span(first=0, last=head)), by_chance(states[head])

    def _told(self, context: Context, guilty: Sequence[ParameterFacts], severity: Severity) -> bool:
        """Whether a rule on depth says at least as much of the same weights where the signal grows over the whole depth
        (IL202): of the signal, or of the gradient on its way back through it (IL204)."""
        if self._growth(context) is None:
            return False
        for span in (context.signal.spans["forward"], context.signal.spans["gradient"]):
            known = None if span.shrinks else severity_of(context, span)
            if known is not None and known >= severity:
                named = {p.name for p in culprits_of(context, span)}
                if not named.isdisjoint(p.name for p in guilty):
                    return True
        return False

    def _growth(self, context: Context) -> Span | None:
        """The span of the signal where it grows so much that depth is the matter, and not the head."""
        span = context.signal.spans["forward"]
        return None if span.shrinks or severity_of(context, span) is None else span

    def _cause(self, context: Context, most: float) -> tuple[list[ParameterFacts], Cure | None]:
        """What makes the logits large, and a line that brings the loss below ``most``.

        The head's bias where it makes most of them, the head's weight where that amplifies more than the body did;
        otherwise biases of the body, if the loss is right without them, or its layers that make the signal grow.
        """
        loss = context.signal.init_loss
        assert loss is not None
        ratio = max(loss.logit_std**2, 1.0)
        head = [p for p in writers(context, loss.head, roles=("weight",)) if p.kind == "parameter"][:1]
        bias = loud_bias(context, loss.head)
        if bias is not None:
            line = zeros(bias) if drawn(bias) else "the logarithms of the classes' frequencies, or zeros"
            return [bias], Cure(line, context.effect({bias.name: Nominal(0.0, 0.0)}), (bias,))
        if not self._of_head(context):
            span = self._growth(context)
            guilty = contributors(context, lambda point: -point.q) if span is None else culprits_of(context, span)
            cure = without_biases(context, guilty, most)
            if cure is not None:
                return list(cure.parameters), cure
            if guilty:
                cure = smaller_series(context, guilty, ratio, most)
                return guilty, cure or (smaller_head(context, head[0], ratio, named=True) if head else None)
        return head, smaller_head(context, head[0], ratio) if head else None

    def _of_head(self, context: Context) -> bool:
        """Whether the head amplifies more than the body did."""
        signal = context.signal
        assert signal.init_loss is not None
        assert signal.scene is not None
        assert signal.sweeps is not None
        head = signal.scene.nodes[signal.init_loss.head]
        x, y = signal.sweeps[0].states[head.inputs[0]], signal.sweeps[0].states[head.index]
        return x.q <= 1.0 or y.q / x.q >= math.sqrt(max(y.q, 1.0))

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
