"""Slices of a parameter that are equal and get equal gradients: learned queries, registers, units, heads.

Equal values with equal gradients stay equal under every optimiser that treats elements alike. Whether they are is
measured: backward runs from independent noise at the outputs, which tells apart all that any loss could tell apart.
What is equal then is looked at again after a few steps of all parameters, which open what starts at zero. Nothing runs
for models in which no slices are equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import nn

from initlint.facts import EqualSlices
from initlint.probe.inputs import Inputs
from initlint.probe.measure_units import row_duplicates
from initlint.probe.recorded_output import map_output
from initlint.probe.recorded_state import preserved, seeded, set_mode
from initlint.probe.traced import tensors_in

#: Gradients that differ by less than this of their size are equal: rounding of sums in float32 leaves 1e-6, more after
#: steps that carry it on. Units that are told apart at all differ by far more.
_EQUAL = 1e-3
#: Gradients below this share of the model's largest are what rounding leaves of a sum that is zero.
_NOISE = 1e-6
#: Slices of fewer elements may agree by chance.
_LEAST = 4
#: Beyond this many parameters a further forward and backward is not free: only small tensors are looked at that are
#: no layer's (registers, queries, tokens: 300 queries of 256 are 77,000), which nearly always settles that none runs.
_SMALL_MODEL, _TOKENS = 20_000_000, 1 << 17
#: Beyond this many, gradients of all parameters in double precision are more than 2 GB.
_LARGE_MODEL = 200_000_000
#: Seeds of the cotangents differ from the forward's.
_OFFSET = 7919
#: Steps after which nothing is closed any more: a gate, the branch behind it, what that reads.
_STEPS = 3
#: Size of a step, relative to the parameter; absolute where it is zero.
_RATE, _OPENING = 0.05, 0.02

_Groups = Mapping[tuple[str, int], tuple[torch.Tensor, ...]]


def equal_slices(model: nn.Module, inputs: Inputs | None, seed: int) -> tuple[EqualSlices, ...]:
    """What of the model's parameters stays equal."""
    named = {name: p for name, p in model.named_parameters() if not torch.nn.parameter.is_lazy(p)}
    size = sum(p.numel() for p in named.values())
    meta = any(p.is_meta for p in named.values())
    if inputs is None or _says_nothing(inputs) or meta or size > _LARGE_MODEL:
        return ()
    with torch.no_grad():
        small = size <= _SMALL_MODEL
        plain, looked = (_zero_layers(model), named) if small else (frozenset(), _bare(model, named))
        groups: _Groups = {
            (name, axis): found
            for name, p in looked.items()
            for axis, found in (_repeated(p) if id(p) not in plain else _rows(p))
        }
        closed = {name for name, p in named.items() if id(p) in plain}
    if not groups:
        return ()
    kept = {name: p.detach().clone() for name, p in named.items()} if groups else {}
    try:
        for step in range(_STEPS):
            gradients = _gradients(model, inputs, named, seed + step)
            least = _NOISE * max((float(g.abs().max()) for g in gradients.values()), default=0.0)
            groups = {
                key: same
                for key, found in groups.items()
                if key[0] in gradients
                and (key[0] not in closed or float(gradients[key[0]].abs().max()) > least)
                and (same := tuple((_shared if key[0] in closed else _alike)(gradients[key[0]], key[1], found)))
            }
            if not groups:
                return ()
            _move(named, gradients)
    finally:
        with torch.no_grad():
            for name, value in kept.items():
                named[name].copy_(value)
    best: dict[str, EqualSlices] = {}
    for (name, axis), found in groups.items():
        share = sum(len(group) - 1 for group in found) / max(1, named[name].shape[axis] - 1)
        if name not in best or share > best[name].share:
            best[name] = EqualSlices(name, axis, share)
    return tuple(best.values())


def _zero_layers(model: nn.Module) -> frozenset[int]:
    """Zero parameters of linear layers and convolutions: closed branches and heads.

    That all their rows are equal says nothing, and what is cut off the zero analysis judges. Some of them are equal for
    good where the outputs are members of one mixture: means of components that are added up in the likelihood.
    """
    return frozenset(id(p) for p in _in_layers(model) if not torch.nn.parameter.is_lazy(p) and not bool(p.any()))


def _bare(model: nn.Module, named: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Small parameters that are no linear layer's or convolution's."""
    owned = {id(p) for p in _in_layers(model)}
    return {name: p for name, p in named.items() if p.numel() <= _TOKENS and id(p) not in owned}


def _in_layers(model: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters of linear layers and convolutions."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
            yield from nn.Module.parameters(module, recurse=False)


def _rows(parameter: nn.Parameter) -> Iterator[tuple[int, tuple[torch.Tensor, ...]]]:
    """All rows of a zero matrix, as one group."""
    rows = parameter.shape[0] if parameter.dim() > 1 and parameter.requires_grad else 0
    if rows > 2 and parameter.numel() // rows >= _LEAST and not parameter.is_complex():
        yield 0, (torch.arange(rows),)


def _repeated(parameter: nn.Parameter) -> Iterator[tuple[int, tuple[torch.Tensor, ...]]]:
    """Axes along which slices are equal, with the indices of equal ones: all, or some rows that are not zero."""
    values = parameter.detach()
    if not parameter.requires_grad or values.layout != torch.strided or values.is_complex():
        return
    if sum(size > 1 for size in values.shape) < 2:
        return
    for axis, size in enumerate(values.shape):
        if size < 2 or values.numel() // size < _LEAST:
            continue
        first = values.narrow(axis, 0, 1)
        if bool((first == values.narrow(axis, 1, 1)).all()) and bool((values == first).all()):
            yield axis, (torch.arange(size),)
        elif axis == 0 and (found := _repeated_rows(values.flatten(1).float())):
            yield axis, found


def _repeated_rows(rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
    energies = rows.square().sum(1)
    used = torch.nonzero(energies > 0).flatten()
    if not row_duplicates(rows[used], energies[used], rows[used].sum(1)):
        return ()
    _, members = torch.unique(rows[used], dim=0, return_inverse=True)
    counts = torch.bincount(members)
    return tuple(used[members == kind] for kind in torch.nonzero(counts > 1).flatten())


def _alike(gradient: torch.Tensor, axis: int, groups: tuple[torch.Tensor, ...]) -> Iterator[torch.Tensor]:
    """The groups whose slices all get the same gradient, and get any."""
    slopes = gradient.movedim(axis, 0).flatten(1)
    size = float(slopes.square().mean().sqrt())
    for group in groups:
        chosen = slopes[group]
        if bool(chosen.any()) and bool(((chosen - chosen[0]).abs() <= _EQUAL * size).all()):
            yield group


def _shared(gradient: torch.Tensor, axis: int, groups: tuple[torch.Tensor, ...]) -> Iterator[torch.Tensor]:
    """Parts of the groups whose slices get equal gradients, relative to their own size, and get any."""
    slopes = gradient.movedim(axis, 0).flatten(1)
    generator = torch.Generator().manual_seed(_OFFSET)
    direction = torch.randn(slopes.shape[1], generator=generator, dtype=slopes.dtype)
    norms = slopes.square().sum(1).sqrt()
    for group in groups:
        used = group[norms[group] > _EQUAL * norms.max()]
        order = used[(slopes[used] @ direction).argsort()]
        if len(order) < 2:
            continue
        # equal rows lie side by side in any direction
        step = (slopes[order[1:]] - slopes[order[:-1]]).square().sum(1).sqrt() <= _EQUAL * norms[order[1:]]
        runs = torch.cat([torch.zeros(1, dtype=torch.long), (~step).long().cumsum(0)])
        parts = (order[runs == run] for run in torch.nonzero(torch.bincount(runs) > 1).flatten())
        yield from parts


def _says_nothing(inputs: Inputs) -> bool:
    """Whether indices are all zero: what they look up cannot be told apart by them."""
    indices = [t for t in tensors_in((inputs.args, dict(inputs.kwargs))) if t.dtype in (torch.int32, torch.int64)]
    return any(t.numel() > 1 and not bool(t.any()) for t in indices)


def _gradients(
    model: nn.Module, inputs: Inputs, named: Mapping[str, nn.Parameter], seed: int
) -> dict[str, torch.Tensor]:
    """Gradients of a random linear function of the outputs; without dropout, which would hide what is equal."""
    wanted = {name: p for name, p in named.items() if p.requires_grad}
    try:
        with preserved(model), seeded(seed), torch.enable_grad():
            set_mode(model, training=False)
            args, kwargs = _copied(inputs)
            found: list[torch.Tensor] = []
            map_output(model(*args, **kwargs), found.append)
            outputs = [out for out in found if out.requires_grad and out.is_floating_point()]
            if not outputs:
                return {}
            torch.default_generator.manual_seed(seed + _OFFSET)
            loss = torch.stack([(out * torch.randn(out.shape).to(out.dtype)).sum().float() for out in outputs]).sum()
            gradients = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    except Exception:  # user code may do anything in eval mode; why a forward fails, the trace has said
        return {}
    pairs = zip(wanted, gradients, strict=True)
    return {name: g.detach().double() for name, g in pairs if g is not None and bool(torch.isfinite(g).all())}


def _copied(inputs: Inputs) -> tuple[list[object], dict[str, object]]:
    def copy(value: object) -> object:
        if isinstance(value, torch.Tensor):
            return value.detach().clone()
        if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
            return type(value)(copy(v) for v in value)
        return {k: copy(v) for k, v in value.items()} if type(value) is dict else value

    return [copy(a) for a in inputs.args], {k: copy(v) for k, v in inputs.kwargs.items()}


def _move(named: Mapping[str, nn.Parameter], gradients: Mapping[str, torch.Tensor]) -> None:
    """One step of each parameter, by a share of its own size."""
    with torch.no_grad():
        for name, gradient in gradients.items():
            size = float(gradient.square().mean().sqrt())
            if size > 0:
                own = float(named[name].detach().double().square().mean().sqrt())
                step = max(_RATE * own, _OPENING if own == 0.0 else 0.0) / size
                named[name].sub_((gradient * step).to(named[name].dtype))
