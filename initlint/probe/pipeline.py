"""From a live model to its facts: record, statistics, inputs, trace, graph, layers.

Used in the worker's children and, for a model that is already there, in the caller's process
(``initlint.check(model)``). What cannot be had is left out and said; the rest is still returned.
"""

from __future__ import annotations

import contextlib
import copy
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from initlint.errors import InitlintError
from initlint.facts import (
    Argument,
    InputFacts,
    Layer,
    ModelFacts,
    ModuleFacts,
    Node,
    ParameterFacts,
    TensorStats,
    TraceFacts,
)
from initlint.options import ProbeOptions
from initlint.probe import distributed
from initlint.probe.submodules import submodule
from initlint.probe.unregistered import unregistered
from initlint.records import dataclass

if TYPE_CHECKING:
    from initlint.probe.inputs import Inputs
    from initlint.probe.record import Record
    from initlint.probe.traced import Traced

# Share of a model's layers below which its forward does not stand for it: more is left out than seen. A forward that
# hands its input on (a container of nets that train in turn) sees none.
_MOST = 0.5
_INDEX = re.compile(r"(?<![^.])\d+(?![^.])")


@dataclass(frozen=True, slots=True)
class Identity:
    """What a model is called and where it comes from."""

    name: str
    target: str
    file: str = ""
    line: int | None = None
    arguments: tuple[Argument, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """What tracing adds to a model's facts."""

    nodes: tuple[Node, ...] = ()
    outputs: tuple[int, ...] = ()
    layers: tuple[Layer, ...] = ()
    trace: TraceFacts = field(default_factory=TraceFacts)
    inputs: tuple[InputFacts, ...] = ()
    status: str = "partial"
    reason: str = ""
    measured_loss: float | None = None


def analyse(
    build: Callable[[], nn.Module] | nn.Module,
    *,
    name: str = "",
    target: str = "",
    options: ProbeOptions | None = None,
    namespace: Mapping[str, Any] | None = None,
    inputs: Any = None,
) -> ModelFacts:
    """Facts about a model, in this process; nothing is forked, the model is as before afterwards.

    Args:
        build: constructs the model (recorded, under ``options.seed``), or a live model, whose parameters
            then have no record of how they were written.
        namespace: where ``example_inputs`` is looked for.
        inputs: the arguments of forward: a tuple, or ``(args, kwargs)``.
    """
    options = options or ProbeOptions()
    start = time.perf_counter()
    if isinstance(build, nn.Module) and distributed.is_sharded(build):
        return _analyse_sharded(build, name, target, options, inputs)
    if inputs is not None:
        namespace = {**(namespace or {}), "example_inputs": lambda: inputs}
    model, record = _built(build, options, namespace or {})
    cls = type(model)
    identity = Identity(name or cls.__name__, target or f"{cls.__module__}:{cls.__qualname__}")
    facts = describe(model, record, identity, options)
    found = graph(model, record, facts, namespace or {}, options)
    return replace(merged(facts, found), seconds=time.perf_counter() - start)


def _analyse_sharded(model: nn.Module, name: str, target: str, options: ProbeOptions, inputs: Any) -> ModelFacts:
    """Facts about a model that several processes hold; each of them must call this."""
    start = time.perf_counter()
    found, notes = distributed.reduced(model)
    twin = distributed.plain_copy(model)
    cls = type(twin)
    device = next(iter(model.parameters())).device.type
    identity = Identity(name or cls.__name__, target or f"{cls.__module__}:{cls.__qualname__}", notes=notes)
    record = _record_of_live(twin)
    facts = describe(twin, record, identity, options)
    facts = replace(facts, parameters=distributed.with_reduced(facts.parameters, found))
    namespace = {} if inputs is None else {"example_inputs": lambda: inputs}
    traced = graph(twin, record, facts, namespace, options)
    return replace(merged(facts, traced), device=device, seconds=time.perf_counter() - start)


def analyse_live(
    model: nn.Module, inputs: Any = None, options: ProbeOptions | None = None, *, name: str = "", target: str = ""
) -> ModelFacts:
    """Facts about a live model; ``inputs`` may be a tensor, a tuple, a dict of keywords or ``(args, kwargs)``."""
    given = inputs
    if isinstance(inputs, torch.Tensor):
        given = (inputs,)
    elif isinstance(inputs, Mapping):
        given = ((), dict(inputs))
    elif isinstance(inputs, list):
        given = tuple(inputs)
    return analyse(model, name=name, target=target or name, options=options, inputs=given)


def describe(
    model: nn.Module, record: Record | None, identity: Identity, options: ProbeOptions, *, statistics: bool = True
) -> ModelFacts:
    """Facts without the graph: parameters (with statistics of their values, unless told otherwise), modules, ..."""
    parameters = tuple(_unrecorded(model)) if record is None else record.parameters
    if record is not None and statistics:
        parameters = tuple(measured(model, record))
    modules = record.modules if record is not None else tuple(_plain_modules(model))
    floating = [p for p in parameters if p.dtype.startswith(("float", "bfloat", "complex"))]
    return ModelFacts(
        name=identity.name,
        target=identity.target,
        file=identity.file,
        line=identity.line,
        status="partial",
        arguments=identity.arguments,
        parameters=parameters,
        modules=modules,
        statements=record.statements if record is not None else (),
        reseeds=record.reseeds if record is not None else (),
        focal=record.focal if record is not None else (),
        misread=record.misread if record is not None else (),
        tags=record.tags if record is not None else (),
        unregistered=unregistered(model),
        dtype=floating[0].dtype if floating else "float32",
        # small tensors of a model built on meta stay real
        device="meta" if options.device == "meta" or any(p.is_meta for p in model.parameters()) else "cpu",
        seed=options.seed,
        notes=(*identity.notes, *(record.notes if record is not None else ())),
        torch=str(torch.__version__),
        python=sys.version.split()[0],
    )


def graph(
    model: nn.Module,
    record: Record | None,
    facts: ModelFacts,
    namespace: Mapping[str, Any],
    options: ProbeOptions,
    *,
    with_inputs: bool = True,
) -> GraphFacts:
    """Trace the model and pair its layers; failures become the reason."""
    from initlint.probe.entrance import has_forward, through_training_step

    with through_training_step(model):
        found, given = _graph(model, record, facts, namespace, options, with_inputs=with_inputs)
    asked = _specified(facts, options) or "example_inputs" in namespace
    if not with_inputs:
        return found
    # What a method other than forward leaves out may be another method's: only forward says that it is not used, as
    # long as that is the lesser part.
    few = has_forward(model) and _reaches_few(found, facts)
    whole = found.trace.coverage >= 1 or (has_forward(model) and not few)
    if few and (found.status == "analysed" or found.trace.ran):
        found = replace(found, status="partial", reason=found.reason or _left_out(found))
    if asked or (whole and (found.status == "analysed" or found.trace.ran)):
        return found
    return _by_parts(model, record, facts, options, found, given)


def _reaches_few(found: GraphFacts, facts: ModelFacts) -> bool:
    """Whether a forward leaves out most of its model, and not only like ones of what it reads (experts not chosen)."""
    if found.trace.coverage >= _MOST:
        return False
    missing = set(found.trace.not_reached)
    names = [p.name for p in facts.parameters if p.kind == "parameter"]
    read = {_INDEX.sub("#", name) for name in names if name not in missing}
    return sum(_INDEX.sub("#", name) not in read for name in missing) > (1 - _MOST) * len(names)


def _left_out(found: GraphFacts) -> str:
    """Why a forward that ran does not stand for the model."""
    if not found.trace.coverage:
        return "its forward reads none of its parameters"
    return f"its forward reaches only {max(int(100 * found.trace.coverage), 1)} % of its layers"


def _specified(facts: ModelFacts, options: ProbeOptions) -> tuple[str, ...]:
    """The inputs that the command line or the configuration gives for a model."""
    return options.inputs or options.inputs_for.get(facts.target) or options.inputs_for.get(facts.name) or ()


def _by_parts(
    model: nn.Module,
    record: Record | None,
    facts: ModelFacts,
    options: ProbeOptions,
    whole: GraphFacts,
    given: Inputs | None,
) -> GraphFacts:
    """The graph of a model's parts, each called by itself, where they ran and show no less than was seen of the whole.

    One that has no forward consists of them, and of the method that it was called through, where that is what training
    calls; of others they remain a part, whose reason says what the whole needs. A forward that ran and reaches the
    lesser part of its model is called beside what it leaves out.
    """
    try:
        from initlint.probe import trace as tracing
        from initlint.probe.entrance import entrance, has_forward
        from initlint.probe.inputs_parts import method, parts_of, through_parts

        through: tuple[str, Callable[..., Any]] | None = None
        if given is not None and given.training:
            through = ("forward", model.forward) if has_forward(model) else entrance(model)
        if through is not None and given is not None and whole.trace.ran and not _inference_only(whole):
            rest = parts_of(model, options.seed, frozenset(whole.trace.not_reached))
            parts = [method(*through, given), *rest] if rest else []
        else:
            parts = parts_of(model, options.seed)
        if not parts:
            return whole
        with through_parts(model, parts) as values:
            traced = tracing.trace(model, values, measure=options.measure, seed=options.seed)
        if not traced.ran or traced.coverage < whole.trace.coverage:
            return whole
    except Exception:  # what was seen of the whole stands
        return whole
    found = _paired(traced, record, facts, tuple(values.facts), [])
    found = replace(found, trace=replace(found.trace, parts=tuple(part.path for part in parts)))
    return found if not has_forward(model) else replace(found, status="partial", reason=whole.reason)


def _inference_only(found: GraphFacts) -> bool:
    """Whether a run shows nothing of training: no tensor comes out of it, or all weights are read without gradients."""
    return not found.outputs or all(node.attrs.get("untrained") for node in found.nodes if node.parameters)


def _graph(
    model: nn.Module,
    record: Record | None,
    facts: ModelFacts,
    namespace: Mapping[str, Any],
    options: ProbeOptions,
    *,
    with_inputs: bool,
) -> tuple[GraphFacts, Inputs | None]:
    """The graph, and the inputs that it was traced with."""
    notes: list[str] = []
    try:
        from initlint.probe import inputs as finding
        from initlint.probe import trace as tracing
        from initlint.probe.inputs_calls import Calls
    except ImportError as error:
        return GraphFacts(reason=f"trace not available: {error}"), None
    given = None
    if with_inputs:
        try:
            calls = Calls((facts.name, type(model).__name__), namespace, options.directory, options.seed)
            given = finding.find(model, namespace, _specified(facts, options), seed=options.seed, calls=calls)
        except InitlintError as error:
            notes.append(_sentence(error))
        except Exception as error:
            notes.append(f"no input was found: {_short(error)}")
    used = tuple(given.facts) if given is not None else ()
    refused = notes[0] if notes and options.inputs else ""
    try:
        traced = tracing.trace(model, given, measure=options.measure, seed=options.seed)
    except InitlintError as error:
        return GraphFacts(reason=_sentence(error), inputs=used, trace=TraceFacts(notes=tuple(notes))), given
    except Exception as error:
        reason = f"tracing failed: {_short(error)}"
        return GraphFacts(reason=reason, inputs=used, trace=TraceFacts(notes=tuple(notes))), given
    asked = any(entry.origin in ("example_inputs", "--input", "configuration") for entry in used)
    if asked and not traced.ran and facts.device != "meta":
        why = traced.failure or "the forward did not run to its end"
        refused = f"the inputs ({used[0].origin}) do not fit: {why}"
    found = _paired(traced, record, facts, used, notes)
    if traced.ran:
        from initlint.probe.symmetry import equal_slices

        found = replace(found, trace=replace(found.trace, equal=equal_slices(model, given, options.seed)))
    return (replace(found, status="partial", reason=refused) if refused else found), given


def merged(facts: ModelFacts, found: GraphFacts) -> ModelFacts:
    """The model's facts with its graph."""
    names = ("nodes", "outputs", "layers", "trace", "inputs", "status", "reason", "measured_loss")
    return replace(facts, **{name: getattr(found, name) for name in names})


def _paired(
    traced: Traced, record: Record | None, facts: ModelFacts, used: tuple[InputFacts, ...], notes: list[str]
) -> GraphFacts:
    nodes: tuple[Node, ...] = ()
    outputs: tuple[int, ...] = ()
    layers: tuple[Layer, ...] = ()
    reason = ""
    try:
        from initlint.probe.normalise import normalise
        from initlint.probe.pair import pair

        nodes, outputs = normalise(traced, record)
        layers = pair(nodes, facts.parameters, facts.modules)
        if facts.device == "meta":
            from initlint.probe.meta_operators import fill

            nodes = fill(nodes, facts.parameters)
    except ImportError as error:
        reason = f"trace not available: {error}"
    except InitlintError as error:
        reason = _sentence(error)
    except Exception as error:
        reason = f"the graph could not be read: {_short(error)}"
    complete = bool(nodes) and not reason and (traced.ran or traced.method == "symbolic")
    if not complete and not reason:
        # The first says why no inputs were found, or why the run with them failed; later ones say what was tried then.
        reason = next(iter((*notes, *traced.notes)), "the forward did not run to its end")
    trace = TraceFacts(
        method=traced.method,
        coverage=traced.coverage,
        unsupported=_unsupported(nodes),
        not_reached=tuple(traced.not_reached),
        notes=(*notes, *traced.notes),
        training=traced.training,
        ran=traced.ran,
    )
    return GraphFacts(nodes, outputs, layers, trace, used, "analysed" if complete else "partial", reason)


def _unsupported(nodes: tuple[Node, ...]) -> tuple[str, ...]:
    """Names and counts of the operations that are not modelled, and that something reads."""
    counts: dict[str, int] = {}
    read = {source for node in nodes for source in node.inputs}
    for node in nodes:
        if node.index in read and node.op == "opaque" and node.response is None and not node.table:
            name = str(node.attrs.get("function") or node.attrs.get("name") or node.label or node.op)
            counts[name] = counts.get(name, 0) + 1
    return tuple(f"{name} ({count})" for name, count in sorted(counts.items()))


def _built(
    build: Callable[[], nn.Module] | nn.Module, options: ProbeOptions, namespace: Mapping[str, Any]
) -> tuple[nn.Module, Record | None]:
    from initlint.probe.lazily import is_lazy, materialise

    if isinstance(build, nn.Module):
        if is_lazy(build):  # a copy: the caller's model stays as it is
            build = copy.deepcopy(build)
            materialise(build, namespace, options.inputs, options.seed)
        return build, _record_of_live(build)
    from initlint.probe.build import seed_everything
    from initlint.probe.provenance import Recorder

    mode: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if options.device == "meta":
        from initlint.probe.meta_build import MostlyMeta

        mode = MostlyMeta()
    with Recorder() as recorder, mode:
        seed_everything(options.seed)
        model = build()
        if is_lazy(model):
            materialise(model, namespace, options.inputs, options.seed)
    record = recorder.record(model)
    return model, without_values(model, record, options.seed) if on_meta(model) else record


def on_meta(model: nn.Module) -> bool:
    """Whether any parameter is on the meta device."""
    return any(p.is_meta for p in model.parameters())


def without_values(
    model: nn.Module, record: Record, seed: int, loaded: Mapping[str, TensorStats] | None = None
) -> Record:
    """The record with statistics, of a model on meta; what is real of it is measured and then moved to meta, too.

    Args:
        loaded: statistics of the tensors that a checkpoint holds.
    """
    from initlint.probe import replay
    from initlint.probe.meta_build import emptied

    groups = {fact.name: tensor_of(model, fact.name)[1] for fact in record.parameters}
    values, replaying = emptied(model), replay.Replay(seed)
    found, missing = [], {}
    for fact in record.parameters:
        stats = (loaded or {}).get(fact.name)
        if stats is not None:
            fact = replace(fact, stats=stats, provenance="loaded", uninitialised=0.0)
        elif fact.name in values:
            fact = replace(fact, stats=_stats(values[fact.name], groups[fact.name]))
        elif not fact.generated:
            stats, reason = replaying.stats(fact, groups[fact.name])
            fact = replace(fact, stats=stats)
            if stats is None:
                missing[fact.name] = reason
        found.append(fact)
    return replace(record, parameters=tuple(found), notes=(*record.notes, *replay.reasons(missing)))


def _record_of_live(model: nn.Module) -> Record | None:
    """Modules and parameters of a model whose construction was not seen."""
    try:
        from initlint.probe.provenance import Recorder

        with Recorder() as recorder:
            pass
        record = recorder.record(model)
    except ImportError:
        return None
    return replace(record, parameters=tuple(replace(p, provenance="unknown") for p in record.parameters))


def measured(model: nn.Module, record: Record) -> list[ParameterFacts]:
    """The recorded parameters with statistics of their values."""
    from initlint.probe.measure import measure_all

    with torch.no_grad():
        found = measure_all([tensor_of(model, fact.name) for fact in record.parameters])
    return [
        replace(fact, stats=stats) if stats is not None else fact
        for fact, stats in zip(record.parameters, found, strict=True)
    ]


def tensor_of(model: nn.Module, name: str) -> tuple[torch.Tensor | None, int]:
    """The tensor of a qualified name, and the groups of the convolution that owns it (else 1)."""
    path, _, local = name.rpartition(".")
    try:
        owner = submodule(model, path)
        value = getattr(owner, local)
    except Exception:  # a property of user code may raise anything
        return None, 1
    groups = getattr(owner, "groups", 1)
    ok = isinstance(groups, int) and groups > 0
    return (value if isinstance(value, torch.Tensor) else None), groups if ok else 1


def _stats(tensor: torch.Tensor, groups: int) -> Any:
    try:
        from initlint.probe.measure import measure
    except ImportError:
        return None
    with torch.no_grad():
        return measure(tensor, groups)


def _unrecorded(model: nn.Module) -> Iterator[ParameterFacts]:
    """Parameters and buffers where no record is available."""
    kinds = (("parameter", model.named_parameters()), ("buffer", model.named_buffers()))
    for kind, tensors in kinds:
        for name, tensor in tensors:
            module, _, local = name.rpartition(".")
            yield ParameterFacts(
                name=name,
                kind=kind,
                shape=tuple(tensor.shape),
                dtype=str(tensor.dtype).removeprefix("torch."),
                module=module,
                local=local,
                requires_grad=tensor.requires_grad,
                provenance="unknown",
                stats=_stats(tensor, tensor_of(model, name)[1]),
            )


def _plain_modules(model: nn.Module) -> Iterator[ModuleFacts]:
    for name, module in model.named_modules():
        cls = type(module)
        own = tuple(f"{name}.{local}" if name else local for local, _ in module.named_parameters(recurse=False))
        yield ModuleFacts(name=name, cls=f"{cls.__module__}.{cls.__qualname__}", parameters=own)


def _sentence(error: InitlintError) -> str:
    return f"{error.message}. {error.hint}" if error.hint else error.message


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
