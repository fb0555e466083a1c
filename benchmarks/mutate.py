"""Programmed mistakes in the initialisation of a correct model, as people make them.

A mutation gets a freshly built model, writes the mistake through ``nn.init`` or in place, so that a recorder sees the
writes, and returns the names of the parameters it touched; nothing where it does not apply.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Mutate = Callable[[nn.Module], list[str]]
MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


@dataclass(frozen=True, slots=True)
class Mutation:
    """One kind of mistake.

    ``family``: what it belongs to in the report. ``evidence``: whether the code shows that it is a mistake (a formula
    with the wrong fan); without, it is a mere distance from the textbook and judged by what the whole net makes of it.
    """

    apply: Mutate
    family: str
    evidence: bool = True


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight matrix or kernel of a layer in a model."""

    name: str
    layer: nn.Module
    tensor: Tensor
    bias: Tensor | None
    groups: int

    @property
    def fan_in(self) -> int:
        return self.tensor[0].numel()


def weights(model: nn.Module) -> list[Weight]:
    """Trainable, non-zero weights of linear layers and convolutions, in order of definition; heads included."""
    found = []
    for path, module in model.named_modules():
        plain = isinstance(module, MATRICES) and "weight" in module._parameters and module.weight.requires_grad
        if plain and bool(module.weight.any()):
            groups = getattr(module, "groups", 1)
            found.append(Weight(f"{path}.weight".lstrip("."), module, module.weight, module.bias, groups))
    return found


def recognised(model: nn.Module, touched: Sequence[str]) -> bool:
    """Whether all touched weights have, within a factor 2, the variance of a scheme in use, whatever their layer is for:
    PyTorch's default, LeCun, He by fan-in or fan-out, Glorot, N(0, 0.02), N(0, 0.01)."""
    found = [w for w in weights(model) if w.name in touched]
    return bool(found) and len(found) == len(touched) and all(map(_in_use, found))


def _in_use(w: Weight) -> bool:
    fan_out = w.fan_in * w.tensor.shape[0] / w.tensor.shape[1] / w.groups
    schemes = (1 / (3 * w.fan_in), 1 / w.fan_in, 2 / w.fan_in, 2 / fan_out, 2 / (w.fan_in + fan_out), 4e-4, 1e-4)
    second = float(w.tensor.detach().pow(2).mean())
    return any(0.5 < second / scheme < 2 for scheme in schemes)


def body(model: nn.Module) -> list[Weight]:
    """All of these but the last, which is often on purpose of another size."""
    return weights(model)[:-1]


def middle(found: list[Weight]) -> list[Weight]:
    """One weight from the middle, or none."""
    return found[len(found) // 2 : len(found) // 2 + 1]


def each(act: Callable[[Weight], object], *, one: bool = False, keep: Callable[[Weight], bool] | None = None) -> Mutate:
    """The mutation that does ``act`` to all weights of the body, or to a single one."""

    def mutate(model: nn.Module) -> list[str]:
        found = [w for w in body(model) if keep is None or keep(w)]
        chosen = middle(found) if one else found
        with torch.no_grad():
            for weight in chosen:
                act(weight)
        return [weight.name for weight in chosen]

    return mutate


def scaled(factor: float) -> Callable[[Weight], object]:
    return lambda w: w.tensor.mul_(factor)


def normal(mean: Callable[[Weight], float], std: Callable[[Weight], float]) -> Callable[[Weight], object]:
    return lambda w: nn.init.normal_(w.tensor, mean(w), std(w))


def he(w: Weight) -> float:
    return math.sqrt(2 / w.fan_in)


def zero(w: Weight) -> float:
    return 0.0


def blank(w: Weight) -> None:
    """A parameter made anew and never written."""
    w.layer.weight = nn.Parameter(torch.empty(w.tensor.shape))


def _skipped(model: nn.Module) -> list[str]:
    """A layer that the init loop passed over, where that leaves it at twice or half of what the loop gives."""
    for w in middle(body(model)):
        before = float(w.tensor.detach().pow(2).mean())
        blank(w)
        w.layer.reset_parameters()
        ratio = before / float(w.layer.weight.detach().pow(2).mean())
        return [] if 0.5 < ratio < 2 else [w.name]
    return []


def _shifted_bias(value: float) -> Mutate:
    def mutate(model: nn.Module) -> list[str]:
        chosen = [w for w in body(model) if w.bias is not None]
        for w in chosen:
            nn.init.constant_(w.bias, value)
        return [w.name.replace("weight", "bias") for w in chosen]

    return mutate


def _bounds_as_moments(model: nn.Module) -> list[str]:
    chosen = [w for w in body(model) if w.bias is not None]
    for w in chosen:
        bound = 1 / math.sqrt(w.fan_in)
        nn.init.normal_(w.bias, -bound, bound)
    return [w.name.replace("weight", "bias") for w in chosen]


def _gains(write: Callable[[Tensor], object], one: bool = False) -> Mutate:
    def mutate(model: nn.Module) -> list[str]:
        found = [(n, m) for n, m in model.named_modules() if isinstance(m, NORMS) and m.weight is not None]
        chosen = found[len(found) // 2 : len(found) // 2 + 1] if one else found
        for _, module in chosen:
            write(module.weight)
        return [f"{name}.weight" for name, _ in chosen]

    return mutate


def _tables(act: Callable[[nn.Embedding], object], keep: Callable[[nn.Embedding], bool] = lambda e: True) -> Mutate:
    def mutate(model: nn.Module) -> list[str]:
        found = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Embedding) and m.weight.requires_grad]
        chosen = [(n, m) for n, m in found if keep(m)]
        with torch.no_grad():
            for _, module in chosen:
                act(module)
        return [f"{name}.weight" for name, _ in chosen]

    return mutate


def _last(model: nn.Module) -> list[str]:
    found = weights(model)[-1:]
    with torch.no_grad():
        for w in found:
            w.tensor.mul_(30)
    return [w.name for w in found]


def _recurrent(model: nn.Module) -> list[str]:
    names = []
    for path, module in model.named_modules():
        if isinstance(module, nn.LSTM | nn.GRU):
            for name, p in module.named_parameters():
                if "weight_hh" in name:
                    nn.init.orthogonal_(p)
                    names.append(f"{path}.{name}")
    return names


def _packed_xavier(model: nn.Module) -> list[str]:
    chosen = [w for w in body(model) if w.tensor.dim() == 2 and w.tensor.shape[0] == 3 * w.tensor.shape[1]]
    for w in chosen:
        nn.init.xavier_uniform_(w.tensor)
    return [w.name for w in chosen]


def _adapters(model: nn.Module) -> list[str]:
    names = []
    for path, module in model.named_modules():
        if isinstance(getattr(module, "a", None), nn.Parameter) and isinstance(
            getattr(module, "b", None), nn.Parameter
        ):
            nn.init.zeros_(module.a)
            nn.init.zeros_(module.b)
            names += [f"{path}.a", f"{path}.b"]
    return names


#: What writes into the residual stream, in the models at hand.
_WRITERS = ("proj.weight", "down.weight", "mlp.2.weight", "conv2.weight", ".o.weight", "leave.weight", "channels.")


def _residual_writers(model: nn.Module) -> list[str]:
    chosen = [w for w in body(model) if any(part in w.name for part in _WRITERS)]
    with torch.no_grad():
        for w in chosen:
            w.tensor.mul_(10)
    return [w.name for w in chosen]


def _alike(model: nn.Module) -> list[list[Weight]]:
    shapes: dict[tuple[int, ...], list[Weight]] = {}
    for w in body(model):
        shapes.setdefault(tuple(w.tensor.shape), []).append(w)
    return [group for group in shapes.values() if len(group) > 1]


def _copied(model: nn.Module) -> list[str]:
    for group in _alike(model)[:1]:
        with torch.no_grad():
            group[1].tensor.copy_(group[0].tensor)
        return [group[0].name, group[1].name]
    return []


def _reseeded(model: nn.Module) -> list[str]:
    names = []
    for group in _alike(model):
        for w in group:
            std = float(w.tensor.detach().std())
            torch.manual_seed(1234)
            nn.init.normal_(w.tensor, 0.0, std)
            names.append(w.name)
    return names


def _half_rows(w: Weight) -> None:
    kept = torch.arange(w.tensor.shape[0]) % 2
    w.tensor.mul_(kept.view(-1, *[1] * (w.tensor.dim() - 1)))


def _outlier(w: Weight) -> None:
    w.tensor.view(-1)[0] = 1e4


def _grouped(w: Weight) -> bool:
    return w.groups > 1


def _rectangular(w: Weight) -> bool:
    return w.groups == 1 and w.tensor.dim() == 2 and not 0.25 < w.tensor.shape[0] / w.tensor.shape[1] < 4


def _wide(w: Weight) -> bool:
    return w.fan_in > 8


def _pad(table: nn.Embedding) -> object:
    return nn.init.normal_(table.weight, 0.0, float(table.weight.detach().std()))


def _constant_head(model: nn.Module) -> list[str]:
    found = body(model)[-1:]
    for w in found:
        nn.init.constant_(w.tensor, 0.01)
    return [w.name for w in found]


MUTATIONS: Mapping[str, Mutation] = {
    "one layer x4": Mutation(each(scaled(4), one=True), "scale", evidence=False),
    "one layer x10": Mutation(each(scaled(10), one=True), "scale", evidence=False),
    "one layer x100": Mutation(each(scaled(100), one=True), "scale", evidence=False),
    "one layer /4": Mutation(each(scaled(0.25), one=True), "scale", evidence=False),
    "one layer /10": Mutation(each(scaled(0.1), one=True), "scale", evidence=False),
    "all layers x4": Mutation(each(scaled(4)), "scale", evidence=False),
    "all layers x10": Mutation(each(scaled(10)), "scale", evidence=False),
    "all layers /4": Mutation(each(scaled(0.25)), "scale", evidence=False),
    "all layers /10": Mutation(each(scaled(0.1)), "scale", evidence=False),
    "all N(0, 1)": Mutation(each(normal(zero, lambda w: 1.0)), "scale", evidence=False),
    "last layer x30": Mutation(_last, "scale", evidence=False),
    "residual writers x10": Mutation(_residual_writers, "scale", evidence=False),
    "one layer zero": Mutation(each(lambda w: nn.init.zeros_(w.tensor), one=True), "values"),
    "all layers zero": Mutation(each(lambda w: nn.init.zeros_(w.tensor)), "values"),
    "one layer constant": Mutation(each(lambda w: nn.init.constant_(w.tensor, 0.05), one=True), "values"),
    "all layers constant": Mutation(each(lambda w: nn.init.constant_(w.tensor, 0.01)), "values"),
    "last hidden constant": Mutation(_constant_head, "values"),
    "half of the rows zero": Mutation(each(_half_rows, one=True), "values"),
    "one entry 1e4": Mutation(each(_outlier, one=True), "values"),
    "one layer NaN": Mutation(each(lambda w: w.tensor.fill_(math.nan), one=True), "values"),
    "one layer never written": Mutation(each(blank, one=True), "values"),
    "both adapters zero": Mutation(_adapters, "values"),
    "one layer skipped": Mutation(_skipped, "scale", evidence=False),
    "copied layer": Mutation(_copied, "values"),
    "same seed for each layer": Mutation(_reseeded, "values"),
    "grouped fan_out": Mutation(
        each(lambda w: nn.init.kaiming_normal_(w.tensor, mode="fan_out", nonlinearity="relu"), keep=_grouped), "fan"
    ),
    "grouped fan by hand": Mutation(
        each(normal(zero, lambda w: math.sqrt(2 / (w.tensor.shape[0] * w.tensor[0, 0].numel()))), keep=_grouped), "fan"
    ),
    "packed projections Xavier": Mutation(_packed_xavier, "fan"),
    "axes swapped": Mutation(
        each(normal(zero, lambda w: math.sqrt(2 / w.tensor.shape[0])), keep=_rectangular), "fan", evidence=False
    ),
    "variance as std, all": Mutation(each(normal(zero, lambda w: 2 / w.fan_in), keep=_wide), "formula"),
    "variance as std, one": Mutation(each(normal(zero, lambda w: 2 / w.fan_in), one=True, keep=_wide), "formula"),
    "gain as slope, all": Mutation(each(lambda w: nn.init.kaiming_normal_(w.tensor, a=math.sqrt(2))), "formula"),
    "std in the mean's place": Mutation(each(normal(he, zero)), "formula"),
    "mean equal to std, all": Mutation(each(normal(he, he)), "formula"),
    "mean equal to std, one": Mutation(each(normal(he, he), one=True), "formula"),
    "uniform(0, b), all": Mutation(each(lambda w: nn.init.uniform_(w.tensor, 0.0, math.sqrt(6 / w.fan_in))), "formula"),
    "uniform(0, b), one": Mutation(
        each(lambda w: nn.init.uniform_(w.tensor, 0.0, math.sqrt(6 / w.fan_in)), one=True), "formula"
    ),
    "bias -10": Mutation(_shifted_bias(-10.0), "bias"),
    "bias bounds as moments": Mutation(_bounds_as_moments, "bias"),
    "norm gains zero": Mutation(_gains(nn.init.zeros_), "norm"),
    "norm gains N(0, 0.02)": Mutation(_gains(lambda g: nn.init.normal_(g, 0.0, 0.02)), "norm"),
    "norm gains 2": Mutation(_gains(lambda g: nn.init.constant_(g, 2.0)), "norm", evidence=False),
    "one norm gain 20": Mutation(_gains(lambda g: nn.init.constant_(g, 20.0), one=True), "norm", evidence=False),
    "tables x50": Mutation(_tables(lambda e: e.weight.mul_(50)), "tables", evidence=False),
    "padding row overwritten": Mutation(_tables(_pad, lambda e: e.padding_idx is not None), "tables"),
    "orthogonal on stacked gates": Mutation(_recurrent, "fan"),
}
