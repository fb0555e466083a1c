"""IL109: a weight is drawn around a mean that is not zero."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from initlint.coherence import coherence
from initlint.diagnosis import Suspect, suspects
from initlint.facts import ModelFacts, ParameterFacts
from initlint.findings import Finding, Severity
from initlint.rule import Context, Outcome, bad, by_cause, good, site_of
from initlint.signal import Effect, Nominal
from initlint.signal.verdict import HARMLESS, MISTAKE, UNROLLED, intent, mistake, thresholds
from initlint.suspect_rule import SuspectRule
from initlint.theory.coherence import Coherence
from initlint.wiring import kept_for_last

# THEORY 6.1: a ratio of second moments of 10 is harmless.
_HARMLESS = 10.0
# One matrix over time: from a gain g of 2 on, x = tanh(g x) is solved by g x = 1.9, where tanh counts as saturated
# (IL207). Below 1 what the units share dies out, in between it stays in the working range.
_RUNS_AWAY = 2.0
# Norms that subtract the mean over channels, and with it what all units have in common.
_CENTRE_UNITS = ("layer", "group")


class NonzeroWeightMean(SuspectRule):
    """A weight is drawn around a mean that is not zero.

    ## What it does
    Finds weights whose init call has a mean of at least half its standard deviation: `uniform_(w, 0, bound)`,
    `rand` without centring, or std and mean in each other's places. And truncated normals, of any parameter, whose
    mean lies outside of their bounds; and tables of positions or tokens that are drawn by `normal_(table, 0.02)`.

    ## Why is this bad?
    A common mean in all weights adds up over the inputs: after a rectifier the mean part grows with fan_in while
    the random part grows with its root, and all units say the same. A matrix that acts at each step of a sequence, or
    one layer after the other, multiplies what all units share by |mean| times fan_in each time: tanh units end up
    equal, at their bounds.

    ## Example
    ```python
    nn.init.uniform_(w, 0, 0.1)
    ```

    ## Use instead
    ```python
    nn.init.uniform_(w, -0.1, 0.1)
    ```

    ## Known problems
    Non-negative weights on purpose (monotone networks, mixing weights) are reported too; ignore them on their line.

    ## References
    - LeCun et al. 1998, Efficient BackProp, section 4.6
    """

    code = "IL109"
    name = "nonzero-weight-mean"
    family = "variance"
    severity = Severity.ERROR
    sources = ("LeCun et al. 1998, Efficient BackProp, section 4.6",)
    reason = "nonzero_mean"
    kind = "mistake"

    def check(self, context: Context) -> Iterator[Outcome]:
        said: set[str] = set()
        for outcome in super().check(context):
            said.update(outcome.parameters if isinstance(outcome, Finding) else ())
            yield outcome
        weights = {layer.weight for layer in context.facts.layers}
        others = [p for p in context.facts.parameters if p.name not in said | weights and not context.facts.loaded]
        for group in by_cause(p for p in others if _mean_for_std(p) is not None).values():
            said.update(p.name for p in group)
            yield self._swapped(context, group)
        cut = [p for p in context.facts.parameters if p.name not in said and not context.facts.loaded and _cut_off(p)]
        for group in by_cause(cut).values():
            yield self._outside(context, group)

    def _swapped(self, context: Context, group: list[ParameterFacts]) -> Outcome:
        """A table of positions or of tokens, drawn by ``normal_(table, 0.02)``."""
        first, meant = group[0], abs(_mean_for_std(group[0]) or 0.0)
        assert first.last is not None
        assert first.stats is not None
        effect = context.effect({p.name: Nominal(0.0, meant * meant) for p in group})
        more = f" and {len(group) - 1} more" if len(group) > 1 else ""
        return self.finding(
            context,
            f"`{first.name}`{more}: {first.last.op} draws around {meant:.4g} with std 1: its first argument is the"
            " mean",
            parameters=[p.name for p in group],
            severity=mistake(effect, context.signal, context.settings.optimizer, context.facts.dtype),
            site=site_of(first),
            expected={"mean": 0.0, "std": meant},
            actual={"mean": first.stats.mean, "std": first.stats.var**0.5},
            effect=effect,
            fix=f"nn.init.{first.last.op}(table, std={meant:.4g})",
            topic="scale",
        )

    def _outside(self, context: Context, group: list[ParameterFacts]) -> Outcome:
        """A mean that the bounds of the truncation keep out."""
        first = group[0]
        assert first.last is not None
        assert first.stats is not None
        args = first.last.args
        mean, std, low, high = (float(args[name]) for name in ("mean", "std", "a", "b"))  # type: ignore[arg-type]
        effect = context.effect({p.name: Nominal(mean, std * std) for p in group})
        settings = context.settings
        more = f" and {len(group) - 1} more" if len(group) > 1 else ""
        return self.finding(
            context,
            f"`{first.name}`{more}: trunc_normal_ is to draw around {mean:g} and cuts at {low:g} and {high:g}: all"
            f" values lie at a bound, around {first.stats.mean:.4g}",
            parameters=[p.name for p in group],
            severity=intent(effect, context.signal, settings.optimizer, context.facts.dtype, matters=True),
            site=site_of(first),
            expected={"mean": mean, "std": std},
            actual={"mean": first.stats.mean, "std": first.stats.var**0.5},
            effect=effect,
            fix=f"nn.init.trunc_normal_(weight, {mean:g}, {std:g}, a={mean - 2 * std:g}, b={mean + 2 * std:g})",
            topic="scale",
        )

    def judge(self, context: Context, group: list[Suspect]) -> Outcome | None:
        group = [s for s in group if not _sole(s)]
        if not group:
            return None
        # the one that the message names is the one whose mean does most
        chains = {s.parameter.name: x.beyond for s in group if (x := _chain(context, s)) is not None}
        told = [_told(context, s) for s in group]
        return super().judge(context, sorted(told, key=lambda s: -chains.get(s.parameter.name, 0.0)))

    def level(self, context: Context, group: list[Suspect], effect: Effect) -> Severity:
        found = super().level(context, group, effect)
        chains = [(s, x) for s in group if (x := _chain(context, s)) is not None]
        worst, _ = thresholds(context.settings.optimizer)
        if any(not _unrolled(s, x) and min(x.whole, x.beyond) >= worst for s, x in chains):
            return Severity.ERROR
        alike, trunk = [s for s in group if _alike(context, s)], set(context.signal.trunk)
        in_series = [math.log10(_common(s)) for s in alike if not trunk.isdisjoint(s.layer.nodes)]
        if len(in_series) >= 2 and sum(in_series) >= worst:
            return Severity.ERROR
        if found is Severity.NOTE and (chains or len(alike) >= 2):
            return Severity.WARNING
        # what one matrix does over time is a warning at most (DESIGN, section 4)
        over_time = {s.parameter.name for s, x in chains if _unrolled(s, x)}
        recurrent = all(s.layer.kind == "recurrent" or s.parameter.name in over_time for s in group)
        return min(found, Severity.WARNING) if recurrent else found

    def report(self, context: Context, group: list[Suspect], effect: Effect, severity: Severity) -> Outcome:
        alike = [s for s in group if _alike(context, s)]
        if alike and abs(effect.log10) < MISTAKE:  # a norm hides the scale, and not what units have in common
            t = max(s.actual / s.expected for s in alike) - 1.0
            sentence = (
                f"the units of such a layer correlate by {t / (1.0 + t):.4g}: the norm behind it hands on one signal"
            )
            effect = replace(effect, sentence=sentence)
        return super().report(context, group, effect, severity)

    @bad
    def uniform_from_zero() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(6):
            linear = nn.Linear(64, 64)
            nn.init.uniform_(linear.weight, 0.0, 0.2)
            layers += [linear, nn.ReLU()]
        return nn.Sequential(*layers)

    @bad
    def uniform_from_zero_before_norms() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(4):
            conv = nn.Conv2d(16, 16, 3, padding=1, bias=False)
            nn.init.uniform_(conv.weight, 0.0, 0.2)
            layers += [conv, nn.BatchNorm2d(16), nn.ReLU()]
        return nn.Sequential(*layers)

    @bad
    def mean_outside_the_bounds() -> Any:
        from torch import nn

        layer = nn.Linear(16, 16)
        nn.init.trunc_normal_(layer.bias, mean=4.0, std=0.5)
        return nn.Sequential(layer, nn.Tanh(), nn.Linear(16, 4))

    @bad
    def recurrent_matrix_from_zero() -> Any:
        return _unrolled_net(0.0, 0.1)

    @bad
    def packed_recurrent_matrix_from_zero() -> Any:
        return _packed_net(0.0, 0.1)

    @bad
    def deep_tanh_net_from_zero() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(6):
            linear = nn.Linear(128, 128)
            nn.init.uniform_(linear.weight, 0.0, 0.1)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.Tanh()]
        return nn.Sequential(*layers, nn.Linear(128, 4))

    @bad
    def mean_of_one_under_spectral_norm() -> Any:
        """The scale cancels, and the mean stays."""
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(3):
            conv = nn.Conv2d(16, 16, 3, padding=1)
            nn.init.normal_(conv.weight, 1.0, 0.02)
            layers += [nn.utils.parametrizations.spectral_norm(conv), nn.BatchNorm2d(16), nn.ReLU()]
        return nn.Sequential(*layers)

    @good
    def centred_recurrent_matrix() -> Any:
        return _unrolled_net(-0.1, 0.1)

    @good
    def centred_packed_recurrent_matrix() -> Any:
        return _packed_net(-0.1, 0.1)

    @good
    def recurrent_mean_that_dies_out() -> Any:
        """Positive, but what the units share halves at each step."""
        return _unrolled_net(0.0, 0.01)

    @good
    def bounds_around_the_mean() -> Any:
        from torch import nn

        layer = nn.Linear(16, 16)
        nn.init.trunc_normal_(layer.bias, mean=4.0, std=0.5, a=3.0, b=5.0)
        return nn.Sequential(layer, nn.Tanh(), nn.Linear(16, 4))

    @good
    def logarithm_of_the_weight() -> Any:
        """The weight is the exponential of what is drawn: its mean is a scale."""
        import torch
        from torch import nn

        class Positive(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.log, self.head = nn.Parameter(torch.empty(16, 32)), nn.Linear(32, 4)
                nn.init.normal_(self.log, -2.0, 0.3)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.head(torch.relu(x @ self.log.exp()))

        return Positive(), (torch.randn(8, 16),)

    @good
    def one_unit_that_averages() -> Any:
        """The geometric init of a distance field: one output, which starts as a multiple of the mean."""
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(3):
            linear = nn.Linear(64, 64)
            nn.init.normal_(linear.weight, std=(2 / 64) ** 0.5)
            layers += [linear, nn.Softplus(beta=100)]
        last = nn.Linear(64, 1)
        nn.init.normal_(last.weight, mean=(3.14159 / 64) ** 0.5, std=1e-4)
        nn.init.constant_(last.bias, -0.5)
        return nn.Sequential(*layers, last)

    @good
    def centred_uniform() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(6):
            linear = nn.Linear(64, 64)
            nn.init.uniform_(linear.weight, -0.3, 0.3)
            layers += [linear, nn.ReLU()]
        return nn.Sequential(*layers)


def _sole(suspect: Suspect) -> bool:
    """Whether the weights are those of one unit, of a harmless size: there is no other that it could be like.

    The last layer of a distance field starts as the mean of its inputs (Atzmon and Lipman 2020, arXiv:1911.10414).
    """
    stats, shape = suspect.parameter.stats, suspect.parameter.shape
    if stats is None or suspect.layer.layout != "out_in" or len(shape) < 2 or shape[0] != 1:
        return False
    return stats.second * stats.count <= _HARMLESS


def _mean_for_std(parameter: ParameterFacts) -> float | None:
    """The mean below one of a tensor that is drawn with a std of one, the default beside a single number."""
    last = parameter.last
    if last is None or last.origin != "user" or last.op not in ("normal_", "trunc_normal_") or last.share < 1.0:
        return None
    mean, std = last.args.get("mean"), last.args.get("std")
    plain = parameter.kind == "parameter" and len(parameter.shape) > 1 and parameter.stats is not None
    return float(mean) if plain and std == 1.0 and isinstance(mean, float) and 0.0 < abs(mean) < 1.0 else None


def _cut_off(parameter: ParameterFacts) -> bool:
    """Whether a truncated normal's mean is kept out by its bounds.

    Beyond two standard deviations, where ``torch.nn.init.trunc_normal_`` warns that its values may be wrong.
    """
    write, stats = parameter.last, parameter.stats
    if write is None or write.op != "trunc_normal_" or write.args.get("derived") or stats is None:
        return False
    mean, std, low, high = (write.args.get(name) for name in ("mean", "std", "a", "b"))
    if not all(isinstance(value, (int, float)) for value in (mean, std, low, high)):
        return False
    return not low - 2 * std <= mean <= high + 2 * std  # type: ignore[operator]


@kept_for_last
def _coherent(facts: ModelFacts) -> Mapping[str, Coherence]:
    """What the units of a net share behind each weight that was drawn around a mean."""
    drawn = {
        s.parameter.name: (s.layer.fan_in, s.parameter.stats.mean, s.parameter.stats.var)
        for s in suspects(facts)
        if s.reason == "nonzero_mean" and s.parameter.stats and s.layer.fan_in
    }
    return coherence(facts, drawn)


def _chain(context: Context, suspect: Suspect) -> Coherence | None:
    """What all units share, where the mean of this weight makes it grow beyond what independent units would do.

    ``None`` where it does not come to a ratio of ``HARMLESS``, or where one matrix that acts again and again does not
    amplify it: there the input of each step outweighs what is left of earlier ones.
    """
    found = _coherent(context.facts).get(suspect.parameter.name)
    if found is None or found.beyond < HARMLESS:
        return None
    return None if _unrolled(suspect, found) and found.gain < _RUNS_AWAY else found


def _unrolled(suspect: Suspect, chain: Coherence) -> bool:
    """Whether the chain is one matrix over time."""
    return chain.steps >= UNROLLED and (suspect.layer.kind == "recurrent" or len(suspect.layer.nodes) >= UNROLLED)


def _told(context: Context, suspect: Suspect) -> Suspect:
    """The suspect with what its mean does over the chain in its evidence."""
    chain, stats, fan = _chain(context, suspect), suspect.parameter.stats, suspect.layer.fan_in
    if chain is None or stats is None or not fan:
        return suspect
    means, own = fan * abs(stats.mean), math.sqrt(fan * stats.var)
    where = f"each of {chain.steps} steps" if _unrolled(suspect, chain) else f"each of {chain.steps} layers"
    more = f"; what all units share is multiplied by |mean| x {fan:g} = {means:.3g} at {where}, the rest by {own:.2g}"
    return replace(suspect, evidence=suspect.evidence + more)


def _alike(context: Context, suspect: Suspect) -> bool:
    """Whether a norm that follows keeps what the mean does: units that say the same, layer after layer.

    With t = mean^2 / std^2 the units of one layer correlate by t / (1 + t); the next layer sums their common part
    coherently, with F t times the variance of its random part. A norm for each channel rescales both alike.
    """
    at = suspect.layer.consumer_node
    if suspect.layer.consumer != "norm" or at is None or context.facts.nodes[at].attrs.get("kind") in _CENTRE_UNITS:
        return False
    t = suspect.actual / suspect.expected - 1.0
    return _common(suspect) * t / (1.0 + t) > _HARMLESS


def _common(suspect: Suspect) -> float:
    """What the mean of a weight makes of a signal that all of its inputs share, over what its random part makes."""
    return (suspect.layer.fan_in or 1.0) * (suspect.actual / suspect.expected - 1.0)


def _unrolled_net(low: float, high: float) -> Any:
    import torch
    from torch import nn

    class Unrolled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inputs, self.hidden, self.head = nn.Linear(16, 128), nn.Linear(128, 128, bias=False), nn.Linear(128, 5)
            nn.init.uniform_(self.hidden.weight, low, high)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            state = x.new_zeros(x.shape[0], 128)
            for step in x.unbind(1):
                state = torch.tanh(self.inputs(step) + self.hidden(state))
            return self.head(state)

    return Unrolled(), (torch.randn(4, 8, 16),)


def _packed_net(low: float, high: float) -> Any:
    import torch
    from torch import nn

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.RNN(16, 128, batch_first=True), nn.Linear(128, 5)
            for name, parameter in self.rnn.named_parameters():
                if "weight" in name:
                    nn.init.uniform_(parameter, low, high)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.rnn(x)[0][:, -1])

    return Packed(), (torch.randn(4, 8, 16),)
