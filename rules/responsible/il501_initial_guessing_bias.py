"""IL501: an untrained classifier that sends most inputs to one class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from initlint.facts import Node, ParameterFacts
from initlint.findings import Severity
from initlint.heads import drawn, loud_bias, of_layer, zeros
from initlint.rule import Context, Outcome, Rule, bad, good, site_of
from initlint.signal import Point
from initlint.signal.diagnostics import largest_share
from initlint.signal.verdict import thresholds
from initlint.upstream import contributors, judged, writers

# THEORY 6.2: gamma = c / (1 - c) of the logits. One ReLU layer has 0.47 and every trainable ReLU net some bias (Bassi
# et al. 2025), so only what is left above 9 is worth a word: nine tenths of the logits are the same for every input.
_GAMMA = 9.0
# The coordinates of a point in space and time.
_POINT = 4
# A batch or two of classes; the shares of a vocabulary are no matter of fairness.
_MOST_CLASSES = 1000


class InitialGuessingBias(Rule):
    """An untrained classifier assigns most inputs to a few classes, whatever the input.

    ## What it does
    Predicts how much of the logits' variance between classes is the same for all inputs, and from it the share of
    inputs that the favourite class gets. Reports where nine tenths are the same, and a head of zero weights whose bias
    is left as it was drawn, by which one class gets all inputs. Networks whose branches start closed on purpose, biases
    that were given values (class priors) and vectors that are no class scores are left alone.

    ## Why is this bad?
    The favourite is drawn at random with the weights. Classes that the net disfavours at the start are learned
    later, which adds to the disadvantage of rare classes (Francazi et al. 2024). Some bias comes with every trainable
    ReLU net; this is a note on a choice, not a defect.

    ## Example
    ```python
    nn.Sequential(*[m for _ in range(20) for m in (nn.Linear(64, 64), nn.ReLU())], nn.Linear(64, 10))
    ```

    ## Use instead
    ```python
    nn.Sequential(..., nn.BatchNorm1d(64), nn.Linear(64, 10))  # or zeros for the head's weight and bias
    ```

    ## Known problems
    Inputs are taken as white noise; real images are more alike, and the bias is then larger. A bare linear layer of few
    outputs at the end of a net is taken for the scores of a classifier: a regression of several numbers looks the same.

    ## References
    - Francazi et al. 2024, Initial Guessing Bias, arXiv:2306.00809
    - Bassi et al. 2025, arXiv:2505.12096
    """

    code = "IL501"
    name = "initial-guessing-bias"
    family = "responsible"
    severity = Severity.NOTE
    sources = ("Francazi et al. 2024, arXiv:2306.00809",)

    def check(self, context: Context) -> Iterator[Outcome]:
        signal, loss = context.signal, context.signal.init_loss
        if loss is None or loss.classes > _MOST_CLASSES or not judged(context):
            return
        bias = _alone(context, loss.head)
        if bias is not None:
            yield from self._by_bias(context, loss.head, loss.classes, bias)
            return
        if signal.built is not signal.opened:
            return
        if signal.dependent_span >= thresholds(context.settings.optimizer)[0]:
            return  # the signal itself is lost: IL205
        gamma = _gamma(context, loss.head)
        if gamma is None or gamma <= _GAMMA or not _scores_classes(context, loss.head):
            return
        share = largest_share(gamma, loss.classes)
        own = loud_bias(context, loss.head)
        if own is not None and not drawn(own):
            return  # the logarithms of class priors: that classes differ is somebody's choice
        guilty = [own] if own is not None else contributors(context, _depends)
        guilty = guilty or writers(context, loss.head, roles=("weight",))
        common, sends = gamma / (1 + gamma), _sends(context, loss.head, share, loss.classes)
        yield self.finding(
            context,
            f"untrained, the net {sends}: {common:.1%} of the logits' variance is the same for every input",
            parameters=[p.name for p in guilty],
            site=site_of(guilty[0]) if guilty else None,
            expected={"largest_share": 1 / loss.classes},
            actual={"largest_share": share, "gamma": gamma, "classes": loss.classes},
            effect=f"a class chosen at random starts with {share:.0%} of the inputs",
            fix=_remedy(context, loss.head),
            topic="bias",
        )

    def _by_bias(self, context: Context, head: int, classes: int, bias: ParameterFacts) -> Iterator[Outcome]:
        """Of logits that are the bias alone, whose largest entry is the class of all inputs."""
        if not _scores_classes(context, head):
            return
        yield self.finding(
            context,
            f"untrained, the net {_sends(context, head, 1.0, classes)}: the weights of the last layer are zero and its"
            f" bias `{bias.name}`, which is drawn at random, decides alone",
            parameters=[bias.name],
            site=site_of(bias),
            expected={"largest_share": 1 / classes},
            actual={"largest_share": 1.0, "classes": classes},
            effect="a class chosen at random starts with all of the inputs",
            fix=zeros(bias),
            topic="bias",
        )

    @bad
    def deep_rectifiers() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(24):
            linear = nn.Linear(128, 128)
            nn.init.kaiming_normal_(linear.weight)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(128, 10))

    @good
    def shallow_rectifiers() -> Any:
        from torch import nn

        return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def _sends(context: Context, head: int, share: float, classes: int) -> str:
    """What becomes of inputs, as sure as it is that the outputs are scores of classes."""
    if any(n.index > head and _compares(n) for n in context.facts.nodes):
        return f"sends {share:.0%} of all inputs to one of {classes} classes"
    return f"would send {share:.0%} of all inputs to one class, if its {classes} outputs are scores of them"


def _alone(context: Context, head: int) -> ParameterFacts | None:
    """The bias of a head whose weights are all zero, where it differs between classes and nobody chose how."""
    weight, bias = of_layer(context, head, "weight"), of_layer(context, head, "bias")
    closed = weight is not None and weight.stats is not None and weight.stats.second == 0.0
    return bias if closed and bias is not None and _varies(bias) and bias.requires_grad else None


def _varies(bias: ParameterFacts) -> bool:
    """Whether a bias prefers classes by chance: one that is the same for all moves no verdict."""
    return bias.stats is not None and bias.stats.minimum < bias.stats.maximum and drawn(bias)


def _remedy(context: Context, head: int) -> str:
    """Zeros for the head, by the name that it has in the model; with a bias left as it was drawn, that alone would
    then choose one class for all inputs."""
    weight, bias = of_layer(context, head, "weight"), of_layer(context, head, "bias")
    if weight is None:
        return "a BatchNorm before the head"
    both = (weight, bias) if bias is not None and _varies(bias) else (weight,)
    return f"{zeros(*both)}  # or a BatchNorm before the head"


def _depends(point: Point) -> float:
    return point.dependent - point.q


def _gamma(context: Context, head: int) -> float | None:
    """Common over own variance of the logits; means over positions are not counted, which white noise exaggerates."""
    signal = context.signal
    point = next((p for p in signal.profile if p.node == head), None)
    if point is None or signal.sweeps is None or point.share <= 0:  # of no differences at all the size is not known
        return None
    x = signal.sweeps[1].states[head]
    own = x.q * 10 ** min(point.dependent - point.q, 0.0)
    if own <= 0 or x.undetermined or x.v <= own:
        return None if own <= 0 else 0.0
    return (x.v - own) / own


def _scores_classes(context: Context, head: int) -> bool:
    """A vector for each sample, read off features that are at least as many, or off pooled ones, or through softmax.

    Values that are taken apart, that come beside those of another head, or are a function of places are no scores of
    exclusive classes unless something is done to them that only such scores are for.
    """
    nodes = context.facts.nodes
    node = nodes[head]
    if node.shape is None or len(node.shape) != 2 or node.operator is None:
        return False
    if any(n.index > head and _compares(n) for n in nodes):
        return True
    if _taken_apart(context, head) or _several_heads(context, head) or _of_places(nodes, head):
        return False
    return node.operator.width_out <= node.operator.width_in or _pooled(nodes, node)


def _compares(node: Node) -> bool:
    """Whether an op compares classes with one another: softmax, cross-entropy, the greatest of them."""
    return node.op in ("softmax", "log_softmax", "loss") or node.attrs.get("name") == "argmax"


def _taken_apart(context: Context, head: int) -> bool:
    """Whether the outputs are split: a colour and a density, a mean and a variance, a box and a score."""
    nodes, at = context.facts.nodes, [head]
    for _ in range(8):
        users = [user for index in at for user in nodes if index in user.inputs]
        if any(user.op == "select" and user.attrs.get("axis") == "channel" for user in users):
            return True
        at = [user.index for user in users if user.op in ("reshape", "identity", "scale", "shift")]
    return False


def _several_heads(context: Context, head: int) -> bool:
    """Whether the model returns what other last layers of another width say, too."""
    scene = context.signal.scene
    if scene is None:
        return False
    heads = {found for index in context.facts.outputs for found in _heads(context, index)}
    return len({scene.layout(index).channels for index in heads | {head}}) > 1


def _heads(context: Context, output: int) -> Iterator[int]:
    """The last layers of the vectors, one for each sample, that an output node returns."""
    nodes = context.facts.nodes
    for source in nodes[output].inputs if nodes[output].op == "output" else (output,):
        node = nodes[source]
        while node.op in ("reshape", "identity", "scale", "shift") and node.inputs:
            node = nodes[node.inputs[0]]
        if node.op == "linear" and node.shape is not None and len(node.shape) == 2:
            yield node.index


def _of_places(nodes: tuple[Node, ...], head: int) -> bool:
    """Whether sines and cosines of an input are what the first layer reads: the code of a place (Mildenhall et al.
    2020; Tancik et al. 2020), or a point is read again halfway (Park et al. 2019, DeepSDF): the net is a function over
    space."""
    data = {node.index for node in nodes if node.op == "input"}
    for node in nodes[:head]:
        if node.op == "activation" and node.attrs.get("fn") in ("sin", "cos") and data.issuperset(node.inputs):
            return True
        if node.op in ("scale", "shift", "reshape", "identity", "select", "stack", "cat", "mul") and node.inputs:
            fixed = all(i in data or nodes[i].op == "constant" for i in node.inputs)
            data |= {node.index} if fixed else set()
        points = [i for i in node.inputs if i in data and (nodes[i].shape or (_POINT + 1,))[-1] <= _POINT]
        if node.op == "cat" and points and not data.issuperset(node.inputs):
            return True
    return False


def _pooled(nodes: tuple[Node, ...], node: Node) -> bool:
    for _ in range(8):
        if not node.inputs:
            return False
        node = nodes[node.inputs[0]]
        if node.op in ("pool", "reduce"):
            return True
    return False
