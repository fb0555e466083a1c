"""What a model holds and does not know of: tensors that want gradients, and layers, that are no parts of it.

``nn.Parameter(...).to(device)`` is a plain tensor, a Python list of layers is a plain list. Neither is seen by
``parameters()``, ``apply``, ``to`` or a checkpoint: no init function reaches it, and no optimiser.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from initlint.facts import Site, Unregistered
from initlint.probe.sites import make_site

#: A container of one is the known way to keep a module out of a model (a teacher, a backbone that is trained apart).
_HIDDEN_ON_PURPOSE = 1
#: Containers in containers are looked through so deep.
_DEPTH = 3
#: What torch's own hooks keep beside a parameter: a weight that is computed before every forward.
_COMPUTED = ("{}_orig", "{}_v", "{}_g")
#: Steps back from a tensor to the leaves that it was computed from.
_STEPS = 64


def unregistered(model: nn.Module) -> tuple[Unregistered, ...]:
    """All such tensors, and containers of such layers."""
    modules = dict(model.named_modules())
    known = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    parts = {id(module) for module in modules.values()}
    found: list[Unregistered] = []
    for path, module in modules.items():
        if type(module).__module__.startswith("torch."):
            continue
        for name, value in list(vars(module).items()):
            where = f"{path}.{name}" if path else name
            if isinstance(value, torch.Tensor):
                if _trained(value, module, name, known):
                    found.append(Unregistered(where, "tensor", 1, tuple(value.shape), _site(module, name)))
            elif isinstance(value, list | tuple | dict) and not name.startswith("_"):
                held = [m for m in _modules(value, 0) if id(m) not in parts]
                free = [m for m in held if _free(m, known)]
                if len(free) > _HIDDEN_ON_PURPOSE and len(free) == len(held):
                    found.append(Unregistered(where, "modules", len(free), (), _site(module, name)))
    return tuple(found)


def _trained(value: torch.Tensor, module: nn.Module, name: str, known: set[int]) -> bool:
    """Whether a plain tensor wants a gradient of its own: it is a leaf, or was computed from one that nothing holds."""
    if not value.requires_grad or id(value) in known or torch.nn.parameter.is_lazy(value):
        return False
    if any(form.format(name) in module._parameters for form in _COMPUTED):
        return False
    if value.grad_fn is None:
        return True
    leaves = list(_leaves(value))
    return bool(leaves) and not any(id(leaf) in known for leaf in leaves)


def _leaves(value: torch.Tensor) -> Iterator[torch.Tensor]:
    front: list[Any] = [value.grad_fn]
    for _ in range(_STEPS):
        if not front:
            return
        node = front.pop()
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, torch.Tensor):
            yield leaf
        front += [following for following, _ in node.next_functions if following is not None]


def _modules(value: Any, depth: int) -> Iterator[nn.Module]:
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, list | tuple | dict) and depth < _DEPTH:
        for item in value.values() if isinstance(value, dict) else value:
            yield from _modules(item, depth + 1)


def _free(module: nn.Module, known: set[int]) -> bool:
    """Whether a module has weights that want gradients, all of them its own."""
    own = [tensor for tensor in module.parameters() if tensor.requires_grad]
    return bool(own) and not any(id(tensor) in known for tensor in own)


def _site(module: nn.Module, name: str) -> Site | None:
    """The line of the class that gives the attribute its value first."""
    for cls in type(module).__mro__:
        try:
            lines, first = inspect.getsourcelines(cls)
            path = inspect.getsourcefile(cls)
        except (OSError, TypeError):
            continue
        for offset, line in enumerate(lines):
            if path is not None and (match := re.search(rf"\bself\.{re.escape(name)}\b\s*(?::[^=]+)?=(?!=)", line)):
                where = first + offset, first + offset, match.start(), match.end()
                return make_site(path, where, f"{cls.__qualname__}.__init__")
    return None
