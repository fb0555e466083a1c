"""Which graph node a tensor's content comes from: identity by storage, writes in place, views.

Every tensor seen is kept alive (``id()`` is reused otherwise) with the node that produced it. A
write in place is logged on the storage; a reader that comes later catches up with the log: the
same elements rebind to the writer, a part of what was written is viewed again, a tensor of which
a part was written is merged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any

import torch
from torch import fx

from initlint.probe.traced import version_of
from initlint.records import dataclass

# Storages with more elements than this are compared by address range only, not element by element.
_EXACT_OVERLAP = 1 << 24

Path = tuple[int | str, ...]


@dataclass(slots=True, eq=False)
class Written:
    """One write in place: the tensor it went through and the node that did it."""

    tensor: torch.Tensor
    node: fx.Node


@dataclass(slots=True, eq=False)
class Store:
    """A storage: what was written to it, and the tensors on it."""

    log: list[Written] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Entry:
    """A tensor and the node (and the path into its output) that its content comes from."""

    tensor: torch.Tensor
    node: fx.Node
    path: Path
    store: Store
    seen: int  # how much of the storage's log is accounted for
    version: int
    wrapped: bool = False  # a custom backward was put behind it


class Tensors:
    """All tensors of one recording.

    Args:
        view: makes the node of a view taken again: ``view(base_node, tensor)``.
        merge: makes the node of a tensor partly written: ``merge(base_node, part_node, tensor, share)``.
    """

    def __init__(
        self,
        view: Callable[[fx.Node, torch.Tensor], fx.Node],
        merge: Callable[[fx.Node, fx.Node, torch.Tensor, float], fx.Node],
        element: Callable[[Entry], fx.Node],
    ) -> None:
        self._by_id: dict[int, Entry] = {}
        self._stores: dict[Any, Store] = {}
        self._view = view
        self._merge = merge
        self._element = element

    def find(self, tensor: torch.Tensor) -> Entry | None:
        """The entry of exactly this tensor object."""
        entry = self._by_id.get(id(tensor))
        return entry if entry is not None and entry.tensor is tensor else None

    def store(self, tensor: torch.Tensor) -> Store:
        """The record of the tensor's storage."""
        key = storage_key(tensor)
        found = self._stores.get(key)
        if found is None:
            found = self._stores[key] = Store()
        return found

    def bind(self, tensor: torch.Tensor, node: fx.Node, path: Path = ()) -> Entry:
        """Say that the tensor's content is the output of ``node`` (the part at ``path`` of it)."""
        store = self.store(tensor)
        entry = Entry(tensor, node, path, store, len(store.log), version_of(tensor))
        old = self._by_id.get(id(tensor))
        if old is not None and old.store is store:
            store.entries[store.entries.index(old)] = entry
        else:
            store.entries.append(entry)
        self._by_id[id(tensor)] = entry
        return entry

    def wrote(self, tensor: torch.Tensor, node: fx.Node) -> None:
        """Log that ``node`` changed the tensor in place, and rebind it."""
        self.store(tensor).log.append(Written(tensor, node))
        self.bind(tensor, node)

    def alias(self, tensor: torch.Tensor) -> Entry | None:
        """Bind a tensor that nobody announced but whose storage is known; ``None`` if it is not."""
        store = self._stores.get(storage_key(tensor))
        if store is None or not store.entries:
            return None
        shape = geometry(tensor)
        for entry in reversed(store.entries):
            if geometry(entry.tensor) == shape:
                return self.bind(tensor, self.current(entry), ())
        base = max(store.entries, key=lambda e: e.tensor.numel())
        return self.bind(tensor, self._view(self.current(base), tensor), ())

    def current(self, entry: Entry) -> fx.Node:
        """The node of what the tensor holds now, after all logged writes."""
        if entry.path:
            entry.node, entry.path = self._element(entry), ()
        log = entry.store.log
        while entry.seen < len(log):
            written = log[entry.seen]
            entry.seen += 1
            entry.node = self._after(entry, written)
            entry.version = version_of(entry.tensor)
        return entry.node

    def _after(self, entry: Entry, written: Written) -> fx.Node:
        ours, theirs = geometry(entry.tensor), geometry(written.tensor)
        if ours == theirs:
            return written.node
        share, covers = overlap(entry.tensor, written.tensor)
        if share == 0.0:
            return entry.node
        if covers:
            return self._view(written.node, entry.tensor)
        return self._merge(entry.node, written.node, entry.tensor, share)


def storage_key(tensor: torch.Tensor) -> Any:
    """A hashable identity of the memory behind a tensor (of the tensor itself where it has none)."""
    try:
        return tensor.untyped_storage()._cdata
    except (RuntimeError, NotImplementedError, AttributeError):
        return ("id", id(tensor))


def geometry(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Which elements of its storage a tensor covers, in which order."""
    try:
        shape, stride = tuple(tensor.shape), tensor.stride()
        # Strides of axes of size 1 are arbitrary; an element can be addressed in one way only.
        kept = tuple((n, s) for n, s in zip(shape, stride, strict=True) if n != 1)
        return (tensor.storage_offset(), kept, len(shape), tensor.dtype)
    except (RuntimeError, NotImplementedError, TypeError):
        return ("id", id(tensor))


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    first = int(tensor.storage_offset())
    reach = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)) if tensor.numel() else -1
    return first, first + int(reach) + 1


def overlap(ours: torch.Tensor, theirs: torch.Tensor) -> tuple[float, bool]:
    """Share of our elements that ``theirs`` (on the same storage) covers, and whether it covers all.

    Exact for CPU and meta storages of moderate size; by address range otherwise.
    """
    try:
        a, b = _extent(ours), _extent(theirs)
    except (RuntimeError, NotImplementedError, TypeError):
        return 1.0, True
    if a[1] <= b[0] or b[1] <= a[0] or ours.dtype != theirs.dtype:
        return (0.0, False) if ours.dtype == theirs.dtype else (1.0, True)
    size = max(a[1], b[1])
    if size > _EXACT_OVERLAP:
        inside = b[0] <= a[0] and a[1] <= b[1]
        return min(1.0, theirs.numel() / max(1, ours.numel())), inside
    mask = torch.zeros(size, dtype=torch.bool, device="cpu")
    mask.as_strided(tuple(theirs.shape), theirs.stride(), theirs.storage_offset()).fill_(True)
    mine = mask.as_strided(tuple(ours.shape), ours.stride(), ours.storage_offset())
    share = float(mine.float().mean())
    return share, share == 1.0
