"""Writes into memory: in-place methods, indexed assignment, ``out=`` arguments, init functions."""

from __future__ import annotations

import sys
from typing import Any

import torch

from initlint.facts import Plain
from initlint.probe import provenance_ops as ops
from initlint.probe.provenance_frames import Call, arguments, look
from initlint.probe.provenance_index import indexed
from initlint.probe.provenance_memory import Memory
from initlint.probe.provenance_ops import Operation
from initlint.probe.provenance_store import Event, Store, fingerprint, region_of
from initlint.probe.provenance_values import Value, contents, derive, factory, resolved

#: Functions that write a constant without being told it.
_CONSTANTS: dict[str, dict[str, Plain]] = {"zeros_": {"val": 0.0}, "ones_": {"val": 1.0}, "zero_": {"val": 0.0}}


class Writing(Memory):
    """The part of the log that notes writes."""

    def _call_init(
        self, operation: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], generator: str
    ) -> Any:
        """A Python function of ``torch.nn.init`` (or a replacement): did it write to its first tensor?"""
        tensor = kwargs.get("tensor", args[0] if args else None)
        if not isinstance(tensor, torch.Tensor) or tensor.is_inference():
            return function(*args, **kwargs)
        self.ensure(tensor)
        before = tensor._version
        result = function(*args, **kwargs)
        if tensor._version != before:
            rest = {key: value for key, value in kwargs.items() if key != "tensor"}
            known = resolved(operation.name, args, rest, skip=1)
            self._wrote(operation, tensor, known, generator, overwrites=True)
        return result

    def _in_place(self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any], generator: str) -> None:
        if not args:
            return
        targets = args[0] if isinstance(args[0], list | tuple) else [args[0]]
        for target in targets:
            if isinstance(target, torch.Tensor):
                self._write_method(operation, target, args, kwargs, generator)

    def _write_method(
        self, operation: Operation, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], generator: str
    ) -> None:
        overwrites = operation.role == ops.OVERWRITE
        store = self.ensure(target)
        parents = self._parents(args[1:], kwargs)
        for parent in parents:
            self._read(parent)
        if store is not None and not overwrites:
            self._read(store)
        known = resolved(operation.name, args, kwargs, skip=1)
        value = None
        if operation.name == "copy_" and parents:
            value = derive("copy_", [parents[0].value], (), {})
            known.update(value.described())
            known.update(contents(args[1] if len(args) > 1 else kwargs.get("src")))
            generator = value.generator
        self._wrote(operation, target, known, generator, overwrites=overwrites, value=value, call_args=(args, kwargs))

    def _write_out(self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any], generator: str) -> None:
        rest = {key: value for key, value in kwargs.items() if key != "out"}
        parents = self._parents(args, rest)
        for parent in parents:
            self._read(parent)
        outs = kwargs["out"] if isinstance(kwargs["out"], list | tuple) else [kwargs["out"]]
        for target in outs:
            known = resolved(operation.name, args, rest, skip=0)
            if parents:
                value = derive(operation.name, [parent.value for parent in parents], args, rest)
                known.update(value.described())
            else:
                value = factory(operation.name, known, target, random=operation.random, generator=generator)
            self._wrote(operation, target, known, generator or value.generator, overwrites=True, value=value)

    def _setitem(self, operation: Operation, args: tuple[Any, ...]) -> None:
        target, index, source = args
        part = indexed(target, index)
        parents = self._parents((source,), {})
        for parent in parents:
            self._read(parent)
        known: dict[str, Plain] = {}
        if parents:
            value = derive("copy_", [parents[0].value], (), {})
            known.update(value.described())
        else:
            value = factory(
                "fill_", {"val": source} if isinstance(source, int | float) else {}, target, random=False, generator=""
            )
            if isinstance(source, int | float):
                known["val"] = source
        event = self._wrote(
            operation,
            part.tensor if part.tensor is not None else target,
            known,
            value.generator,
            overwrites=True,
            value=value,
            frame_tensor=target,
        )
        if event is not None and event.op == operation.name:
            event.index = part.text
            event.share = part.share
            event.nan = isinstance(source, float) and source != source

    def _wrote(
        self,
        operation: Operation,
        tensor: Any,
        known: dict[str, Plain],
        generator: str,
        *,
        overwrites: bool,
        value: Value | None = None,
        call_args: tuple[tuple[Any, ...], dict[str, Any]] | None = None,
        frame_tensor: Any = None,
    ) -> Event | None:
        store = self.ensure(tensor)
        if store is None:
            return None
        call = look(sys._getframe(2), self.origins, tensor if frame_tensor is None else frame_tensor)
        merged = self._merge(store, tensor, call, generator)
        if merged is not None:
            self._stamp(store, tensor)
            return merged
        name = "load" if "load" in call.tags else operation.name
        event = self._event(name, store, tensor, call)
        event.args, event.overwrites = {**_CONSTANTS.get(name, {}), **known}, overwrites
        event.random = operation.random or bool(value is not None and value.random)
        event.generator = generator
        if operation.partial:
            event.share = _share(operation.name, call_args)
            event.index = operation.name.rstrip("_")
        self._group(event, call)
        if call.init is not None and name != "load":
            self._begin_init(event, call, store, generator)
        self._revalue(event, store, operation, tensor, value, call_args)
        self._stamp(store, tensor)
        return event

    def _merge(self, store: Store, tensor: Any, call: Call, generator: str) -> Event | None:
        """The event of the running nn.init call on this memory, if there is one."""
        if call.init is None:
            return None
        if self._init is None or self._init[0] is not call.init:
            self._init = (call.init, {}, [])
        if generator:
            self._init[2].append(generator)
        event = self._init[1].get(store)
        if event is not None and tensor.numel() > event.region.numel:
            event.region = region_of(tensor)
        return event

    def _begin_init(self, event: Event, call: Call, store: Store, generator: str) -> None:
        assert call.init is not None
        assert self._init is not None
        event.op = call.init.f_code.co_name
        event.args = {**_CONSTANTS.get(event.op, {}), **arguments(call.init)}
        event.overwrites = True
        event.share, event.index = None, ""
        drawn = self._init[2]
        if drawn:
            event.random, event.generator = True, drawn[0]
        first = next(iter(self._init[1].values()), None)
        event.call = event.call if first is None else first.call
        self._init[1][store] = event

    def _group(self, event: Event, call: Call) -> None:
        if call.helper is None:
            return
        if self._helper is None or self._helper[0] is not call.helper:
            self._groups += 1
            self._helper = (call.helper, self._groups)
            given = arguments(call.helper)
            if given:
                event.args = {**event.args, "helper": given}
        event.group = self._helper[1]
        event.call = -event.group
        event.helper = call.helper.f_code.co_name

    def _revalue(
        self,
        event: Event,
        store: Store,
        operation: Operation,
        tensor: Any,
        value: Value | None,
        call_args: tuple[tuple[Any, ...], dict[str, Any]] | None,
    ) -> None:
        """Describe what the memory holds now."""
        args, kwargs = call_args if call_args is not None else ((), {})
        if event.overwrites:
            new = (
                value
                if value is not None
                else factory(event.op, event.args, tensor, random=event.random, generator=event.generator)
            )
        else:
            new = derive(operation.name, [store.value], args, kwargs)
        event.value = new
        before = store.value
        if event.share is None and event.region.numel * tensor.element_size() >= store.nbytes:
            store.value = new
            return
        random, generator = before.random or new.random, before.generator or new.generator
        store.value = Value("derived", (event.op,), random=random, generator=generator, unwritten=before.unwritten)

    def _stamp(self, store: Store, tensor: Any) -> None:
        """Remember the contents of registered memory, to notice changes that nothing recorded."""
        if not store.registrations:
            return
        store.print = fingerprint(tensor, full=store.exposed)
        store.version = store.registrations[-1].version()


def _share(name: str, call_args: tuple[tuple[Any, ...], dict[str, Any]] | None) -> float | None:
    """Share of the target that a partial in-place method writes, where its arguments tell."""
    if call_args is None:
        return None
    args, kwargs = call_args
    if name in ("masked_fill_", "masked_scatter_"):
        mask = args[1] if len(args) > 1 else kwargs.get("mask")
        if isinstance(mask, torch.Tensor) and mask.numel() and not mask.is_meta:
            share: float = mask.float().mean().item()
            return share
    if name in ("index_fill_", "index_copy_") and len(args) > 2:
        target, dim, index = args[0], args[1], args[2]
        if isinstance(index, torch.Tensor) and isinstance(dim, int) and target.shape[dim]:
            part = index.numel() / int(target.shape[dim])
            return min(1.0, part)
    if name == "fill_diagonal_" and args[0].numel():
        return min(args[0].shape) / args[0].numel() if args[0].dim() else 1.0
    return 0.5 if name else None
