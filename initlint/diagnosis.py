"""Why a layer's variance is what it is: one reason for each layer, from the record and the shapes.

The variance rules (IL1xx) share this: a layer has at most one reason, so one cause gives one finding. Reasons with
evidence come first; a deviation that nothing explains is the last resort. Pure functions of facts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from initlint.asked import drawn_alike, drawn_by, named, nominal_second
from initlint.codebooks import codebooks
from initlint.facts import Layer, ModelFacts, ParameterFacts, Site, Write
from initlint.generators import generators
from initlint.kernels import channels_first, channels_last, of_kernels
from initlint.reasons import (
    Case,
    fan_counted,
    fits,
    formula_misplaced,
    mean_shifted,
    nearest_scheme,
    other_activation,
    slope_taken,
)
from initlint.records import dataclass
from initlint.runtime_scale import as_used, factor_in_front, mean_kept, run_time_factor
from initlint.theory.fans import torch_fans
from initlint.theory.misapplied import GAINS
from initlint.theory.miscounts import EXACT, formula
from initlint.theory.schemes import Scheme, acceptable, textbook
from initlint.wiring import depth_counts, kept_for_last, reached, transparent, users

#: Reasons, in the order in which they are tried.
REASONS = (
    "default",  # PyTorch's own default, never re-initialised
    "gain_as_slope",  # kaiming's `a` is the negative slope; something else was passed
    "grouped_fan",  # fan_out counted over all groups
    "fan_axis",  # the fan was taken from the wrong axis: transposed, (in, out), stacked, table
    "fused_fan",  # several projections packed in one matrix counted as one
    "variance_as_std",  # a variance formula handed to a standard deviation or bound
    "misapplied_formula",  # bound and std confused, a root too many, a gain alone
    "nonzero_mean",  # the mean of a weight is not zero: arguments swapped or shifted
    "other_activation",  # a scheme chosen by the code for another activation
    "stacked_orthogonal",  # orthogonal over several stacked matrices at once
    "unexplained",
)

#: THEORY 3.3: allowed band of F var E[phi^2] around 1 rather than naming the scheme.
_BAND = 2.0

#: By how much the variance of a scheme and one that is expected may differ to be the same: what padding takes of fans.
_SCHEME = 0.1

#: What a formula has and a number has not: a call with one is completed where it stands.
COMPUTES = re.compile(r"sqrt|\*\*|/")

#: Reasons that lie in a formula, and say nothing where it gives a suitable variance all the same.
_MISAPPLIED = ("variance_as_std", "misapplied_formula")
#: Reasons that go by the number alone.
_NUMBERS = (*_MISAPPLIED, "unexplained")
#: Reasons that lie in a count of inputs or outputs.
_COUNTED = ("grouped_fan", "fan_axis")


@dataclass(frozen=True, slots=True)
class Suspect:
    """A layer whose weight is not what suits it, with the reason.

    ``actual`` and ``expected`` are variances of the weight (second moments for a non-zero mean).
    """

    layer: Layer
    parameter: ParameterFacts
    reason: str
    actual: float
    expected: float
    scheme: Scheme | None  # the acceptable scheme nearest to the actual variance
    evidence: str  # a clause: "kaiming_normal_ counts 64 groups as one: fan_out 576 instead of 9"
    remedy: str  # the line to write instead
    wrote: Write | None = None


@kept_for_last
def suspects(facts: ModelFacts) -> tuple[Suspect, ...]:
    """All layers whose weight deviates, each with one reason. Frozen, loaded and generated weights are exempt."""
    return () if facts.loaded else _suspects(facts)


def _suspects(facts: ModelFacts) -> tuple[Suspect, ...]:
    found: list[Suspect] = []
    fitting: set[str] = set()
    others: dict[str, Suspect | None] = {}  # what else is to be said of weights whose formula no code shows
    by_name = {name: p for p in facts.parameters for name in (p.name, *p.aliases)}
    seen: set[str] = set()
    drawn = drawn_alike(facts)
    narrowed = scaled_for_width(facts)
    depth = sum(layer.branch for layer in facts.layers)
    texts = _Texts(facts)
    codes = {table.name for table, _ in codebooks(facts)}
    writers = {generator.layer.name: generator.free for generator in generators(facts)}
    tables = {p.name for layer in facts.layers if layer.kind == "embedding" and (p := by_name.get(layer.weight))}
    for layer in [part for whole in facts.layers for part in _factors(facts, whole, by_name)]:
        parameter = by_name.get(layer.weight)
        gates = _gates(layer, parameter) if parameter is not None and parameter.name not in seen else None
        if gates is not None:
            found.append(gates)
        elif parameter is not None and parameter.name not in seen and layer.kind == "recurrent":
            found += _packed_mean(layer, parameter)
        if parameter is not None and parameter.generated and mean_kept(facts, layer, parameter):
            drawn_from = [by_name[name] for name in parameter.sources if name in by_name and name not in seen]
            seen.update(source.name for source in drawn_from)
            found += [s for p in drawn_from if p.shape == parameter.shape for s in _mean(layer, p)]
        if parameter is None or parameter.name in seen or not _judged(layer, parameter):
            continue
        seen.add(parameter.name)
        # a matrix that is also looked up is a table: its rows are items, its columns the dimension
        read = replace(layer, layout="table") if parameter.name in tables else of_kernels(facts, layer)
        if _scaled_instead_of_logits(facts, layer, parameter):
            continue
        factor = run_time_factor(facts, layer, parameter)
        given = drawn.get(parameter.name)
        if channels_last(facts, layer, parameter.shape) and not named(parameter.last):
            parameter = replace(parameter, shape=channels_first(parameter.shape))
            read = replace(read, torch_fans=torch_fans(parameter.shape))
            given = tuple(channels_first(shape) for shape in given if len(shape) > 2) if given is not None else None
        text = texts.of(parameter)
        suspect = _suspect(read, parameter, factor, given, depth, text) if factor is not None else None
        if factor is None and mean_kept(facts, layer, parameter):
            found += _mean(layer, parameter)
        formula_only = suspect is not None and suspect.reason == "misapplied_formula"
        if formula_only and factor is not None and not COMPUTES.search(text):
            others[parameter.name] = _suspect(read, parameter, factor, None, depth, text)
        if layer.kind == "embedding" and _summed(facts, layer):  # a linear layer of a vector that counts the entries
            if suspect is not None and suspect.reason == "fan_axis":
                continue
            found += _mean(replace(layer, kind="linear"), parameter)
        if suspect is not None and suspect.reason == "other_activation" and _several(facts, layer):
            continue
        if suspect is not None and suspect.reason == "unexplained" and _counterweight(facts, read, suspect):
            continue
        if suspect is not None and suspect.reason == "unexplained" and parameter.name in codes:
            continue  # lengths of codes are compared with what they code (IL333)
        smaller = suspect is not None and suspect.actual < suspect.expected
        if suspect is not None and suspect.reason == "unexplained" and narrowed and smaller:
            continue
        written = writers.get(layer.name, 0)
        if suspect is not None and suspect.reason in _NUMBERS and (written > 1 or (written and smaller)):
            continue  # the fan of what it writes is counted with its own (IL335)
        if suspect is not None:
            found.append(_as_held(suspect, factor or 1.0))
            if suspect.reason in _MISAPPLIED and fits(read, suspect.actual):
                fitting.add(parameter.name)
    found = [s for each in found if (s := _shown(found, others, each)) is not None]
    sizes = tuple(_other_counts(facts))
    widths = {layer.fan_in for layer in facts.layers if layer.kind != "embedding"}
    found = [s for s in found if not (_of_table(s) and s.parameter.shape[0] in widths)]
    found = [s for s in found if not (_of_readout(facts, s) and not any(_beside(s, other) for other in found))]
    kept = [s for s in found if s.parameter.name not in fitting or not _all_fit(found, fitting, s)]
    return tuple(s for s in kept if not (_otherwise(found, s, sizes) or _of_all_added(facts, by_name, s)))


def _of_all_added(facts: ModelFacts, by_name: Mapping[str, ParameterFacts], suspect: Suspect) -> bool:
    """Whether a formula is right for all layers of one shape whose outputs are added up: the slices of a kernel."""
    if suspect.reason not in _MISAPPLIED or not suspect.layer.fan_in or not suspect.layer.nodes:
        return False
    top = suspect.layer.nodes[-1]
    joins = ("add", "identity")
    while (behind := users(facts)[top]) and facts.nodes[behind[0]].op in joins:
        top = behind[0]
    weights = {layer.weight for layer in facts.layers}
    written: set[str] = set()
    front = [top]
    while front:
        node = facts.nodes[front.pop()]
        front += node.inputs if node.op in joins else ()
        written.update(weights.intersection(node.parameters.values()))
    count = sum(name in by_name and by_name[name].shape == suspect.parameter.shape for name in written)
    fans = {suspect.layer.fan_in, *(suspect.layer.torch_fans or ())[:1]}  # with and without what padding takes
    return count > 1 and any(formula(suspect.actual, fan * count, (1.0, 2.0)) for fan in fans)


def _as_held(suspect: Suspect, factor: float) -> Suspect:
    """The suspect in what the parameter holds: the reader compares with that, not with what the forward makes of it.

    A scheme by name gives what is used; what the parameter should hold for that has to be written as a number.
    """
    if factor == 1.0:
        return suspect
    actual, expected = suspect.actual / factor, suspect.expected / factor
    line = f"nn.init.normal_(w, std={math.sqrt(expected):.3g})" if suspect.remedy else ""
    return replace(suspect, actual=actual, expected=expected, scheme=None, remedy=line)


def scaled_for_width(facts: ModelFacts) -> bool:
    """Whether all attentions divide by the width of a head, and not by its root: muP (Yang et al. 2022, table 8).

    Its matrices have the std of a narrower base model, by the root of how much wider they are: smaller than any scheme,
    and which base is not in the model.
    """
    found = [(n.attrs.get("scale"), n.attrs.get("head_dim")) for n in facts.nodes if n.op == "attention"]
    known = [(s, d) for s, d in found if isinstance(s, (int, float)) and isinstance(d, (int, float))]
    return bool(known) and all(d >= 4 and math.isclose(s * d, 1.0, rel_tol=EXACT) for s, d in known)


class _Texts:
    """The lines that a weight's value is computed and written in."""

    def __init__(self, facts: ModelFacts) -> None:
        self._values = {
            (s.site.file, s.site.line): s.value_site.text
            for s in facts.statements
            if s.value_site is not None and s.runs
        }

    def of(self, parameter: ParameterFacts) -> str:
        site = parameter.last.site if parameter.last is not None else None
        passed = parameter.computed.text if parameter.computed is not None else ""
        return f"{site.text}\n{self._values.get((site.file, site.line), '')}\n{passed}" if site is not None else ""


def _several(facts: ModelFacts, layer: Layer) -> bool:
    """Whether the output is split among different activations, so that no scheme suits all of it (RAFT's context)."""
    read = (n for start in layer.nodes for n in reached(facts, start, transparent))
    return len({n.attrs.get("fn") for n in read if n.op == "activation"}) > 1


def _summed(facts: ModelFacts, layer: Layer) -> bool:
    """Whether the rows that are looked up in a table are added up: in a bag, or by a sum (with a mask) behind it."""
    for index in layer.nodes:
        node = facts.nodes[index]
        if node.attrs.get("mode") == "sum" and node.attrs.get("bag", 1.0) != 1.0:
            return True
        behind = reached(facts, index, lambda n: transparent(n) or n.op == "mul")
        if any(n.op == "reduce" and n.attrs.get("fn") == "sum" and n.attrs.get("over") == "position" for n in behind):
            return True
    return False


def _of_table(suspect: Suspect) -> bool:
    """Whether a table is said to go by its number of entries: ambiguous where that is a width of the model, too."""
    return suspect.reason == "fan_axis" and suspect.layer.kind == "embedding"


def _of_readout(facts: ModelFacts, suspect: Suspect) -> bool:
    """Whether an output layer has the std 1 / fan_in, that of a muP readout (Yang et al. 2022, table 3).

    One that is divided by the width in the forward as well (table 8) is scaled twice.
    """
    fan_in = suspect.layer.fan_in
    if suspect.reason != "variance_as_std" or not suspect.layer.head or not fan_in:
        return False
    behind = (n for start in suspect.layer.nodes for n in reached(facts, start, transparent))
    scaled = any(n.op == "scale" and n.attrs.get("factor") != 1.0 for n in behind)
    return not scaled and math.isclose(math.sqrt(suspect.actual) * fan_in, 1.0, rel_tol=EXACT)


def _beside(suspect: Suspect, other: Suspect) -> bool:
    """Whether the same line has written another layer in the same way: then it is no scheme for readouts."""
    return other is not suspect and other.reason == suspect.reason and _same_line(other.wrote, suspect.wrote)


def _otherwise(found: list[Suspect], suspect: Suspect, sizes: tuple[float, ...]) -> bool:
    """Whether a formula in the wrong place may be another one with a further size in it (T5: 1 / (d_model d_kv)).

    One number for one fan is as likely the one as the other; a second fan that follows the same formula decides.
    """
    if suspect.reason not in _MISAPPLIED or not suspect.layer.fan_in:
        return False
    alike = [s for s in found if s.reason == suspect.reason and _same_line(s.wrote, suspect.wrote)]
    if any(not math.isclose(s.actual, suspect.actual, rel_tol=1e-6) for s in alike):
        return False
    return any(formula(suspect.actual, suspect.layer.fan_in * size, (1.0, 2.0)) for size in sizes if size > 0)


def _shown(found: list[Suspect], others: Mapping[str, Suspect | None], suspect: Suspect) -> Suspect | None:
    """A formula in the wrong place where the code shows it or a second fan follows it; one number is chance."""
    std = math.sqrt(suspect.actual)
    if suspect.parameter.name not in others or any(math.isclose(std, gain, rel_tol=EXACT) for gain in GAINS):
        return suspect  # a gain is a number that stands for itself
    alike = [s for s in found if s.reason == suspect.reason and _same_line(s.wrote, suspect.wrote)]
    if any(not math.isclose(s.actual, suspect.actual, rel_tol=1e-6) for s in alike):
        return suspect
    return others[suspect.parameter.name]


def _all_fit(found: list[Suspect], fitting: set[str], suspect: Suspect) -> bool:
    """Whether a formula in the wrong place gives a suitable variance to every weight that its line writes."""
    alike = [s for s in found if s.reason == suspect.reason and s.wrote and suspect.wrote]
    return all(s.parameter.name in fitting for s in alike if _same_line(s.wrote, suspect.wrote))


def _same_line(first: Write | None, second: Write | None) -> bool:
    if first is None or second is None or first.site is None or second.site is None:
        return first is second
    return (first.site.file, first.site.line) == (second.site.file, second.site.line)


def _gates(layer: Layer, parameter: ParameterFacts) -> Suspect | None:
    """Xavier on the packed gates of a recurrent layer, which counts the outputs of all of them."""
    write, stats = parameter.last, parameter.stats
    if layer.kind != "recurrent" or len(layer.blocks) < 2 or write is None or stats is None or stats.distinct:
        return None
    if write.origin == "torch" or not write.op.startswith("xavier") or write.share < 1 or len(parameter.shape) != 2:
        return None
    rows, columns = parameter.shape
    hidden = rows / len(layer.blocks)
    second, _ = nominal_second(parameter)
    expected = second * (rows + columns) / (hidden + columns)
    names = ", ".join(block.name for block in layer.blocks)
    evidence = f"{write.op} takes the packed gates {names} for one: fan_out {rows} instead of {hidden:g}"
    line = f"for gate in weight.chunk({len(layer.blocks)}): nn.init.{write.op}(gate)"
    return Suspect(layer, parameter, "fused_fan", second, expected, None, evidence, line, write)


def _packed_mean(layer: Layer, parameter: ParameterFacts) -> Iterator[Suspect]:
    """A matrix of a packed recurrent layer that is drawn around a mean."""
    stats = parameter.stats
    if _trained(parameter) and stats is not None and stats.distinct is None and len(parameter.shape) == 2:
        yield from _mean(layer, parameter)


def _mean(layer: Layer, parameter: ParameterFacts) -> Iterator[Suspect]:
    """A weight that is drawn around a mean, whatever its scale."""
    second, asked = nominal_second(parameter)
    write = parameter.last if parameter.provenance == "recorded" else None
    shifted = mean_shifted(Case(layer, parameter, write, asked, second, None))
    if shifted is not None:
        reason, evidence, remedy, target = shifted
        yield Suspect(layer, parameter, reason, second, target, None, evidence, remedy, write)


def _factors(facts: ModelFacts, layer: Layer, by_name: Mapping[str, ParameterFacts]) -> Iterator[Layer]:
    """The layer; of a weight made from several parameters those that are stacks of its matrix (R-GCN's bases)."""
    node = facts.nodes[layer.nodes[0]] if layer.nodes else None
    if node is None or "expr" not in node.attrs or "weight_1" not in node.parameters:
        yield layer
        return
    # the outputs of one matrix, also where all matrices of the stack read the same input
    width = node.operator.width_out if node.operator else 0
    sizes = [(layer.fan_in, out) for out in (width, width / max(1, layer.stack))]
    for role, name in node.parameters.items():
        shape = by_name[name].shape if role.startswith("weight") and name in by_name else ()
        if len(shape) > 2 and (shape[-2:] in sizes or shape[:-3:-1] in sizes):
            layout = "stacked_in_out" if shape[-2:] in sizes else "stacked_out_in"
            yield replace(layer, weight=name, layout=layout, torch_fans=torch_fans(shape))


def _scaled_instead_of_logits(facts: ModelFacts, layer: Layer, parameter: ParameterFacts) -> bool:
    """A query whose variance holds the 1 / head_dim that its attention leaves out (Raffel et al. 2020, T5)."""
    at = layer.consumer_node
    attrs = facts.nodes[at].attrs if layer.role == "query" and at is not None and at < len(facts.nodes) else {}
    scale, dim = attrs.get("scale"), attrs.get("head_dim")
    if not isinstance(scale, (int, float)) or not isinstance(dim, (int, float)) or dim <= 1 or not layer.fan_in:
        return False
    second = nominal_second(parameter)[0] * layer.fan_in * scale * scale
    return scale * scale * dim > _BAND and 1 / _BAND < second * dim < _BAND


def _counterweight(facts: ModelFacts, layer: Layer, suspect: Suspect) -> bool:
    """Whether a constant factor in front of the layer makes its weights what suits it."""
    factor = factor_in_front(facts, layer)
    return factor != 1.0 and fits(layer, suspect.actual * factor, _BAND)


def _judged(layer: Layer, parameter: ParameterFacts) -> bool:
    stats = parameter.stats
    return (
        layer.kind in ("linear", "conv", "conv_transpose", "matmul", "bilinear", "embedding")
        and _trained(parameter)
        and stats is not None
        and stats.distinct is None  # constants and zeros are matters of symmetry and of zero products
        and bool(layer.fan_in)
    )


def _trained(parameter: ParameterFacts) -> bool:
    """Whether a parameter is trained as it is, from values that were written."""
    stats = parameter.stats
    return (
        parameter.kind == "parameter"
        and parameter.requires_grad
        and not parameter.generated
        and parameter.uninitialised == 0
        and stats is not None
        and stats.count > 1
        and not stats.nans
    )


def _suspect(
    layer: Layer,
    parameter: ParameterFacts,
    factor: float,
    alike: tuple[tuple[int, ...], ...] | None,
    depth: int,
    text: str,
) -> Suspect | None:
    second, asked = nominal_second(parameter)
    second, asked = second * factor, as_used(asked, factor)
    # values that were changed where no hook sees (a NumPy view) are no longer those of the last recorded write
    write = drawn_by(parameter) if parameter.provenance == "recorded" else None
    stats = parameter.stats
    assert stats is not None
    fan_in = layer.fan_in or 1.0
    schemes = acceptable(layer)
    nearest = nearest_scheme(textbook(layer) or schemes, second)
    suits = fits(layer, second, _BAND)
    expected = nearest.var if nearest else 1.0 / fan_in

    def build(reason: str, evidence: str, remedy: str = "", target: float = 0.0) -> Suspect:
        line = remedy or (nearest.call if nearest else "")
        # a reason with a variance of its own names a scheme only where that is the scheme's
        own = target and (nearest is None or not math.isclose(nearest.var, target, rel_tol=_SCHEME))
        return Suspect(
            layer, parameter, reason, second, target or expected, None if own else nearest, evidence, line, write
        )

    if write is not None and write.origin == "torch" and layer.kind != "embedding":
        if not suits:
            return build("default", "PyTorch's default, never re-initialised")
        return None
    case = Case(layer, parameter, write, asked, second, alike, text)
    for check in (slope_taken, fan_counted, formula_misplaced, mean_shifted):
        found = check(case)
        if found is not None:
            reason, evidence, remedy, target = found
            return build(reason, evidence, remedy, target)
    if layer.kind == "embedding":
        # tables follow many conventions, all of a variance of at most one: only what is beyond all of them is odd
        if nearest is not None and second > _BAND**2 * max(scheme.var for scheme in schemes):
            return build("unexplained", f"variance {second:.3g} where {nearest.name} gives {nearest.var:.3g}")
        return None
    chosen = other_activation(layer, write, second, depth)
    if chosen:
        return build("other_activation", chosen)
    if nearest is None or fits(layer, second, _BAND, family=asked.family if asked is not None else "", depth=depth):
        return None
    # He's backward mode is no goal for a layer that is not drawn by it
    forward = tuple(s for s in textbook(layer) if not s.backward)
    nearest = nearest_scheme(forward, second) or nearest
    what = f"variance {second:.3g} where {nearest.name} gives {nearest.var:.3g}"
    return Suspect(layer, parameter, "unexplained", second, nearest.var, nearest, what, nearest.call, write)


def _other_counts(facts: ModelFacts) -> Iterator[float]:
    """Sizes besides the fans that formulas of a std hold: the width of a head, the number of heads, and of blocks."""
    for node in facts.nodes:
        contraction, heads, head_dim = (node.attrs.get(name) for name in ("contraction", "heads", "head_dim"))
        if node.attrs.get("kind") == "logits" and isinstance(contraction, int):
            yield float(contraction)
        if isinstance(heads, int) and isinstance(width := node.attrs.get("embed_dim"), int) and heads:
            yield from (float(heads), width / heads)
        if isinstance(head_dim, int):
            yield float(head_dim)
    yield from depth_counts(facts)


def grouped(found: tuple[Suspect, ...], reason: str) -> Mapping[tuple[str, int], list[Suspect]]:
    """Suspects of one reason by the line that is to be mended."""
    groups: dict[tuple[str, int], list[Suspect]] = {}
    for suspect in found:
        if suspect.reason == reason:
            site = at_fault(suspect)
            groups.setdefault((site.file, site.line) if site else ("", 0), []).append(suspect)
    return groups


def at_fault(suspect: Suspect) -> Site | None:
    """Where a suspect is to be mended: a formula by hand where it is computed, a count where it is counted, else the
    call that wrote the weight."""
    from initlint.rule import site_of

    computed = suspect.parameter.computed
    wrote = site_of(suspect.parameter)
    if computed is None or named(suspect.wrote):
        return wrote
    if suspect.reason in _MISAPPLIED:
        return computed.formula or wrote
    return (computed.count or wrote) if suspect.reason in _COUNTED else wrote
