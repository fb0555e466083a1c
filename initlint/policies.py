"""Initialisation policies: what a team (or a published model) wants of which parameters, as data.

A policy selects parameters by name, by the kind of their layer or by the role that they play in the graph, and says
what distribution they should be drawn from. Of a list of policies the first that selects a parameter governs it.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import fields

from initlint.errors import ConfigError
from initlint.expressions import evaluate, names_in
from initlint.facts import Scalar
from initlint.records import dataclass

#: What a malformed policy or expression raises.
PolicyError = ConfigError
DISTRIBUTIONS = ("any", "normal", "uniform", "truncated", "orthogonal", "constant")
#: What parameters play in a model; ``initlint.roles`` finds them from structure.
ROLES = frozenset(
    {
        *("weight", "bias", "gain", "residual-writer", "head", "first", "embedding", "position", "tied"),
        *("query", "key", "value", "gate", "input", "hidden"),
    }
)
NAMES = frozenset(
    {
        *("fan_in", "fan_out", "torch_fan_in", "torch_fan_out", "n_layer", "width", "head_dim", "dims", "numel"),
        *("omega", "rows", "columns"),
    }
)
#: Expressions may also use numbers that the model itself holds: ``model.depth``, ``model.config.initializer_range``.
MODEL = "model."


@dataclass(frozen=True, slots=True)
class Policy:
    """One table ``[[tool.initlint.policy]]``. Numbers may be expressions in ``NAMES`` and in the model's own numbers.

    ``tolerance`` is the relative difference of the standard deviation that is let pass beyond what chance explains.
    """

    parameters: str = "*"  # glob on fully-qualified names
    exclude: str = ""  # glob of names that are none of it
    kind: str = ""  # kind of the layer: linear, conv, embedding, norm, recurrent ...
    role: str = ""  # one of ROLES; several with "+": all must hold
    activation: str = ""  # canonical name of the activation that follows
    distribution: str = "any"
    mean: str | float | None = None
    std: str | float | None = None
    bound: str | float | None = None  # of a uniform; of a truncated normal the cut, in the same units as the values
    value: str | float | None = None  # of a constant
    tolerance: float = 0.0
    name: str = ""  # of the preset
    source: str = ""

    def selects(self, name: str, roles: frozenset[str], kinds: frozenset[str], activations: frozenset[str]) -> bool:
        """Whether a parameter with this name, these roles, and layers of these kinds is governed."""
        return (
            fnmatch.fnmatchcase(name, self.parameters)
            and not (self.exclude and fnmatch.fnmatchcase(name, self.exclude))
            and (not self.kind or self.kind in kinds)
            and (not self.role or set(self.role.split("+")) <= roles)
            and (not self.activation or self.activation in activations)
        )


_KEYS = frozenset(field.name for field in fields(Policy))
_NUMBERS = ("mean", "std", "bound", "value")


def parse(table: Mapping[str, Scalar]) -> Policy:
    """A policy from its TOML table.

    Raises:
        ConfigError: an unknown key, distribution, role or name in an expression; or nothing is asked for.
    """
    unknown = sorted(set(table) - _KEYS)
    if unknown:
        raise ConfigError(f"policy: unknown key `{unknown[0]}`", f"Known keys: {', '.join(sorted(_KEYS))}.")
    for key, value in table.items():
        kinds = (int, float) if key == "tolerance" else (int, float, str) if key in _NUMBERS else (str,)
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise ConfigError(f"policy: `{key}` must be a {'number' if key in _NUMBERS else 'text'}, not {value!r}", "")
        if key in _NUMBERS and isinstance(value, str) and (strange := _strange(value)):
            known = f"Known names: {', '.join(sorted(NAMES))}; {MODEL}NAME for a number that the model holds."
            raise ConfigError(f"policy: `{key}` uses `{strange[0]}`", known)
        if key in _NUMBERS and isinstance(value, str) and not names_in(value):
            evaluate(value, {})  # raises for one that has no value
    policy = Policy(**table)  # type: ignore[arg-type]
    if policy.distribution not in DISTRIBUTIONS:
        raise ConfigError(f"policy: no distribution `{policy.distribution}`", f"One of {', '.join(DISTRIBUTIONS)}.")
    if policy.role and (wrong := sorted(set(policy.role.split("+")) - ROLES)):
        raise ConfigError(f"policy: no role `{wrong[0]}`", f"Roles: {', '.join(sorted(ROLES))}; join them with +.")
    free = table.get("distribution") == "any"  # said in so many words: anything goes
    if not free and policy.distribution in ("any", "constant") and all(getattr(policy, k) is None for k in _NUMBERS):
        raise ConfigError("policy: nothing is asked for", "Give std, bound, mean, value or a distribution.")
    return policy


def _strange(expression: str) -> list[str]:
    """Names in an expression that mean nothing here."""
    return sorted(name for name in names_in(expression) - NAMES if not name.startswith(MODEL))


def preset(name: str) -> tuple[Policy, ...]:
    """The ready-made policy of that name. Raises ConfigError for an unknown one."""
    if name not in PRESETS:
        raise ConfigError(f"no preset `{name}`", f"Known presets: {', '.join(sorted(PRESETS))}.")
    return PRESETS[name]


_ZERO_BIAS: Mapping[str, Scalar] = {"role": "bias", "distribution": "constant", "value": 0.0}
_UNIT_GAIN: Mapping[str, Scalar] = {"role": "gain", "distribution": "constant", "value": 1.0}


def _make(name: str, source: str, *tables: Mapping[str, Scalar]) -> tuple[Policy, ...]:
    return tuple(parse({**table, "name": name, "source": source}) for table in tables)


#: Ready-made policies; matrices are told by role, not by name, so that they fit any re-implementation.
PRESETS: Mapping[str, tuple[Policy, ...]] = {
    "gpt2": _make(
        "gpt2",
        "Radford et al. 2019, section 2.3; openai/gpt-2 src/model.py",
        _ZERO_BIAS,
        _UNIT_GAIN,
        # two branches per block write into the stream
        {"role": "weight+residual-writer", "distribution": "normal", "mean": 0.0, "std": "0.02 / sqrt(2 * n_layer)"},
        {"role": "embedding", "distribution": "normal", "mean": 0.0, "std": 0.02},
        # the released code draws positions with 0.01, most ports with 0.02: either is right
        {"role": "position", "distribution": "normal", "mean": 0.0, "std": 0.0141, "tolerance": 0.5},
        {"kind": "linear", "role": "weight", "distribution": "normal", "mean": 0.0, "std": 0.02},
    ),
    "bert": _make(
        "bert",
        "Devlin et al. 2019; google-research/bert modeling.py (truncated at two sigma: true std 0.0176)",
        _ZERO_BIAS,
        _UNIT_GAIN,
        {"role": "embedding", "mean": 0.0, "std": 0.0188, "tolerance": 0.08},
        {"role": "position", "mean": 0.0, "std": 0.0188, "tolerance": 0.08},
        {"kind": "linear", "role": "weight", "mean": 0.0, "std": 0.0188, "tolerance": 0.08},
        {"kind": "attention", "role": "weight", "mean": 0.0, "std": 0.0188, "tolerance": 0.08},
    ),
    "vit": _make(
        "vit",
        "Touvron et al. 2021 (DeiT); timm vision_transformer.py, trunc_normal_(std=.02); not the patches' convolution",
        {"kind": "linear", **_ZERO_BIAS},
        {"kind": "norm", **_ZERO_BIAS},
        _UNIT_GAIN,
        {"role": "position", "mean": 0.0, "std": 0.02, "tolerance": 0.01},
        {"role": "weight+head", "distribution": "any"},  # zero, small, or as the others
        {"kind": "linear", "role": "weight", "mean": 0.0, "std": 0.02, "tolerance": 0.01},
        {"kind": "attention", "role": "weight", "mean": 0.0, "std": 0.02, "tolerance": 0.01},
    ),
    "t5": _make(
        "t5",
        "Raffel et al. 2020; Mesh TensorFlow: no 1/sqrt(d) in the attention, a smaller query matrix instead",
        _UNIT_GAIN,
        {"role": "weight+query", "distribution": "normal", "mean": 0.0, "std": "1 / sqrt(fan_in * head_dim)"},
        {"role": "embedding", "distribution": "normal", "mean": 0.0, "std": 1.0},
        {"kind": "linear", "role": "weight", "distribution": "normal", "mean": 0.0, "std": "1 / sqrt(fan_in)"},
    ),
    "llama": _make(
        "llama",
        "Touvron et al. 2023; transformers LlamaConfig.initializer_range = 0.02",
        _ZERO_BIAS,
        _UNIT_GAIN,
        {"role": "embedding", "distribution": "normal", "mean": 0.0, "std": 0.02},
        {"kind": "linear", "role": "weight", "distribution": "normal", "mean": 0.0, "std": 0.02},
    ),
    "resnet": _make(
        "resnet",
        "He et al. 2015; torchvision resnet.py, kaiming_normal_(mode='fan_out'), the head left at its default",
        {"kind": "conv", "role": "bias", "distribution": "constant", "value": 0.0},
        {"kind": "norm", "role": "bias", "distribution": "constant", "value": 0.0},
        {"kind": "conv", "role": "weight", "distribution": "normal", "mean": 0.0, "std": "sqrt(2 / torch_fan_out)"},
    ),
    "siren": _make(
        "siren",
        "Sitzmann et al. 2020, section 3.2 and supplement 1.5",
        {"role": "weight+first", "activation": "sin", "distribution": "uniform", "bound": "1 / fan_in"},
        {"role": "weight", "activation": "sin", "distribution": "uniform", "bound": "sqrt(6 / fan_in) / omega"},
    ),
}
