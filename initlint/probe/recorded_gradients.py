"""One real backward: second moments of the gradients of all intermediate values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from initlint.probe.recorded_state import seeded
from initlint.probe.traced import Traced, meta_of

# Seeds of cotangents differ from the forward's, or noise made in the forward would be correlated with them.
_OFFSET = 7919


def gradient_seconds(traced: Traced, edges: Mapping[fx.Node, Any], seed: int, notes: list[str]) -> None:
    """Fill ``Measured.gradient_second``: E[g^2] where the outputs get independent N(0, 1) gradients.

    Args:
        edges: gradient edge of each node's output at the time it was made.
    """
    outputs = [n for n in traced.outputs if n in edges]
    if not outputs:
        notes.append("no gradient measured: no float output depends on parameters")
        return
    nodes = list(edges)
    try:
        with seeded(seed + _OFFSET):
            # One scalar: autograd imports sympy (0.5 s) to check the shapes of given output gradients.
            loss = torch.stack([_projected(traced, n) for n in outputs]).sum()
        gradients: Any = torch.autograd.grad(loss, [edges[n] for n in nodes], allow_unused=True)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        notes.append(f"no gradient measured: {str(error).splitlines()[0][:160]}")
        return
    seconds: dict[str, float] = {}
    for node, gradient in zip(nodes, gradients, strict=True):
        if gradient is None:
            continue
        second = float(gradient.detach().double().abs().square().mean()) if gradient.numel() else 0.0
        meta = meta_of(node)
        if meta.measured is not None:
            meta.measured = dataclasses.replace(meta.measured, gradient_second=second)
        if node.op == "get_attr":
            seconds[str(node.target)] = second
    traced.gradients = seconds


def _projected(traced: Traced, node: fx.Node) -> torch.Tensor:
    """<output, N(0, 1)>: its gradient with respect to the output is that noise."""
    value = traced.values[node][0]
    real = torch.view_as_real(value) if value.is_complex() else value
    return (real * torch.randn(real.shape, dtype=torch.float32).to(real.dtype)).sum().float()
