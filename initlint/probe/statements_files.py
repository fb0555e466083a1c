"""Which source files took part in a build, read and parsed."""

from __future__ import annotations

import linecache
import re
import sys
from collections.abc import Iterator
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch

from initlint.probe.sites import USER
from initlint.probe.statements_source import Source, read

if TYPE_CHECKING:
    from initlint.probe.provenance import Recorder

#: Parsing costs a millisecond per hundred lines: only files that were seen, and few others.
_FILES = 40
_SIZE = 400_000
#: A file without any of these holds no init statement.
_CLUES = re.compile(r"\binit\b|\.data\b|\w_\(|no_grad")


def model_classes(recorder: Recorder, model: torch.nn.Module) -> dict[type, tuple[str, ...]]:
    """User classes in the MRO of each module's class, as ``file:qualified name``."""
    found: dict[type, tuple[str, ...]] = {}
    for module in model.modules():
        cls = type(module)
        if cls in found:
            continue
        keys = []
        for base in cls.__mro__:
            file = file_of(base)
            if file and recorder.origins.of(file) == USER:
                keys.append(f"{file}:{base.__qualname__}")
                for value in vars(base).values():
                    if isinstance(value, FunctionType) and value.__code__.co_filename == file:
                        recorder.namespaces.setdefault(file, value.__globals__)
        found[cls] = tuple(keys)
    return found


def file_of(cls: type) -> str:
    """The file that defines a class, "" when it has none."""
    for value in vars(cls).values():
        code = getattr(value, "__code__", None)
        if code is not None and not code.co_filename.startswith("<"):
            return str(code.co_filename)
    return str(getattr(sys.modules.get(cls.__module__), "__file__", None) or "")


def read_sources(recorder: Recorder, classes: dict[type, tuple[str, ...]], codes: list[Any]) -> dict[str, Source]:
    """Parsed user files: of the frames seen, of the model's classes, and of modules loaded meanwhile."""
    paths: dict[str, None] = {}
    for code in codes:
        if recorder.origins.of(code.co_filename) == USER:
            paths.setdefault(code.co_filename)
    for keys in classes.values():
        paths.update(dict.fromkeys(key.rpartition(":")[0] for key in keys))
    for name in list(sys.modules):
        if name in recorder.loaded_before:
            continue
        file = getattr(sys.modules.get(name), "__file__", None)
        if isinstance(file, str) and file.endswith(".py") and recorder.origins.of(file) == USER:
            paths.setdefault(file)
    found: dict[str, Source] = {}
    for path in list(paths)[:_FILES]:
        source = _read(path)
        if source is not None:
            found[path] = source
    return found


def read_user_file(recorder: Recorder, path: str) -> Source | None:
    """One file of the user's, whether or not anything in it looks like an initialisation."""
    return _read(path, whatever=True) if recorder.origins.of(path) == USER else None


def model_texts(classes: dict[type, tuple[str, ...]]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """The files that define the classes of a model: path, text, and the qualified names of those classes."""
    files: dict[str, dict[str, None]] = {}
    for keys in classes.values():
        for key in keys:
            path, _, name = key.rpartition(":")
            files.setdefault(path, {})[name] = None
    for path in list(files)[:_FILES]:
        text = "".join(linecache.getlines(path))
        if text:
            yield path, text, tuple(files[path])


def seen_codes(recorder: Recorder) -> list[Any]:
    """Code objects of all user functions that were seen running or passed to ``Module.apply``."""
    stacks = [event.frames for event in recorder.log.events]
    stacks += [frames for _, frames in (*recorder.modules.values(), *recorder.attached.values())]
    stacks += [item.frames for store in recorder.log.by_number for item in store.registrations]
    stacks += [call.frames for call in recorder.patches.seeds]
    codes: dict[int, Any] = dict(recorder.patches.applied)
    codes.update((id(code), code) for frames in stacks for code, _ in frames)
    return list(codes.values())


def _read(path: str, *, whatever: bool = False) -> Source | None:
    try:
        with open(path, encoding="utf-8") as handle:
            text = handle.read(_SIZE + 1)
    except (OSError, UnicodeDecodeError):
        return None
    if len(text) > _SIZE or not (whatever or _CLUES.search(text)):
        return None
    return read(path, text)
