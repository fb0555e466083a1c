"""Models that are sharded over processes (DTensor parameters: FSDP2, tensor parallelism).

Every process measures its own shards; the moments are summed over the process group, and checksums of the shards
are compared between processes. The model is traced as a plain copy on meta, without the hooks that communicate, so
that nothing but these few small collectives has to be done by all processes together.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from initlint.facts import ParameterFacts, TensorStats
from initlint.probe.measure import measure
from initlint.probe.measure_units import raw_bytes
from initlint.records import dataclass

#: So many leading values are compared to find shards drawn from the same random numbers, also where the last shard is
#: smaller. Fewer than 8 random floats may agree by rounding in narrow formats.
HEAD = 64
_LEAST = 8
#: Hooks and classes of these packages communicate.
_COMMUNICATING = ("torch.distributed", "torch.nn.parallel")


@dataclass(frozen=True, slots=True)
class Reduced:
    """What all processes together know of one tensor."""

    stats: TensorStats | None
    replica: str  # as ``ParameterFacts.replica``


def is_sharded(model: nn.Module) -> bool:
    """Whether parameters are distributed tensors and there is a process group of several to reduce over."""
    tensors, group = sys.modules.get("torch.distributed.tensor"), sys.modules.get("torch.distributed")
    if tensors is None or group is None or not group.is_initialized() or group.get_world_size() < 2:
        return False
    return any(isinstance(p, tensors.DTensor) for p in model.parameters())


def reduced(model: nn.Module) -> tuple[dict[str, Reduced], tuple[str, ...]]:
    """Statistics of every parameter and buffer over all processes, and notes. All processes must call this."""
    import torch.distributed as group

    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    locals_ = {name: _local(tensor) for name, tensor in tensors.items()}
    stats = {name: measure(tensor) for name, tensor in locals_.items()}
    size = group.get_world_size()
    names = hashlib.blake2b("\n".join(tensors).encode(), digest_size=8).digest()
    same = _gathered(torch.tensor([[int.from_bytes(names, "big", signed=True)]]))
    if bool((same != same[0]).any()):
        note = "the processes hold different parameters: the statistics are those of this process"
        return {name: Reduced(found, "") for name, found in stats.items()}, (note,)
    shards = [_keys(tensors[name], locals_[name], stats[name]) for name in tensors]
    keys = _gathered(torch.tensor(shards, dtype=torch.int64))
    sums = _summed([_sums(stats[name]) for name in tensors])
    ends = _largest([_ends(stats[name]) for name in tensors])
    found: dict[str, Reduced] = {}
    for i, name in enumerate(tensors):
        joined = _joined(stats[name], sums[i].tolist(), ends[i].tolist(), tensors[name].numel(), keys[:, i, 1].tolist())
        found[name] = Reduced(joined, _replica([tuple(row) for row in keys[:, i].tolist()]))
    return found, (f"the statistics are reduced over {size} processes",)


def with_reduced(parameters: Sequence[ParameterFacts], found: Mapping[str, Reduced]) -> tuple[ParameterFacts, ...]:
    """The parameters with what all processes know of them."""
    return tuple(
        replace(p, stats=found[p.name].stats, replica=found[p.name].replica) if p.name in found else p
        for p in parameters
    )


def plain_copy(model: nn.Module) -> nn.Module:
    """The same modules without wrappers' classes and hooks, all tensors on meta in their full shapes."""
    return _copied(model, {}, {})


def _local(tensor: Any) -> torch.Tensor:
    """What this process holds of a tensor (of one kept as summands, all of it)."""
    if not hasattr(tensor, "to_local"):
        found = tensor
    elif any(p.is_partial() for p in tensor.placements):
        found = tensor.full_tensor()
    else:
        found = tensor.to_local()
    local: torch.Tensor = found.detach()
    return local


def _keys(tensor: Any, local: torch.Tensor, stats: TensorStats | None) -> tuple[int, int, int]:
    """Of this process' shard: which part of the tensor it is, a checksum of all of it, and of its first values.

    The last is 0 where equal values prove nothing: constants and very few values.
    """
    offset: tuple[int, ...] = ()
    if hasattr(tensor, "placements"):
        from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

        _, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    digest = int(stats.digest[:15] or "0", 16) if stats is not None else 0
    head = local.reshape(-1)[:HEAD].cpu().contiguous()
    random = stats is not None and stats.distinct is None and head.numel() >= _LEAST and bool((head != head[0]).any())
    return hash(tuple(offset)), digest, _checksum(raw_bytes(head)) if random else 0


def _checksum(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=7).digest(), "big")


def _replica(keys: Sequence[tuple[int, ...]]) -> str:
    """``keys``: for each process the part it holds, the checksum of it, and of its first values."""
    held: dict[int, set[int]] = {}
    heads: dict[int, int] = {}
    for part, digest, head in keys:
        held.setdefault(part, set()).add(digest)
        heads.setdefault(part, head)
    if any(len(digests) > 1 for digests in held.values()):
        return "differing_replicas"
    known = [head for head in heads.values() if head]
    return "identical_shards" if len(set(known)) < len(known) else ""


def _sums(stats: TensorStats | None) -> list[float]:
    """Count, sum, sum of squares, fourth central moment's sum, and counts of odd values."""
    if stats is None:
        return [0.0] * 8
    n = stats.count
    fourth = (stats.kurtosis or 0.0) * stats.var**2 * n
    odd = [float(stats.zeros), float(stats.nans), float(stats.infs), float(stats.subnormals)]
    return [float(n), stats.mean * n, stats.second * n, fourth, *odd]


def _ends(stats: TensorStats | None) -> list[float]:
    if stats is None or not stats.count:
        return [-math.inf, -math.inf]
    return [stats.maximum, -stats.minimum]


def _joined(
    own: TensorStats | None, sums: list[float], ends: list[float], count: int, digests: list[int]
) -> TensorStats | None:
    """Statistics of the whole tensor; what compares its slices is not known.

    Replicated parts are summed as often as they are held, which changes no mean.
    """
    n = sums[0]
    if own is None or not n:
        return own
    mean, second = sums[1] / n, sums[2] / n
    var = max(0.0, second - mean * mean)
    high, low = ends[0], -ends[1]
    copies = max(1.0, (n + sums[5] + sums[6]) / count) if count else 1.0
    whole = hashlib.blake2b(repr(digests).encode(), digest_size=16).hexdigest()
    return TensorStats(
        count=round(n / copies),
        mean=mean,
        second=second,
        var=0.0 if high == low else var,
        kurtosis=sums[3] / n / var**2 if var > 0 and high > low else None,
        minimum=low,
        maximum=high,
        zeros=round(sums[4] / copies),
        nans=round(sums[5] / copies),
        infs=round(sums[6] / copies),
        subnormals=round(sums[7] / copies),
        distinct=1 if high == low else None,
        digest=whole,
    )


def _device() -> torch.device:
    """Where collectives want their tensors."""
    import torch.distributed as group

    backend = str(group.get_backend())
    return torch.device("cpu") if "gloo" in backend or "mpi" in backend else torch.device("cuda")


def _gathered(own: torch.Tensor) -> torch.Tensor:
    """The tensors of all processes, stacked."""
    import torch.distributed as group

    given = own.to(_device())
    out = [torch.empty_like(given) for _ in range(group.get_world_size())]
    group.all_gather(out, given)
    return torch.stack(out).cpu()


def _summed(rows: list[list[float]]) -> torch.Tensor:
    import torch.distributed as group

    values = torch.tensor(rows, dtype=torch.float64, device=_device())
    group.all_reduce(values, op=group.ReduceOp.SUM)
    return values.cpu()


def _largest(rows: list[list[float]]) -> torch.Tensor:
    import torch.distributed as group

    values = torch.tensor(rows, dtype=torch.float64, device=_device())
    group.all_reduce(values, op=group.ReduceOp.MAX)
    return values.cpu()


def _copied(module: nn.Module, modules: dict[int, nn.Module], tensors: dict[int, Any]) -> nn.Module:
    known = modules.get(id(module))
    if known is not None:
        return known
    cls: Any = next(c for c in type(module).__mro__ if not c.__module__.startswith("torch.distributed"))
    new: nn.Module = cls.__new__(cls)
    modules[id(module)] = new
    state = {k: v for k, v in vars(module).items() if not k.startswith("__composable_api")}
    for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
        state[name] = OrderedDict((k, h) for k, h in state[name].items() if not _communicates(h))
    state["_parameters"] = {k: _on_meta(v, tensors) for k, v in module._parameters.items()}
    state["_buffers"] = {k: _on_meta(v, tensors) for k, v in module._buffers.items()}
    state["_modules"] = {
        k: None if child is None else _copied(child, modules, tensors) for k, child in module._modules.items()
    }
    vars(new).update({k: _on_meta(v, tensors) if isinstance(v, torch.Tensor) else v for k, v in state.items()})
    return new


def _communicates(hook: Any) -> bool:
    function = getattr(hook, "func", hook)  # of a partial
    return str(getattr(function, "__module__", "")).startswith(_COMMUNICATING)


def _on_meta(tensor: torch.Tensor | None, known: dict[int, Any]) -> torch.Tensor | None:
    if tensor is None or torch.nn.parameter.is_lazy(tensor):
        return tensor
    found: torch.Tensor | None = known.get(id(tensor))
    if found is None:
        found = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        if isinstance(tensor, nn.Parameter):
            found = nn.Parameter(found, requires_grad=tensor.requires_grad)
        known[id(tensor)] = found
    return found
