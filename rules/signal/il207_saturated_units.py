"""IL207: tanh, sigmoid and the like start at their bounds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import Any

from initlint.facts import Node, ParameterFacts
from initlint.findings import Severity
from initlint.reasons import fits
from initlint.rule import Context, Outcome, Rule, bad, good, site_of
from initlint.signal import Nominal
from initlint.signal.diagnostics import saturated_cells, saturation, shut_cells
from initlint.signal.verdict import UNROLLED
from initlint.suspect_rule import inside_branch, steps_of
from initlint.theory import activations
from initlint.upstream import by_site, judged
from initlint.wiring import users

# THEORY 6.2: a warning from 25 % of the units, an error from 75 %. A note from 10 %: Glorot's own scheme keeps tanh's
# inputs below unit variance, where 4.6 % lie beyond 2, and less than twice that is nobody's fault.
_NOTE, _WARNING, _ERROR = 0.10, 0.25, 0.75
_BOUNDED = frozenset({"tanh", "sigmoid", "softsign", "hardtanh", "hardsigmoid", "erf", "arctan"})
# The bias of a gate or of a prior moves these on purpose; it is no saturation by scale.
_GATES = frozenset({"sigmoid", "hardsigmoid"})
# Units that nothing enters are dead; THEORY 6.2: an error from 60 % of those.
_DEAD = 0.60
# Inputs of about unit variance; twice that is the factor from which a mistake counts (DESIGN, section 4).
_UNIT = 2.0
# A hard gate is flat from three on (PyTorch's definition): a bias beyond leaves no gradient at all to move it back.
_HARD, _EDGE = frozenset({"hardsigmoid"}), 3.0


class SaturatedUnits(Rule):
    """Units of a bounded activation start where its slope is nearly zero.

    ## What it does
    Predicts the distribution of the inputs of tanh, sigmoid, softsign, erf and the like and reports the share that lies
    where the slope is below 7 % of its maximum (|x| > 2 for tanh, 4 for sigmoid), unless the traced run showed inputs
    of another size. A sigmoid that a bias shifts on purpose (a gate that starts open or closed, a prior) is left alone,
    but for a hard one beyond its edge. Of `nn.RNN`, `nn.LSTM` and `nn.GRU` the candidate's tanh is looked at, without
    the biases, and the finding is a warning at most; and the biases of input, output and update gates, where they shut
    the units for good. Less than three quarters is a note where the weights have a scheme
    for the unit or write a residual branch, or where a sigmoid gates the unit.

    ## Why is this bad?
    A saturated unit passes almost no gradient and says only the sign of its input. Networks that start
    saturated stay on a plateau for a long time (Glorot and Bengio 2010).

    ## Example
    ```python
    nn.init.normal_(linear.weight)  # std 1 and fan_in 256 before tanh: the inputs have std 16
    ```

    ## Use instead
    ```python
    nn.init.xavier_normal_(linear.weight)
    ```

    ## Known problems
    None known.

    ## References
    - Glorot and Bengio 2010, section 3
    """

    code = "IL207"
    name = "saturated-units"
    family = "signal"
    severity = Severity.ERROR
    sources = ("Glorot and Bengio 2010, section 3, https://proceedings.mlr.press/v9/glorot10a.html",)

    def check(self, context: Context) -> Iterator[Outcome]:
        signal = context.signal
        if not judged(context) or signal.scene is None or signal.sweeps is None:
            return
        states, nodes = signal.sweeps[0].states, context.facts.nodes
        shares = {i: share for i, share in saturation(signal.scene, states).items() if not _refuted(nodes, i)}
        chosen = [(i, s) for i, s in shares.items() if s >= _NOTE and _by_scale(context, i) and not _blind(context, i)]
        for parameters, share, index in by_site(context, chosen, roles=("weight", "bias")):
            x = states[signal.scene.nodes[index].inputs[0]]
            where = nodes[index].label or str(nodes[index].attrs.get("fn"))
            shifting = _shifting(parameters, x.m) if x.m * x.m > x.v else []
            spreading = [] if shifting else _spreading(parameters, x.v)
            if shifting or spreading:
                how = f"shifts their inputs to {x.m:.3g}" if shifting else f"spreads their inputs to std {x.v**0.5:.3g}"
                yield self._moved(context, shifting or spreading, share, how, f"the units of `{where}`")
                continue
            most = Severity.NOTE if _bearable(context, parameters, share, index) else Severity.ERROR
            if all(p.last is None or p.last.origin == "torch" for p in parameters):  # what comes in is large
                most = min(most, Severity.WARNING)
            if steps_of(context, [p.name for p in parameters if len(p.shape) > 1]) >= UNROLLED:
                most = min(most, Severity.WARNING)  # a cell that is written out is judged as ``nn.LSTM`` is
            yield self._report(context, parameters, share, x.q, f"the units of `{where}`", most=most)
        cells = [(i, s) for i, s in saturated_cells(signal.scene, states).items() if s >= _NOTE]
        for parameters, share, index in by_site(context, cells):
            # the reciprocal of P(|z| > 2 / std): what the share says of the inputs
            std = 2.0 / -NormalDist().inv_cdf(min(share, 0.999) / 2.0)
            what = f"the candidates of `{nodes[index].label or nodes[index].op}`"
            yield self._report(context, parameters, share, std * std, what, most=Severity.WARNING)
        for index, share in shut_cells(signal.scene, states).items():
            own = [context.parameter(name) for role, name in nodes[index].parameters.items() if "bias" in role]
            biases = [p for p in own if p is not None and p.stats is not None and p.stats.second > 0]
            if share >= _NOTE and biases:
                yield self._shut(context, biases, share, nodes[index].label or nodes[index].op)

    def _shut(self, context: Context, biases: list[ParameterFacts], share: float, label: str) -> Outcome:
        """Units of a recurrent layer whose gates are closed for good by their biases."""
        largest = max(biases, key=lambda p: p.stats.second if p.stats else 0.0)
        rms = math.sqrt(largest.stats.second) if largest.stats else 0.0
        return self.finding(
            context,
            f"the gates of {share:.0%} of the units of `{label}` are shut: nothing enters or leaves them;"
            f" `{largest.name}` has a root mean square of {rms:.3g}",
            parameters=[p.name for p in biases],
            severity=Severity.ERROR if share > _DEAD else Severity.WARNING if share > _WARNING else Severity.NOTE,
            site=site_of(largest),
            expected={"shut_share": 0.0},
            actual={"shut_share": share},
            effect=context.effect({p.name: Nominal(0.0, 0.0) for p in biases}),
            fix="nn.init.zeros_(bias)  # or log(T) for a memory of T steps: the logarithm, not T",
            topic="bias",
            why="A sigmoid at -10 passes 5e-5 of what it gates, and of its gradient.",
        )

    def _report(
        self,
        context: Context,
        parameters: list[ParameterFacts],
        share: float,
        second: float,
        what: str,
        most: Severity = Severity.ERROR,
    ) -> Outcome:
        weights = [p for p in parameters if p.stats and len(p.shape) > 1 and p.stats.second > 0]
        changes = {p.name: Nominal(0.0, p.stats.second / second) for p in weights if p.stats and second > 1}
        severity = Severity.ERROR if share > _ERROR else Severity.WARNING if share > _WARNING else Severity.NOTE
        return self.finding(
            context,
            f"{share:.0%} of {what} start saturated: their inputs have std {math.sqrt(second):.3g}",
            parameters=[p.name for p in weights or parameters],
            severity=min(severity, most),
            site=site_of((weights or parameters)[0]),
            expected={"saturated_share": 0.05, "std": 1.0},
            actual={"saturated_share": share, "std": math.sqrt(second)},
            effect=context.effect(changes) if changes else f"{share:.0%} of the units pass almost no gradient",
            fix="nn.init.xavier_normal_(weight)  # inputs of unit variance or less",
            topic="scale",
            why="Where the activation is flat its derivative, and with it the gradient, is close to zero.",
        )

    def _moved(self, context: Context, biases: list[ParameterFacts], share: float, how: str, what: str) -> Outcome:
        """Units that their biases push to one side, or to both."""
        more = f" and {len(biases) - 1} more" if len(biases) > 1 else ""
        return self.finding(
            context,
            f"{share:.0%} of {what} start saturated: `{biases[0].name}`{more} {how}",
            parameters=[p.name for p in biases],
            severity=Severity.ERROR if share > _ERROR else Severity.WARNING if share > _WARNING else Severity.NOTE,
            site=site_of(biases[0]),
            expected={"saturated_share": 0.05, "bias": 0.0},
            actual={"saturated_share": share, "bias": biases[0].stats.second ** 0.5 if biases[0].stats else None},
            effect=context.effect({p.name: Nominal(0.0, 0.0) for p in biases}),
            fix="nn.init.zeros_(bias)",
            topic="bias",
            why="Where the activation is flat its derivative, and with it the gradient, is close to zero.",
        )

    @bad
    def biases_far_to_one_side() -> Any:
        from torch import nn

        first, second = nn.Linear(64, 128), nn.Linear(128, 128)
        for layer in (first, second):
            nn.init.xavier_normal_(layer.weight)
            nn.init.constant_(layer.bias, -10.0)
        return nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), nn.Linear(128, 4))

    @bad
    def wide_weights_before_tanh() -> Any:
        from torch import nn

        model = nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 4))
        for module in model:
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight)
        return model

    @bad
    def hard_gate_beyond_its_edge() -> Any:
        return _gated("hardsigmoid", 4.0)

    @bad
    def unit_normal_gates() -> Any:
        import torch
        from torch import nn

        model = nn.GRU(32, 64, batch_first=True)
        for parameter in model.parameters():
            nn.init.normal_(parameter)
        return model, (torch.randn(4, 12, 32),)

    @good
    def glorot_before_tanh() -> Any:
        from torch import nn

        model = nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 4))
        for module in model:
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
        return model

    @good
    def glorot_with_the_gain_of_tanh() -> Any:
        from torch import nn

        model = nn.Sequential(nn.Linear(128, 64), nn.Tanh(), nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 4))
        for module in model:
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight, gain=nn.init.calculate_gain("tanh"))
        return model

    @good
    def gate_that_starts_closed() -> Any:
        return _gated("sigmoid", -6.0)

    @good
    def hard_gate_that_starts_nearly_open() -> Any:
        return _gated("hardsigmoid", 2.0)


def _bearable(context: Context, parameters: list[ParameterFacts], share: float, index: int) -> bool:
    """Whether saturation short of an error is what a scheme for the unit brings about, or is learned around.

    Xavier with tanh's gain of 5/3 on inputs of unit variance puts 23 % beyond 2, more where a layer narrows. The
    gradients of the other layers pass a residual branch by. A sigmoid that multiplies the unit (WaveNet, DiffWave)
    gets its full gradient from a saturated one.
    """
    weights = [p for p in parameters if p.stats is not None and len(p.shape) > 1]
    if share > _ERROR or not weights:
        return False
    around = _gated_unit(context, index) or all(inside_branch(context, p.name) for p in weights)
    return around or all(_suits(context, p) for p in weights)


def _gated_unit(context: Context, index: int) -> bool:
    """Whether all that reads a unit is its product with a sigmoid."""
    nodes = context.facts.nodes
    readers = [nodes[user] for user in users(context.facts)[index]]
    partners = [[nodes[i] for i in node.inputs if i != index] for node in readers if node.op == "mul"]
    return (
        bool(readers)
        and len(partners) == len(readers)
        and all(
            partner.op == "activation" and partner.attrs.get("fn") in _GATES for found in partners for partner in found
        )
    )


def _suits(context: Context, parameter: ParameterFacts) -> bool:
    """Whether a weight has the variance of a scheme for its unit, and inputs of the unit variance that it is for."""
    layers, sweeps = context.layers_of(parameter.name), context.signal.sweeps
    if not layers or parameter.stats is None or sweeps is None:
        return False
    nodes = [context.facts.nodes[index] for layer in layers for index in layer.nodes]
    within = all(sweeps[0].states[node.inputs[0]].q <= _UNIT for node in nodes if node.inputs)
    return within and all(fits(layer, parameter.stats.second) for layer in layers)


def _blind(context: Context, index: int) -> bool:
    """Whether a mean over positions whose number is not known lies before a node: its scale is not known either."""
    nodes = context.facts.nodes
    seen, front = {index}, [index]
    while front:
        node = nodes[front.pop()]
        if node.op in ("pool", "reduce") and any(nodes[source].shape is None for source in node.inputs):
            return True
        front += [source for source in node.inputs if source not in seen]
        seen.update(node.inputs)
    return False


def _shifting(parameters: list[ParameterFacts], mean: float) -> list[ParameterFacts]:
    """Biases that make at least half of the mean of the units' inputs."""
    biases = [p for p in parameters if p.stats is not None and len(p.shape) == 1]
    return [p for p in biases if p.stats is not None and p.stats.mean / mean >= 0.5]


def _spreading(parameters: list[ParameterFacts], variance: float) -> list[ParameterFacts]:
    """Biases that make at least half of the variance of the units' inputs."""
    biases = [p for p in parameters if p.stats is not None and len(p.shape) == 1]
    return [p for p in biases if p.stats is not None and p.stats.var >= 0.5 * variance]


def _refuted(nodes: Sequence[Node], index: int) -> bool:
    """Whether the units were not saturated in the run that was traced, on the same weights and inputs.

    Recurrences written out by hand add up over time what the propagation takes for independent.
    """
    node = nodes[index]
    seen = nodes[node.inputs[0]].measured
    if seen is None or not seen.finite:
        return False
    fn = str(node.attrs.get("fn"))
    return activations.saturation(fn, node.attrs, seen.mean, max(0.0, seen.second - seen.mean**2)) < _NOTE


def _by_scale(context: Context, index: int) -> bool:
    """Whether the spread of the inputs saturates the units, not a bias that is the same for all of them."""
    signal, node = context.signal, context.facts.nodes[index]
    fn = node.attrs.get("fn")
    if fn not in _BOUNDED or signal.sweeps is None or signal.scene is None:
        return False
    x = signal.sweeps[0].states[signal.scene.nodes[index].inputs[0]]
    if x.undetermined or x.q <= 0:
        return False
    return fn not in _GATES or x.m * x.m <= x.v or (fn in _HARD and abs(x.m) > _EDGE)


def _gated(gate: str, bias: float) -> Any:
    import torch
    from torch import nn

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.value = nn.Linear(32, 32), nn.Linear(32, 32)
            nn.init.normal_(self.gate.weight, std=1e-2)
            nn.init.constant_(self.gate.bias, bias)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            opened = torch.sigmoid if gate == "sigmoid" else nn.functional.hardsigmoid
            return x + opened(self.gate(x)) * self.value(x)

    return Gated()
