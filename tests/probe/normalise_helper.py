"""Canonical nodes and layers of small models, by either way of tracing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from initlint.facts import Layer, ModuleFacts, Node, ParameterFacts
from initlint.probe import trace as tracing
from initlint.probe.inputs import find
from initlint.probe.normalise import normalise
from initlint.probe.pair import pair


class Call(nn.Module):
    """A function as a model; ``held`` becomes its parameters, buffers and modules."""

    def __init__(self, function: Callable[..., Any], recorded: bool = False, **held: Any) -> None:
        super().__init__()
        self.function, self.recorded = function, recorded
        for name, value in held.items():
            if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(self, *args: Any) -> Any:
        if self.recorded and not isinstance(args[0], torch.Tensor):  # no symbolic tracer gets past this
            raise TypeError
        return self.function(self, *args)


def traced(model: nn.Module, *inputs: Any) -> tuple[tuple[Node, ...], tuple[int, ...]]:
    """Nodes and outputs of a model run on these inputs."""
    given = find(model, {"example_inputs": lambda: inputs}, (), seed=0)
    return normalise(tracing.trace(model, given, measure=False, seed=0), None)


def layers(model: nn.Module, *inputs: Any) -> tuple[Layer, ...]:
    """Layers of a model run on these inputs."""
    nodes, _ = traced(model, *inputs)
    return pair(nodes, parameter_facts(model), module_facts(model))


def parameter_facts(model: nn.Module) -> tuple[ParameterFacts, ...]:
    """Bare facts of parameters, tied ones once."""
    seen: dict[int, str] = {}
    aliases: dict[str, list[str]] = {}
    kept: dict[str, torch.Tensor] = {}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        first = seen.setdefault(id(tensor), name)
        if first == name:
            kept[name] = tensor
        else:
            aliases.setdefault(first, []).append(name)
    return tuple(
        ParameterFacts(
            name=name,
            kind="parameter",
            shape=tuple(tensor.shape),
            dtype="float32",
            module=name.rpartition(".")[0],
            local=name.rpartition(".")[2],
            aliases=tuple(aliases.get(name, ())),
        )
        for name, tensor in kept.items()
    )


def module_facts(model: nn.Module) -> tuple[ModuleFacts, ...]:
    """Bare facts of modules."""
    return tuple(
        ModuleFacts(
            name=name,
            cls=type(module).__name__,
            parameters=tuple(f"{name}.{k}" if name else k for k, _ in module.named_parameters(recurse=False)),
            library="torch" if type(module).__module__.startswith("torch.") else "user",
        )
        for name, module in model.named_modules()
    )


def ops(nodes: tuple[Node, ...]) -> list[str]:
    """The ops without inputs and outputs."""
    return [n.op for n in nodes if n.op not in ("input", "output")]
