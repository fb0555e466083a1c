"""Trace a model's forward: symbolically where torch.fx can, else recorded from a run.

Strategy: symbolic tracing first (milliseconds). With inputs its graph is run and its result
compared with the model's own, so that a wrong branch taken on proxies is noticed; where it cannot
be traced, run, or differs, the run itself is recorded. Without inputs, what can be traced is
traced child by child. The model is as before afterwards: buffers, mode, and random state.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import fx, nn

from initlint.errors import ProbeError
from initlint.probe import symbolic, symbolic_run
from initlint.probe.inputs import Inputs
from initlint.probe.recorded import Recorder
from initlint.probe.recorded_cover import cover
from initlint.probe.recorded_gradients import gradient_seconds
from initlint.probe.recorded_output import map_output
from initlint.probe.recorded_state import exporting, preserved, seeded, set_mode
from initlint.probe.traced import KEY, MARKERS, Meta, Traced, argument_names, meta_of, tensors_in

__all__ = ["KEY", "MARKERS", "Meta", "Traced", "meta_of", "trace"]

# Relative difference of outputs (second moments) up to which two runs count as the same computation.
_SAME = 1e-3
# Up to these sizes a model is run twice (symbolic graph and its check); beyond, one recorded run is cheaper.
_SMALL_MODEL = 5_000_000
_SMALL_INPUT = 200_000
_SMALL_RUN = 5_000_000
# Modes tried, as (train mode, norms take statistics of the batch), see ``set_mode``.
MODES = ((True, True), (False, True), (False, False))


def trace(model: nn.Module, inputs: Inputs | None, *, measure: bool = False, seed: int = 0) -> Traced:
    """Trace ``model`` in train mode.

    Args:
        inputs: what to run it with; ``None`` or empty when nothing is known.
        measure: also run one backward and fill ``Measured.gradient_second``.
        seed: of the run (dropout, noise, cotangents).
    """
    start = time.perf_counter()
    notes: list[str] = []
    with preserved(model):
        model.train()
        if inputs is None:
            traced = _without_inputs(model, notes)
        else:
            traced = _with_inputs(model, inputs, measure, seed, notes)
    traced.coverage, traced.not_reached = cover(model, traced.graph)
    traced.notes = (*(inputs.notes if inputs is not None else ()), *notes)
    traced.seconds = time.perf_counter() - start
    return traced


def _with_inputs(model: nn.Module, inputs: Inputs, measure: bool, seed: int, notes: list[str]) -> Traced:
    traced = _symbolic(model, inputs, measure, seed, notes) if _small(model, inputs) else None
    if traced is not None:
        return traced
    if inputs.recording is not None and not measure:
        estimating = set_mode(model, inputs.training, inputs.estimating)
        return _from_recorder(model, inputs, inputs.recording, True, inputs.training, estimating)
    traced = _recorded(model, inputs, measure, seed, notes)
    if traced.ran:
        return traced
    # The run failed half-way: what can be traced without values may show more of the model.
    blind: list[str] = []
    other = _without_inputs(model, blind)
    if cover(model, other.graph)[0] <= cover(model, traced.graph)[0]:
        return traced
    notes.extend(blind)
    other.failure = traced.failure
    return other


def _small(model: nn.Module, inputs: Inputs) -> bool:
    """Whether a second forward, to check the symbolic graph against the model, costs next to nothing.

    By sizes and not by time: the same model must be traced in the same way each time.
    """
    if _on_meta(model) or inputs.notes or not inputs.training:
        return False
    parameters = sum(p.numel() for p in model.parameters())
    values = sum(t.numel() for t in tensors_in((inputs.args, dict(inputs.kwargs))))
    if inputs.recording is not None:
        values += sum(t.numel() for v, _ in inputs.recording.values.values() for t in tensors_in(v))
        return parameters <= _SMALL_MODEL and values <= _SMALL_RUN
    return parameters <= _SMALL_MODEL and values <= _SMALL_INPUT


def _without_inputs(model: nn.Module, notes: list[str]) -> Traced:
    try:
        with preserved(model):
            found = symbolic.trace_whole(model)
        method = "symbolic"
    except ProbeError as error:
        notes.append(error.message)
        with preserved(model):
            found = symbolic.trace_mixed(model)
        notes.extend(found.failures)
        method = "mixed"
    symbolic_run.resolve_named_writes(found.graph)
    symbolic_run.blank(found.graph)
    traced = Traced(found.graph, model, method, constants=found.constants, attributes=_attributes(model))
    traced.outputs = _outputs(found.graph)
    return traced


def _symbolic(model: nn.Module, inputs: Inputs, measure: bool, seed: int, notes: list[str]) -> Traced | None:
    try:
        with preserved(model):
            found = symbolic.trace_whole(model, (inputs.args, inputs.kwargs))
        attributes = {**_attributes(model), **found.constants}
        _, tensors = _fresh(inputs, measure)
        run = symbolic_run.GraphRun(found.graph, model, attributes, batch=inputs.batch, gradients=measure)
        traced = Traced(found.graph, model, "symbolic", ran=True, constants=found.constants, attributes=attributes)
        traced.values, traced.batch_size = run.values, inputs.batch
        with preserved(model):  # else the model that it is compared with starts from what this run left
            with seeded(seed):
                run.run(tensors)
            traced.outputs = _outputs(found.graph)
            if measure:  # before anything touches the buffers that the backward needs
                gradient_seconds(traced, run.edges, seed, notes)
        _check_same(model, inputs, seed, run.result)
    except ProbeError as error:
        notes.append(error.message)
        return None
    except Exception as error:
        notes.append(f"the symbolic graph does not run: {symbolic.reason_of(error)}")
        return None
    return traced


def _check_same(model: nn.Module, inputs: Inputs, seed: int, result: Any) -> None:
    """Compare with the model's own forward: proxies may have taken another branch than tensors do."""
    if inputs.recording is not None:
        theirs = [inputs.recording.values[n][0] for n in inputs.recording.outputs]
        ours = list(dict.fromkeys(_all_tensors(result)))
    else:
        given, _ = _fresh(inputs, False)
        with seeded(seed), torch.no_grad(), preserved(model):
            theirs = _all_tensors(model(*given[0], **given[1]))
        ours = _all_tensors(result)
    same = len(ours) == len(theirs) and all(_alike(a, b) for a, b in zip(ours, theirs, strict=True))
    if not same:
        raise ProbeError("the symbolic graph computes something else than the model")


def _all_tensors(value: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    map_output(value, found.append)
    return found


def _alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return bool(torch.allclose(a.detach(), b.detach(), rtol=_SAME, atol=1e-6, equal_nan=True))


def _from_recorder(
    model: nn.Module, inputs: Inputs, recorder: Recorder, ran: bool, training: bool, estimating: frozenset[int]
) -> Traced:
    traced = Traced(recorder.graph, model, "recorded", ran=ran, training=training, constants=recorder.constants)
    traced.estimating = estimating
    traced.values, traced.batch_size, traced.attributes = recorder.values, inputs.batch, _attributes(model)
    traced.outputs = recorder.outputs
    return traced


def _recorded(model: nn.Module, inputs: Inputs, measure: bool, seed: int, notes: list[str]) -> Traced:
    """Record a run; when train mode fails try eval mode; keep the attempt that saw most."""
    best: tuple[float, Traced] | None = None
    failure = ""
    for training, estimating in MODES:
        if training > inputs.training:
            continue  # known to fail
        norms = set_mode(model, training, estimating)
        traced = _attempt(model, inputs, measure, seed, notes, training, norms)
        seen = cover(model, traced.graph)[0]
        failure = failure or traced.failure
        if best is None or traced.ran or seen > best[0]:
            best = (seen, traced)
        if traced.ran:
            break
    assert best is not None
    best[1].failure = "" if best[1].ran else failure
    return best[1]


def _attempt(
    model: nn.Module,
    inputs: Inputs,
    measure: bool,
    seed: int,
    notes: list[str],
    training: bool,
    estimating: frozenset[int],
) -> Traced:
    meta = _on_meta(model)
    given, _ = _fresh(inputs, measure and not meta, device="meta" if meta else None)
    recorder = Recorder(model, batch=inputs.batch, measure=not meta, gradients=measure and not meta, answers=meta)
    names = argument_names(model, *given)
    traced = _from_recorder(model, inputs, recorder, False, training, estimating)
    try:
        with preserved(model), seeded(seed), exporting(meta):
            recorder.run(given[0], given[1], names)
            traced.outputs, traced.ran = recorder.outputs, True
            if measure and not meta:  # before anything touches the buffers that the backward needs
                gradient_seconds(traced, recorder.edges, seed, notes)
    except (Exception, SystemExit) as error:
        mode = "train" if training else "eval"
        traced.failure = f"the forward fails in {mode} mode: {symbolic.reason_of(error)}"
        notes.append(traced.failure)
    recorder.close()
    return traced


def _fresh(
    inputs: Inputs, gradients: bool, device: str | None = None
) -> tuple[tuple[Sequence[Any], Mapping[str, Any]], list[torch.Tensor]]:
    """A copy of the inputs (a forward may write into them), its float tensors requiring gradients if asked."""
    tensors: list[torch.Tensor] = []

    def copy(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            new = value.detach().clone() if device is None else value.detach().to(device)
            if gradients and new.is_floating_point():
                new = new.requires_grad_().clone()  # no leaf: it may be written in place
            tensors.append(new)
            return new
        if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
            return type(value)(copy(v) for v in value)
        if type(value) is dict:
            return {k: copy(v) for k, v in value.items()}
        if type(value) is SimpleNamespace:
            return SimpleNamespace(**copy(vars(value)))
        return value

    args = [copy(a) for a in inputs.args]
    kwargs = {k: copy(v) for k, v in inputs.kwargs.items()}
    return (args, kwargs), tensors


def _on_meta(model: nn.Module) -> bool:
    return any(p.device.type == "meta" for p in model.parameters())


def _attributes(model: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _outputs(graph: fx.Graph) -> tuple[fx.Node, ...]:
    output = next((n for n in reversed(graph.nodes) if n.op == "output"), None)
    return tuple(dict.fromkeys(output.all_input_nodes)) if output is not None else ()
