"""Symbolic tracing with torch.fx: fast, needs no input; an untraceable child becomes a leaf.

Unlike ``torch.fx.symbolic_trace`` nothing is stored on the model, arguments that the caller does
not give keep their defaults, hooks of the root run, and torch containers are looked into.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping, Sequence
from dataclasses import field
from types import SimpleNamespace
from typing import Any

import torch
from torch import fx, nn

from initlint.errors import ProbeError
from initlint.probe.recorded_frames import user_site
from initlint.probe.recorded_leaf import children, is_leaf
from initlint.probe.traced import CONSTANT, KEY, Meta, argument_names, unknown_source
from initlint.records import dataclass

# A model with more untraceable children than this is not worth retrying child by child.
_MAX_RETRIES = 40
# Seconds after which the children that are left are not traced any more.
_DEADLINE = 10.0


@dataclass(slots=True)
class Symbolic:
    """Result of tracing: the graph, constants met, what became a leaf and why."""

    graph: fx.Graph
    constants: dict[str, torch.Tensor] = field(default_factory=dict)
    failures: tuple[str, ...] = ()  # "path: reason", one for each module that could not be traced
    complete: bool = True  # the root itself was traced


class _Parameter(fx.proxy.ParameterProxy):
    """A parameter whose sizes are known, also one at a time: torch's own takes no axis."""

    def size(self, dim: int | None = None) -> Any:
        return self.param.size() if dim is None else self.param.size(dim)

    def __len__(self) -> int:
        return len(self.param)


class _Tracer(fx.Tracer):
    """One attempt; ``failed`` is the innermost module whose forward raised."""

    def __init__(self, leaves: Mapping[int, str], given: tuple[Sequence[Any], Mapping[str, Any]] | None) -> None:
        super().__init__()
        self.leaves = leaves
        self.given = given
        self.training = torch.is_grad_enabled()
        self.failed: nn.Module | None = None
        self.constants: dict[str, torch.Tensor] = {}
        self.path = [""]
        self._names: dict[int, str] = {}
        self._attributes: dict[int, str] = {}

    def run(self, root: nn.Module) -> fx.Graph:
        self._names = {id(m): n for n, m in root.named_modules()}
        for table in (root.named_parameters(), root.named_buffers()):
            for name, tensor in table:
                self._attributes.setdefault(id(tensor), name)
        return self.trace(root)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return id(m) in self.leaves or is_leaf(m)

    def path_of_module(self, mod: nn.Module) -> str:
        name = self._names.get(id(mod))
        if name is None:
            raise NameError("module is not installed as a submodule")
        return name

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        name = self._names.get(id(m))
        if name is None:  # made on the fly
            return forward(*args, **kwargs)
        self.path.append(name)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            if self.failed is None:
                self.failed = m
            raise
        finally:
            self.path.pop()

    def create_node(
        self, kind: str, target: Any, args: Any, kwargs: Any, name: Any = None, type_expr: Any = None
    ) -> Any:
        node = super().create_node(kind, target, args, kwargs, name, type_expr)
        untrained = self.training and not torch.is_grad_enabled()
        node.meta[KEY] = Meta(module=self.path[-1], site=user_site(2), untrained=untrained)
        return node

    def create_arg(self, a: Any) -> Any:
        if isinstance(a, torch.Tensor):
            target = self._attributes.get(id(a)) or self.tensor_attrs.get(a)
            if target is None:
                target = next((k for k, v in self.constants.items() if v is a), f"{CONSTANT}{len(self.constants)}")
            if id(a) not in self._attributes:
                self.constants[target] = a
            return self.create_node("get_attr", target, (), {})
        return super().create_arg(a)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        # fx searches all parameters of the model at each access; shapes of parameters are known.
        name = self._attributes.get(id(attr_val)) if isinstance(attr_val, nn.Parameter) else None
        if name is None:
            return attr_val
        if name not in parameter_proxy_cache:
            node = self.create_node("get_attr", name, (), {})
            parameter_proxy_cache[name] = _Parameter(self, node, name, attr_val)
        return parameter_proxy_cache[name]

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        root = self.root
        args, kwargs = self._bind(root)

        def call() -> Any:
            # __call__ is patched by the tracer here: hooks of the root run as well.
            return root(*args, **kwargs)

        return call, []

    def _bind(self, root: nn.Module) -> tuple[list[Any], dict[str, Any]]:
        if self.given is None:
            return self._from_signature(root)
        names = argument_names(root, *self.given)
        fresh = iter(names)

        def proxy(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                return self.create_proxy("placeholder", next(fresh), (), {})
            if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
                return type(value)(proxy(v) for v in value)
            if type(value) is dict:
                return {k: proxy(v) for k, v in value.items()}
            if type(value) is SimpleNamespace:
                return SimpleNamespace(**proxy(vars(value)))
            return value

        return [proxy(a) for a in self.given[0]], {k: proxy(v) for k, v in self.given[1].items()}

    def _from_signature(self, root: nn.Module) -> tuple[list[Any], dict[str, Any]]:
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        parameters = list(inspect.signature(root.forward).parameters.values())
        for p in parameters:
            required = p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
            if required or (p.kind is p.VAR_POSITIONAL and not args):
                args.append(self.create_proxy("placeholder", p.name, (), {}))
            elif p.default is p.empty and p.kind is p.KEYWORD_ONLY:
                kwargs[p.name] = self.create_proxy("placeholder", p.name, (), {})
        if not args and not kwargs:  # every argument has a default: the first is the signal
            first = next((p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD), None)
            if first is not None:
                args.append(self.create_proxy("placeholder", first.name, (), {}))
        return args, kwargs


def trace_whole(root: nn.Module, given: tuple[Sequence[Any], Mapping[str, Any]] | None = None) -> Symbolic:
    """Trace the model in one graph.

    Args:
        given: ``(args, kwargs)`` of a call: its tensors become placeholders, other values stay as
            they are. Without it, arguments without default become placeholders.

    Raises:
        ProbeError: the forward cannot be traced symbolically, with the reason.
    """
    tracer = _Tracer({}, given)
    try:
        graph = tracer.run(root)
    except (Exception, SystemExit) as error:
        raise ProbeError(f"symbolic tracing failed: {reason_of(error)}") from error
    return Symbolic(graph, tracer.constants)


def reason_of(error: BaseException) -> str:
    """First line of an exception, with its type."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__


def trace_mixed(root: nn.Module) -> Symbolic:
    """Trace what can be traced without inputs.

    A child whose forward cannot be traced becomes a leaf of its parent's graph; its own children
    are traced in turn, as islands of the same graph that start from unknown sources.
    """
    result = Symbolic(fx.Graph())
    names = {id(m): n for n, m in root.named_modules()}
    _Islands(result, names, time.monotonic() + _DEADLINE).add(root)
    result.graph.output(())
    return result


class _Islands:
    def __init__(self, result: Symbolic, names: Mapping[int, str], deadline: float) -> None:
        self.result, self.names, self.deadline = result, names, deadline
        self.done: set[int] = set()

    def add(self, module: nn.Module) -> None:
        """Append the graph of a module (or, where it has none, of its children) to the result."""
        if id(module) in self.done or time.monotonic() > self.deadline:
            return
        self.done.add(id(module))
        if next(iter(module.parameters()), None) is None or (is_leaf(module) and self.names[id(module)]):
            return
        leaves: dict[int, str] = {}
        opened: list[nn.Module] = []
        for _ in range(_MAX_RETRIES):
            tracer = _Tracer(leaves, None)
            try:
                graph = tracer.run(module)
            except (Exception, SystemExit) as error:
                failed = tracer.failed
                self._note(failed or module, error)
                if failed is None or failed is module or id(failed) in leaves:
                    break
                leaves[id(failed)] = reason_of(error)
                opened.append(failed)
                continue
            self._append(module, graph, tracer.constants, leaves)
            for child in opened:
                self._children(child)
            return
        self.result.complete = self.result.complete and bool(self.names[id(module)])
        self._children(module)

    def _children(self, module: nn.Module) -> None:
        for _, child in children(module):
            self.add(child)

    def _note(self, module: nn.Module, error: BaseException) -> None:
        name = self.names[id(module)] or type(module).__name__
        self.result.failures += (f"{name}: {reason_of(error)}",)

    def _append(
        self, module: nn.Module, graph: fx.Graph, constants: Mapping[str, torch.Tensor], leaves: Mapping[int, str]
    ) -> None:
        prefix = self.names[id(module)]
        into = self.result.graph
        copied: dict[fx.Node, fx.Node] = {}
        for node in graph.nodes:
            if node.op == "output":
                continue
            if node.op == "placeholder" and prefix:
                copied[node] = into.create_node("call_function", unknown_source, (), {}, name=str(node.target))
            else:
                copied[node] = into.node_copy(node, copied.__getitem__)
            self._relocate(copied[node], node, module, prefix, constants, leaves)

    def _relocate(
        self,
        copy: fx.Node,
        node: fx.Node,
        module: nn.Module,
        prefix: str,
        constants: Mapping[str, torch.Tensor],
        leaves: Mapping[int, str],
    ) -> None:
        """Give a copied node its place in the whole model: target, module path, why it is opaque."""
        old = node.meta[KEY]
        meta = Meta(module=_join(prefix, old.module), site=old.site, untrained=old.untrained)
        if node.op == "placeholder" and prefix:
            meta.unknown = f"input of {prefix}, which is traced on its own"
        if node.op == "get_attr" and node.target in constants:
            value = constants[str(node.target)]
            found = next((k for k, v in self.result.constants.items() if v is value), None)
            copy.target = found or f"{CONSTANT}{len(self.result.constants)}"
            self.result.constants[copy.target] = value
        elif node.op in ("get_attr", "call_module"):
            if node.op == "call_module":
                meta.unknown = leaves.get(id(module.get_submodule(str(node.target))), "")
            copy.target = _join(prefix, str(node.target))
        copy.meta[KEY] = meta


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix and name else prefix or name
