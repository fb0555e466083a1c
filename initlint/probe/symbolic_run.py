"""Run a symbolic graph on real inputs: shapes, moments, and data flow made explicit.

After the run non-tensor nodes (sizes, numbers) are replaced by their values, and readers of a
tensor that was written in place read the node that wrote it.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import map_arg

from initlint.errors import ProbeError
from initlint.probe.recorded_storage import geometry, storage_key
from initlint.probe.recorded_values import describe
from initlint.probe.traced import KEY, Meta, meta_of, tensors_in, version_of


class GraphRun:
    """One execution of ``graph``.

    Args:
        attributes: parameters, buffers and constants by ``get_attr`` target.
        batch: number of samples, ``None`` when unknown.
    """

    def __init__(
        self,
        graph: fx.Graph,
        root: nn.Module,
        attributes: Mapping[str, torch.Tensor],
        *,
        batch: int | None,
        measure: bool = True,
        gradients: bool = False,
    ) -> None:
        self.graph, self.root, self.attributes = graph, root, attributes
        self.batch, self.measure, self.gradients = batch, measure, gradients
        self.env: dict[fx.Node, Any] = {}
        self.values: dict[fx.Node, tuple[Any, Any]] = {}
        self.edges: dict[fx.Node, Any] = {}
        self.result: Any = None
        self._modules = dict(root.named_modules())
        self._written: dict[fx.Node, list[torch.Tensor]] = {}

    def run(self, tensors: Sequence[torch.Tensor]) -> Any:
        """Execute the graph on the placeholders' values, in order.

        Raises:
            ProbeError: writes in place reach views of the same memory; a recording handles these.
        """
        feed = iter(tensors)
        for node in self.graph.nodes:
            if node.op == "output":
                self.result = map_arg(node.args[0], self.env.__getitem__)
                break
            value = next(feed) if node.op == "placeholder" else self._call(node)
            self.env[node] = value
            self._describe(node, value)
        self._resolve_writes()
        self._fold()
        return self.result

    def _call(self, node: fx.Node) -> Any:
        if node.op == "get_attr":
            return self._attribute(str(node.target))
        args = map_arg(node.args, self.env.__getitem__)
        kwargs = map_arg(node.kwargs, self.env.__getitem__)
        operands = list(tensors_in((args, kwargs)))
        before = [version_of(t) for t in operands]
        if node.op == "call_function":
            assert callable(node.target)
            value = node.target(*args, **kwargs)
        elif node.op == "call_method":
            value = getattr(args[0], str(node.target))(*args[1:], **kwargs)
        else:
            value = self._modules[str(node.target)](*args, **kwargs)
        written = [t for t, v in zip(operands, before, strict=True) if version_of(t) != v]
        if written:
            self._written[node] = written
        return value

    def _attribute(self, target: str) -> Any:
        if target in self.attributes:
            return self.attributes[target]
        value: Any = self.root
        for name in target.split("."):
            value = getattr(value, name)
        return value

    def _describe(self, node: fx.Node, value: Any) -> None:
        old = meta_of(node)
        shown = self._written[node][0] if node in self._written and value is None else value
        meta = describe(shown, self.batch, measure=self.measure)
        meta.module, meta.site, meta.untrained = old.module, old.site, old.untrained
        if node.op == "get_attr":
            meta.batch = None
        node.meta[KEY] = meta
        self.values[node] = (shown, version_of(shown))
        if self.gradients and isinstance(shown, torch.Tensor) and shown.requires_grad:
            with suppress(RuntimeError):
                self.edges[node] = torch.autograd.graph.get_gradient_edge(shown)

    def _resolve_writes(self) -> None:
        """Let readers after a write in place read the writer."""
        if not self._written:
            return
        current: dict[int, fx.Node] = {}
        memory: dict[Any, dict[tuple[Any, ...], int]] = {}
        for node in self.graph.nodes:
            for source in node.all_input_nodes:
                value = self.env.get(source)
                latest = current.get(id(value)) if isinstance(value, torch.Tensor) else None
                if latest is not None and latest is not source:
                    node.replace_input_with(source, latest)
            for tensor in self._written.get(node, ()):
                others = memory.get(storage_key(tensor), {})
                if any(shape != geometry(tensor) for shape in others):
                    raise ProbeError("a tensor with views is written in place")
                current[id(tensor)] = node
            if node.op == "get_attr" and node not in self._written:
                continue
            for tensor in tensors_in(self.env.get(node)):
                memory.setdefault(storage_key(tensor), {})[geometry(tensor)] = id(tensor)

    def _fold(self) -> None:
        """Replace nodes that hold no tensor by their values, and drop what nothing reads any more."""
        folded = {n: _plain(v) for n, v in self.env.items() if n.op != "placeholder" and _is_plain(v)}
        for node in self.graph.nodes:
            if any(source in folded for source in node.all_input_nodes):
                node.args = map_arg(node.args, lambda n: folded.get(n, n))
                node.kwargs = map_arg(node.kwargs, lambda n: folded.get(n, n))
        for node in reversed(list(folded)):
            if not node.users and node not in self._written:
                self.graph.erase_node(node)
                self.values.pop(node, None)


def _is_plain(value: Any) -> bool:
    if value is None or isinstance(value, (bool, int, float, str, torch.dtype, torch.device, torch.Size)):
        return True
    return isinstance(value, (tuple, list)) and all(_is_plain(v) for v in value)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, torch.Size) else value


def resolve_named_writes(graph: fx.Graph) -> None:
    """Without a run: in-place methods (``add_``), ``setitem`` and in-place operators, told by their names."""
    latest: dict[fx.Node, fx.Node] = {}
    origin: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        for source in node.all_input_nodes:
            now = latest.get(origin.get(source, source))
            if now is not None and now is not source:
                node.replace_input_with(source, now)
        if _writes_first(node):
            base = origin.get(node.args[0], node.args[0])
            origin[node] = base
            latest[base] = node


def _writes_first(node: fx.Node) -> bool:
    if not node.args or not isinstance(node.args[0], fx.Node):
        return False
    if node.op == "call_method":
        name = str(node.target)
        return name.endswith("_") and not name.endswith("__")
    if node.op != "call_function":
        return False
    name = getattr(node.target, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__")
    return node.target is operator.setitem or bool(node.kwargs.get("inplace")) or in_place or _is_iop(node.target)


def _is_iop(target: Any) -> bool:
    return getattr(target, "__module__", "") == "_operator" and getattr(target, "__name__", "") in _IOPS


_IOPS = frozenset({"iadd", "isub", "imul", "itruediv", "ipow", "imatmul", "iand", "ior", "ixor", "ifloordiv", "imod"})


def blank(graph: fx.Graph) -> None:
    """Make sure that each node has a :class:`Meta`."""
    for node in graph.nodes:
        if KEY not in node.meta:
            node.meta[KEY] = Meta()
