"""Which memories there are: storages by address, entered when they are first seen."""

from __future__ import annotations

import contextlib
import sys
from types import FrameType
from typing import Any

import torch

from initlint.probe.provenance_frames import Call, active, look
from initlint.probe.provenance_store import Event, Store, region_of, storage_of
from initlint.probe.provenance_values import Value
from initlint.probe.sites import Noted, Origins


class Memory:
    """All memories and events of one build."""

    def __init__(self, origins: Origins) -> None:
        self.origins = origins
        self.stores: dict[int, Store] = {}
        self.by_number: list[Store] = []
        self.events: list[Event] = []
        self.touches: list[
            tuple[Noted, ...]
        ] = []  # what leaves no event: assignments of ``.data``, ``from_pretrained``
        self.order = 0
        # The nn.init call that is running: its frame, its events by memory, the generator states it drew from.
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

    def mark(self) -> tuple[int, int, int, int]:
        """How much has been noted: memories, events, touches, and the number of the last event."""
        return len(self.by_number), len(self.events), len(self.touches), self.order

    def rollback(self, mark: tuple[int, int, int, int]) -> None:
        """Forget what was noted since a mark."""
        memories, events, touches, self.order = mark
        self.release()
        later = self.by_number[memories:]
        numbers = {store.number for store in later}
        self.stores = {key: store for key, store in self.stores.items() if store.number not in numbers}
        for store in later:
            if store.weak:
                torch.UntypedStorage._free_weak_ref(store.weak)  # type: ignore[no-untyped-call]
                store.weak = 0
        del self.by_number[memories:], self.events[events:], self.touches[touches:]
        for store in self.by_number:
            store.events[:] = [event for event in store.events if event.order <= self.order]
            store.registrations[:] = [entry for entry in store.registrations if entry.order <= self.order]

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the interpreter may be shutting down
            self.close()

    def _release(self) -> None:
        """Forget calls that have returned: the next one may get a frame at the same address."""
        if self._init is not None and not active(self._init[0]):
            self._init = None
        if self._helper is not None and not active(self._helper[0]):
            self._helper = None

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
            loaded = "file" in call.tags
            store.value = Value("loaded" if loaded else "unseen", loaded=loaded)
        event = self._event("create", store, tensor, call)
        event.creation = True
        event.overwrites = not empty
        event.args = {} if empty else {"function": store.value.function}

    def _event(self, op: str, store: Store, tensor: Any, call: Call) -> Event:
        self.order += 1
        event = Event(op, self.order, store, region_of(tensor), call.frames, origin=call.origin)
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
