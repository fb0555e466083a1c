"""The recorder's log: turns each torch function call of the build into events on memory."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import torch

from initlint.facts import Plain
from initlint.probe import provenance_ops as ops
from initlint.probe.provenance_frames import Call, active, arguments, look
from initlint.probe.provenance_index import indexed
from initlint.probe.provenance_ops import Operation, classify
from initlint.probe.provenance_store import (
    Event,
    Region,
    Store,
    fingerprint,
    generator_state,
    region_of,
    storage_of,
)
from initlint.probe.provenance_values import Value, contents, derive, factory, resolved
from initlint.probe.sites import Noted, Origins, user_frames

#: Functions that write a constant without being told it.
_CONSTANTS: dict[str, dict[str, Plain]] = {"zeros_": {"val": 0.0}, "ones_": {"val": 1.0}, "zero_": {"val": 0.0}}


class Log:
    """All memories and events of one build. Only torch functions called in this thread are seen."""

    def __init__(self, origins: Origins) -> None:
        self.origins = origins
        self.stores: dict[int, Store] = {}
        self.by_number: list[Store] = []
        self.events: list[Event] = []
        self.touches: list[tuple[Noted, ...]] = []  # assignments of ``.data`` that left no event
        self.order = 0
        self.operations: dict[Any, Operation] = {}
        self._init: tuple[FrameType, dict[Store, Event], list[str]] | None = None
        self._helper: tuple[FrameType, int] | None = None
        self._groups = 0

    def release(self) -> None:
        """Let go of the frames of running calls."""
        self._init = self._helper = None

    def close(self) -> None:
        """Let go of the weak references that pin addresses; nothing can be looked up afterwards."""
        for store in self.by_number:
            if store.weak:
                torch.UntypedStorage._free_weak_ref(store.weak)  # type: ignore[no-untyped-call]
                store.weak = 0

    # -- entry ---------------------------------------------------------------------------------

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a torch function and note what it did to memory."""
        operation = self.operations.get(function)
        if operation is None:
            operation = self.operations[function] = classify(function)
        role = operation.role
        if role == ops.SKIP:
            return function(*args, **kwargs)
        if self._init is not None or self._helper is not None:
            self._release()
        generator = generator_state(kwargs.get("generator")) if operation.random else ""
        if role == ops.INIT:
            return self._call_init(operation, function, args, kwargs, generator)
        if role == ops.ASSIGN:
            return self._call_assign(function, args, kwargs)
        result = function(*args, **kwargs)
        if role == ops.MAKE or role == ops.DEEPCOPY:
            if "out" in kwargs and kwargs["out"] is not None:
                self._write_out(operation, args, kwargs, generator)
            else:
                self._made(operation, args, kwargs, result, generator)
        elif role == ops.EXPOSE:
            self._expose(operation, args)
        elif role == ops.SETITEM:
            self._setitem(operation, args)
        else:
            self._in_place(operation, args, kwargs, generator)
        return result

    def _release(self) -> None:
        if self._init is not None and not active(self._init[0]):
            self._init = None
        if self._helper is not None and not active(self._helper[0]):
            self._helper = None

    # -- memories ------------------------------------------------------------------------------

    def find(self, tensor: Any) -> Store | None:
        """The memory of a tensor if it is known."""
        storage = storage_of(tensor)
        return None if storage is None else self.stores.get(storage._cdata)

    def find_safely(self, tensor: Any) -> Store | None:
        """As ``find``, and ``None`` for tensors without memory (lazy parameters)."""
        return None if torch.nn.parameter.is_lazy(tensor) else self.find(tensor)

    def ensure(self, tensor: Any, *, quiet: bool = False) -> Store | None:
        """The memory of a tensor; one that no seen function made is entered as of unseen origin.

        ``quiet`` enters it without an event: it is looked at for the first time after the build.
        """
        storage = storage_of(tensor)
        if storage is None:
            return None
        store = self.stores.get(storage._cdata)
        if store is None:
            store = self._enter(storage)
            if quiet:
                store.value = Value("unseen")
            else:
                self._judge_unseen(store, tensor)
        return store

    def _enter(self, storage: Any) -> Store:
        store = Store(len(self.by_number) + 1, storage._weak_ref(), storage.nbytes())
        self.stores[storage._cdata] = store
        self.by_number.append(store)
        return store

    def _judge_unseen(self, store: Store, tensor: Any) -> None:
        """Memory from a legacy constructor (``torch.FloatTensor(n)``), a list, NumPy or a file.

        Legacy constructors bypass every hook but not the fill: memory that still holds nothing but the
        fill value was never written.
        """
        call = look(sys._getframe(2), self.origins)
        empty = filled(tensor)
        if empty:
            store.uninitialised = True
            store.value = Value("Tensor", unwritten=True)
        else:
            loaded = "file" in call.tags or _from_file(call)
            store.value = Value("loaded" if loaded else "unseen", loaded=loaded)
        event = self._event("create", store, tensor, call)
        event.creation = True
        event.overwrites = not empty
        event.args = {} if empty else {"function": store.value.function}

    def _event(self, op: str, store: Store, tensor: Any, call: Call, region: Region | None = None) -> Event:
        self.order += 1
        event = Event(op, self.order, store, region or region_of(tensor), call.frames, origin=call.origin)
        event.call = self.order
        store.events.append(event)
        self.events.append(event)
        return event

    def _read(self, store: Store) -> None:
        store.read = True
        if not store.events:
            return
        event = store.events[-1]
        # what an init function reads of its own result is not a use of the value
        if self._init is None or self._init[1].get(store) is not event:
            event.read = True

    # -- making --------------------------------------------------------------------------------

    def _parents(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Store]:
        found: list[Store] = []
        for value in (*args, *kwargs.values()):
            if isinstance(value, torch.Tensor):
                store = self.ensure(value)
                if store is not None:
                    found.append(store)
            elif isinstance(value, list | tuple):
                for item in value:
                    if isinstance(item, torch.Tensor):
                        store = self.ensure(item)
                        if store is not None:
                            found.append(store)
        return found

    def _made(self, operation: Operation, args: Any, kwargs: Any, result: Any, generator: str) -> None:
        parents = self._parents(args, kwargs)
        if isinstance(result, torch.Tensor):
            results = [result]
        elif isinstance(result, list | tuple):
            results = [item for item in result if isinstance(item, torch.Tensor)]
        else:
            results = []
        views = bool(results)
        for tensor in results:
            store = self.find(tensor)
            if store is None:
                views = False
                self._create(operation, tensor, parents, args, kwargs, generator)
        if not views:
            for parent in parents:
                # empty_like(w), zeros_like(w) need the shape only
                if not operation.uninitialised and not operation.name.endswith("_like"):
                    self._read(parent)

    def _create(
        self, operation: Operation, tensor: Any, parents: list[Store], args: Any, kwargs: Any, generator: str
    ) -> None:
        storage = storage_of(tensor)
        if storage is None:
            return
        call = look(sys._getframe(3), self.origins)
        store = self._enter(storage)
        store.parents = tuple(parents)
        name = operation.name
        event = self._event("create", store, tensor, call)
        event.creation = True
        event.parametrised = "parametrised" in call.tags
        if operation.uninitialised:
            store.uninitialised = True
            event.overwrites = False
            store.value = Value("empty", unwritten=True)
            if parents and "apply" in call.tags:
                self._continue(store, parents[0], event, "to_empty")
                event.args = {"function": name}
            return
        if parents and not name.endswith("_like") and not name.startswith("new_"):
            store.value = derive(name, [parent.value for parent in parents], args, kwargs)
            if operation.random:
                store.value = _with_chance(store.value, generator)
        else:
            known = resolved(name, args, kwargs, skip=1 if parents else 0)
            store.value = factory(name, known, tensor, random=operation.random, generator=generator)
        if "file" in call.tags:
            store.value = Value("loaded", loaded=True)
        event.value = store.value
        event.args = store.value.described()
        event.random, event.generator = store.value.random, store.value.generator
        if self._init is not None and generator:
            self._init[2].append(generator)
        if len(parents) == 1:
            if operation.role == ops.DEEPCOPY or "deepcopy" in call.tags:
                self._continue(store, parents[0], event, "deepcopy")
            elif "apply" in call.tags:
                self._continue(store, parents[0], event, call.conversion or name)

    def _continue(self, store: Store, source: Store, event: Event, how: str) -> None:
        """This memory takes over the history of another one: a deep copy, a cast, ``to_empty``."""
        store.previous = (source, len(source.events))
        store.continues = how
        event.op = how
        if how != "to_empty":
            event.overwrites = False
            event.args = {"source": source.number} if how == "deepcopy" else {"dtype": event.args.get("dtype")}
            event.args = {key: value for key, value in event.args.items() if value is not None}
            event.random = False

    # -- writing -------------------------------------------------------------------------------

    def _call_init(
        self, operation: Operation, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], generator: str
    ) -> Any:
        """A Python function of ``torch.nn.init`` (or a replacement): did it write to its first tensor?"""
        tensor = kwargs.get("tensor", args[0] if args else None)
        if not isinstance(tensor, torch.Tensor) or tensor.is_inference():
            return function(*args, **kwargs)
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
        whole = event.region.numel * tensor.element_size() >= store.nbytes and event.share is None
        if whole:
            store.value = new
        elif store.value.function == "empty" or not event.overwrites:
            store.value = new if new.random else Value("derived", (event.op,), random=store.value.random)
        else:
            store.value = Value(
                "derived",
                (event.op,),
                random=store.value.random or new.random,
                generator=store.value.generator or new.generator,
            )

    def _stamp(self, store: Store, tensor: Any) -> None:
        """Remember the contents of registered memory, to notice changes that nothing recorded."""
        if not store.registrations:
            return
        store.print = fingerprint(storage_of(tensor), full=store.exposed)
        store.version = store.registrations[-1].version()

    # -- other ---------------------------------------------------------------------------------

    def _call_assign(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``tensor.data = source``: the tensor changes its memory."""
        target, source = args[0], args[1]
        old = self.ensure(target)
        result = function(*args, **kwargs)
        new = self.ensure(target)
        if new is None or old is None or new is old or not isinstance(source, torch.Tensor):
            self.touches.append(user_frames(sys._getframe(2), self.origins))
        else:
            self._move(old, new, target)
        return result

    def _move(self, old: Store, new: Store, target: Any) -> None:
        registration = old.registrations[-1] if old.registrations else None
        continued = new.previous is not None and new.previous[0] is old
        if not continued and not new.registrations:
            call = look(sys._getframe(3), self.origins, target)
            event = self._event("load" if "load" in call.tags else "copy_", new, target, call)
            event.value = new.value
            event.args = {**new.value.described(), "assigned": True}
            event.random, event.generator = new.value.random, new.value.generator
            if new.uninitialised and new.value.unwritten:
                event.overwrites = False
            new.events = [event]
            new.previous = (old, len(old.events))
            new.continues = "assign"
            self._group(event, call)
        else:
            self.touches.append(user_frames(sys._getframe(3), self.origins))
        if registration is not None:
            new.registrations.append(registration)
            self._stamp(new, target)

    def _expose(self, operation: Operation, args: tuple[Any, ...]) -> None:
        if not args or not isinstance(args[0], torch.Tensor):
            return
        store = self.ensure(args[0])
        if store is None:
            return
        self._read(store)
        if operation.name in ("numpy", "__array__", "__dlpack__", "to_dlpack") and not store.exposed:
            store.exposed = True
            store.print = fingerprint(storage_of(args[0]), full=True)


def _with_chance(value: Value, generator: str) -> Value:
    from dataclasses import replace

    return replace(value, random=True, generator=value.generator or generator)


def _from_file(call: Call) -> bool:
    return any("safetensors" in code.co_filename for code, _ in call.frames)


def _share(name: str, call_args: tuple[tuple[Any, ...], dict[str, Any]] | None) -> float | None:
    """Share of the target that a partial in-place method writes, where its arguments tell."""
    if call_args is None:
        return None
    args, kwargs = call_args
    if name in ("masked_fill_", "masked_scatter_"):
        mask = args[1] if len(args) > 1 else kwargs.get("mask")
        if isinstance(mask, torch.Tensor) and mask.numel() and not mask.is_meta:
            return float(mask.float().mean().item())
    if name in ("index_fill_", "index_copy_") and len(args) > 2:
        target, dim, index = args[0], args[1], args[2]
        if isinstance(index, torch.Tensor) and isinstance(dim, int) and target.shape[dim]:
            return min(1.0, index.numel() / target.shape[dim])
    if name == "fill_diagonal_" and args[0].numel():
        return min(args[0].shape) / args[0].numel() if args[0].dim() else 1.0
    return 0.5 if name else None


def filled(tensor: Any) -> bool:
    """Whether all of a tensor is the value that torch fills new memory with (NaN, or an integer's maximum)."""
    if tensor.is_meta or tensor.numel() == 0 or tensor.device.type != "cpu":
        return False
    if not tensor.untyped_storage().resizable():
        return False  # memory that belongs to NumPy or a file
    flat = tensor.detach()
    if tensor.is_floating_point() or tensor.is_complex():
        return bool(flat.isnan().all())
    if tensor.dtype == torch.bool:
        return False
    return bool((flat == torch.iinfo(tensor.dtype).max).all())
