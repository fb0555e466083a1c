"""Memory and what happened to it: the recorder's own data, before it becomes facts."""

from __future__ import annotations

import ctypes
import zlib
from dataclasses import field
from typing import Any

import torch

from initlint.facts import Plain
from initlint.probe.provenance_values import Value
from initlint.probe.sites import Noted
from initlint.records import dataclass

#: Small memory is compared in full (8 KiB: a few microseconds), larger by 8 blocks of 128 bytes. Each write to a
#: parameter pays for this; changes through NumPy are compared in full, most others are seen by the version counter.
FULL = 8 * 1024
_BLOCKS = 8
_BLOCK = 128
#: Memory that was handed to NumPy is compared in full, up to this many bytes.
_EXPOSED = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Region:
    """The part of a memory that a tensor covers: offset, sizes and strides in elements."""

    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    numel: int
    end: int  # one past the last element that it touches


@dataclass(slots=True, eq=False)
class Event:
    """One operation on one memory, in the order of the build."""

    op: str
    order: int
    store: Store
    region: Region
    frames: tuple[Noted, ...] = ()
    args: dict[str, Plain] = field(default_factory=dict)
    origin: str = "user"
    overwrites: bool = True  # its result does not depend on the earlier values
    creation: bool = False
    share: float | None = None  # of the region, when only some of its elements were written
    index: str = ""
    random: bool = False
    generator: str = ""
    group: int | None = None
    helper: str = ""
    read: bool = False  # something read the memory after this event and before the next
    value: Value | None = None  # what the region holds after an overwrite
    parametrised: bool = False  # made while a parametrization computed a weight
    nan: bool = False  # wrote NaN on purpose, or may have
    call: int = 0  # events of one nn.init call (or of one helper call) share it


@dataclass(slots=True, eq=False)
class Registration:
    """A parameter or buffer that was set on a module, and from where."""

    module: Any  # weak reference to the module
    name: str
    frames: tuple[Noted, ...]
    order: int

    def tensor(self) -> Any:
        """What the module holds under that name now. (A weak reference to a tensor would break ``swap_tensors``.)"""
        module = self.module()
        if module is None:
            return None
        found = module._parameters.get(self.name)
        return module._buffers.get(self.name) if found is None else found

    def version(self) -> int | None:
        """Version counter of that tensor."""
        tensor = self.tensor()
        if tensor is None or torch.nn.parameter.is_lazy(tensor) or tensor.is_inference():
            return None
        return int(tensor._version)


@dataclass(slots=True, eq=False)
class Store:
    """One piece of memory (an untyped storage), known by its address, which is never reused while recorded."""

    number: int
    weak: int  # pins the address: the data may go, its identity stays
    nbytes: int
    events: list[Event] = field(default_factory=list)
    value: Value = field(default_factory=Value)
    uninitialised: bool = False  # made without writing
    parents: tuple[Store, ...] = ()
    previous: tuple[Store, int] | None = None  # history it continues: that memory up to so many events
    continues: str = ""  # how: "deepcopy", "to", "to_empty", "assign"
    registrations: list[Registration] = field(default_factory=list)
    print: int | None = None  # fingerprint of the contents after the last recorded write
    version: int | None = None  # version counter of the registered tensor at that time
    exposed: bool = False
    read: bool = False  # read by anything at all

    def registered(self) -> bool:
        """Whether it ever was a parameter or buffer of a module."""
        return bool(self.registrations)


def region_of(tensor: Any) -> Region:
    """The region of its memory that a tensor covers."""
    offset, count = tensor.storage_offset(), tensor.numel()
    size, stride = tuple(tensor.shape), tensor.stride()
    if tensor.is_contiguous() or not count:
        return Region(offset, size, stride, count, offset + count)
    return Region(offset, size, stride, count, offset + 1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True)))


def storage_of(tensor: Any) -> Any:
    """The untyped storage of a tensor, or ``None`` when it has none (sparse, lazy, functional wrappers)."""
    try:
        return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError, ValueError, TypeError):
        return None


def fingerprint(tensor: Any, *, full: bool = False) -> int | None:
    """Checksum of (a sample of) the bytes of a tensor's memory; ``None`` where they cannot be read."""
    storage = storage_of(tensor) if tensor.is_cpu else None
    if storage is None:
        return None
    address, size = storage.data_ptr(), storage.nbytes()
    if not address or not size:
        return None
    read = ctypes.string_at
    if size <= (_EXPOSED if full else FULL):
        return zlib.crc32(read(address, size))
    step = (size - _BLOCK) // (_BLOCKS - 1)
    return zlib.crc32(b"".join([read(address + block * step, _BLOCK) for block in range(_BLOCKS)]))


def generator_state(generator: Any) -> str:
    """Fingerprint of a generator's state (the global CPU generator for ``None``), 8 hex digits."""
    source = torch.default_generator if generator is None else generator
    state = source.get_state()
    return f"{zlib.crc32(ctypes.string_at(state.data_ptr(), state.numel())):08x}"
