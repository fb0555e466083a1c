"""Facts about the modules of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from initlint.facts import ModuleFacts, Plain
from initlint.probe import sites

if TYPE_CHECKING:
    from initlint.probe.provenance import Recorder
    from initlint.probe.record import Sites

#: Longer lists and texts are data, not settings.
_LIST = 16
#: Configurations hold up to some hundred entries; more is no configuration.
_ENTRIES = 200
_TEXT = 200


def module_facts(recorder: Recorder, model: torch.nn.Module, places: Sites) -> tuple[ModuleFacts, ...]:
    """One entry for each module object, in the order of ``named_modules``."""
    names: dict[int, list[str]] = {}
    modules: dict[int, torch.nn.Module] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        modules.setdefault(id(module), module)
        known = names.setdefault(id(module), [])
        if name not in known:
            known.append(name)
    return tuple(_facts(recorder, module, names[key], places) for key, module in modules.items())


def _facts(recorder: Recorder, module: torch.nn.Module, names: list[str], places: Sites) -> ModuleFacts:
    place = recorder.place(module)
    name = names[0]
    prefix = f"{name}." if name else ""
    return ModuleFacts(
        name=name,
        cls=qualified(type(module)),
        bases=tuple(qualified(base) for base in type(module).__mro__ if base is not object),
        created=places.of(place[0]) if place else None,
        parameters=tuple(prefix + local for local, value in module._parameters.items() if value is not None),
        library=library_of(recorder, type(module)),
        attrs=plain_attributes(module) | ({} if name else held_numbers(module)),
        shared_with=tuple(names[1:]),
    )


def qualified(cls: type) -> str:
    """``torch.nn.modules.linear.Linear``."""
    return f"{cls.__module__}.{cls.__qualname__}"


def library_of(recorder: Recorder, cls: type) -> str:
    """``torch``, ``user``, or the top-level package that defines the class."""
    top = cls.__module__.partition(".")[0]
    if top == "torch":
        return "torch"
    file = getattr(__import__("sys").modules.get(cls.__module__), "__file__", None)
    if file and recorder.origins.of(str(file)) == sites.LIBRARY:
        return top
    return "user"


def plain_attributes(module: torch.nn.Module) -> dict[str, Plain]:
    """Public attributes with plain values: ``padding_idx``, ``eps``, ``groups``, ``kernel_size`` ..."""
    found: dict[str, Plain] = {}
    for key, value in vars(module).items():
        if key.startswith("_"):
            continue
        kept, converted = _plain(value)
        if kept:
            found[key] = converted
    return found


def held_numbers(module: torch.nn.Module) -> dict[str, Plain]:
    """Numbers in the objects that a module keeps its configuration in: ``config.n_layer``."""
    found: dict[str, Plain] = {}
    for key, held in vars(module).items():
        if key.startswith("_") or isinstance(held, torch.nn.Module | torch.Tensor | type):
            continue
        entries = held if isinstance(held, dict) else getattr(held, "__dict__", None)
        for name, value in list(entries.items())[:_ENTRIES] if isinstance(entries, dict) else ():
            plain = isinstance(value, int | float) and not isinstance(value, bool)
            if plain and isinstance(name, str) and name.isidentifier() and not name.startswith("_"):
                found[f"{key}.{name}"] = value
    return found


def _plain(value: Any, depth: int = 0) -> tuple[bool, Plain]:
    if value is None or isinstance(value, bool | int | float):
        return True, value
    if isinstance(value, str):
        return len(value) <= _TEXT, value
    if isinstance(value, torch.dtype):
        return True, str(value).removeprefix("torch.")
    if isinstance(value, list | tuple | torch.Size) and len(value) <= _LIST and depth < 2:
        items = [_plain(item, depth + 1) for item in value]
        return all(kept for kept, _ in items), [item for _, item in items]
    if callable(value) and not isinstance(value, torch.nn.Module | type) and hasattr(value, "__name__"):
        return True, str(value.__name__)
    return False, None
