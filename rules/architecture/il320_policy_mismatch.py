"""IL320: values that are not what the configured policy asks for."""

from __future__ import annotations

import math
from collections.abc import Iterator

from initlint.expressions import evaluate
from initlint.facts import ParameterFacts, Scalar, TensorStats
from initlint.findings import Severity
from initlint.policies import Policy, PolicyError, parse, preset
from initlint.roles import numbers, roles
from initlint.rule import Context, Outcome, Rule, site_of
from initlint.signal import Nominal
from initlint.theory.record import stated
from initlint.theory.sampling import (
    KURTOSIS,
    Requested,
    Z,
    compatible,
    looks_orthogonal,
    looks_uniform,
    variance_range,
)

# The record holds the std as Python computed it; policies are written with two or three digits.
_ROUNDING = 0.01


class PolicyMismatch(Rule):
    """Parameters that differ from the initialisation policy in the configuration.

    ## What it does
    Checks parameters against `[[tool.initlint.policy]]` tables and ready-made policies (`presets = ["gpt2"]`: gpt2,
    bert, vit, t5, llama, resnet, siren). A table selects parameters by name, kind of layer or role, and gives
    distribution, mean, std, bound or value; numbers may be expressions such as `"0.02 / sqrt(2 * n_layer)"`, in names
    that are read from structure (n_layer, fan_in, width, head_dim ...) or in numbers that the model itself holds
    (`model.depth`, `model.config.initializer_range`). The first table that selects a parameter governs it, the team's
    own before presets. Differences that chance explains are let pass.

    ## Why is this bad?
    A policy is written because somebody found that it matters; a layer that was added later and misses it is
    found at review at best.

    ## Example
    ```toml
    [[tool.initlint.policy]]
    parameters = "*.c_proj.weight"
    distribution = "normal"
    std = "0.02 / sqrt(2 * n_layer)"
    ```

    ## Use instead
    ```python
    nn.init.normal_(block.c_proj.weight, std=0.02 / math.sqrt(2 * n_layer))
    ```

    ## Known problems
    A table that selects nothing in a model is passed over, as it may be meant for another one.

    ## References
    - docs/ops.md for the kinds of layers
    """

    code = "IL320"
    name = "policy-mismatch"
    family = "architecture"
    severity = Severity.WARNING
    needs_config = True
    sources = ("the project's configuration",)

    def check(self, context: Context) -> Iterator[Outcome]:
        settings = context.settings
        if context.facts.loaded or not (settings.policies or settings.presets):
            return
        try:
            policies = [parse(table) for table in settings.policies]
            policies += [policy for name in settings.presets for policy in preset(name)]
        except PolicyError as error:
            yield self.undetermined(context, error.message)
            return
        groups: dict[tuple[str, int, int], list[tuple[ParameterFacts, Requested, str]]] = {}
        for parameter in context.facts.parameters:
            order = _governing(context, parameter, policies)
            if order is None or parameter.stats is None:
                continue
            try:
                asked = _asked(policies[order], numbers(context, parameter), parameter.stats)
            except PolicyError as error:
                yield self.undetermined(context, error.message, [parameter.name])
                continue
            wrong = _difference(parameter, policies[order], asked)
            if wrong:
                site = site_of(parameter)
                key = (site.file, site.line, order) if site else ("", 0, order)
                groups.setdefault(key, []).append((parameter, asked, wrong))
        for (_, _, order), group in groups.items():
            yield self._report(context, policies[order], group)

    def _report(self, context: Context, policy: Policy, group: list[tuple[ParameterFacts, Requested, str]]) -> Outcome:
        first, asked, wrong = group[0]
        more = f" and {len(group) - 1} more" if len(group) > 1 else ""
        changes = {p.name: Nominal(a.mean, a.var) for p, a, _ in group}
        whose = f"the policy `{policy.name}`" if policy.name else "the policy"
        stats = first.stats
        actual: dict[str, Scalar] = {"mean": stats.mean, "std": math.sqrt(stats.var)} if stats else {}
        return self.finding(
            context,
            f"`{first.name}`{more}: {wrong}, which {whose} does not allow",
            parameters=[p.name for p, _, _ in group],
            site=site_of(first),
            expected={"mean": asked.mean, "std": asked.std, "distribution": policy.distribution},
            actual=actual,
            effect=context.effect(changes) if context.facts.nodes else None,
            fix=_line(policy, asked),
            topic="convention",
            sources=(policy.source,) if policy.source else self.sources,
        )


def _governing(context: Context, parameter: ParameterFacts, policies: list[Policy]) -> int | None:
    """The first policy that selects the parameter."""
    if parameter.kind != "parameter" or parameter.generated or parameter.stats is None:
        return None
    layers = context.layers_of(parameter.name)
    kinds = frozenset(layer.kind for layer in layers)
    following = frozenset(layer.activation for layer in layers if layer.activation)
    played = roles(context, parameter)
    for order, policy in enumerate(policies):
        if any(policy.selects(name, played, kinds, following) for name in (parameter.name, *parameter.aliases)):
            return order
    return None


def _asked(policy: Policy, names: dict[str, float], stats: TensorStats) -> Requested:
    """What the policy asks of one tensor."""

    def number(value: str | float | None) -> float | None:
        return None if value is None else evaluate(value, names)

    mean, std, bound, value = (number(x) for x in (policy.mean, policy.std, policy.bound, policy.value))
    if policy.distribution == "constant" or value is not None:
        level = value if value is not None else mean or 0.0
        return Requested(level, 0.0, level, level, "constant", 1.0, True)
    centre = mean if mean is not None else stats.mean if std is None and bound is None else 0.0
    if std is None:
        std = bound / math.sqrt(3.0) if bound is not None else math.sqrt(stats.var)
    if policy.distribution == "uniform":
        half = bound if bound is not None else std * math.sqrt(3.0)
        return Requested(centre, half / math.sqrt(3.0), centre - half, centre + half, "uniform", 1.8)
    low, high = (centre - bound, centre + bound) if bound is not None else (None, None)
    kurtosis = KURTOSIS.get(policy.distribution, 3.0)
    return Requested(centre, std, low, high, policy.distribution, kurtosis, policy.distribution == "orthogonal")


def _difference(parameter: ParameterFacts, policy: Policy, asked: Requested) -> str:
    """What is wrong with the parameter, in words; empty when nothing is."""
    stats = parameter.stats
    assert stats is not None
    if stats.nans or stats.infs:
        return "it holds values that are not finite"
    if asked.family == "constant":
        held = compatible(stats, asked, parameter.dtype)
        what = f"constant {stats.minimum:.4g}" if stats.distinct == 1 else f"values of std {math.sqrt(stats.var):.3g}"
        return "" if held else f"{what} instead of {asked.mean:g}"
    if _scale_differs(parameter, policy, asked, stats):
        return f"std {math.sqrt(stats.var):.4g} instead of {asked.std:.4g}"
    if policy.mean is not None and abs(stats.mean - asked.mean) * math.sqrt(stats.count) > (Z + 1) * asked.std:
        return f"mean {stats.mean:.3g} instead of {asked.mean:g}"
    if asked.bound_high is not None and asked.bound_low is not None:
        slack = _ROUNDING * (asked.bound_high - asked.bound_low)
        if stats.maximum > asked.bound_high + slack or stats.minimum < asked.bound_low - slack:
            return f"values up to {max(stats.maximum, -stats.minimum):.3g} beyond the bound {asked.bound_high:.4g}"
    return _family_differs(parameter, policy, stats)


def _scale_differs(parameter: ParameterFacts, policy: Policy, asked: Requested, stats: TensorStats) -> bool:
    if policy.std is None and policy.bound is None:
        return False
    slack = 1.0 + max(policy.tolerance, _ROUNDING)
    recorded = stated(parameter)
    if recorded is not None and recorded.std > 0 and asked.std > 0:
        exact = max(recorded.std / asked.std, asked.std / recorded.std)
        if exact > slack and compatible(stats, recorded, parameter.dtype):
            return True  # the record says so to the digit, however small the tensor
    about = stats.var + (stats.mean - asked.mean) ** 2 if policy.mean is not None else stats.var
    if about <= 0:
        return asked.std > 0
    low, high = variance_range(stats.count, asked.kurtosis)
    return not low / slack**2 <= about / asked.var <= high * slack**2 if asked.var > 0 else True


def _family_differs(parameter: ParameterFacts, policy: Policy, stats: TensorStats) -> str:
    uniform = looks_uniform(stats)
    if policy.distribution == "normal" and uniform:
        return "a uniform distribution instead of a normal one"
    if policy.distribution == "uniform" and uniform is False:
        return "values beyond the bounds of a uniform distribution"
    if policy.distribution == "orthogonal" and stats.gram_residual is not None:
        return "" if looks_orthogonal(stats, parameter.dtype) else "rows that are not orthogonal"
    return ""


def _line(policy: Policy, asked: Requested) -> str:
    if asked.family == "constant":
        return "nn.init.zeros_(tensor)" if asked.mean == 0 else f"nn.init.constant_(tensor, {asked.mean:g})"
    if asked.family == "uniform" and asked.bound_low is not None and asked.bound_high is not None:
        return f"nn.init.uniform_(tensor, {asked.bound_low:.4g}, {asked.bound_high:.4g})"
    if policy.distribution == "orthogonal":
        return "nn.init.orthogonal_(tensor)"
    call = "trunc_normal_" if policy.distribution == "truncated" else "normal_"
    return f"nn.init.{call}(tensor, mean={asked.mean:g}, std={asked.std:.4g})"
