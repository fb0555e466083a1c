"""Writes that never reached the model: into generated weights, temporaries, and parameters replaced later."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from initlint.probe.provenance_store import Event, Store
from initlint.probe.record_generated import Generated, lost_in
from initlint.records import dataclass

if TYPE_CHECKING:
    from initlint.probe.record_writes import Histories


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a write."""

    lost: bool
    reason: str = ""  # "generated" | "temporary" | "replaced"
    affected: tuple[str, ...] = ()  # parameters it was meant for
    parameters: tuple[str, ...] = ()  # parameters it reached


class Fates:
    """Tells for each event whether its values reached a tensor of the model."""

    def __init__(self, model: torch.nn.Module, histories: Histories, generated: list[Generated]) -> None:
        self._histories = histories
        self._reached: dict[int, tuple[str, ...]] = {}  # order of an event -> names
        for store in histories.held():
            names = histories.names[store.number]
            for event in histories.events(store):
                self._reached[event.order] = (*self._reached.get(event.order, ()), *names)
        self._generated = {event.order: item for item in generated for event in lost_in(item, histories)}
        self._modules = {id(module): name for name, module in model.named_modules()}

    def of(self, event: Event) -> Fate:
        """The fate of a write."""
        reached = self._reached.get(event.order)
        if reached:
            return Fate(False, parameters=tuple(dict.fromkeys(reached)))
        item = self._generated.get(event.order)
        if item is not None:
            return Fate(not self._flows(event), "generated", item.sources)
        store = event.store
        if self._alive(store) or any(later.read for later in store.events if later.order >= event.order):
            return Fate(False)
        if store.registrations:
            return Fate(True, "replaced", self._successors(store))
        return Fate(True, "temporary", self._histories.roots(store))

    @staticmethod
    def _alive(store: Store) -> bool:
        """Whether something still holds the memory: a plain attribute, a list, another model."""
        return bool(store.weak) and not torch.UntypedStorage._expired(store.weak)

    def _flows(self, event: Event) -> bool:
        """Whether memory of the model was computed from this one after the write."""
        for store in self._histories.held():
            if event.store in store.parents and store.events and store.events[0].order > event.order:
                return True
        return False

    def _successors(self, store: Store) -> tuple[str, ...]:
        """Names under which the model now holds something else."""
        found = []
        for registration in store.registrations:
            module = registration.module()
            prefix = self._modules.get(id(module)) if module is not None else None
            if prefix is not None:
                found.append(f"{prefix}.{registration.name}" if prefix else registration.name)
        return tuple(dict.fromkeys(found))
