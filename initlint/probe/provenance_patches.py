"""Functions of torch that no hook reports, wrapped while recording and put back afterwards."""

from __future__ import annotations

import fnmatch
import functools
import re
import sys
import weakref
from typing import TYPE_CHECKING, Any

import torch

from initlint.probe.provenance_matching import Matchings
from initlint.probe.sites import Noted, user_frames
from initlint.records import dataclass

if TYPE_CHECKING:
    from initlint.probe.provenance import Recorder


@dataclass(slots=True)
class SeedCall:
    """A call that set the state of the global generator."""

    frames: tuple[Noted, ...]
    seed: int | None
    order: int
    forked: bool = False  # inside torch.random.fork_rng: undone afterwards


@dataclass(slots=True)
class Applied:
    """An outermost call of ``Module.apply``."""

    module: Any  # weak reference to the module whose method it was
    frames: tuple[Noted, ...]
    order: int


class Patches:
    """Wraps ``nn.Module.__init__`` and ``.apply`` (construction sites, functions applied) and the seeding functions."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.seeds: list[SeedCall] = []
        self.applied: dict[int, Any] = {}  # id of code -> code of functions that were passed to Module.apply
        self.calls: dict[int, int] = {}  # id of code -> how many modules it was applied to
        self.roots: dict[int, list[Applied]] = {}  # id of code -> the outermost calls of apply that it was passed to
        self.matchings = Matchings(recorder.origins)
        self._forks: list[int] = []
        self._saved: list[tuple[Any, str, Any]] = []

    def apply(self) -> None:
        """Put the wrappers in place."""
        self._module_init()
        self._module_apply()
        for name in ("manual_seed", "seed"):
            self._seeding(name)
        self._states()
        self._from_numpy()
        for table in (torch.nn.Embedding, torch.nn.EmbeddingBag):
            self._makes_module(table, "from_pretrained")
        for owner, names in ((re, ("match", "search", "fullmatch")), (fnmatch, ("fnmatch", "fnmatchcase"))):
            for name in names:
                self._replace(owner, name, self.matchings.noting(owner.__dict__[name]))

    def undo(self) -> None:
        """Put the original functions back, unless user code replaced them meanwhile."""
        for owner, name, original in reversed(self._saved):
            setattr(owner, name, original)
        self._saved.clear()

    def _replace(self, owner: Any, name: str, new: Any) -> None:
        self._saved.append((owner, name, owner.__dict__[name]))
        setattr(owner, name, new)

    def _module_init(self) -> None:
        original = torch.nn.Module.__init__
        constructed = self._recorder.constructed

        @functools.wraps(original)
        def initialise(module: Any, *args: Any, **kwargs: Any) -> None:
            constructed(module, sys._getframe(1))
            original(module, *args, **kwargs)

        self._replace(torch.nn.Module, "__init__", initialise)

    def _module_apply(self) -> None:
        original = torch.nn.Module.apply
        applied, calls, namespaces = self.applied, self.calls, self._recorder.namespaces
        inner: list[int] = []  # codes of the functions whose application is going on

        @functools.wraps(original)
        def apply(module: Any, fn: Any) -> Any:
            plain = getattr(fn, "__func__", getattr(fn, "func", fn))  # of a method, of a partial
            code = getattr(plain, "__code__", None)
            if code is not None:
                namespaces.setdefault(code.co_filename, getattr(plain, "__globals__", {}))
                applied[id(code)] = code
                calls[id(code)] = calls.get(id(code), 0) + 1
                if id(code) not in inner:
                    self._applied(id(code), module)
            inner.append(id(code))
            try:
                return original(module, fn)
            finally:
                inner.pop()

        self._replace(torch.nn.Module, "apply", apply)

    def _from_numpy(self) -> None:
        # no hook reports it, and by the time the parameter is registered the function that drew has returned
        original, log = torch.from_numpy, self._recorder.log

        @functools.wraps(original)
        def from_numpy(array: Any) -> Any:
            tensor = original(array)
            log.ensure(tensor)
            return tensor

        self._replace(torch, "from_numpy", from_numpy)

    def _makes_module(self, owner: type, name: str) -> None:
        """A class method that returns a module: where it is called. What it is given is written nowhere."""
        original, recorder = owner.__dict__[name].__func__, self._recorder

        @functools.wraps(original)
        def make(cls: Any, *args: Any, **kwargs: Any) -> Any:
            recorder.log.touches.append(user_frames(sys._getframe(1), recorder.origins)[:1])
            return original(cls, *args, **kwargs)

        self._replace(owner, name, classmethod(make))

    def _applied(self, code: int, module: Any) -> None:
        log = self._recorder.log
        frames = user_frames(sys._getframe(2), self._recorder.origins)
        self.roots.setdefault(code, []).append(Applied(weakref.ref(module), frames, log.order))

    def _seeding(self, name: str) -> None:
        # torch.manual_seed and torch.random.manual_seed are one function until somebody wraps one of them
        for owner in (torch.random, torch):
            self._replace(owner, name, self._noting(owner.__dict__[name]))

    def _noting(self, original: Any) -> Any:
        @functools.wraps(original)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            value = args[0] if args else kwargs.get("seed")
            self._note(value, user_frames(sys._getframe(1), self._recorder.origins))
            return original(*args, **kwargs)

        return wrapper

    def _note(self, value: Any, frames: tuple[Noted, ...]) -> None:
        self._recorder.log.order += 1
        seed = int(value) if isinstance(value, int) else None
        self.seeds.append(SeedCall(frames, seed, self._recorder.log.order))

    def _states(self) -> None:
        """``fork_rng`` reads the state when it begins and writes it back when it ends."""
        get, put = torch.random.get_rng_state, torch.random.set_rng_state

        @functools.wraps(get)
        def get_rng_state() -> Any:
            if sys._getframe(1).f_code.co_name == "fork_rng":
                self._forks.append(len(self.seeds))
            return get()

        @functools.wraps(put)
        def set_rng_state(new_state: Any) -> None:
            if sys._getframe(1).f_code.co_name == "fork_rng":
                for call in self.seeds[self._forks.pop() if self._forks else 0 :]:
                    call.forked = True
            else:
                self._note(None, user_frames(sys._getframe(1), self._recorder.origins))
            put(new_state)

        for owner in (torch.random, torch):
            if owner.__dict__.get("get_rng_state") is get:
                self._replace(owner, "get_rng_state", get_rng_state)
            if owner.__dict__.get("set_rng_state") is put:
                self._replace(owner, "set_rng_state", set_rng_state)
