"""IL011: a layer of zeros on the only path, so that the output does not depend on the input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.facts import Layer, Node
from initlint.findings import Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.signal.liveness import cuts_input, zero_of
from initlint.suspect_rule import hands_on, leads_only_to
from initlint.wiring import reached, transparent

_WEIGHTY = ("linear", "conv", "conv_transpose", "matmul", "bilinear")


class ZeroLayerCutsNet(Rule):
    """A layer between other layers starts at zero, and no other path carries the signal past it.

    ## What it does
    Finds weights that are exactly zero and without which no input reaches any output. The last layer of a net is
    exempt (a zero head is a choice), and so is everything that a residual connection goes around, but for zeros that
    only norms read: what closes a branch that ends in a norm is the norm's gain. And zeros, with their
    bias, that are divided by their own length.

    ## Why is this bad?
    The net outputs the same for every input, and nothing before the layer receives a gradient in the first step. With
    a smooth activation it opens afterwards, one step late and from an unplanned scale; with more zeros around it never
    does (IL003).

    ## Example
    ```python
    nn.init.zeros_(self.layers[3].weight)
    ```

    ## Use instead
    ```python
    nn.init.kaiming_normal_(self.layers[3].weight, nonlinearity="relu")
    ```

    ## Known problems
    None known.

    ## References
    - Zhang et al. 2019 (Fixup), section 3: zeros belong at the end of a residual branch
    """

    code = "IL011"
    name = "zero-layer-cuts-net"
    family = "values"
    severity = Severity.WARNING
    sources = ("Zhang et al. 2019 (Fixup), section 3, arXiv:1901.09321",)

    def check(self, context: Context) -> Iterator[Outcome]:
        facts = context.facts
        zeros = zero_of(facts)
        if not zeros or facts.loaded:
            return
        yield from self._normalised(context, zeros)
        yield from self._lengths(context, zeros)
        # fewer zeros cut no more: where all of them together do not, which is usual, none is looked at by itself
        suspects = self._zero(context, zeros) if cuts_input(facts, zeros) else []
        cutting = [layer.weight for layer in suspects if self._cuts(context, layer)]
        chosen = [p for name in dict.fromkeys(cutting) if (p := context.parameter(name)) is not None]
        for group in by_cause(chosen).values():
            yield self.finding(
                context,
                f"`{group[0].name}` is all zeros on the only path: the output does not depend on the input",
                parameters=[p.name for p in group],
                site=site_of(group[0]),
                expected={"zero_share": 0.0},
                actual={"zero_share": 1.0},
                effect="every input gives the same output, and nothing before the layer receives a gradient at first",
                fix='nn.init.kaiming_normal_(weight, nonlinearity="relu")  # or the scheme of the other layers',
                topic="value",
            )

    def _normalised(self, context: Context, zeros: set[str]) -> Iterator[Outcome]:
        """Zeros that nothing but norms read, with other paths beside them (a residual sum, a skip of a U-Net)."""
        yield from self._divided(
            context,
            [
                layer.weight
                for layer in self._zero(context, zeros)
                if _only_norms_read(context, layer) and not cuts_input(context.facts, {layer.weight})
            ],
            "all zeros in front of a norm, which divides by a standard deviation of zero",
            "the norm gives the same for every input, and multiplies the gradient by 1 / sqrt(eps)",
            "nn.init.zeros_(norm.weight)  # a branch that starts closed has its zeros in the norm's gain",
        )

    def _lengths(self, context: Context, zeros: set[str]) -> Iterator[Outcome]:
        """Zeros, biases included, that are divided by their own length (``F.normalize``)."""
        yield from self._divided(
            context,
            [
                layer.weight
                for layer in self._zero(context, zeros)
                if _silent_bias(context, layer)
                and any(_by_length(node) for at in layer.nodes for node in reached(context.facts, at, transparent))
            ],
            "all zeros, and what it writes is divided by its own length",
            "there is no direction to start from, and the gradient is multiplied by 1 / eps",
            "bias.copy_(direction)  # a zero weight is right beside a bias that says where to start",
        )

    def _zero(self, context: Context, zeros: set[str]) -> list[Layer]:
        zero = (layer for layer in context.facts.layers if layer.weight in zeros and layer.kind in _WEIGHTY)
        return [layer for layer in zero if not _offset(context, layer)]

    def _divided(self, context: Context, names: list[str], what: str, effect: str, fix: str) -> Iterator[Outcome]:
        """Zeros that are divided by a size of their own, which is zero."""
        chosen = [p for name in dict.fromkeys(names) if (p := context.parameter(name)) is not None]
        for group in by_cause(p for p in chosen if p.requires_grad).values():
            more = f" and {len(group) - 1} more are" if len(group) > 1 else " is"
            yield self.finding(
                context,
                f"`{group[0].name}`{more} {what}",
                parameters=[p.name for p in group],
                site=site_of(group[0]),
                expected={"zero_share": 0.0},
                actual={"zero_share": 1.0},
                effect=effect,
                fix=fix,
                topic="value",
            )

    def _cuts(self, context: Context, layer: Layer) -> bool:
        # a weight that is also the output, or feeds it only through a bounded function, is a zero head
        ends = layer.head or layer.consumer in ("output", "loss", "softmax")
        return not ends and cuts_input(context.facts, {layer.weight}) and self._followed(context, layer)

    def _followed(self, context: Context, layer: Layer) -> bool:
        """Whether another layer with weights reads what this one writes; otherwise it is the output, in some form."""
        facts = context.facts
        weighted = {node for other in facts.layers if other.kind not in ("norm", "scale") for node in other.nodes}
        downstream = set(layer.nodes)
        for node in facts.nodes:
            if any(source in downstream for source in node.inputs):
                if node.index in weighted:
                    return True
                downstream.add(node.index)
        return False

    @good
    def identity_added_in_the_forward() -> Any:
        import torch
        from torch import nn

        class Shortcut(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.change = nn.Parameter(torch.zeros(16, 16, 1, 1))
                self.identity = torch.eye(16)[:, :, None, None]
                self.conv, self.norm = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)
                self.beside, self.head = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 4, 1)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                x = self.conv(x)
                y = self.norm(nn.functional.conv2d(x, self.change + self.identity))
                return self.head(torch.relu(y + self.beside(x)))

        return Shortcut()

    @bad
    def zero_in_the_middle() -> Any:
        from torch import nn

        middle = nn.Linear(32, 32)
        nn.init.zeros_(middle.weight)
        return nn.Sequential(nn.Linear(16, 32), nn.SELU(), middle, nn.SELU(), nn.Linear(32, 4))

    @bad
    def zero_length() -> Any:
        return _direction(start=0.0)

    @good
    def direction_to_start_from() -> Any:
        return _direction(start=1.0)

    @bad
    def zero_in_front_of_a_norm() -> Any:
        return _branch(closed_by_norm=False)

    @good
    def zero_gain_closes_the_branch() -> Any:
        return _branch(closed_by_norm=True)

    @good
    def triangle_that_starts_as_the_identity() -> Any:
        import torch
        import torch.nn.functional as F
        from torch import nn

        class Lower(nn.Module):
            rows: torch.Tensor

            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("rows", torch.tril_indices(8, 8, offset=-1))
                self.below, self.out = nn.Parameter(torch.zeros(28)), nn.Linear(8, 4)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                lower = torch.eye(8).index_put((self.rows[0], self.rows[1]), self.below)
                return self.out(F.linear(x, lower))

        return Lower()

    @good
    def zero_head() -> Any:
        from torch import nn

        head = nn.Linear(32, 4)
        nn.init.zeros_(head.weight)
        return nn.Sequential(nn.Linear(16, 32), nn.SELU(), head)

    @good
    def zero_branch() -> Any:
        import torch
        from torch import nn

        class Residual(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.stem, self.fc, self.head = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4)
                nn.init.zeros_(self.fc.weight)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                x = self.stem(x)
                return self.head(x + self.fc(torch.tanh(x)))

        return Residual()


def _only_norms_read(context: Context, layer: Layer) -> bool:
    """Whether a zero layer gives norms nothing that varies: its bias, if any, is one number for each channel."""
    bias = context.parameter(layer.bias) if layer.bias else None
    biased = bias is not None and (bias.stats is None or bias.stats.second > 0)

    def end(context: Context, node: Node) -> bool:
        return node.op == "norm" and (not biased or node.attrs.get("kind") in ("batch", "instance"))

    return leads_only_to(context, layer.weight, end, hands_on)


def _branch(closed_by_norm: bool) -> Any:
    import torch
    from torch import nn

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
            self.head = nn.Linear(8, 4)
            nn.init.zeros_(self.norm.weight if closed_by_norm else self.conv.weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.stem(x))
            return self.head((x + self.norm(self.conv(x))).mean((2, 3)))

    return Residual(), (torch.randn(4, 3, 8, 8),)


def _offset(context: Context, layer: Layer) -> bool:
    """Whether the forward adds something to the weight: an identity that is no parameter."""
    operators = [context.facts.nodes[index].operator for index in layer.nodes]
    return any(operator is not None and operator.gain > 0.0 for operator in operators)


def _silent_bias(context: Context, layer: Layer) -> bool:
    bias = context.parameter(layer.bias) if layer.bias else None
    return bias is None or (bias.stats is not None and bias.stats.second == 0.0)


def _by_length(node: Node) -> bool:
    return node.op == "norm" and node.attrs.get("kind") == "l2"


def _direction(start: float) -> Any:
    import torch
    from torch import nn

    class Direction(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.out, self.score = nn.Linear(16, 32), nn.Linear(32, 3), nn.Linear(32, 4)
            nn.init.zeros_(self.out.weight)
            nn.init.constant_(self.out.bias, start)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            h = torch.relu(self.body(x))
            return nn.functional.normalize(self.out(h), dim=-1), self.score(h)

    return Direction()
