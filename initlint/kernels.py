"""Layers whose output is the kernel of a convolution: hypernetworks and kernels mixed from a bank of experts.

What is to have the variance of a scheme is the kernel, whose fan is that of the convolution: with a layer that sums n
features of unit size the weights need 1 / n of it (Chang et al. 2020, Principled weight initialization for
hypernetworks, eq. 4). Shares of a softmax or a sigmoid pick about one expert, and take nothing off (Yang et al. 2019,
CondConv, whose experts start as kernels of their own).
"""

from __future__ import annotations

from dataclasses import replace

from initlint.facts import Layer, ModelFacts, Node
from initlint.wiring import SCALED, TRANSPARENT, reached, source, transparent

#: Ops between a convolution and the activation that its scheme is for.
_BEHIND = TRANSPARENT | {"add", "norm"}
#: What makes shares.
_SHARES = ("sigmoid", "hardsigmoid")


def of_kernels(facts: ModelFacts, layer: Layer) -> Layer:
    """The layer as what makes kernels: layout "kernels", the fan and the activation of their convolution.

    Any other layer comes back as it is.
    """
    convolution = _convolution(facts, layer)
    terms = convolution.attrs.get("contraction") if convolution is not None else None
    if convolution is None or not isinstance(terms, int) or not layer.fan_in:
        return layer
    node = facts.nodes[layer.nodes[0]]
    before = source(facts, node.inputs[0], SCALED) if node.inputs else node
    shares = before.op == "softmax" or (before.op == "activation" and before.attrs.get("fn") in _SHARES)
    behind = reached(facts, convolution.index, lambda n: n.op in _BEHIND)
    activation = next((n for n in behind if n.op == "activation"), None)
    fan = float(terms) if shares else layer.fan_in * terms
    return replace(
        layer,
        layout="kernels",
        fan_in=fan,
        fan_out=fan,  # of the forward alone: how many outputs one input reaches is not known of a kernel made anew
        torch_fans=None,
        blocks=(),
        activation=str(activation.attrs.get("fn")) if activation is not None else None,
        consumer="activation" if activation is not None else None,
    )


def channels_last(facts: ModelFacts, layer: Layer, shape: tuple[int, ...]) -> bool:
    """Whether a convolution's filter is kept as (*kernel, in, out), as other libraries do, and transposed when used."""
    node = facts.nodes[layer.nodes[0]] if layer.nodes and layer.nodes[0] < len(facts.nodes) else None
    if layer.kind != "conv" or node is None or node.operator is None or len(shape) < 3:
        return False
    kernel = node.attrs.get("kernel")
    outputs, inputs = node.operator.width_out, node.operator.width_in // max(layer.groups, 1)
    kept = isinstance(kernel, list) and list(shape[:-2]) == kernel and shape[-2:] == (inputs, outputs)
    return kept and shape != (outputs, inputs, *shape[:-2])


def channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The same shape as torch has it: (out, in, *kernel)."""
    return (shape[-1], shape[-2], *shape[:-2])


def _convolution(facts: ModelFacts, layer: Layer) -> Node | None:
    """The convolution that takes the output of a linear layer, reshaped, as its kernel."""
    if layer.kind not in ("linear", "matmul") or len(layer.nodes) != 1 or layer.nodes[0] >= len(facts.nodes):
        return None  # (facts may come without a graph)
    ways = {layer.nodes[0]}
    for node in reached(facts, layer.nodes[0], transparent):
        kernel = node.inputs[1] if len(node.inputs) > 1 else None
        if node.op == "matmul" and node.attrs.get("convolution") and kernel in ways:
            return node
        ways.add(node.index)
    return None
