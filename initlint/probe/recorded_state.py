"""Leave a model and the process as they were: buffers, train mode, attributes, random state."""

from __future__ import annotations

import random
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

# Tables of a module that are restored by themselves, or hold what does not change.
_TORCH = frozenset({"_parameters", "_buffers", "_modules"})


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Restore buffers (running statistics), train modes and plain attributes of all modules afterwards."""
    # A lazy layer becomes an ordinary one in its first forward: there is no way back.
    modules = [m for m in model.modules() if not isinstance(m, LazyModuleMixin)]
    modes = [m.training for m in modules]
    plain = [dict(vars(m)) for m in modules]
    # Caches, and hooks that a forward installs: what tracing leaves in them (proxies) would break the next run.
    kinds = frozenset((dict, list, set, OrderedDict))
    caches = [
        (v, v.copy() if v else v)  # most are empty, and copies of thousands of tables take a while
        for table in plain
        for n, v in table.items()
        if type(v) in kinds and n not in _TORCH
    ]
    # A scripted module keeps its buffers elsewhere; that they are there cannot change.
    tables = [(m._buffers, dict(m._buffers)) for m in modules if not isinstance(m, torch.jit.ScriptModule)]
    held = [b for b in model.buffers() if b.device.type != "meta" and not torch.nn.parameter.is_lazy(b)]
    contents = {id(b): (b, b.detach().clone()) for b in held}
    try:
        yield
    finally:
        for module, table, mode in zip(modules, plain, modes, strict=True):
            now = vars(module)
            for name in [n for n in now if n not in table]:
                del now[name]
            now.update(table)
            module.training = mode
        for cache, content in caches:
            cache.clear()
            if content is cache:
                continue
            cache.extend(content) if isinstance(cache, list) else cache.update(content)
        for current, before in tables:
            current.clear()
            current.update(before)
        with torch.no_grad():
            for buffer, content in contents.values():
                if buffer.shape != content.shape:
                    buffer.resize_(content.shape)
                buffer.copy_(content)


def set_mode(model: nn.Module, training: bool, estimating: bool = True) -> frozenset[int]:
    """Put a model in train or eval mode; returns the ids of the norms that take their statistics from the batch.

    Args:
        estimating: in eval mode, leave the norms that train mode would let estimate as they are in training. Running
            statistics of a model that never ran are a variance of 1 that no layer has: what would then be seen of
            the signal is nothing that training meets.
    """
    model.train(True)  # a model may keep some of its norms frozen in its own ``train``
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase) and m.training]
    if training:
        return frozenset(map(id, norms))
    model.eval()
    if not estimating:
        return frozenset()
    for norm in norms:
        norm.train(True)
    return frozenset(map(id, norms))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run with fixed seeds of torch (CPU), ``random`` and NumPy; their states are restored."""
    state = torch.random.get_rng_state()
    python = random.getstate()
    numpy = sys.modules.get("numpy.random")  # not imported for this
    array = numpy.get_state() if numpy is not None else None
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    if numpy is not None:
        numpy.seed(seed % 2**32)
    try:
        yield
    finally:
        torch.random.set_rng_state(state)
        random.setstate(python)
        if numpy is not None:
            numpy.set_state(array)


@contextmanager
def exporting(on: bool) -> Iterator[None]:
    """Set the flag by which libraries skip data-dependent code (``torch.compiler.is_exporting()``)."""
    before = getattr(torch.compiler, "_is_exporting_flag", None)
    if not on or before is None:
        yield
        return
    torch.compiler._is_exporting_flag = True
    try:
        yield
    finally:
        torch.compiler._is_exporting_flag = before
