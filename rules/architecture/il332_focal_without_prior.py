"""IL332: a focal loss over many positions reads a head that starts at even odds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from initlint.facts import FocalLoss, Layer, Node, ParameterFacts
from initlint.findings import Related, Severity
from initlint.odds import PRIOR, sigmoid
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.wiring import TRANSPARENT

#: Ops between the layer that writes logits and an output of the model: shapes, the levels of a pyramid put together.
_BETWEEN = TRANSPARENT | {"cat", "stack", "scale", "shift", "activation"}
#: At even odds a negative costs 0.75 x 0.25 ln 2 = 0.13 (alpha 0.25, gamma 2; Lin et al. 2017, 4.1). So many of them
#: cost eight times as much as one object that is plainly missed (1 nat); on fewer the rare class is not that rare.
_POSITIONS = 64
_PRIOR = 0.01
_LOGITS = ("conv", "linear", "conv_transpose")


class FocalWithoutPrior(Rule):
    """A detection head under a focal loss starts at even odds.

    ## What it does
    Recognises a focal loss with a sigmoid, (1 - p_t) ** gamma times a binary cross entropy, in the source of the
    model, whose values over all positions are added up. Reports the layer that writes its logits, over many positions,
    where its bias is no log-odds of a rare class.

    ## Why is this bad?
    Nearly all positions are background. At even odds each costs 0.13, so that thousands of them outweigh the few
    objects by orders of magnitude in the first steps, and training diverges. With a bias of -log((1 - 0.01) / 0.01)
    the loss starts near one per object.

    ## Example
    ```python
    nn.init.zeros_(self.cls_score.bias)
    ```

    ## Use instead
    ```python
    nn.init.constant_(self.cls_score.bias, -math.log((1 - 0.01) / 0.01))
    ```

    ## Known problems
    A loss that is averaged over positions is left alone: its first steps are small. Data in which the class is common
    need no prior; ignore the finding there.

    ## References
    - Lin et al. 2017, Focal Loss for Dense Object Detection, sections 3.3 and 4.1, arXiv:1708.02002
    - https://github.com/kuangliu/pytorch-retinanet/issues/10
    """

    code = "IL332"
    name = "focal-loss-without-prior"
    family = "architecture"
    severity = Severity.WARNING
    sources = ("Lin et al. 2017, sections 3.3 and 4.1, arXiv:1708.02002",)

    def check(self, context: Context) -> Iterator[Outcome]:
        if context.facts.loaded:
            return
        found: dict[str, tuple[ParameterFacts, Layer, int, FocalLoss]] = {}
        for loss in context.facts.focal:
            for layer, positions in _heads(context, loss) if loss.summed else ():
                bias = context.parameter(layer.bias or "") or context.parameter(layer.weight)
                if bias is not None and positions >= _POSITIONS and _even(context, layer, bias):
                    found.setdefault(bias.name, (bias, layer, positions, loss))
        for group in by_cause(bias for bias, *_ in found.values()).values():
            yield self._report(context, group, *found[group[0].name][1:])

    def _report(
        self, context: Context, group: list[ParameterFacts], layer: Layer, positions: int, loss: FocalLoss
    ) -> Outcome:
        first, value = group[0], -math.log((1 - _PRIOR) / _PRIOR)
        held = first.stats.mean if layer.bias and first.stats is not None else 0.0
        # a negative of probability p costs (1 - alpha) p^gamma ln(1 / (1 - p)); alpha 0.25, gamma 2 (Lin et al., 4.1)
        each = 0.75 * sigmoid(held) ** 2 * math.log1p(math.exp(held))
        what = f"`{first.name}`" if layer.bias else f"`{layer.name}` has no bias, and"
        return self.finding(
            context,
            what
            + (f" and {len(group) - 1} more" if len(group) > 1 else "")
            + f" starts the classes at a probability of {sigmoid(held):.2g} on {positions} positions, and a focal loss"
            " adds up what all of them cost: a prior for the rare class is missing",
            parameters=[p.name for p in group],
            site=site_of(first),
            related=[Related(loss.site.file, loss.site.line, "the focal loss")],
            expected={"bias": value, "probability": _PRIOR},
            actual={"bias": held, "probability": sigmoid(held)},
            effect=f"the negatives of one output cost {positions * each:.3g} together at the start, and"
            f" {positions * 0.75 * _PRIOR**2 * -math.log1p(-_PRIOR):.2g} with the prior",
            fix=f"nn.init.constant_({layer.bias or 'bias'}, -math.log((1 - {_PRIOR:g}) / {_PRIOR:g}))",
            topic="bias",
        )

    @bad
    def classes_at_even_odds() -> Any:
        return _detector(0.0)

    @good
    def classes_with_a_prior() -> Any:
        return _detector(-math.log((1 - 0.01) / 0.01))

    @good
    def averaged_over_positions() -> Any:
        return _segmenter()


def _even(context: Context, layer: Layer, bias: ParameterFacts) -> bool:
    """Whether a trainable bias (or its absence) leaves the outputs at no prior, in the parameter or in the signal."""
    if not bias.requires_grad or bias.stats is None or bias.provenance == "loaded":
        return False
    shifted = bool(layer.bias) and abs(bias.stats.mean) > PRIOR
    moments = context.signal.built[layer.nodes[-1]] if layer.nodes and context.signal.built else None
    return not shifted and not (moments is not None and abs(moments.m) > PRIOR)


def _heads(context: Context, loss: FocalLoss) -> list[tuple[Layer, int]]:
    """The layers that write what a focal loss reads, each with the positions of one sample."""
    facts = context.facts
    outputs = [facts.nodes[i] for i in facts.outputs]
    outputs = [facts.nodes[i] for node in outputs for i in (node.inputs if node.op == "output" else (node.index,))]
    chosen: list[Node] = []
    if loss.callee is None:
        dense = [node for node in outputs if _written(context, node)]
        chosen = dense if len(dense) == 1 == len(outputs) else []
    elif (module := _module(context, loss)) is not None:
        inside = [node for node in outputs if not module or f"{node.module}.".startswith(f"{module}.")]
        behind = inside if not module or len(inside) == len(outputs) else []
        if loss.output is None:
            chosen = behind if len(behind) == 1 else []
        elif -len(behind) <= loss.output < len(behind):
            chosen = [behind[loss.output]]
        if not chosen and module and loss.output is None:  # a head of its own, called in the forward that has the loss
            last = [
                layer for layer in facts.layers if f"{layer.name}.".startswith(f"{module}.") and layer.kind == "conv"
            ]
            return [(x, _positions(facts.nodes[x.nodes[-1]], x, facts.nodes)) for x in last[-1:] if x.nodes]
    return [part for node in chosen for part in _written(context, node)]


def _module(context: Context, loss: FocalLoss) -> str | None:
    """The qualified name of the module that makes the prediction; "" for the whole model."""
    if not loss.owner:
        return "" if not loss.callee else None
    owners = [m.name for m in context.facts.modules if any(_is(base, loss.owner) for base in (m.cls, *m.bases))]
    if len(owners) != 1:
        return None
    return ".".join(part for part in (owners[0], loss.callee) if part)


def _is(qualified: str, cls: str) -> bool:
    return qualified == cls or qualified.endswith(f".{cls}")


def _written(context: Context, node: Node) -> list[tuple[Layer, int]]:
    """The convolutions and linear layers whose outputs make up a node, each with the positions of one sample."""
    facts = context.facts
    found: dict[str, tuple[Layer, int]] = {}
    todo, seen = [node.index], {node.index}
    while todo:
        at = facts.nodes[todo.pop()]
        if at.op in _LOGITS:
            layer = next((x for x in facts.layers if at.index in x.nodes and x.kind in (at.op, "linear")), None)
            if layer is not None:
                found.setdefault(layer.weight, (layer, _positions(node, layer, facts.nodes)))
        elif at.op in _BETWEEN:
            todo += [i for i in at.inputs if i not in seen]
            seen.update(at.inputs)
    return list(found.values())


def _positions(node: Node, layer: Layer, nodes: tuple[Node, ...]) -> int:
    """How many positions of one sample a layer with this output decides on; anchors count as channels."""
    shape = node.shape or ()
    width = layer.fan_out or 1.0
    operator = nodes[layer.nodes[-1]].operator if layer.nodes else None
    width = operator.width_out if operator is not None else width
    return int(math.prod(shape[1:]) / max(width, 1.0)) if len(shape) > 1 else 1


def _detector(bias: float) -> Any:
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
            self.boxes, self.classes = nn.Conv2d(16, 4, 3, padding=1), nn.Conv2d(16, 5, 3, padding=1)
            nn.init.normal_(self.classes.weight, std=0.01)
            nn.init.constant_(self.classes.get_parameter("bias"), bias)

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = self.body(images)
            return self.boxes(x).flatten(2), self.classes(x).flatten(2)

        def loss(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            _, logits = self(images)
            return self.focal(logits, targets) / targets.sum().clamp(min=1)

        def focal(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            p = logits.sigmoid()
            p_t = p * targets + (1 - p) * (1 - targets)
            entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
            return ((1 - p_t) ** 2.0 * entropy).sum()

    return Detector(), (torch.randn(2, 3, 32, 32),)


def _segmenter() -> Any:
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Segmenter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
            self.mask = nn.Conv2d(16, 1, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.mask(self.body(images))

        def loss(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            logits = self(images)
            p_t = torch.exp(-F.binary_cross_entropy_with_logits(logits, targets, reduction="none"))
            return -((1 - p_t) ** 2.0 * p_t.log()).mean()

    return Segmenter(), (torch.randn(2, 3, 32, 32),)
