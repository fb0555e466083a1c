"""Which parameters can ever receive a gradient: exact zeros followed through the graph.

Zeros are structure, not scale: a product of two zero factors has a zero gradient for both, for
ever, while a single zero (LoRA's B, a zero convolution, a zero gamma) opens at the first step. So
values and gradients are followed as "zero" or "not zero" through every op, every parameter with a
gradient is opened as one optimiser step would, and this is repeated until nothing changes. What is
still without gradient then is stuck. The scheme is exact for generic inputs up to cancellation
(a - a), which is not a zero that this module sees.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from initlint.facts import ModelFacts, Node, ParameterFacts, Plain
from initlint.records import dataclass

#: Elementwise functions that map 0 to something else than 0.
_LIFTS_ZERO = frozenset(
    [
        "sigmoid",
        "logsigmoid",
        "softplus",
        "hardsigmoid",
        "exp",
        "cos",
        "rsqrt",
        "reciprocal",
        "log",
        "softmax",
        "log_softmax",
        "pow0",
        "cosh",
        "erfc",
    ]
)
#: Elementwise functions whose derivative at exactly 0 is 0 in PyTorch (relu's subgradient is 0).
_FLAT_AT_ZERO = frozenset(
    [
        "relu",
        "relu6",
        "abs",
        "square",
        "relu_squared",
        "cos",
        "sign",
        "hardshrink",
        "softshrink",
        "threshold",
        "threshold_0_0",
        "heaviside",
        "round",
        "floor",
        "ceil",
        "log1p_relu",
        "tanhshrink",
        "clamp_min",
        "sqrt",
    ]
)
#: Reductions whose derivative at all zeros is zero: quadratic ones, and norms by PyTorch's subgradient.
_FLAT_REDUCTIONS = frozenset(["norm", "var", "std"])
#: Attribute of the nodes that this module works on: which zero parameters close a weight made of several.
_CLOSED = "closed_by"
_MAX_STEPS = 64  # optimiser steps followed; a chain of k zero factors needs k steps to open, or never does


@dataclass(frozen=True, slots=True)
class Liveness:
    """The result of ``liveness``. All names are parameter names.

    stuck: no gradient at the start and at no later step.
    first: no gradient at the first step only (what zero-initialised writers do upstream).
    silent: indices of nodes whose output is exactly zero as built.
    cut: no input reaches the outputs as built (the output does not depend on the input).
    """

    stuck: tuple[str, ...]
    first: tuple[str, ...]
    silent: frozenset[int]
    cut: bool


def liveness(facts: ModelFacts, opened: Collection[str] = ()) -> Liveness:
    """Follow exact zeros through the traced graph of ``facts``; linear in nodes for each step.

    Args:
        opened: zero parameters that are taken to hold something else.
    """
    parameters = {name: p for p in facts.parameters for name in (p.name, *p.aliases)}
    zero = {name for name, p in parameters.items() if _is_zero(p) and p.name not in opened}
    nodes = [_closed(node, parameters) for node in facts.nodes]
    used = {name for node in nodes for name in node.parameters.values() if name in parameters}
    trainable = {name for name in used if _trainable(parameters[name])}
    first_alive: set[str] | None = None
    silent: frozenset[int] = frozenset()
    alive: set[str] = set()
    for _ in range(_MAX_STEPS):
        live = _forward(nodes, zero)
        grad = _backward(nodes, facts.outputs, live, zero)
        alive |= _gradients(nodes, live, grad, zero, trainable)
        if first_alive is None:
            first_alive = set(alive)
            silent = frozenset(i for i, is_live in enumerate(live) if not is_live)
        moved = zero & alive
        if not moved:
            break
        zero -= moved
    first_alive = first_alive or set()
    reached = _reached(facts)
    return Liveness(
        stuck=tuple(sorted(n for n in trainable - alive if n in reached)),
        first=tuple(sorted(n for n in alive - first_alive if n in reached)),
        silent=silent,
        cut=_cut(facts, zero_of(facts)),
    )


def zero_of(facts: ModelFacts) -> set[str]:
    """Names (and aliases) of the parameters and buffers that hold exact zeros only."""
    return {name for p in facts.parameters if _is_zero(p) for name in (p.name, *p.aliases)}


def _is_zero(parameter: ParameterFacts) -> bool:
    stats = parameter.stats
    return stats is not None and stats.count > 0 and stats.zeros == stats.count and not stats.nans and not stats.infs


def _trainable(parameter: ParameterFacts) -> bool:
    return parameter.kind == "parameter" and parameter.requires_grad and not parameter.dtype.startswith(("int", "bool"))


def _role(node: Node, role: str, zero: set[str]) -> bool | None:
    """Whether the parameter in that role is non-zero; ``None`` when there is none."""
    name = node.parameters.get(role)
    return None if name is None else name not in zero


def _closed(node: Node, parameters: dict[str, ParameterFacts]) -> Node:
    """The node; a weight computed from several (standardised, times a gain) that is zero by one of them says by which.

    What the others hold carries no signal then: the actual matrix tells, which the operator holds.
    """
    if node.operator is None:
        return node
    weights = [name for role, name in node.parameters.items() if "bias" not in role and name in parameters]
    if node.operator.gain != 0.0:
        if "expr" not in node.attrs:
            return node
        # something else keeps it open (an identity whose other entries are zero): these zeros close nothing
        others: list[Plain] = [name for name in weights if not _is_zero(parameters[name])]
        return replace(node, attrs={**node.attrs, _CLOSED: others}) if len(others) < len(weights) else node
    closing: list[Plain] = [name for name in weights if _is_zero(parameters[name])]
    return replace(node, attrs={**node.attrs, _CLOSED: closing}) if 0 < len(closing) < len(weights) else node


def _weight_live(node: Node, zero: set[str]) -> bool:
    products = _monomials(node)
    if products is not None:
        return any(zero.isdisjoint(product) for product in products)
    closing = node.attrs.get(_CLOSED)
    if isinstance(closing, list):
        return not zero.intersection(map(str, closing))
    weights = [name for role, name in node.parameters.items() if "bias" not in role]
    # several weights in one operator were put together (cat, pad): one that is not zero carries a signal
    return not weights or any(name not in zero for name in weights)


def _forward(nodes: Sequence[Node], zero: set[str]) -> list[bool]:
    live: list[bool] = []
    for node in nodes:
        live.append(_node_live(node, [live[i] for i in node.inputs], zero))
    return live


def _node_live(node: Node, inputs: list[bool], zero: set[str]) -> bool:
    op = node.op
    if op == "input":
        return True
    if op == "parameter":
        if "expr" in node.attrs:  # an expression of parameters: its actual values tell
            return node.attrs.get("second") != 0 or _expression_live(node, zero)
        return all(name not in zero for name in node.parameters.values())
    if op == "constant":
        return node.attrs.get("second") != 0
    if op in ("linear", "conv", "conv_transpose", "bilinear"):
        carried = any(name not in zero for role, name in node.parameters.items() if "bias" in role)
        return (all(inputs) and _weight_live(node, zero)) or carried
    if op == "embedding":
        return _role(node, "weight", zero) is not False
    if op == "norm":
        weight, bias = _role(node, "weight", zero), _role(node, "bias", zero)
        offset = bool(node.attrs.get("unit_offset"))
        return (all(inputs) and (weight is not False or offset)) or bias is True
    if op == "activation":
        return any(inputs) or node.attrs.get("fn") in _LIFTS_ZERO or node.attrs.get("fn") == "callable"
    if op in ("mul", "matmul", "glu", "scale", "div"):
        return all(inputs) and node.attrs.get("factor") != 0
    if op in ("softmax", "log_softmax", "shift", "opaque", "recurrent", "stop"):
        return True
    if op in ("attention", "mha"):
        return inputs[-1] if inputs else True
    return any(inputs) if inputs else True


def _monomials(node: Node) -> list[dict[str, Plain]] | None:
    """The products that an expression of parameters is a sum of; ``None`` where that is not known, or says nothing."""
    found = node.attrs.get("monomials")
    return [m for m in found if isinstance(m, dict)] if isinstance(found, list) else None


def _expression_live(node: Node, zero: set[str]) -> bool:
    products = _monomials(node)
    if products is not None:
        return any(zero.isdisjoint(product) for product in products)
    return any(name not in zero for name in node.parameters.values())


def _expression_gradient(products: list[dict[str, Plain]], name: str, zero: set[str]) -> bool:
    """Whether a parameter's own gradient is not zero in an expression: some product holds no other zero, nor it twice.

    d(w^2)/dw = 2 w, and d(a b)/da = b.
    """
    return any(
        name in product and zero.isdisjoint(product.keys() - {name}) and not (name in zero and product[name] != 1)
        for product in products
    )


def _backward(nodes: Sequence[Node], outputs: Sequence[int], live: list[bool], zero: set[str]) -> list[bool]:
    grad = [False] * len(nodes)
    for index in outputs:
        grad[index] = True
    for node in reversed(nodes):
        if not grad[node.index] or node.op == "stop":
            continue
        for position, source in enumerate(node.inputs):
            if not grad[source] and _passes(node, position, live, zero):
                grad[source] = True
    return grad


def _passes(node: Node, position: int, live: list[bool], zero: set[str]) -> bool:
    """Whether a gradient at the node's output reaches its ``position``-th input."""
    op = node.op
    inputs = node.inputs
    if op in ("linear", "conv", "conv_transpose", "bilinear"):
        others = all(live[j] for k, j in enumerate(inputs) if k != position)
        return _weight_live(node, zero) and others
    if op == "norm":
        weight = _role(node, "weight", zero)
        return weight is not False or bool(node.attrs.get("unit_offset"))
    if op == "activation":
        return live[inputs[position]] or not _flat(node)
    if op == "reduce" and node.attrs.get("fn") in _FLAT_REDUCTIONS:
        return live[inputs[position]]
    if op == "glu":
        return live[inputs[position]]
    if op in ("mul", "matmul"):
        return all(live[j] for k, j in enumerate(inputs) if k != position)  # d(x x) = 2 x: the same for a node twice
    if op == "div":
        return position == 0 or live[inputs[0]]
    if op == "scale":
        return node.attrs.get("factor") != 0
    if op == "attention":
        return position >= 2 or live[inputs[-1]]
    if op == "mha":
        if _role(node, "out", zero) is False:
            return False
        packed = _role(node, "in_proj", zero)
        return packed is not False
    return op not in ("stop", "input", "parameter", "constant", "embedding")


def _flat(node: Node) -> bool:
    """Whether a function's derivative at exactly zero is zero."""
    exponent = node.attrs.get("exponent")
    power = node.attrs.get("fn") == "pow" and isinstance(exponent, (int, float)) and exponent > 1
    return power or node.attrs.get("fn") in _FLAT_AT_ZERO


def _gradients(
    nodes: Sequence[Node], live: list[bool], grad: list[bool], zero: set[str], trainable: set[str]
) -> set[str]:
    """Parameters that receive a non-zero gradient."""
    alive: set[str] = set()
    for node in nodes:
        if not grad[node.index]:
            continue
        inputs = [live[i] for i in node.inputs]
        for role, name in node.parameters.items():
            if name in trainable and name not in alive and _role_gradient(node, role, inputs, zero):
                alive.add(name)
    return alive


def _role_gradient(node: Node, role: str, inputs: list[bool], zero: set[str]) -> bool:
    op = node.op
    products = _monomials(node)
    if products is not None and any(node.parameters[role] in product for product in products):
        passed = all(inputs) and _expression_gradient(products, node.parameters[role], zero)
        return passed or any(
            "bias" in other for other, name in node.parameters.items() if name == node.parameters[role]
        )
    if op in ("linear", "conv", "conv_transpose", "bilinear"):
        closing = node.attrs.get(_CLOSED)
        if isinstance(closing, list) and "bias" not in role:
            # the gradient of each factor holds the other: a gain waits for the matrix that is zero, not the reverse
            return all(inputs) and not zero.intersection(set(map(str, closing)) - {node.parameters[role]})
        return "bias" in role or all(inputs)
    if op == "norm" and role == "weight":
        return all(inputs)
    if op == "mha":
        others = {"out": ("in_proj",), "in_proj": ("out",)}.get(role, ())
        return all(_role(node, other, zero) is not False for other in others)
    return True


def _reached(facts: ModelFacts) -> set[str]:
    """Parameters of nodes from which an output can be reached at all (not through ``stop``)."""
    consumers = [False] * len(facts.nodes)
    for index in facts.outputs:
        consumers[index] = True
    for node in reversed(facts.nodes):
        if consumers[node.index] and node.op != "stop":
            for source in node.inputs:
                consumers[source] = True
    return {name for node in facts.nodes if consumers[node.index] for name in node.parameters.values()}


def _cut(facts: ModelFacts, zero: set[str]) -> bool:
    """Whether no output depends on any input as built."""
    parameters = {name: p for p in facts.parameters for name in (p.name, *p.aliases)}
    nodes = [_closed(node, parameters) for node in facts.nodes]
    live = _forward(nodes, zero)
    depends = [False] * len(nodes)
    for node in nodes:
        if node.op == "input":
            depends[node.index] = True
            continue
        depends[node.index] = any(
            depends[source] and _depends(node, position, live, zero) for position, source in enumerate(node.inputs)
        )
    return bool(facts.outputs) and not any(depends[index] for index in facts.outputs)


def _depends(node: Node, position: int, live: list[bool], zero: set[str]) -> bool:
    if node.op == "embedding":
        return _role(node, "weight", zero) is not False
    if node.op == "activation":
        return True
    return node.op == "stop" or _passes(node, position, live, zero)


def cuts_input(facts: ModelFacts, names: set[str]) -> bool:
    """Whether these parameters at zero, all others being non-zero, keep every input from every output."""
    return _cut(facts, names)
