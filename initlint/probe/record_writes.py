"""Histories of memories: the writes of a parameter in order, with those of the memory it continues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from initlint.facts import Plain, Site, Write
from initlint.probe.provenance_store import Event, Region, Store
from initlint.probe.record_region import Touched, covers, touched

if TYPE_CHECKING:
    from initlint.probe.provenance_log import Log
    from initlint.probe.record import Held, Sites
    from initlint.probe.sites import Noted


class Histories:
    """Answers questions about the past of a memory."""

    def __init__(self, log: Log, held: list[Held], places: Sites) -> None:
        self._log = log
        self._places = places
        self._numbers: dict[int, int] = {}  # number of a store in the log -> number in the facts
        self.names: dict[int, tuple[str, ...]] = {}  # number of a store -> names of the tensors that it holds
        self._roots: dict[int, tuple[str, ...]] = {}
        for item in held:
            store = None if item.module is None else log.find_safely(item.tensor)
            if store is not None:
                self._numbers.setdefault(store.number, len(self._numbers) + 1)
                self.names[store.number] = (*self.names.get(store.number, ()), item.names[0])

    def number(self, store: Store) -> int:
        """A small number of the memory, by first appearance in the model."""
        return self._numbers.setdefault(store.number, len(self._numbers) + 1)

    def held(self) -> list[Store]:
        """The memories that the model's parameters and buffers use."""
        return [self._log.by_number[number - 1] for number in self.names]

    def all_events(self) -> list[Event]:
        """Every event of the build, in order."""
        return self._log.events

    def store_of(self, tensor: Any) -> Store | None:
        """The memory of a tensor, if it is known."""
        return self._log.find_safely(tensor)

    def events(self, store: Store) -> list[Event]:
        """All events in the history of a memory, oldest first."""
        return history(store)

    def roots(self, store: Store) -> tuple[str, ...]:
        """Names of the model's tensors that a memory was computed from (or shaped like)."""
        known = self._roots.get(store.number)
        if known is None:
            self._roots[store.number] = ()  # memories written with out= may form cycles
            found: list[str] = []
            for parent in store.parents:
                found += self.names.get(parent.number) or self.roots(parent)
            known = self._roots[store.number] = tuple(dict.fromkeys(found))
        return known

    def created(self, store: Store, place: tuple[Noted, ...]) -> Site | None:
        """The user's line that registered the parameter first, else that made its memory, else the module."""
        lineage: list[Store] = []
        walk: Store | None = store
        while walk is not None:
            lineage.append(walk)
            walk = walk.previous[0] if walk.previous is not None else None
        for candidate in reversed(lineage):
            for registration in candidate.registrations:
                if registration.frames:
                    return self._places.of(registration.frames[0])
        for candidate in reversed(lineage):
            for event in candidate.events:
                if event.frames:
                    return self._places.of(event.frames[0])
        return self._places.of(place[0]) if place else None

    def provenance(self, store: Store, region: Region) -> str:
        """``recorded``, ``loaded`` (from a file) or ``unknown`` (from where no hook sees)."""
        events = history(store)
        if not events:
            return "unknown"
        final = [event for event in events if not event.creation or event.overwrites]
        last = next((event for event in reversed(final) if event.overwrites and covers(event, region)), None)
        value = last.value if last is not None and last.value is not None else events[0].store.value
        if last is not None and last.creation and last.value is None:
            return {"loaded": "loaded", "unseen": "unknown"}.get(store.value.function, "recorded")
        outside = last is not None and last.op == "load" and value.function in ("unseen", "unknown")
        return "loaded" if value.loaded or outside else "recorded"

    def writes(self, store: Store, region: Region) -> tuple[Write, ...]:
        """The writes that touched this region of the memory, in order."""
        events = history(store)
        found: list[Write] = []
        for position, event in enumerate(events):
            if event.creation and not event.overwrites and event.op == "create":
                continue  # an allocation writes nothing
            part = self._part(event, store, region)
            if part is None:
                continue
            unused = _unused(event, events[position:], region) if event.store is store else _lost(event, events, store)
            found.append(self.write(event, part, unused=unused))
        return tuple(found)

    @staticmethod
    def _part(event: Event, store: Store, region: Region) -> Touched | None:
        if event.store is store:
            return touched(event, region)
        own = event.store.events[0].region if event.store.events else event.region
        return touched(event, own) or Touched(1.0)

    def write(self, event: Event, part: Touched, *, unused: bool) -> Write:
        """An event as a fact."""
        stack = self._places.stack(event.frames)
        args: dict[str, Plain] = dict(event.args)
        source = args.get("source")
        if event.op == "deepcopy" and isinstance(source, int):
            args["source"] = next(iter(self.names.get(source, ())), f"#{source}")
        return Write(
            op=event.op,
            order=event.order,
            args=args,
            site=stack[0] if stack else None,
            stack=stack,
            origin=event.origin,
            group=event.group,
            helper=event.helper,
            share=part.share,
            region=part.text,
            start=part.start,
            stop=part.stop,
            random=event.random,
            generator=event.generator,
            unused=unused,
        )


def history(store: Store) -> list[Event]:
    """Events of a memory and of the memories it continues, oldest first."""
    chain = [(store, len(store.events))]
    while (previous := chain[-1][0].previous) is not None and len(chain) < 64:
        chain.append(previous)
    return [event for part, count in reversed(chain) for event in part.events[:count]]


def _unused(event: Event, later: list[Event], region: Region) -> bool:
    """Whether the event's values were overwritten before anything read them. ``later[0]`` is the event."""
    if event.read:
        return False
    for following in later[1:]:
        if following.overwrites and (covers(following, event.region) or covers(following, region)):
            return True
        if following.read or not following.overwrites:
            return False
    return False


def _lost(event: Event, events: list[Event], store: Store) -> bool:
    """For a write to an earlier memory of the parameter: unused when the values did not come along."""
    if event.read and store.continues not in ("to_empty", "assign"):
        return False
    position = events.index(event)
    own = [later for later in events[position + 1 :] if later.store is event.store]
    if _unused(event, [event, *own], event.region):
        return True
    if event.read and own:
        return False
    whole = store.events[0].region if store.events else event.region
    if any(later.op in ("to_empty",) or later.args.get("assigned") for later in events[position + 1 :]):
        return not event.read
    return any(later.overwrites and covers(later, whole) for later in store.events)
