"""Who called: user frames, the ``nn.init`` call and the helper call around a write, and who asked for it."""

from __future__ import annotations

import os
import sys
from types import CodeType, FrameType
from typing import Any

import torch

from initlint.facts import Plain
from initlint.probe.provenance_store import storage_of
from initlint.probe.provenance_values import plain
from initlint.probe.provenance_words import words
from initlint.probe.sites import ERRAND, FILES, INIT, LAYER, LIBRARY, USER, Noted, Origins
from initlint.records import dataclass

#: Functions of torch, in the files that ``sites.ERRAND`` stands for, that give an operation a meaning of its own.
_TAGS = {
    ("parameter.py", "__deepcopy__"): "deepcopy",
    ("module.py", "_apply"): "apply",
    ("module.py", "to_empty"): "to_empty",
    ("module.py", "_load_from_state_dict"): "load",
    ("parametrize.py", "get_parametrized"): "parametrised",
    ("parametrize.py", "forward"): "parametrised",
    ("parametrize.py", "__init__"): "parametrised",
    ("parametrize.py", "right_inverse"): "parametrised",
    ("serialization.py", "load"): "file",
    ("hub.py", "load_state_dict_from_url"): "file",
}
_CONVERSIONS = words("half float double bfloat16 to cpu cuda type")


@dataclass(slots=True)
class Call:
    """The frames around one operation."""

    frames: tuple[Noted, ...] = ()
    origin: str = "user"
    init: FrameType | None = None  # the outermost frame of the nn.init call it is part of
    helper: FrameType | None = None  # the outermost frame of a home-made helper that was given the tensor
    tags: frozenset[str] = frozenset()
    conversion: str = ""  # "half", "to" ... when inside Module.half(), Module.to()


def look(frame: FrameType | None, origins: Origins, tensor: Any = None) -> Call:
    """Walk outwards from a frame. ``tensor`` is what is being written, to recognise helper calls."""
    call = Call()
    frames: list[Noted] = []
    tags: set[str] = set()
    first = ""  # who asked: the first frame that is neither torch's nor a helper's
    layered = False  # a layer of torch comes before any other frame
    helping = tensor is not None
    key = None
    known, boundary = origins.known, origins.boundary
    while frame is not None:
        code = frame.f_code
        origin = known.get(code.co_filename)
        if origin is None:
            origin = origins.of(code.co_filename)
        if origin in _CALLERS:
            if helping:
                key = _key(tensor) if key is None else key
                helping = not layered and _helps(call, frame, code, key)
            if not first and not helping:
                first = "torch" if layered else "user" if origin == USER else "library"
            if origin == USER:
                frames.append((code, frame.f_lasti))
        elif origin == LAYER:
            layered = layered or not first
        elif origin == ERRAND:
            tag = _TAGS.get((os.path.basename(code.co_filename), code.co_name))
            if tag is not None:
                tags.add(tag)
                if tag == "apply":
                    call.conversion = _conversion(frame) or call.conversion
        elif origin == FILES:
            tags.add("file")
        elif origin == INIT and not frames and not first and code.co_name in _INIT_NAMES:
            call.init = frame
        if frame is boundary:
            break
        frame = frame.f_back
    call.frames = tuple(frames)
    call.origin = first or "user"
    call.tags = frozenset(tags) if tags else _NO_TAGS
    return call


def _helps(call: Call, frame: FrameType, code: CodeType, key: int | None) -> bool:
    """Whether a frame belongs to an init function or to a helper that was given the tensor."""
    if _is_swapped_init(code):
        call.init = frame
        return True
    if key is not None and _receives(frame, code, key):
        call.helper = frame
        return True
    return False


_CALLERS = (USER, LIBRARY)
_NO_TAGS: frozenset[str] = frozenset()
_INIT_NAMES = frozenset(name for name in vars(torch.nn.init) if name.endswith("_") and not name.startswith("_"))


def _is_swapped_init(code: CodeType) -> bool:
    # Libraries replace functions of torch.nn.init by their own of the same name.
    function = vars(torch.nn.init).get(code.co_name)
    return code.co_name in _INIT_NAMES and getattr(function, "__code__", None) is code


def _conversion(frame: FrameType) -> str:
    outer = frame.f_back
    return outer.f_code.co_name if outer is not None and outer.f_code.co_name in _CONVERSIONS else ""


def _key(tensor: Any) -> int | None:
    storage = storage_of(tensor)
    return None if storage is None else int(storage._cdata)


def _receives(frame: FrameType, code: CodeType, key: int) -> bool:
    """Whether one of the frame's arguments is a tensor in this memory."""
    count = code.co_argcount + code.co_kwonlyargcount
    if not count:
        return False
    values = frame.f_locals
    for name in code.co_varnames[:count]:
        value = values.get(name)
        if isinstance(value, torch.Tensor) and _key(value) == key:
            return True
    return False


def arguments(frame: FrameType) -> dict[str, Plain]:
    """Plain arguments of a call as they are now, tensors and generators left out."""
    code = frame.f_code
    values = frame.f_locals
    found: dict[str, Plain] = {}
    for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]:
        value = values.get(name)
        if value is None or isinstance(value, torch.Tensor | torch.Generator):
            continue
        converted = plain(value)
        if converted is not None:
            found[name] = converted
    return found


def active(held: FrameType) -> bool:
    """Whether a frame is still running, seen from the caller's caller."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame is held:
            return True
        frame = frame.f_back
    return False
