"""IL211: attention logits so spread that each query starts with one key."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from initlint.facts import Node, ParameterFacts
from initlint.findings import Finding, Severity
from initlint.records import dataclass
from initlint.rule import Context, Outcome, Rule, bad, good, site_of
from initlint.signal import Nominal
from initlint.signal.spread import logit_spread
from initlint.signal.verdict import thresholds
from initlint.temperature import NOTE, Spread, by_temperature, factors, hot, projections
from initlint.upstream import judged, loudest, with_moments

# What stands between a norm and the products: layouts, factors, rotary positions (sums of products with tables).
_KEEPING = frozenset(
    {"identity", "reshape", "select", "scale", "mul", "add", "sub", "cat", "dropout", "parameter", "constant"}
)
# The scale that is missing when logits are q . k without 1 / sqrt(d): a factor of at least 2 in std from d = 4.
_UNSCALED = 2.0


class AttentionEntropyCollapse(Rule):
    """Attention starts nearly one-hot: its logits spread beyond what softmax averages over.

    ## What it does
    Predicts the standard deviation s of the logits between the keys of one query, from the scales of queries and keys
    and the factor in front, and compares it with sqrt(2 ln T) for T keys (at least 64).

    ## Why is this bad?
    Beyond that spread a few keys, chosen at random, get all the weight whatever the length: gradients through softmax
    vanish and training diverges or stalls (Zhai et al. 2023). The usual cause is a missing 1 / sqrt(d), or an
    embedding of N(0, 1) that is multiplied by sqrt(d) and read without a norm.

    ## Example
    ```python
    w = torch.softmax(q @ k.transpose(-2, -1), dim=-1)
    ```

    ## Use instead
    ```python
    w = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), dim=-1)
    ```

    ## Known problems
    T5 leaves the factor out and divides the std of its query matrix instead; this is seen and right. Where a norm
    stands behind both queries and keys, the spread is a temperature that somebody chose and that no initial weight
    moves: a note, unless gradients explode over depth by it (IL204), and would not with logits of std 1.

    ## References
    - Zhai et al. 2023, Stabilizing Transformer Training by Preventing Attention Entropy Collapse, arXiv:2303.06296
    - Vaswani et al. 2017, section 3.2.1
    - Dehghani et al. 2023, Scaling Vision Transformers to 22 Billion Parameters, section 2 (norms of queries and keys)
    """

    code = "IL211"
    name = "attention-entropy-collapse"
    family = "signal"
    severity = Severity.WARNING
    sources = ("Zhai et al. 2023, arXiv:2303.06296", "Vaswani et al. 2017, section 3.2.1, arXiv:1706.03762")

    def check(self, context: Context) -> Iterator[Outcome]:
        signal = context.signal
        if not judged(context) or signal.scene is None or signal.sweeps is None:
            return
        found = hot(signal)
        if not found:
            return
        worst = max(found, key=lambda index: found[index][0])
        cause = None if _unscaled(context.facts.nodes[worst]) else _loud_input(context, worst, found)
        if cause is not None:
            yield self._input(context, cause, worst, found[worst])
            found = {index: value for index, value in found.items() if index not in cause.mended}
        if not found:
            return
        worst = max(found, key=lambda index: found[index][0])
        guilty = list(dict.fromkeys(p.name for index in found for p in projections(context, index)))
        parameters = [p for name in guilty if (p := context.parameter(name)) is not None]
        chosen = all(_chosen(context, index) for index in found)
        harms = chosen and by_temperature(context, "gradient", thresholds(context.settings.optimizer)[0])
        report = self._report(context, parameters, *found[worst], worst, len(found), chosen=chosen and not harms)
        if harms:  # whoever chose it, the gradients do not bear it
            grown = f"the gradient's second moment grows 1e{signal.spans['gradient'].raw:.0f}-fold over depth"
            report = replace(report, effect=f"{grown}, and would not with logits of std 1")
        yield report

    def _input(self, context: Context, cause: _Cause, at: int, spread: Spread) -> Outcome:
        """The projections are as they should be; what they read is too large."""
        node, parameter, second = context.facts.nodes[at], cause.parameter, cause.second
        assert parameter.stats is not None
        held, right = math.sqrt(parameter.stats.second), math.sqrt(second)
        factor = f", multiplied by {cause.factor:.4g}" if cause.factor != 1.0 else ""
        label = node.label or node.op
        effect = context.effect({parameter.name: Nominal(0.0, second)})
        told = f"with a std of {right:.3g} in place of {held:.3g} the logits have std {cause.then:.3g}"
        return self.finding(
            context,
            f"`{parameter.name}` of std {held:.3g}{factor} makes what `{label}` reads {cause.read:.3g} in size: the"
            f" logits have std {spread[0]:.3g} between keys; softmax over them is nearly one-hot from {spread[1]:.2g}",
            parameters=[parameter.name],
            severity=Severity.WARNING if spread[0] > spread[1] else Severity.NOTE,
            site=site_of(parameter),
            expected={"std": right, "logit_std": cause.then, "critical": spread[1]},
            actual={"std": held, "logit_std": spread[0], "attentions": len(cause.mended)},
            effect=replace(effect, sentence=told),
            fix=f"nn.init.normal_({parameter.name}, std={right:.3g})",
            topic="scale",
        )

    def _report(
        self,
        context: Context,
        guilty: list[ParameterFacts],
        spread: float,
        critical: float,
        at: int,
        count: int,
        *,
        chosen: bool,
    ) -> Finding:
        node = context.facts.nodes[at]
        unscaled = _unscaled(node)
        # where the factor 1 / sqrt(d) is plainly missing, the spread is nobody's choice
        severity = Severity.WARNING if (spread > critical or unscaled) and not chosen else Severity.NOTE
        more = f" ({count} attentions)" if count > 1 else ""
        cause = "; the products are not divided by sqrt(d)" if unscaled else ""
        changes = {p.name: Nominal(0.0, p.stats.second / spread) for p in guilty if p.stats and len(p.shape) > 1}
        return self.finding(
            context,
            f"logits of `{node.label or node.op}`{more} have std {spread:.3g} between keys; softmax over them is nearly"
            f" one-hot from {critical:.2g}{cause}",
            parameters=[p.name for p in guilty],
            severity=severity,
            site=node.site if unscaled or not guilty else site_of(guilty[0]),
            expected={"logit_std": 1.0, "critical": critical},
            actual={"logit_std": spread, "attentions": count},
            effect=context.effect(changes) if changes else "each query attends to one key chosen at random",
            fix="logits / math.sqrt(head_dim)"
            if unscaled
            else "nn.init.xavier_uniform_(weight)  # of queries and keys",
            topic="head" if unscaled else "scale",
        )

    @bad
    def unscaled_products() -> Any:
        import torch

        return _attention(1.0), (torch.randn(2, 32, 256),)

    @bad
    def table_scaled_up_and_left_at_one() -> Any:
        return _translator(1.0)

    @good
    def table_scaled_up_and_drawn_small() -> Any:
        return _translator(64**-0.5)

    @good
    def chosen_temperature() -> Any:
        """Queries and keys are normalised: weights do not move the logits, and the factor is a choice."""
        import torch
        from torch import nn

        class Attention(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.q, self.k, self.v = nn.Linear(256, 256), nn.Linear(256, 256), nn.Linear(256, 256)
                self.of_q, self.of_k = nn.RMSNorm(256), nn.RMSNorm(256)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                q, k, v = self.of_q(self.q(x)), self.of_k(self.k(x)), self.v(x)
                return nn.functional.scaled_dot_product_attention(q, k, v, scale=0.5)

        return Attention(), (torch.randn(2, 32, 256),)

    @good
    def scaled_products() -> Any:
        import torch

        return _attention(256**-0.5), (torch.randn(2, 32, 256),)


@dataclass(frozen=True, slots=True)
class _Cause:
    """A parameter that makes the input of attentions too large, and what another scale of it would do."""

    parameter: ParameterFacts
    second: float  # of its entries, for an input of unit size
    factor: float  # by which the forward multiplies it
    read: float  # size of what the projections read
    then: float  # std of the logits with an input of unit size
    mended: frozenset[int]  # the attentions whose logits it spreads


def _loud_input(context: Context, at: int, found: Mapping[int, Spread]) -> _Cause | None:
    """What makes the input of an attention so large that its logits spread, by putting in its place what is of unit
    size: the projections alone would not spread them."""
    sweeps = context.signal.sweeps
    if sweeps is None:
        return None
    states = sweeps[0].states
    for index in _inputs(context, at):
        loud = loudest(context, index)
        size = states[index].q
        if loud is None or size <= 1.0:
            continue
        parameter, reads = loud
        stats = parameter.stats
        if stats is None or stats.second <= 0 or not parameter.requires_grad or parameter.kind != "parameter":
            continue
        second = stats.second / size
        then = with_moments(context, {parameter.name: Nominal(0.0, second)})
        if then.scene is None or then.sweeps is None:
            continue
        spreads = logit_spread(then.scene, then.sweeps[0].states)
        mended = {i for i, (_, critical) in found.items() if i in spreads and spreads[i][0] < NOTE * critical}
        if at in mended:
            factor = next((x.pre_scale for x in context.layers_of(parameter.name) if reads in x.nodes), 1.0)
            return _Cause(parameter, second, factor, math.sqrt(size), spreads[at][0], frozenset(mended))
    return None


def _inputs(context: Context, at: int) -> list[int]:
    """The nodes that the projections of queries and keys read."""
    node = context.facts.nodes[at]
    if node.op == "mha":
        return list(dict.fromkeys(node.inputs[:2]))
    weights = {p.name for p in projections(context, at)}
    layers = [layer for name in weights for layer in context.layers_of(name) if layer.weight == name]
    reading = sorted((i for layer in layers for i in layer.nodes if i < at), reverse=True)
    return list(dict.fromkeys(i for index in reading for i in context.facts.nodes[index].inputs[:1]))


def _chosen(context: Context, index: int) -> bool:
    """Whether norms behind queries and keys leave the spread to a factor in the code."""
    nodes = context.facts.nodes
    sources = factors(context, index)
    return len(sources) >= 2 and all(_normalised(nodes, i) for i in sources)


def _normalised(nodes: tuple[Node, ...], index: int) -> bool:
    """Whether a signal is a norm's output, turned, scaled and rotated by what is no weight."""
    todo, seen = [index], {index}
    normed = False
    while todo:
        node = nodes[todo.pop()]
        if node.op == "norm":
            normed = True
            continue
        if node.op not in _KEEPING:
            return False
        todo += [i for i in node.inputs if i not in seen]
        seen.update(node.inputs)
    return normed


def _unscaled(node: Node) -> bool:
    scale, dim = node.attrs.get("scale"), node.attrs.get("head_dim")
    if not isinstance(scale, (int, float)) or not isinstance(dim, (int, float)):
        return False
    return scale * math.sqrt(dim) >= _UNSCALED


def _attention(scale: float) -> Any:
    import torch
    from torch import nn

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = nn.Linear(256, 256), nn.Linear(256, 256), nn.Linear(256, 256)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.q(x), self.k(x), self.v(x)
            return torch.softmax(q @ k.transpose(-2, -1) * scale, dim=-1) @ v

    return Attention()


def _translator(std: float) -> Any:
    import math

    import torch
    from torch import nn

    class Translator(nn.Module):
        """Vaswani et al. 2017, section 3.4: the embedding is multiplied by the root of its size; norms come last."""

        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.head = nn.Embedding(40, 64), nn.Linear(64, 40)
            nn.init.normal_(self.tokens.weight, std=std)
            self.layers = nn.TransformerEncoder(
                nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), 2, enable_nested_tensor=False
            )

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.head(self.layers(self.tokens(tokens) * math.sqrt(64)))

    return Translator(), (torch.randint(0, 40, (2, 20)),)
