"""The layer table: what each layer has, by which scheme, and what was expected of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from initlint.facts import Layer, ModelFacts, ParameterFacts, Scalar
from initlint.findings import Finding, LayerRow, LayerSignal
from initlint.kernels import of_kernels
from initlint.runtime_scale import run_time_factor
from initlint.theory.sampling import looks_orthogonal
from initlint.theory.schemes import (
    LayerSpec,
    Recognised,
    Scheme,
    acceptable,
    base_write,
    compatible,
    nearest,
    recognise,
    stated,
    textbook,
)

if TYPE_CHECKING:
    from initlint.signal import Moments, Nominal, Signal

#: A weight follows the nearest acceptable scheme if its std is within this of it; otherwise it is compared with the
#: schemes of its fans. The allowance is the sampling error of 400 normal values at 5 SE, see ``theory.sampling``.
CLOSE = 1.2


def layer_rows(
    facts: ModelFacts, signal: Signal | None = None, findings: Sequence[Finding] = ()
) -> tuple[LayerRow, ...]:
    """One row for each layer with weights, in the order of the facts.

    ``expected_std`` is what a finding on the layer's scale expects; else that of the acceptable scheme which the record
    confirms, else of the one nearest to the values (of those derived from the fans, when none is near); ``None`` where
    pairing or fans are not known, or where a norm of the weights cancels their scale.
    """
    named = {name: p for p in facts.parameters for name in (*p.aliases, p.name)}
    depth, told = residual_branches(facts), _told(facts, findings)
    layers = (of_kernels(facts, layer) for layer in facts.layers)
    rows = (_row(layer, named.get(layer.weight), depth, facts, signal) for layer in layers)
    return tuple(_agreeing(row, named.get(layer.weight), told) for layer, row in zip(facts.layers, rows, strict=True))


def _told(facts: ModelFacts, findings: Sequence[Finding]) -> dict[str, float]:
    """The std that findings expect of weights: of each its own, where one finding tells that of the worst of many."""
    named = {p for f in findings if "variance" in f.expected and "mean" not in f.expected for p in f.parameters}
    if not named:
        return {}
    from initlint.diagnosis import suspects

    return {s.parameter.name: math.sqrt(s.expected) for s in suspects(facts) if s.parameter.name in named}


def _agreeing(row: LayerRow, parameter: ParameterFacts | None, told: Mapping[str, float]) -> LayerRow:
    """The row with the expectation of the finding on its weight: one report tells one number."""
    wanted = told.get(parameter.name) if parameter is not None else None
    if not wanted or row.std is None:
        return row
    return replace(row, expected_std=wanted, ratio=row.std / wanted)


def specification(layer: Layer, parameter: ParameterFacts, depth: int | None = None) -> LayerSpec:
    """What decides which schemes suit the layer (``theory.schemes.acceptable`` takes it)."""
    return LayerSpec.from_layer(layer, parameter.shape, depth)


def residual_branches(facts: ModelFacts) -> int | None:
    """Number of layers that write into a residual sum: the N of depth-scaled schemes; ``None`` if there are none."""
    return sum(layer.branch for layer in facts.layers) or None


def expected(layer: Layer, parameter: ParameterFacts, depth: int | None = None) -> Scheme | None:
    """The acceptable scheme that the record confirms, else the nearest; see ``layer_rows``."""
    spec = specification(layer, parameter, depth)
    return _expected(parameter, spec, recognise(parameter, spec))


def nominal(parameter: ParameterFacts, layer: Layer | None = None) -> Nominal | None:
    """Moments that the record states where the values agree with it, else the actual ones; ``None`` without stats.

    Args:
        layer: unused where the record decides; kept for weights whose effective values are generated.
    """
    from initlint.signal import Nominal

    stats, asked = parameter.stats, stated(parameter)
    orthogonal = asked is not None and asked.family == "orthogonal"
    if asked is not None and (stats is None or compatible(stats, asked, parameter.dtype)):
        return Nominal(asked.mean, asked.var, orthogonal)
    if stats is None or not stats.count:
        return None
    return Nominal(stats.mean, stats.var, False)


def _expected(parameter: ParameterFacts, spec: LayerSpec, found: Recognised) -> Scheme | None:
    schemes = _without_orthogonal(acceptable(spec, zeros=True), parameter, found)
    if found.status == "confirmed" and found.scheme in schemes:
        return found.scheme
    stats = parameter.stats
    usual = _without_orthogonal(textbook(spec), parameter, found)
    if stats is None or not stats.count:
        return usual[0] if usual else None
    best = nearest(schemes, stats.var, stats.mean)
    if best is not None and (
        best.var == 0 or stats.var == 0 or abs(math.log(stats.var / best.var)) < 2 * math.log(CLOSE)
    ):
        return best
    return nearest(usual, stats.var, stats.mean) or (usual[0] if usual else None)


def _expected_std(parameter: ParameterFacts, spec: LayerSpec, found: Recognised, factor: float | None) -> float | None:
    """What the parameter should hold; the schemes are for what the forward makes of it, ``factor`` times its square."""
    if factor is None:
        return None
    best, stats = None, parameter.stats
    if factor == 1.0:
        best = _expected(parameter, spec, found)
    elif stats is not None and stats.count:
        best = nearest(textbook(spec), stats.var * factor)
    return None if best is None else best.std / math.sqrt(factor)


def _without_orthogonal(
    schemes: tuple[Scheme, ...], parameter: ParameterFacts, found: Recognised
) -> tuple[Scheme, ...]:
    """Orthogonal schemes have variances of their own, which only orthogonal weights may be compared with."""
    asked = found.asked is not None and found.asked.structured
    stats = parameter.stats
    if asked or (stats is not None and looks_orthogonal(stats, parameter.dtype)):
        return schemes
    return tuple(scheme for scheme in schemes if scheme.family != "orthogonal")


def _row(
    layer: Layer, parameter: ParameterFacts | None, depth: int | None, facts: ModelFacts, signal: Signal | None
) -> LayerRow:
    scheme: str | None = None
    std = wanted = ratio = None
    init: dict[str, Scalar] | None = None
    undetermined = layer.undetermined
    if parameter is not None:
        spec = specification(layer, parameter, depth)
        found = recognise(parameter, spec)
        scheme, init = _unwritten(parameter) or found.text or None, _init(parameter)
        factor = run_time_factor(facts, layer, parameter)
        if parameter.stats is not None and parameter.stats.count:
            std = _finite(math.sqrt(parameter.stats.var))
        wanted = _expected_std(parameter, spec, found, factor)
        if wanted is not None:
            # a constant has no spread to compare; that it is constant is another matter than its scale
            constant = parameter.stats is not None and parameter.stats.var == 0 and parameter.stats.mean != 0
            ratio = std / wanted if std is not None and wanted > 0 and not constant else None
        elif factor is not None and undetermined is None and layer.kind not in ("norm", "scale"):
            undetermined = "the fans of this layer are not known"
    return LayerRow(
        name=layer.name,
        kind=layer.kind,
        parameters=layer.parameters or (layer.weight,),
        site=layer.site,
        fan_in=layer.fan_in,
        fan_out=layer.fan_out,
        activation=layer.activation,
        path=layer.path,
        scheme=scheme,
        init=init,
        std=std,
        expected_std=wanted,
        ratio=ratio,
        undetermined=undetermined,
        signal=_signal(layer, facts, signal),
        consumer=layer.consumer,
    )


def _unwritten(parameter: ParameterFacts) -> str:
    """What stands in a scheme's place where no statement wrote the memory, or not all of it."""
    if parameter.uninitialised >= 1:
        return "never written"
    return "written in part" if parameter.uninitialised > 0 else ""


def _init(parameter: ParameterFacts) -> dict[str, Scalar] | None:
    write = base_write(parameter)
    if write is None:
        return None
    function = str(write.args.get("function", write.op)) if write.op == "create" else write.op
    site = write.site
    return {"function": function, "file": site.file if site else None, "line": site.line if site else None}


def _signal(layer: Layer, facts: ModelFacts, signal: Signal | None) -> LayerSignal:
    """Scales at the output of the layer's first call."""
    if not layer.nodes or layer.nodes[0] >= len(facts.nodes):
        return LayerSignal()
    index = layer.nodes[0]
    measured = facts.nodes[index].measured
    real_forward = _root(measured.second) if measured is not None else None
    real_gradient = _root(measured.gradient_second) if measured is not None else None
    if signal is None or index >= len(signal.built):
        return LayerSignal(measured_forward_std=real_forward, measured_gradient_std=real_gradient)
    moments: Moments = signal.built[index]
    if moments.undetermined:
        return LayerSignal(measured_forward_std=real_forward, measured_gradient_std=real_gradient)
    return LayerSignal(
        forward_std=_root(moments.q),
        gradient_std=_root(moments.p),
        measured_forward_std=real_forward,
        measured_gradient_std=real_gradient,
        forward_band=_band(moments.noise_q),
        gradient_band=_band(moments.noise_p),
        dependent=_share(moments.q, moments.dependent),
    )


def _root(second: float | None) -> float | None:
    return _finite(math.sqrt(second)) if second is not None and second >= 0 else None


def _band(noise: float | None) -> float | None:
    """A std of ln q as one of log10 of the standard deviation."""
    return _finite(0.5 * noise / math.log(10.0)) if noise is not None else None


def _share(q: float, dependent: float) -> float | None:
    return _finite(max(0.0, min(1.0, dependent / q))) if q > 0 else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
