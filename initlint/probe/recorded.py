"""Record a torch.fx graph from one execution of a model.

Handles any control flow: a ``TorchFunctionMode`` sees every torch function with its arguments, a
patched ``nn.Module.__call__`` knows which module runs. The graph says where each tensor came from
(``recorded_storage``); what no torch function shows is an ``unknown_source``, never a constant.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import MethodDescriptorType, MethodType, WrapperDescriptorType
from typing import Any

import torch
from torch import fx, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode, _pop_mode_temporarily

from initlint.probe.recorded_answers import NO_ANSWER, answer
from initlint.probe.recorded_constants import memoised, reachable_tensors
from initlint.probe.recorded_frames import user_site
from initlint.probe.recorded_leaf import is_leaf, names_of, unwrapped
from initlint.probe.recorded_output import map_output
from initlint.probe.recorded_storage import Entry, Tensors, geometry, storage_key
from initlint.probe.recorded_support import (
    attributes_of,
    custom_function,
    holds_modules,
    is_apply,
    paths_of,
    written_share,
)
from initlint.probe.recorded_values import describe
from initlint.probe.traced import (
    CONSTANT,
    KEY,
    OPERATORS,
    REFLECTED,
    Meta,
    custom_backward,
    merge_view,
    meta_of,
    tensors_in,
    unknown_source,
    version_of,
    view_again,
)
from initlint.records import dataclass

# Beyond this many nodes (a Python loop over thousands of steps) the rest of the run is not recorded.
_MAX_NODES = 30_000

# Questions about tensors that neither make nor change one; the most frequent calls of a forward.
_QUESTION_NAMES = """size dim ndimension numel nelement stride is_contiguous is_floating_point is_complex is_signed
storage_offset element_size data_ptr get_device untyped_storage __len__ __repr__ __format__ __hash__ __bool__ __int__
__float__ __index__ item tolist equal allclose is_same_size requires_grad_ register_hook retain_grad is_tensor
is_nonzero result_type can_cast broadcast_shapes __contains__ is_inference is_shared dim_order"""
_QUESTIONS = frozenset(_QUESTION_NAMES.split())
# Attributes of tensors that are tensors computed from it.
_VIEWS = frozenset({"T", "mT", "H", "mH", "real", "imag", "data"})


@dataclass(frozen=True, slots=True)
class Failure:
    """The op that raised first: as its node would have been, and the shapes of its tensors."""

    op: str
    target: Any
    args: Any
    kwargs: Any
    shapes: tuple[tuple[int, ...], ...]


class Recorder(TorchFunctionMode):
    """Records one run of ``root`` into :attr:`graph`.

    Args:
        root: the model.
        batch: number of samples in the inputs, ``None`` when unknown.
        measure: take moments of every output (off on meta tensors).
        gradients: keep gradient edges of the outputs for a later backward.
        answers: answer data-dependent questions about meta tensors.
    """

    def __init__(
        self,
        root: nn.Module,
        *,
        batch: int | None = None,
        measure: bool = True,
        gradients: bool = False,
        answers: bool = False,
    ) -> None:
        super().__init__()
        self.root = root
        self.graph = fx.Graph()
        self.constants: dict[str, torch.Tensor] = {}
        self.values: dict[fx.Node, tuple[Any, Any]] = {}
        self.edges: dict[fx.Node, Any] = {}
        self.notes: list[str] = []
        self.outputs: tuple[fx.Node, ...] = ()
        self.failure: Failure | None = None
        self._batch, self._measure, self._gradients, self._answers = batch, measure, gradients, answers
        self._names = names_of(root)
        self._stack = [""]
        self._quiet = 0
        self._training = False  # whether the run records gradients outside of its no_grad parts
        self._thread = threading.get_ident()
        self._tensors = Tensors(self._view_again, self._merge, self._element)
        self._attributes = attributes_of(root)
        ready = [(n, t) for n, t in self._attributes.values() if not torch.nn.parameter.is_lazy(t)]
        self._by_storage = {storage_key(t): (n, t) for n, t in reversed(ready)}
        self._constants = reachable_tensors(root)
        self._targets: dict[Any, tuple[str, Any, bool]] = {}
        self._attribute_nodes: dict[str, fx.Node] = {}

    # -- running ---------------------------------------------------------------------------------

    def run(self, args: Sequence[Any], kwargs: Mapping[str, Any], names: Sequence[str]) -> Any:
        """Call the model and record it; whatever was recorded stays when the model raises.

        Args:
            names: a name for each tensor in ``(args, kwargs)``, in order.
        """
        self._training = torch.is_grad_enabled()
        tensors = list(tensors_in((tuple(args), dict(kwargs))))
        for index, tensor in enumerate(tensors):
            name = names[index] if index < len(names) else f"input_{index}"
            self._register(self.graph.placeholder(name), tensor)
        with ExitStack() as stack:
            stack.enter_context(_patched(self))
            stack.enter_context(self)
            result = self.root(*args, **kwargs)
        self._finish(result)
        return result

    def _finish(self, result: Any) -> None:
        found: list[fx.Node] = []

        def node(tensor: torch.Tensor) -> fx.Node:
            found.append(self._node(tensor))
            return found[-1]

        output = self.graph.output(map_output(result, node))
        output.meta[KEY] = Meta(value_kind="other", batch=None)
        self.outputs = tuple(dict.fromkeys(found))

    def close(self) -> None:
        """End a graph whose run failed: an output node without outputs."""
        if not any(node.op == "output" for node in self.graph.nodes):
            self.graph.output(()).meta[KEY] = Meta(value_kind="other", batch=None)

    # -- the two hooks ---------------------------------------------------------------------------

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if self._answers and (given := answer(name, args, kwargs)) is not NO_ANSWER:
            if any(True for _ in tensors_in(given)):
                self._record(func, name, args, kwargs, lambda: given)
            return given
        if self._quiet or name in _QUESTIONS:
            return func(*args, **kwargs)
        if name == "__get__" and func.__self__.__name__ not in _VIEWS:
            return func(*args, **kwargs)
        return self._record(func, name, args, kwargs, lambda: func(*args, **kwargs))

    def _record(
        self, func: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], call: Callable[[], Any]
    ) -> Any:
        if name == "__set__":
            return self._assignment(func, args, call)
        op, target, swap = self._target(func, name)
        shown = (args[0], func.__self__.__name__) if name == "__get__" else args
        return self._emit(op, target, shown[::-1] if swap else shown, kwargs, call)

    def _assignment(self, func: Any, args: tuple[Any, ...], call: Callable[[], Any]) -> Any:
        """``x.data = y``: from now on x holds what y holds."""
        source = self._node(args[1]) if len(args) > 1 and isinstance(args[1], torch.Tensor) else None
        result = call()
        if source is not None and func.__self__.__name__ == "data":
            self._tensors.bind(args[0], source)
        return result

    def call_module(self, module: nn.Module, original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Stands in for ``nn.Module.__call__`` during the run."""
        if self._quiet or threading.get_ident() != self._thread:
            return original(module, *args, **kwargs)
        inner = unwrapped(module)
        if inner is not None:
            return inner(*args, **kwargs)
        name = self._names.get(id(module))
        if name is None:
            return original(module, *args, **kwargs)
        self._stack.append(name)
        try:
            if is_leaf(module) and self._intact(module):
                return self._emit("call_module", name, args, kwargs, lambda: original(module, *args, **kwargs))
            return original(module, *args, **kwargs)
        finally:
            self._stack.pop()

    def call_function(self, cls: Any, original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Stands in for ``torch.autograd.Function.apply`` during the run."""
        if self._quiet or threading.get_ident() != self._thread:
            return original(cls, *args, **kwargs)
        if cls.__module__ == "torch.utils.checkpoint":  # apply(function, preserve_rng_state, *args)
            return args[0](*args[2:])
        if cls.__module__.startswith("torch.") or holds_modules((args, kwargs)):
            return original(cls, *args, **kwargs)  # a function that runs layers (reversible blocks) is looked into
        target = MethodType(original, cls)
        return self._emit("call_function", target, args, kwargs, lambda: original(cls, *args, **kwargs))

    def _intact(self, module: nn.Module) -> bool:
        """Whether the layer runs with its own parameters (not swapped by ``functional_call``)."""
        return all(p is None or id(p) in self._attributes for p in module._parameters.values())

    # -- nodes -----------------------------------------------------------------------------------

    def _target(self, func: Any, name: str) -> tuple[str, Any, bool]:
        found = self._targets.get(func) if name != "__get__" else ("call_function", getattr, False)
        if found is None:
            if name in REFLECTED:
                found = ("call_function", REFLECTED[name], True)
            elif name in OPERATORS:
                found = ("call_function", OPERATORS[name], False)
            elif isinstance(func, (MethodDescriptorType, WrapperDescriptorType)) or (
                getattr(torch.Tensor, name, None) is func
            ):
                found = ("call_method", name, False)
            else:
                found = ("call_function", func, False)
            self._targets[func] = found
        return found

    def _emit(self, op: str, target: Any, args: Any, kwargs: Any, call: Callable[[], Any]) -> Any:
        """Run an op with nothing inside it recorded, and record it as one node."""
        if len(self.values) >= _MAX_NODES:
            return call()
        with ExitStack() as stack:
            if self._quiet == 0 and _on_top(self):  # called by a module: nothing inside needs to be seen
                stack.enter_context(_pop_mode_temporarily())
            return self._run_and_store(op, target, args, kwargs, call)

    def _run_and_store(self, op: str, target: Any, args: Any, kwargs: Any, call: Callable[[], Any]) -> Any:
        self._quiet += 1
        try:
            mapped = (self._argument(tuple(args)), self._argument(dict(kwargs)))
            operands = list(tensors_in((args, kwargs)))
            with torch._C.DisableTorchFunction():
                before = [version_of(t) for t in operands]
            try:
                result = call()
            except BaseException:
                self.failure = self.failure or Failure(op, target, *mapped, tuple(tuple(t.shape) for t in operands))
                raise
            with torch._C.DisableTorchFunction():  # no mode below has to see how the result is looked at
                written = [t for t, v in zip(operands, before, strict=True) if version_of(t) != v]
                if written or any(True for _ in tensors_in(result)):
                    self._store(op, target, mapped, args, result, written)
            return result
        finally:
            self._quiet -= 1

    def _store(self, op: str, target: Any, mapped: Any, args: Any, result: Any, written: list[torch.Tensor]) -> None:
        args_, kwargs_ = mapped
        node = self.graph.create_node(op, target, args_, kwargs_, name="root" if target == "" else None)
        if result is None and written:  # x[i] = y and functions that only write: the tensor after the write
            self._register(node, written[0], bind=False)
            meta_of(node).share = written_share(target, args)
        else:
            self._register(node, result, bind=False)
        meta_of(node).untrained = self._training and not torch.is_grad_enabled()
        for tensor in written:
            self._tensors.wrote(tensor, node)
        for path, tensor in paths_of(result):
            if not any(tensor is w for w in written):
                self._tensors.bind(tensor, node, path)

    def _register(self, node: fx.Node, value: Any, *, bind: bool = True) -> None:
        meta = describe(value, self._batch, measure=self._measure)
        meta.module, meta.site = self._stack[-1], user_site(2)
        node.meta[KEY] = meta
        self.values[node] = (value, version_of(value))
        if self._gradients:
            self._keep_edge(node, value)
        if bind:
            for path, tensor in paths_of(value):
                self._tensors.bind(tensor, node, path)

    def _keep_edge(self, node: fx.Node, value: Any) -> None:
        if isinstance(value, torch.Tensor) and value.requires_grad:
            with suppress(RuntimeError, AssertionError):  # inside a custom function there is none
                self.edges[node] = torch.autograd.graph.get_gradient_edge(value)

    def _argument(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self._node(value)
        if isinstance(value, (tuple, list)):
            items = [self._argument(item) for item in value]
            return items if isinstance(value, list) else tuple(items)
        if isinstance(value, Mapping):
            return {str(k): self._argument(v) for k, v in value.items()}
        if isinstance(value, slice):
            return slice(*(self._argument(v) for v in (value.start, value.stop, value.step)))
        return value

    # -- where a tensor comes from ---------------------------------------------------------------

    def _node(self, tensor: torch.Tensor) -> fx.Node:
        """The node whose output the tensor holds now."""
        entry = self._tensors.find(tensor) or self._adopt(tensor)
        node = self._tensors.current(entry)
        if version_of(tensor) != entry.version:
            why = "written in place by code that torch functions do not show"
            node = self._insert(unknown_source, (node,), tensor, unknown=why)
            entry = self._tensors.bind(tensor, node)
        if not entry.wrapped and (name := custom_function(tensor)) and not is_apply(node):
            node = self._insert(custom_backward, (node,), tensor, unknown=f"custom backward of {name}")
            entry = self._tensors.bind(tensor, node)
            entry.wrapped = True
        return node

    def _adopt(self, tensor: torch.Tensor) -> Entry:
        """A tensor seen for the first time that no recorded op returned."""
        own = self._attributes.get(id(tensor))
        if own is not None:
            return self._tensors.bind(tensor, self._attribute(own[0], tensor))
        constant = self._constants.get(id(tensor))
        if constant is not None:
            return self._tensors.bind(tensor, self._constant(constant[0], tensor))
        known = self._tensors.alias(tensor)
        if known is not None:
            return known
        shared = self._by_storage.get(storage_key(tensor))
        if shared is not None:
            node = self._attribute(*shared)
            self._tensors.bind(shared[1], node)
            if geometry(shared[1]) != geometry(tensor):
                node = self._view_again(node, tensor)
            return self._tensors.bind(tensor, node)
        if memoised(tensor):
            return self._tensors.bind(tensor, self._constant("", tensor))
        why = "made by code that torch functions do not show (scripted, NumPy, compiled)"
        return self._tensors.bind(tensor, self._insert(unknown_source, (), tensor, unknown=why))

    def _attribute(self, name: str, tensor: torch.Tensor) -> fx.Node:
        node = self._attribute_nodes.get(name)
        if node is None:
            node = self._attribute_nodes[name] = self.graph.create_node("get_attr", name)
            self._describe(node, tensor)
            if self._gradients:
                self._keep_edge(node, tensor)
        return node

    def _constant(self, name: str, tensor: torch.Tensor) -> fx.Node:
        target = name or f"{CONSTANT}{len(self.constants)}"
        self.constants[target] = tensor
        node = self.graph.create_node("get_attr", target)
        self._describe(node, tensor)
        return node

    def _insert(self, marker: Any, args: tuple[Any, ...], tensor: torch.Tensor, *, unknown: str = "") -> fx.Node:
        node = self.graph.create_node("call_function", marker, args)
        self._describe(node, tensor).unknown = unknown
        self.values[node] = (tensor, version_of(tensor))
        return node

    def _describe(self, node: fx.Node, tensor: torch.Tensor) -> Meta:
        # Reading the values here must not be recorded: the mode is active outside of _emit.
        self._quiet += 1
        try:
            meta = describe(tensor, self._batch, measure=self._measure)
        finally:
            self._quiet -= 1
        meta.module, meta.site = self._stack[-1], user_site(2)
        if node.op == "get_attr":
            meta.batch = None
        node.meta[KEY] = meta
        return meta

    def _view_again(self, base: fx.Node, tensor: torch.Tensor) -> fx.Node:
        return self._insert(view_again, (base,), tensor)

    def _merge(self, base: fx.Node, part: fx.Node, tensor: torch.Tensor, share: float) -> fx.Node:
        node = self._insert(merge_view, (base, part), tensor)
        meta_of(node).share = share
        return node

    def _element(self, entry: Entry) -> fx.Node:
        """``getitem`` nodes for one tensor of an op that returned several."""
        node, meta = entry.node, meta_of(entry.node)
        for key in entry.path:
            parent = meta
            node = self.graph.create_node("call_function", operator.getitem, (node, key))
            index = key if isinstance(key, int) else 0
            meta = parent.elements[index] if index < len(parent.elements) else Meta()
            meta.module, meta.site = parent.module, parent.site
            node.meta[KEY] = meta
        self.values[node] = (entry.tensor, entry.version)
        if self._gradients and version_of(entry.tensor) == entry.version:
            self._keep_edge(node, entry.tensor)
        return node


def _on_top(recorder: Recorder) -> bool:
    return _get_current_function_mode() is recorder  # type: ignore[no-untyped-call]


@contextmanager
def _patched(recorder: Recorder) -> Iterator[None]:
    """Route module calls and custom functions through the recorder."""
    module_call = nn.Module.__call__
    apply = torch.autograd.Function.__dict__["apply"]

    def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return recorder.call_module(self, module_call, args, kwargs)

    def apply_function(cls: Any, *args: Any, **kwargs: Any) -> Any:
        return recorder.call_function(cls, apply.__func__, args, kwargs)

    nn.Module.__call__ = call  # type: ignore[method-assign]
    torch.autograd.Function.apply = classmethod(apply_function)  # type: ignore[assignment]
    try:
        yield
    finally:
        nn.Module.__call__ = module_call  # type: ignore[method-assign]
        torch.autograd.Function.apply = apply  # type: ignore[method-assign]
