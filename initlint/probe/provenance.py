"""Recording how a model comes to be: a context manager around importing a file and building a model.

What is seen: every torch function called from Python in this thread (factories, in-place methods,
``nn.init``), parameters, buffers and modules as they are registered, reseeding of the global RNG.
New memory is filled with NaN by torch meanwhile, so that what nobody wrote can be told. What no Python
hook sees (NumPy views, scripted code, other threads) is found by comparing contents at the end.
"""

from __future__ import annotations

import gc
import os
import sys
import weakref
from collections.abc import Iterable
from types import FrameType, FunctionType, TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

from initlint.errors import ProbeError
from initlint.probe.provenance_log import Log
from initlint.probe.provenance_patches import Patches
from initlint.probe.provenance_state import GlobalState, fill_new_memory, filling, remove_mode
from initlint.probe.provenance_store import Registration, fingerprint
from initlint.probe.sites import USER, Noted, Origins, user_frames
from initlint.records import dataclass

if TYPE_CHECKING:
    from initlint.probe.record import Record


class _Mode(TorchFunctionMode):
    """Hands each torch function call to the log."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._call = log.call

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self._call(func, args, kwargs or {})


@dataclass(frozen=True, slots=True)
class Mark:
    """A point of a record."""

    log: tuple[int, int, int, int]
    tables: tuple[dict[int, Any], ...]
    seen: dict[tuple[str, str], int]
    seeds: int


class Recorder:
    """Records a build; one use each. ::

        with Recorder() as recorder:
            model = build()
        record = recorder.record(model)

    Args:
        user_roots: folders that count as the user's own code although they are installed packages.
        restore: put RNG state, default dtype and device, deterministic flags and grad mode back at the end.
        frozen: the garbage collector's objects are frozen already; to ask it would walk through all of them (30 ms).
    """

    def __init__(self, user_roots: Iterable[str] = (), *, restore: bool = True, frozen: bool = False) -> None:
        self.origins = Origins(os.path.dirname(torch.__file__), user_roots)
        self.log = Log(self.origins)
        self.patches = Patches(self)
        self.modules: dict[int, tuple[Any, tuple[Noted, ...]]] = {}  # id -> (weak reference, frames of construction)
        self.attached: dict[int, tuple[Any, tuple[Noted, ...]]] = {}  # id -> (..., frames of registration)
        self.lazy: dict[int, weakref.ref[Any]] = {}  # id -> a parameter that was registered without memory
        self.seen: dict[tuple[str, str], list[dict[str, Any]]] = {}  # (file, __init__) -> plain arguments of each call
        self.namespaces: dict[str, dict[str, Any]] = {}  # file -> globals of the user code that runs there
        self.loaded_before = frozenset(sys.modules)
        self.filled = True  # whether new memory was filled all the time
        self._restore = restore
        self._mode = _Mode(self.log)
        self._state: GlobalState | None = None
        self._hooks: list[Any] = []
        self._freezes = not frozen
        self._used = False

    def __enter__(self) -> Recorder:
        if self._used:
            raise ProbeError("a Recorder records one build only", "Make a new Recorder for each build.")
        self._used = True
        self._state = GlobalState()
        self.origins.boundary = sys._getframe(1)
        self._hooks = [
            register_module_parameter_registration_hook(self._registered),
            register_module_buffer_registration_hook(self._registered),
            register_module_module_registration_hook(self._attached),
        ]
        self.patches.apply()
        # The record makes many small objects. Without this, each full collection that they trigger would walk
        # through everything that torch's import left behind (measured: more than the recording itself).
        self._freezes = self._freezes and not gc.get_freeze_count()
        if self._freezes:
            gc.freeze()
        fill_new_memory()
        self._mode.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        remove_mode(self._mode)
        self.filled = self.filled and filling()
        self.origins.boundary = None
        self.log.release()
        for hook in self._hooks:
            hook.remove()
        self.patches.undo()
        if self._freezes:
            gc.unfreeze()
        if self._restore and self._state is not None:
            self._state.restore()
        elif self._state is not None:
            self._state.restore_flags()

    def record(self, model: torch.nn.Module) -> Record:
        """Facts about the model's parameters, buffers, modules and init statements, without statistics."""
        from initlint.probe.record import make_record

        if self.origins.boundary is not None:
            self.filled = self.filled and filling()
        return make_record(self, model)

    def mark(self) -> Mark:
        """What has been recorded so far, to come back to."""
        tables = tuple(dict(table) for table in (self.modules, self.attached))
        seen = {key: len(calls) for key, calls in self.seen.items()}
        return Mark(self.log.mark(), tables, seen, len(self.patches.seeds))

    def rollback(self, mark: Mark) -> None:
        """Forget what was recorded since: a build that was given up is no part of the model's history."""
        self.log.rollback(mark.log)
        for table, before in zip((self.modules, self.attached), mark.tables, strict=True):
            table.clear()
            table.update(before)
        self.seen = {key: calls[: mark.seen[key]] for key, calls in self.seen.items() if key in mark.seen}
        del self.patches.seeds[mark.seeds :]

    # -- hooks ---------------------------------------------------------------------------------

    def _registered(self, module: torch.nn.Module, name: str, tensor: Any) -> None:
        """A parameter or buffer was set on a module."""
        if tensor is None:
            return
        with torch._C.DisableTorchFunction():
            if is_lazy(tensor):
                self.lazy[id(tensor)] = weakref.ref(tensor)
                return
            store = self.log.ensure(tensor)
            if store is None:
                return
            made = store.events[-1] if store.events else None
            if made is not None and made.creation and made.origin == "torch" and not store.registrations:
                frames = made.frames  # a layer registers what it has just made: the same frames wait outside
            else:
                frames = user_frames(sys._getframe(1), self.origins)
            self.log.order += 1
            store.registrations.append(Registration(weakref.ref(module), name, frames, self.log.order))
            if not (store.uninitialised and store.value.unwritten):
                store.print = fingerprint(tensor, full=store.exposed)
                store.version = None if tensor.is_inference() else tensor._version

    def _attached(self, module: torch.nn.Module, name: str, child: Any) -> None:
        if child is None or id(child) in self.attached:
            return
        self.attached[id(child)] = (weakref.ref(child), user_frames(sys._getframe(1), self.origins))

    def constructed(self, module: torch.nn.Module, frame: FrameType | None) -> None:
        """A module's constructor reached ``nn.Module.__init__``; ``frame`` is its caller."""
        while frame is not None and frame.f_code.co_name == "__init__":
            code = frame.f_code
            origin = self.origins.of(code.co_filename)
            if origin == USER:
                values = frame.f_locals
                if not code.co_argcount or values.get(code.co_varnames[0]) is not module:
                    break
                self.namespaces[code.co_filename] = frame.f_globals
                names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
                given = {name: values[name] for name in names if isinstance(values.get(name), _PLAIN)}
                self.seen.setdefault((code.co_filename, code.co_qualname), []).append(given)
            frame = frame.f_back
        self.modules[id(module)] = (weakref.ref(module), user_frames(frame, self.origins))

    def place(self, module: torch.nn.Module) -> tuple[Noted, ...]:
        """User frames of the construction of a module (of its registration when that was not seen)."""
        for known in (self.modules, self.attached):
            entry = known.get(id(module))
            if entry is not None and entry[0]() is module and entry[1]:
                return entry[1]
        return ()


def is_lazy(tensor: Any) -> bool:
    """Whether this is a parameter or buffer without shape and memory yet (``nn.Lazy...``)."""
    return bool(torch.nn.parameter.is_lazy(tensor))


#: Argument values that are kept to evaluate conditions: options, classes, functions; no tensors.
_PLAIN = (bool, int, float, str, type(None), type, FunctionType)
