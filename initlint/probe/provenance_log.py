"""The recorder's log: turns each torch function call of the build into events on memory."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import torch

from initlint.probe import provenance_ops as ops
from initlint.probe.provenance_frames import look
from initlint.probe.provenance_ops import Operation, classify
from initlint.probe.provenance_store import Event, Store, fingerprint, generator_state, storage_of
from initlint.probe.provenance_values import Value, derive, factory, resolved
from initlint.probe.provenance_writing import Writing
from initlint.probe.sites import Origins, user_frames


class Log(Writing):
    """All that happened to memory in one build. Only torch functions called in this thread are seen."""

    def __init__(self, origins: Origins) -> None:
        super().__init__(origins)
        self.operations: dict[Any, Operation] = {}

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
        if role in ops.WRITES and args and isinstance(args[0], torch.Tensor):
            self.ensure(args[0])  # before the write: afterwards one could not tell whether it was empty
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
            store.print = fingerprint(args[0], full=True)


def _with_chance(value: Value, generator: str) -> Value:
    return replace(value, random=True, generator=value.generator or generator)
