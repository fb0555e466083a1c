"""Hard-coded accelerators (``.cuda()``, ``device="cuda"``, ``.to("cuda")``) become the CPU, and are noted.

Models are built and run on the CPU on every machine, so that results do not depend on what is plugged in. Nor is
anything compiled: what ``torch.compile`` is given comes back as it is, as it does with TORCHDYNAMO_DISABLE=1, but
without the seconds that importing the compiler takes; so does a function that ``torch.jit.script`` would hide in one
operation.
"""

from __future__ import annotations

import os
import re
import sys
from types import FunctionType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._device import DeviceContext

from initlint.probe.provenance_state import remove_mode
from initlint.probe.target import relative

#: Device types that are left as they are.
_KEPT = frozenset(("cpu", "meta"))
_ACCELERATOR = re.compile(r"(cuda|mps|xpu|hpu|npu|mtia|privateuseone)(:\d+)?")
_MOVES = frozenset(("cuda", "xpu", "hpu", "npu", "ipu", "mtia"))
#: What takes a device without a keyword, or is one by name.
_BY_POSITION = _MOVES | {"to"}


class Redirect(TorchFunctionMode):
    """While active, torch functions never see an accelerator; ``notes`` says where one was asked for."""

    def __init__(self, directory: str) -> None:
        super().__init__()
        self.directory = directory
        self.places: dict[tuple[str, int], str] = {}
        self._restore: list[tuple[Any, str, Any]] = []

    @property
    def notes(self) -> list[str]:
        """One sentence for each line that asked for an accelerator."""
        return [
            f"{relative(file, self.directory)}:{line}: {what} was redirected to the CPU"
            for (file, line), what in self.places.items()
        ]

    def __enter__(self) -> Any:
        # A function of its own for each name: torch's compiler keeps rules by function and refuses duplicates.
        for name, value in (("set_device", None), ("current_device", 0), ("synchronize", None)):
            self._patch(torch.cuda, name, lambda *_, _value=value, **__: _value)
        for name in (
            "FloatTensor",
            "LongTensor",
            "DoubleTensor",
            "HalfTensor",
            "IntTensor",
            "BoolTensor",
            "ByteTensor",
        ):
            self._patch(torch.cuda, name, getattr(torch, name))
        self._patch(torch, "compile", _uncompiled)
        self._patch(torch.jit, "script", _unscripted(torch.jit.script))
        # ``with torch.device("cuda")`` and ``set_default_device`` act below all other modes: caught where they begin.
        begin = DeviceContext.__init__

        def init(context: Any, device: Any) -> None:
            if _is_accelerator(device):
                self._note(f"the default device {_text(device)}")
                device = torch.device("cpu")
            begin(context, device)

        self._patch(DeviceContext, "__init__", init)
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *args: Any) -> None:
        remove_mode(self)
        for owner, name, value in reversed(self._restore):
            setattr(owner, name, value)
        self._restore.clear()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if not kwargs:
            if name not in _BY_POSITION:  # nearly all calls: nothing in them can name a device
                return func(*args)
            kwargs = {}
        if name in _MOVES and len(args) >= 1 and isinstance(args[0], torch.Tensor):
            self._note(f".{name}()")
            return args[0]
        device = kwargs.get("device")
        if device is not None and _is_accelerator(device):
            self._note(f"device={_text(device)}")
            kwargs = {**kwargs, "device": torch.device("cpu")}
        if name == "to" and len(args) > 1 and any(_is_accelerator(arg) for arg in args[1:]):
            self._note(f".to({_text(next(arg for arg in args[1:] if _is_accelerator(arg)))})")
            args = tuple(torch.device("cpu") if _is_accelerator(arg) and i else arg for i, arg in enumerate(args))
        return func(*args, **kwargs)

    def _patch(self, owner: Any, name: str, value: Any) -> None:
        if hasattr(owner, name):
            self._restore.append((owner, name, getattr(owner, name)))
            setattr(owner, name, value)

    def _note(self, what: str) -> None:
        frame = sys._getframe(2)
        here, library = os.path.dirname(__file__), os.path.dirname(torch.__file__)
        while frame is not None:
            file = frame.f_code.co_filename
            if not file.startswith((here, library)) and not file.startswith("<"):
                self.places.setdefault((file, frame.f_lineno), what)
                return
            frame = frame.f_back  # type: ignore[assignment]


def _uncompiled(model: Any = None, **_: Any) -> Any:
    """What ``torch.compile`` is called with; as a decorator with options, one that changes nothing."""
    return model if model is not None else lambda function: function


def _unscripted(script: Any) -> Any:
    """``torch.jit.script``, which leaves functions as they are."""

    def call(subject: Any, *args: Any, **kwargs: Any) -> Any:
        return subject if isinstance(subject, FunctionType) else script(subject, *args, **kwargs)

    return call


def _is_accelerator(value: Any) -> bool:
    if isinstance(value, torch.device):
        return value.type not in _KEPT
    if isinstance(value, str):
        return _ACCELERATOR.fullmatch(value) is not None
    # An int means the accelerator of that number; bool is a flag of ``to``.
    return isinstance(value, int) and not isinstance(value, bool)


def _text(value: Any) -> str:
    return repr(str(value)) if isinstance(value, (str, torch.device)) else repr(value)
