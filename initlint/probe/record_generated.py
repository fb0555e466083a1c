"""Weights that are computed from other parameters: weight_norm, spectral_norm, parametrizations.

What is written into such a weight is lost at the next forward. Three mechanisms: parametrizations
(the weight is a property), the older hooks (the weight is a plain attribute recomputed before each
forward), and home-made ones (a plain tensor attribute computed from parameters of the same module).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from initlint.facts import ParameterFacts
from initlint.probe.provenance_store import Event, Store
from initlint.probe.record_region import Touched, touched
from initlint.records import dataclass

if TYPE_CHECKING:
    from initlint.probe.provenance import Recorder
    from initlint.probe.record import Sites
    from initlint.probe.record_writes import Histories

#: Class names of torch's own mechanisms -> the name that users know.
_ORIGINS = {
    "_WeightNorm": "weight_norm",
    "WeightNorm": "weight_norm",
    "_SpectralNorm": "spectral_norm",
    "SpectralNorm": "spectral_norm",
    "_Orthogonal": "orthogonal",
}


@dataclass(frozen=True, slots=True)
class Generated:
    """An effective weight and the parameters that it is computed from."""

    module: Any
    module_name: str
    local: str
    sources: tuple[str, ...]
    origin: str
    tensor: Any  # the tensor that holds it now, ``None`` for a property

    @property
    def name(self) -> str:
        """Its qualified name, as if it were a parameter."""
        return f"{self.module_name}.{self.local}" if self.module_name else self.local


def find_generated(model: torch.nn.Module, histories: Histories) -> list[Generated]:
    """All generated weights of a model."""
    found: list[Generated] = []
    for name, module in model.named_modules():
        found += _parametrised(name, module)
        found += _hooked(name, module)
        known = {(item.module_name, item.local) for item in found}
        found += [item for item in _attributes(name, module, histories) if (name, item.local) not in known]
    return found


def _parametrised(name: str, module: torch.nn.Module) -> Iterator[Generated]:
    if "parametrizations" not in module._modules:  # of a scripted module: a mapping without ``get``
        return
    lists = module._modules["parametrizations"]
    if not isinstance(lists, torch.nn.ModuleDict):
        return
    prefix = f"{name}." if name else ""
    for local, entries in lists.items():
        sources = tuple(
            f"{prefix}parametrizations.{local}.{key}" for key, value in entries._parameters.items() if value is not None
        )
        kinds = [type(entry).__name__ for entry in entries.children()]
        origin = "+".join(_ORIGINS.get(kind, kind) for kind in kinds)
        yield Generated(module, name, local, sources, origin, None)


def _hooked(name: str, module: torch.nn.Module) -> Iterator[Generated]:
    prefix = f"{name}." if name else ""
    for hook in module._forward_pre_hooks.values():
        local = getattr(hook, "name", None)
        if not isinstance(local, str) or not type(hook).__module__.startswith("torch.nn.utils"):
            continue
        sources = tuple(prefix + key for key in module._parameters if key.startswith(f"{local}_"))
        if sources and local not in module._parameters:
            origin = _ORIGINS.get(type(hook).__name__, type(hook).__name__)
            yield Generated(module, name, local, sources, origin, vars(module).get(local))


def _attributes(name: str, module: torch.nn.Module, histories: Histories) -> Iterator[Generated]:
    prefix = f"{name}." if name else ""
    own = {prefix + key for key, value in module._parameters.items() if value is not None}
    for local, value in vars(module).items():
        if not isinstance(value, torch.Tensor) or not value.requires_grad or not own:
            continue
        store = histories.store_of(value)
        if store is None or store.number in histories.names:
            continue
        roots = tuple(root for root in histories.roots(store) if root in own)
        if roots:
            yield Generated(module, name, local, roots, "attribute", value)


def generated_weights(
    recorder: Recorder, generated: list[Generated], histories: Histories, places: Sites
) -> list[ParameterFacts]:
    """One entry for each effective weight, with the writes that it lost."""
    return [_facts(recorder, item, histories, places) for item in generated]


def _facts(recorder: Recorder, item: Generated, histories: Histories, places: Sites) -> ParameterFacts:
    shape, dtype = _form(item)
    writes = []
    for event in lost_in(item, histories):
        part = touched(event, event.store.events[0].region) or Touched(1.0)
        writes.append(histories.write(event, part, unused=True))
    place = recorder.place(item.module)
    return ParameterFacts(
        name=item.name,
        kind="parameter",
        shape=shape,
        dtype=dtype,
        module=item.module_name,
        local=item.local,
        created=places.of(place[0]) if place else None,
        writes=tuple(writes),
        persistent=False,
        generated=True,
        sources=item.sources,
        origin=item.origin,
    )


def _form(item: Generated) -> tuple[tuple[int, ...], str]:
    """Shape and dtype without computing the weight: spectral_norm changes its state when it computes."""
    tensor = item.tensor
    if tensor is None:
        names = [source.rpartition(".")[2] for source in item.sources]
        entries = item.module._modules["parametrizations"]._modules[item.local]
        tensors = [entries._parameters[name] for name in names]
        if not tensors:
            return (), "float32"
        tensor = max(tensors, key=lambda value: int(value.numel()))
    return tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")


def lost_in(item: Generated, histories: Histories) -> list[Event]:
    """Writes into a generated weight, in order."""
    own = None if item.tensor is None else histories.store_of(item.tensor)
    found = []
    for event in histories.all_events():
        if event.creation or event.store.number in histories.names:
            continue
        if (own is not None and event.store is own) or (own is None and _computed_from(event.store, item, histories)):
            found.append(event)
    return found


def _computed_from(store: Store, item: Generated, histories: Histories) -> bool:
    """Whether memory was made by the parametrization of this weight."""
    if not store.events or not any(event.parametrised for event in store.events[:1]):
        return False
    return bool(set(histories.roots(store)) & set(item.sources))
