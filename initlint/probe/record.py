"""Turns what the recorder noted into facts about the parameters, buffers and modules of a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from initlint.facts import FocalLoss, InitStatement, Misread, ModuleFacts, ParameterFacts, Reseed, Site, Tag
from initlint.probe.provenance import is_lazy
from initlint.probe.provenance_store import FULL, Store, fingerprint, region_of
from initlint.probe.record_generated import find_generated, generated_weights
from initlint.probe.record_lost import Fates
from initlint.probe.record_modules import module_facts
from initlint.probe.record_uninitialised import unwritten_share
from initlint.probe.record_writes import Histories
from initlint.probe.sites import Noted, site
from initlint.records import dataclass

if TYPE_CHECKING:
    from initlint.probe.provenance import Recorder


@dataclass(frozen=True, slots=True)
class Record:
    """The init record of a model; ``stats`` of the parameters are left to be filled in."""

    parameters: tuple[ParameterFacts, ...]
    modules: tuple[ModuleFacts, ...]
    statements: tuple[InitStatement, ...] = ()
    misread: tuple[Misread, ...] = ()
    tags: tuple[Tag, ...] = ()
    reseeds: tuple[Reseed, ...] = ()
    focal: tuple[FocalLoss, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Held:
    """A tensor that the model holds, under all its names."""

    tensor: Any
    names: tuple[str, ...]
    kind: str  # "parameter" | "buffer"
    module: Any
    module_name: str
    local: str
    persistent: bool


class Sites:
    """Resolved places, each noted frame once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Site] = {}

    def of(self, noted: Noted) -> Site:
        """The place of a noted frame."""
        key = (id(noted[0]), noted[1])
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = site(noted)
        return found

    def stack(self, frames: tuple[Noted, ...]) -> tuple[Site, ...]:
        """The places of a stack, innermost first."""
        return tuple(self.of(noted) for noted in frames)


def make_record(recorder: Recorder, model: torch.nn.Module) -> Record:
    """All facts of the record; reads the model, changes nothing."""
    from initlint.probe.focal import focal_losses
    from initlint.probe.record_repeats import streams, with_repeats
    from initlint.probe.statements import init_statements, read_code, with_computed
    from initlint.probe.statements_files import model_texts

    with torch._C.DisableTorchFunction(), torch.no_grad():
        places = Sites()
        held = list(held_tensors(model))
        for item in held:
            if not is_lazy(item.tensor):
                recorder.log.ensure(item.tensor, quiet=True)
        histories = Histories(recorder.log, held, places)
        parameters = [_facts(recorder, item, histories, places) for item in held]
        generated = find_generated(model, histories)
        parameters += generated_weights(recorder, generated, histories, places)
        code = read_code(recorder, model)
        parameters = with_computed(recorder, model, parameters, code)
        modules = with_repeats(module_facts(recorder, model, places), recorder, model, code.sources)
        statements, misread, tags = init_statements(recorder, model, Fates(model, histories, generated), code)
        reseeds = (*_reseeds(recorder, places), *streams(code.sources, code.codes, model))
        root = type(model).__qualname__
        focal = [f for path, text, own in model_texts(code.classes) for f in focal_losses(path, text, own, root)]
        notes = _notes(recorder)
    return Record(tuple(parameters), modules, statements, misread, tags, reseeds, tuple(focal), notes)


def held_tensors(model: torch.nn.Module) -> Iterator[Held]:
    """Parameters, then buffers, each tensor object once with all its names."""
    modules = list(model.named_modules(remove_duplicate=False))
    for kind in ("parameter", "buffer"):
        names: dict[int, list[str]] = {}
        first: dict[int, tuple[Any, Any, str, str]] = {}
        for prefix, module in modules:
            for local, tensor in (module._parameters if kind == "parameter" else module._buffers).items():
                if tensor is not None:
                    names.setdefault(id(tensor), []).append(f"{prefix}.{local}" if prefix else local)
                    first.setdefault(id(tensor), (tensor, module, prefix, local))
        for key, (tensor, module, prefix, local) in first.items():
            persistent = kind == "parameter" or local not in module._non_persistent_buffers_set
            yield Held(tensor, tuple(dict.fromkeys(names[key])), kind, module, prefix, local, persistent)


def _facts(recorder: Recorder, item: Held, histories: Histories, places: Sites) -> ParameterFacts:
    tensor = item.tensor
    lazy = is_lazy(tensor)
    store = None if lazy else recorder.log.find(tensor)
    plain = ParameterFacts(
        name=item.names[0],
        kind=item.kind,
        shape=() if lazy else tuple(tensor.shape),
        dtype=str(tensor.dtype).removeprefix("torch."),
        module=item.module_name,
        local=item.local,
        requires_grad=bool(tensor.requires_grad),
        aliases=item.names[1:],
        persistent=item.persistent,
    )
    if store is None:
        place = recorder.place(item.module)
        return replace(plain, created=places.of(place[0]) if place else None, provenance="unknown")
    region = region_of(tensor)
    provenance = histories.provenance(store, region)
    looked_at = provenance == "recorded"
    if looked_at and _changed(store, tensor):
        provenance = "unknown"
        # written where no hook sees (a NumPy view): of memory that was filled with NaN, what still is was not reached
        looked_at = recorder.filled and tensor.is_floating_point() and not tensor.is_meta
    return replace(
        plain,
        storage=histories.number(store),
        created=histories.created(store, recorder.place(item.module)),
        writes=histories.writes(store, region),
        provenance=provenance,
        uninitialised=unwritten_share(store, region, tensor, filled=recorder.filled) if looked_at else 0.0,
    )


def _changed(store: Store, tensor: Any) -> bool:
    """Whether the contents differ from those after the last recorded write."""
    if not store.registrations:
        return False
    now = fingerprint(tensor, full=store.exposed)
    if store.print is not None and now is not None and now != store.print:
        return True
    sampled = store.nbytes > FULL and not store.exposed
    owner = store.registrations[-1].tensor()
    return sampled and owner is tensor and store.version is not None and owner._version != store.version


def _reseeds(recorder: Recorder, places: Sites) -> tuple[Reseed, ...]:
    """Reseeding calls made while a model was built, equal ones counted; scripts may seed at top level."""
    counted: dict[tuple[Site | None, int | None, bool], int] = {}
    for call in recorder.patches.seeds:
        if not _while_building(call.frames):
            continue
        key = (places.of(call.frames[0]), call.seed, call.forked)
        counted[key] = counted.get(key, 0) + 1
    return tuple(Reseed(where, seed, times, forked) for (where, seed, forked), times in counted.items())


def _while_building(frames: tuple[Noted, ...]) -> bool:
    """Whether a seeding call belongs to a constructor or factory, not to a script's top level."""
    names = [code.co_name for code, _ in frames]
    if "<module>" in names:
        return "__init__" in names[: names.index("<module>")]
    return bool(names)


def _notes(recorder: Recorder) -> tuple[str, ...]:
    if recorder.filled:
        return ()
    return ("the code turned deterministic algorithms off: unwritten memory is told by the record of writes alone",)
