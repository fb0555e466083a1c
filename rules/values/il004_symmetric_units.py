"""IL004: units of a layer that are equal and stay equal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from initlint.alike import alike_queries
from initlint.facts import EqualSlices, Layer, ParameterFacts
from initlint.findings import Finding, Severity
from initlint.rule import Context, Outcome, Rule, bad, by_cause, good, site_of
from initlint.wiring import reached

# THEORY 6.2, dead units: from 60 % of a layer's units training is harmed.
_MOST = 0.60
# Two equal rows of two may be two classes that start alike.
_SEVERAL = 3
# Relative variance of the rows' energies beyond rounding, which leaves 1e-14 in float32 and 1e-5 in bfloat16.
_SPREAD = 1e-4


class SymmetricUnits(Rule):
    """All units of a layer start equal and receive equal gradients, so they stay equal for ever.

    ## What it does
    Reports layers whose units (rows of the weight, with their biases) are the same bit for bit while the layers that
    read them weigh all of them the same; layers whose units were drawn once for all (a row of random values that is
    broadcast) and queries that are all equal, which only later layers tell apart. Beyond that, slices of any parameter
    (learned queries, register tokens, experts, heads, prototypes) that are equal and receive equal gradients in a real
    backward, also after a few steps.

    ## Why is this bad?
    Units with the same incoming and the same outgoing weights compute the same and get the same
    gradient. The layer behaves like a single unit, whatever its width, in every step of training: random
    initialisation exists to break this symmetry.

    ## Example
    ```python
    nn.init.constant_(layer.weight, 0.01)
    ```

    ## Use instead
    ```python
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    ```

    ## Known problems
    Dropout breaks the symmetry slowly; the rule does not count on it.

    ## References
    - Goodfellow, Bengio and Courville, Deep Learning (2016), section 8.4
    - https://github.com/sugarme/gotch/issues/48
    """

    code = "IL004"
    name = "symmetric-units"
    family = "values"
    severity = Severity.ERROR
    sources = (
        "Goodfellow, Bengio and Courville, Deep Learning (2016), section 8.4",
        "https://github.com/sugarme/gotch/issues/48",
    )

    def check(self, context: Context) -> Iterator[Outcome]:
        reported: set[str] = set()
        for finding in self._constant(context):
            reported.update(finding.parameters)
            yield finding
        for finding in chain(self._one_kernel(context), self._repeated(context)):
            if not reported & set(finding.parameters):
                reported.update(finding.parameters)
                yield finding
        for finding in self._measured(context, reported):
            reported.update(finding.parameters)
            yield finding
        yield from self._queries(context, reported)

    def _queries(self, context: Context, reported: set[str]) -> Iterator[Finding]:
        """Equal queries whose results a later part of the model has to tell apart."""
        asked = {p.name: p for p, _ in alike_queries(context) if p.name not in reported}
        for group in by_cause(asked.values()).values():
            yield self.finding(
                context,
                f"all slices of `{group[0].name}`"
                + (f" and {len(group) - 1} more" if len(group) > 1 else "")
                + " are equal, and queries: each reads the same from the keys",
                parameters=[p.name for p in group],
                severity=Severity.WARNING,
                site=site_of(group[0]),
                expected={"distinct_queries": max(group[0].shape[:-1])},
                actual={"distinct_queries": 1},
                effect="the model goes on with copies of one vector; only what reads them can tell them apart",
                fix="nn.init.normal_(queries, std=0.02)  # each query needs its own start",
                topic="symmetry",
                why="Attention gives equal queries equal results.",
            )

    def _one_kernel(self, context: Context) -> Iterator[Finding]:
        """One kernel from every channel to every channel, where it was meant from each to itself (upsampling)."""
        chosen = {layer.weight: p for layer in context.facts.layers if (p := _one_kernel(context, layer)) is not None}
        for group in by_cause(list(chosen.values())).values():
            first = group[0]
            yield self.finding(
                context,
                f"all {first.shape[0]} x {first.shape[1]} kernels of `{first.name}`"
                + (f" and of {len(group) - 1} more" if len(group) > 1 else "")
                + " are the same: every output is one sum of all inputs",
                parameters=[p.name for p in group],
                severity=Severity.WARNING,
                site=site_of(first),
                expected={"distinct_units": first.shape[0]},
                actual={"distinct_units": 1},
                effect=f"the outputs start equal, each a sum over {first.shape[0]} channels",
                fix="weight[range(channels), range(channels)] = kernel  # from each channel to itself, zeros elsewhere",
                topic="symmetry",
                why="A kernel of interpolation that is broadcast over both axes of channels mixes all of them alike.",
            )

    def _repeated(self, context: Context) -> Iterator[Finding]:
        """Layers whose units were drawn once for all: one random row, broadcast over the others."""
        facts = context.facts
        mixing = [layer for layer in facts.layers if _mixes(context, layer)]
        chosen = {layer.weight: p for layer in mixing if (p := _drawn_once(context, layer)) is not None}
        for group in by_cause(list(chosen.values())).values():
            first = group[0]
            width = max(layer.fan_out or 0 for layer in mixing if layer.weight == first.name)
            yield self.finding(
                context,
                f"the units of `{first.name}`"
                + (f" and {len(group) - 1} more" if len(group) > 1 else "")
                + " were drawn once for all: their rows are the same random values",
                parameters=[p.name for p in group],
                severity=Severity.WARNING,
                site=site_of(first),
                expected={"distinct_units": int(width) or None},
                actual={"distinct_units": 1},
                effect="each of these layers starts as one single unit; only what reads it can tell its units apart",
                fix='nn.init.kaiming_normal_(weight, nonlinearity="relu")  # draw a tensor of the weight\'s own shape',
                topic="symmetry",
                why="A tensor of fewer values than the weight is broadcast: every unit gets the same.",
            )

    def _measured(self, context: Context, reported: set[str]) -> Iterator[Finding]:
        """Slices whose equal gradients a real backward showed, whatever makes them equal."""
        found = {e.name: e for e in context.facts.trace.equal if e.name not in reported}
        # equal columns of what reads equal units follow from these
        units = {name: e for name, e in found.items() if not _reads(context, e)}
        if reported and not units:
            return
        chosen = [p for name in units or found if (p := context.parameter(name)) is not None]
        for group in by_cause(chosen).values():
            worst = max((found[p.name] for p in group), key=lambda e: e.share)
            size = group[0].shape[found[group[0].name].axis]
            distinct = round((size - 1) * (1 - found[group[0].name].share)) + 1
            yield self.finding(
                context,
                f"the {size} slices of `{group[0].name}` along axis {found[group[0].name].axis}"
                + (f" and those of {len(group) - 1} more" if len(group) > 1 else "")
                + f" are {distinct} different ones, and equal ones get equal gradients: they stay equal",
                parameters=[p.name for p in group],
                severity=Severity.ERROR if worst.share >= _MOST else Severity.WARNING,
                site=site_of(group[0]),
                expected={"distinct_slices": size},
                actual={"distinct_slices": distinct},
                effect=f"{size} slices work as {distinct} throughout training",
                fix="nn.init.normal_(weight, std=0.02)  # or another random scheme: each slice needs its own start",
                topic="symmetry",
                why="Equal values that receive equal gradients stay equal; a backward from random output gradients"
                " and steps that open what starts at zero did not tell them apart.",
            )

    def _constant(self, context: Context) -> Iterator[Finding]:
        """Matrices of one value, by the layers that read them."""
        facts = context.facts
        constant = [p for p in facts.parameters if _constant_matrix(p) and not _untrained(context, p)]
        if not constant:
            return
        stuck = {
            layer.weight for layer in facts.layers if _equal_units(context, layer) and _equal_readers(context, layer)
        }
        row = _in_a_row(context)
        for group in by_cause(constant).values():
            names = {p.name for p in group}
            tables = [p for p in group if any(layer.kind == "embedding" for layer in context.layers_of(p.name))]
            blind = [p for p in tables if not _shifts(context, p)]
            one_rank = [p for p in group if any(_mixes(context, layer) for layer in context.layers_of(p.name))]
            if not names & stuck and not blind and not one_rank:
                continue
            # biases alone tell the units apart then: they learn, slowly, from one common sum of the inputs
            severity = Severity.ERROR if names & (stuck | row) or blind else Severity.WARNING
            # matrices made constant by the same line have the same cause, also where the loss tells their rows apart
            units = max((layer.fan_out or 0) for p in group for layer in context.layers_of(p.name))
            value = next(p.stats.mean for p in group if p.stats)
            yield self.finding(
                context,
                f"every weight of `{group[0].name}`"
                + (f" and {len(group) - 1} more" if len(group) > 1 else "")
                + f" is {value:.4g}: "
                + ("all units of a layer are equal and stay equal" if names & stuck else "all units see the same sum")
                + (", and every item of the table is the same" if blind else ""),
                parameters=[p.name for p in group],
                severity=severity,
                site=site_of(group[0]),
                expected={"distinct_units": int(units) if names & (stuck | row) and units else None},
                actual={"distinct_units": 1, "value": value},
                effect="each of these layers works as one single unit throughout training"
                if names & stuck or blind
                else f"{len(names & row)} such layers in a row pass on one single number, and what comes back to their"
                " units are multiples of one gradient"
                if names & row
                else "each of these layers starts as one single unit; only what reads it can tell its units apart",
                fix='nn.init.kaiming_normal_(weight, nonlinearity="relu")  # or another random scheme',
                topic="symmetry",
                why="Equal incoming and outgoing weights give equal activations and equal gradients.",
            )

    @bad
    def one_upsampling_kernel_for_all_pairs() -> Any:
        return _upsampled(every=True)

    @good
    def one_upsampling_kernel_for_each_channel() -> Any:
        return _upsampled(every=False)

    @bad
    def constant_weights() -> Any:
        from torch import nn

        model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
        for layer in model:
            if isinstance(layer, nn.Linear):
                nn.init.constant_(layer.weight, 0.01)
                nn.init.zeros_(layer.bias)
        return model

    @bad
    def one_row_for_all() -> Any:
        import torch
        from torch import nn

        layer = nn.Linear(16, 32)
        with torch.no_grad():
            layer.weight[:] = torch.randn(16) / 4
        return nn.Sequential(layer, nn.ReLU(), nn.Linear(32, 4))

    @bad
    def equal_queries() -> Any:
        import torch
        from torch import nn

        class Pooled(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.queries = nn.Parameter(torch.zeros(1, 6, 16))
                self.q, self.k, self.head = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                a = (self.q(self.queries) @ self.k(x).transpose(1, 2)).softmax(-1)
                return self.head(torch.relu(a @ x)).mean(1)

        return Pooled(), (torch.randn(2, 5, 16),)

    @bad
    def equal_latents() -> Any:
        """What reads the latents knows their positions, and tells them apart later."""
        import torch
        from torch import nn

        class Resampler(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.latents = nn.Parameter(torch.ones(6, 16))
                self.q, self.k, self.v = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)
                self.places, self.head = nn.Parameter(torch.randn(6, 16)), nn.Linear(16, 4)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                queries = self.q(self.latents.expand(x.shape[0], -1, -1))
                read = nn.functional.scaled_dot_product_attention(queries, self.k(x), self.v(x))
                return self.head(torch.relu(read + self.places)).mean(1)

        return Resampler(), (torch.randn(2, 5, 16),)

    @good
    def queries_with_outputs_of_their_own() -> Any:
        import torch
        from torch import nn

        class Slots(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.queries = nn.Parameter(torch.zeros(1, 6, 16))
                self.q, self.k, self.head = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                a = (self.q(self.queries) @ self.k(x).transpose(1, 2)).softmax(-1)
                return self.head(torch.relu(a @ x))

        return Slots(), (torch.randn(2, 5, 16),)

    @good
    def one_kernel_for_all_channels() -> Any:
        """A depthwise kernel sees another channel at each row."""
        import torch
        from torch import nn

        layer = nn.Conv2d(8, 8, 3, groups=8, padding=1)
        with torch.no_grad():
            layer.weight[:] = torch.randn(3, 3) / 3
        return nn.Sequential(layer, nn.ReLU(), nn.Conv2d(8, 4, 1)), (torch.randn(2, 8, 9, 9),)

    @good
    def constant_scale_of_noise() -> Any:
        """NoisyNet: the constant is the standard deviation of noise that differs from weight to weight."""
        import torch
        from torch import nn

        class Noisy(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.mean, self.sigma = nn.Linear(16, 32), nn.Parameter(torch.full((32, 16), 0.017))
                self.head = nn.Linear(32, 4)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                weight = self.mean.weight + self.sigma * torch.randn_like(self.sigma)
                return self.head(torch.relu(nn.functional.linear(x, weight, self.mean.bias)))

        return Noisy()

    @good
    def selection_without_gradient() -> Any:
        """What only picks positions is not trained by this loss, whatever it starts from."""
        import torch
        from torch import nn

        class Picked(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.gate = nn.Parameter(torch.ones(8, 16))
                self.body, self.head = nn.Linear(16, 32), nn.Linear(32, 4)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                with torch.no_grad():
                    best = nn.functional.linear(x, self.gate).sum(-1).topk(2, dim=1).indices
                x = x.gather(1, best[..., None].expand(-1, -1, 16))
                return self.head(torch.relu(self.body(x)).mean(1))

        return Picked(), (torch.randn(4, 6, 16),)

    @good
    def constant_positions_that_are_added() -> Any:
        """Every position is shifted by the same vector, as by zeros; positions get gradients of their own."""
        import torch
        from torch import nn

        class Patches(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.patch, self.head = nn.Linear(12, 16), nn.Linear(16, 4)
                self.rows, self.columns = nn.Embedding(5, 16), nn.Embedding(5, 16)
                nn.init.ones_(self.rows.weight)
                nn.init.ones_(self.columns.weight)

            def forward(self, x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
                x = self.patch(x) + (self.rows(places[..., 0]) + self.columns(places[..., 1]))
                return self.head(torch.relu(x).mean(1))

        places = torch.cartesian_prod(torch.arange(3), torch.arange(3)).expand(4, -1, -1)
        return Patches(), (torch.randn(4, 9, 12), places)

    @good
    def constant_head_only() -> Any:
        from torch import nn

        head = nn.Linear(32, 4)
        nn.init.constant_(head.weight, 0.01)
        return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), head)


def _constant_matrix(parameter: ParameterFacts) -> bool:
    stats = parameter.stats
    return (
        parameter.kind == "parameter"
        and parameter.requires_grad
        and stats is not None
        and sum(size > 1 for size in parameter.shape) >= 2
        and stats.distinct == 1
        and stats.zeros == 0
    )


def _untrained(context: Context, parameter: ParameterFacts) -> bool:
    """Whether no gradient can reach it: all of its layers run under ``no_grad``, as frozen as without gradient."""
    nodes = [context.facts.nodes[i] for layer in context.layers_of(parameter.name) for i in layer.nodes]
    return bool(nodes) and all(node.attrs.get("untrained") for node in nodes)


def _drawn_once(context: Context, layer: Layer) -> ParameterFacts | None:
    """The layer's weight where most of its units are one draw repeated (zero units are another matter)."""
    weight = context.parameter(layer.weight)
    if weight is None or weight.kind != "parameter" or not weight.requires_grad or weight.stats is None:
        return None
    if _untrained(context, weight):
        return None
    units = {"out_in": weight.stats.rows, "in_out": weight.stats.columns}.get(layer.layout)
    if units is None or units.count < _SEVERAL or not (weight.last is not None and weight.last.random):
        return None
    equal = units.duplicates - max(0, units.zeros - 1)
    return weight if equal >= _MOST * (units.count - 1) else None


def _one_kernel(context: Context, layer: Layer) -> ParameterFacts | None:
    """The layer's weight where it has several taps, not of one value, and each pair of channels has the same ones."""
    weight = context.parameter(layer.weight)
    stats = weight.stats if weight is not None and weight.kind == "parameter" and weight.requires_grad else None
    if weight is None or stats is None or stats.rows is None or stats.columns is None or layer.groups != 1:
        return None
    if layer.kind not in ("conv", "conv_transpose") or stats.minimum == stats.maximum or _untrained(context, weight):
        return None
    axes = (stats.rows, stats.columns)
    return weight if all(u.count >= _SEVERAL and u.duplicates == u.count - 1 for u in axes) else None


def _reads(context: Context, equal: EqualSlices) -> bool:
    """Whether the equal slices belong to the inputs of a layer: they follow from equal units that it reads."""
    for layer in context.layers_of(equal.name):
        if layer.kind in ("linear", "conv", "matmul") and layer.weight == equal.name:
            shape = len(context.facts.parameter(equal.name).shape)  # type: ignore[union-attr]
            inputs = {"out_in": 1, "in_out": 0, "stacked_in_out": shape - 2, "stacked_out_in": shape - 1}
            return inputs.get(layer.layout) == equal.axis
    return False


def _mixes(context: Context, layer: Layer) -> bool:
    """Whether the layer sums over its inputs for each of several units (a depthwise kernel does not)."""
    return (
        layer.kind in ("linear", "conv", "matmul")
        and not _told_apart(context, layer)
        and not layer.head  # labels tell the units of an output layer apart
        and layer.groups == 1
        and (layer.fan_in or 0) > 1
        and (layer.fan_out or 0) > 1
    )


def _told_apart(context: Context, layer: Layer) -> bool:
    """Whether the matrix that works has unequal rows though the parameter has one value: it is multiplied by noise."""
    operators = [context.facts.nodes[node].operator for node in layer.nodes]
    return any(operator is not None and operator.energy_spread > _SPREAD for operator in operators)


def _shifts(context: Context, table: ParameterFacts) -> bool:
    """Whether a table's vectors are only added to signals of the inputs: equal ones shift those, as zeros would.

    Tables of positions and types are often zero at first; their items get gradients of their own.
    """
    looked_up = {node for layer in context.layers_of(table.name) for node in layer.nodes}
    own: set[int] = set(looked_up)
    live: set[int] = set()  # nodes that depend on the table alone, and on the inputs
    added = False
    for node in context.facts.nodes:
        if node.index in looked_up:
            continue
        if node.op == "input" or live.intersection(node.inputs):
            live.add(node.index)
        if not own.intersection(node.inputs):
            continue
        others = [i for i in node.inputs if i not in own and context.facts.nodes[i].op not in ("parameter", "constant")]
        if not others:
            own.add(node.index)
        elif node.op == "add" and live.intersection(others):
            added = True
        else:
            return False
    return added and not own.intersection(context.facts.outputs)


def _equal_units(context: Context, layer: Layer) -> bool:
    """Whether all units of the layer compute the same: equal rows, equal biases, the same inputs."""
    weight = context.parameter(layer.weight)
    if weight is None or not _constant_matrix(weight) or layer.kind not in ("linear", "conv", "matmul", "recurrent"):
        return False
    if layer.groups > 1 or _told_apart(context, layer):  # units of different groups read different channels
        return False
    bias = context.parameter(layer.bias) if layer.bias else None
    return bias is None or bias.stats is None or bias.stats.distinct == 1


def _in_a_row(context: Context) -> set[str]:
    """Weights of layers of equal units that follow one another on the only path, whatever is between them.

    The first hands on one number; through the second, whose rows are equal, comes one gradient for all of its own
    units, times a factor for each: the units stay multiples of each other, and the path one number wide. With two
    layers of 128 units in an MLP the loss stays at ln C for 24 epochs of SGD or Adam (2048 samples, ten classes), where
    random ones bring it below 0.11; with a single one it falls slowly, for what reads it tells its units apart.
    """
    trunk = set(context.signal.trunk)
    equal = [
        layer
        for layer in context.facts.layers
        if _equal_units(context, layer) and _mixes(context, layer) and trunk.issuperset(layer.nodes)
    ]
    return {layer.weight for layer in equal} if len({node for x in equal for node in x.nodes}) > 1 else set()


def _equal_readers(context: Context, layer: Layer) -> bool:
    """Whether every layer that reads these units weighs all of them the same."""
    facts = context.facts
    readers = _reading_layers(context, layer)
    if not readers:
        return False  # the loss reads the units: labels tell them apart
    for reader in readers:
        weight = context.parameter(reader.weight)
        stats = weight.stats if weight else None
        if stats is None or (stats.distinct != 1 and not _equal_columns(stats.columns)):
            return False
    return bool(facts.nodes)


def _equal_columns(columns: object) -> bool:
    count = getattr(columns, "count", 0)
    return count > 1 and getattr(columns, "duplicates", 0) == count - 1


def _reading_layers(context: Context, layer: Layer) -> list[Layer]:
    """Layers with weights reached from this one without passing another; elementwise and norm ops keep symmetry."""
    by_node = {
        node: other for other in context.facts.layers for node in other.nodes if other.kind not in ("norm", "scale")
    }
    reading = [
        node for start in layer.nodes for node in reached(context.facts, start, lambda n: n.index not in by_node)
    ]
    return [by_node[node.index] for node in reading if node.index in by_node]


def _upsampled(*, every: bool) -> Any:
    import torch
    from torch import nn

    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ConvTranspose2d(6, 6, 4, 2, 1, bias=False))
    ramp = torch.tensor([0.25, 0.75, 0.75, 0.25])
    kernel, places = ramp[:, None] * ramp, torch.arange(6)
    with torch.no_grad():
        weight = model.get_parameter("1.weight")
        weight.zero_()
        if every:
            weight.copy_(kernel.expand_as(weight))
        else:
            weight[places, places] = kernel
    return model, (torch.randn(2, 3, 8, 8),)
