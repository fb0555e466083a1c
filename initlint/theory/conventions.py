"""Schemes by convention: embeddings, attention, recurrent cells, residual branches, heads, GANs."""

from __future__ import annotations

import math

from initlint.theory import formulas
from initlint.theory.formulas import ANY, LINEAR_LIKE, LayerSpec, Scheme

#: What a residual stream is made by: its sums, and what comes before the first of them.
_STREAM = ("residual", "embedding", "linear", "conv")
#: Gates in a packed recurrent weight.
GATES = (4, 3, 1)


def surroundings(spec: LayerSpec) -> tuple[Scheme, ...]:
    """What the place in the network allows besides the schemes of the activation."""
    found: list[Scheme] = []
    transformer = spec.before == "norm" or spec.consumer in ("attention", "softmax", "residual", "gate")
    if spec.consumer == "norm":
        found.append(default_scheme(spec))
    if transformer or spec.branch or spec.head or spec.consumer == "norm":
        found.append(formulas.fixed_normal(formulas.TRANSFORMER_STD, formulas.GPT2))
        found.append(truncated(formulas.TRANSFORMER_STD))
    if transformer and len(spec.shape) >= 2:
        width = spec.fan_in or 1.0
        found.append(formulas.fixed_normal(math.sqrt(2.0 / (5.0 * width)), "Nguyen & Salazar 2019", "small init"))
    if spec.depth and len(spec.shape) >= 2 and (transformer or spec.before in _STREAM):
        found += _deep(spec)
    if spec.before == "sin" and spec.activation is None:
        found.append(_after_sine(spec))
    if spec.branch:
        found += _branch(spec)
    if spec.head:
        found += _head(spec)
    return tuple(found)


def _after_sine(spec: LayerSpec) -> Scheme:
    """The last, linear layer of a SIREN keeps the bound of its hidden layers, with omega_0 = 30."""
    fan_in = spec.fan_in or 1.0
    bound = math.sqrt(6.0 / fan_in) / 30.0
    line = f"nn.init.uniform_({{w}}, -(6 / {fan_in:g}) ** 0.5 / 30, (6 / {fan_in:g}) ** 0.5 / 30)"
    return Scheme("SIREN", "uniform", bound * bound / 3.0, line, formulas.SIREN, ANY, bound=bound)


def _deep(spec: LayerSpec) -> list[Scheme]:
    """Xavier with a gain that falls with depth; layers of transformers have two residual branches, other blocks one."""
    deepnorm, fixup = "Wang et al. 2022 (DeepNorm), table 1", "Huang et al. 2020 (T-Fixup)"
    suits = formulas.RELU_LIKE | LINEAR_LIKE
    return [
        scheme
        for layers in (max(1.0, (spec.depth or 0) / 2.0), float(spec.depth or 1))
        for scheme in (
            *formulas.xavier(spec, (8.0 * layers) ** -0.25, "DeepNorm encoder", deepnorm, suits),
            *formulas.xavier(spec, (12.0 * layers) ** -0.25, "DeepNorm decoder", deepnorm, suits),
            *formulas.xavier(spec, 0.67 * layers**-0.25, "T-Fixup encoder", fixup, suits),
            *formulas.xavier(spec, (9.0 * layers) ** -0.25, "T-Fixup decoder", fixup, suits),
        )
    ]


def _branch(spec: LayerSpec) -> list[Scheme]:
    found = [formulas.zeros("Fixup, zero-init residual: Zhang et al. 2019, Goyal et al. 2017 section 5.1")]
    if spec.depth and spec.depth > 1 and spec.fan_in:
        n = spec.depth
        found.append(formulas.fixed_normal(formulas.TRANSFORMER_STD / math.sqrt(n), formulas.GPT2, "GPT-2 residual"))
        # n counts branches; with one to a block, GPT-2's 2 N is twice as many
        found.append(
            formulas.fixed_normal(formulas.TRANSFORMER_STD / math.sqrt(2 * n), formulas.GPT2, "GPT-2 residual")
        )
        wang = 2.0 / (0.5 * n * math.sqrt(spec.fan_in))
        found.append(formulas.fixed_normal(wang, "Wang & Komatsuzaki 2021 (GPT-J)", "Wang"))
        found.append(formulas.fixed_normal(math.sqrt(1.0 / (spec.fan_in * n)), "scaled by 1 / sqrt(branches)"))
        found.append(formulas.fixed_normal(math.sqrt(2.0 / (spec.fan_in * n)), "scaled by 1 / sqrt(branches)"))
        small = math.sqrt(2.0 / (5.0 * spec.fan_in * n))
        found.append(formulas.fixed_normal(small, "Nguyen & Salazar 2019, scaled by 1 / sqrt(branches)", "small init"))
    return found


def _head(spec: LayerSpec) -> list[Scheme]:
    found = [
        default_scheme(spec),
        formulas.fixed_normal(0.01, "Simonyan & Zisserman 2015; Lin et al. 2017 section 4.1"),
        formulas.fixed_normal(0.001, "small head"),
        formulas.zeros("zero head: Dosovitskiy et al. 2021"),
    ]
    return [*found, *formulas.orthogonal(spec, 0.01)]


def default_scheme(spec: LayerSpec) -> Scheme:
    """PyTorch's default of Linear and ConvNd: U(+-1/sqrt(fan_in)) with PyTorch's own fan-in."""
    fan = spec.torch_fans[0] if spec.torch_fans else spec.fan_in or 1.0
    line = "nn.init.kaiming_uniform_({w}, a=5 ** 0.5)"
    return Scheme("PyTorch default", "uniform", 1.0 / (3.0 * fan), line, "torch", ANY, bound=1.0 / math.sqrt(fan))


def truncated(std: float) -> Scheme:
    """``trunc_normal_(std)``: its bounds are absolute, so that a small std is not truncated."""
    name, line = f"truncated N(0, {std:g})", f"nn.init.trunc_normal_({{w}}, std={std:g})"
    return Scheme(name, "truncated", std * std, line, formulas.GPT2, ANY, number=True)


def embedding_schemes(spec: LayerSpec) -> tuple[Scheme, ...]:
    """Tables: the fan plays no part, a row is looked up; a table tied to a head needs a small one."""
    width = spec.shape[-1] if spec.shape else 1
    fixed = formulas.fixed_normal
    found = [
        fixed(1.0, "torch.nn.Embedding", "PyTorch default N(0, 1)"),
        fixed(formulas.TRANSFORMER_STD, formulas.GPT2),
        truncated(formulas.TRANSFORMER_STD),
        fixed(math.sqrt(1.0 / width), "Vaswani et al. 2017 (tensor2tensor, fairseq)", "N(0, 1/sqrt(dim))"),
        fixed(0.01, "Radford et al. 2018"),
        fixed(0.1, "common in recommender models"),
        formulas.zeros("zero positional table: trains, its gradients differ by position"),
    ]
    for bound in (0.1, 0.05, 0.01, 0.5 / width, 1.0 / width):
        var = bound * bound / 3.0
        line = f"nn.init.uniform_({{w}}, -{bound:.4g}, {bound:.4g})"
        found.append(
            Scheme(f"U(+-{bound:.4g})", "uniform", var, line, "word2vec and LSTM language models", ANY, 0, bound)
        )
    if spec.torch_fans:
        var = 2.0 / sum(spec.torch_fans)
        line = "nn.init.xavier_uniform_({w})"
        found.append(Scheme("Xavier uniform", "uniform", var, line, formulas.GLOROT, ANY, 0, math.sqrt(3 * var)))
    return formulas.unique(found)


def attention_schemes(spec: LayerSpec) -> tuple[Scheme, ...]:
    """Packed or separate q, k, v projections of width E: each block is a square matrix of its own."""
    if len(spec.shape) < 2:
        return ()
    rows, width = spec.shape[0], spec.shape[-1]
    block = rows // max(spec.blocks, 3 if rows == 3 * width and spec.blocks == 1 else 1)
    found: list[Scheme] = []
    for name, var, line in (
        ("Xavier per block", 2.0 / (width + block), f"for block in {{w}}.chunk({max(1, rows // block)}): "),
        ("LeCun", 1.0 / width, ""),
        ("Xavier packed (PyTorch default)", 2.0 / (rows + width), ""),
    ):
        bound = math.sqrt(3.0 * var)
        body = f"nn.init.uniform_({'block' if line else '{w}'}, -{bound:.4g}, {bound:.4g})"
        found.append(Scheme(f"{name} uniform", "uniform", var, line + body, formulas.GLOROT, LINEAR_LIKE, 0, bound))
        found.append(
            Scheme(
                f"{name} normal", "normal", var, f"nn.init.normal_({{w}}, std={math.sqrt(var):.4g})", formulas.GLOROT
            )
        )
    found += [
        formulas.fixed_normal(formulas.TRANSFORMER_STD, formulas.GPT2),
        truncated(formulas.TRANSFORMER_STD),
        formulas.fixed_normal(math.sqrt(2.0 / (5.0 * width)), "Nguyen & Salazar 2019", "small init"),
        *formulas.orthogonal(spec, 1.0),
    ]
    return formulas.unique(found)


def recurrent_schemes(spec: LayerSpec) -> tuple[Scheme, ...]:
    """Packed gates (G H, in) or (G H, H): PyTorch's U(+-1/sqrt(H)), Xavier per gate, LeCun, orthogonal per gate."""
    if len(spec.shape) < 2:
        return ()
    rows, width = spec.shape[0], spec.shape[1]
    gates = spec.blocks if spec.blocks > 1 else next((g for g in GATES if rows % g == 0 and rows // g == width), None)
    found: list[Scheme] = []
    for count in (gates,) if gates else GATES:
        if rows % count:
            continue
        hidden = rows // count
        bound = 1.0 / math.sqrt(hidden)
        line = f"nn.init.uniform_({{w}}, -{bound:.4g}, {bound:.4g})"
        found.append(Scheme("PyTorch default", "uniform", bound * bound / 3.0, line, "torch.nn.LSTM", ANY, 0, bound))
        loop = f"for gate in {{w}}.chunk({count}): "
        xavier = 2.0 / (width + hidden)
        found.append(
            Scheme("Xavier per gate", "uniform", xavier, loop + "nn.init.xavier_uniform_(gate)", formulas.GLOROT)
        )
        ortho = 1.0 / max(width, hidden)
        found.append(
            Scheme("orthogonal per gate", "orthogonal", ortho, loop + "nn.init.orthogonal_(gate)", formulas.SAXE)
        )
    # Xavier and orthogonal on the packed matrix: what most code does; a factor of 2.5 at most for four gates
    found.append(Scheme("Xavier", "uniform", 2.0 / (rows + width), "nn.init.xavier_uniform_({w})", formulas.GLOROT))
    found += [*formulas.orthogonal(spec, 1.0)]
    var = 1.0 / width
    found.append(Scheme("LeCun", "normal", var, f"nn.init.normal_({{w}}, std={math.sqrt(var):.4g})", formulas.LECUN))
    return formulas.unique(found)


def gain_schemes(spec: LayerSpec) -> tuple[Scheme, ...]:
    """Gains of normalisation layers: one; zero at the end of a residual branch; N(1, 0.02) in GANs."""
    one = Scheme("ones", "constant", 0.0, "nn.init.ones_({w})", "Ioffe & Szegedy 2015", ANY, 1.0)
    dcgan = Scheme(
        "N(1, 0.02)", "normal", 4e-4, "nn.init.normal_({w}, 1.0, 0.02)", "Radford et al. 2016 (DCGAN)", ANY, 1.0
    )
    zero = (formulas.zeros("zero gamma: Goyal et al. 2017, section 5.1"),) if spec.branch else ()
    return (one, dcgan, *zero)


def scale_schemes() -> tuple[Scheme, ...]:
    """Learned scales of a branch: LayerScale, SkipInit, ReZero, or one."""
    source = "LayerScale: Touvron et al. 2021; SkipInit: De & Smith 2020"
    values = (1.0, 0.1, 1e-5, 1e-6)
    return (
        *(Scheme(f"{v:g}", "constant", 0.0, f"nn.init.constant_({{w}}, {v:g})", source, ANY, v) for v in values),
        formulas.zeros(source),
    )
