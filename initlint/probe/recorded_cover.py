"""How much of a model a graph covers: parameterised layers and bare parameters that it reads."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx, nn

from initlint.probe.recorded_leaf import is_leaf


def cover(root: nn.Module, graph: fx.Graph) -> tuple[float, tuple[str, ...]]:
    """``(share, not reached)``: the share of units that the graph reads, and the parameters it does not.

    A unit is a layer that is one node with all its parameters, or a parameter that a module of the
    user's owns itself. Names of parameters are the first ones (tied parameters count once).
    """
    calls = {str(n.target) for n in graph.nodes if n.op == "call_module"}
    reads = {str(n.target) for n in graph.nodes if n.op == "get_attr"}
    first = {id(p): name for name, p in root.named_parameters()}
    shared = _shared_names(root)
    units = list(_units(root, first, shared))
    reached: set[str] = set()
    for modules, parameters in units:
        called = any(_called(m, calls) for m in modules)
        reached |= parameters if called else {p for p in parameters if p in reads}
    # Only now: a bias may be a head's own parameter and that of the layer inside that adds it.
    seen = sum(bool(parameters & reached) for _, parameters in units)
    missing = tuple(name for name in first.values() if name not in reached)
    return (seen / len(units) if units else 1.0), missing


def _units(
    root: nn.Module, first: dict[int, str], shared: dict[int, list[str]]
) -> Iterator[tuple[list[str], set[str]]]:
    """(module paths that cover it, parameter names) of each unit."""
    inside = ""
    for path, module in root.named_modules():
        if inside and path.startswith(inside):
            continue
        if is_leaf(module):
            inside = f"{path}." if path else "."
            parameters = {first[id(p)] for p in module.parameters()}
            if parameters:
                yield shared[id(module)], parameters
            continue
        for parameter in module._parameters.values():
            if parameter is not None:
                yield shared[id(module)], {first[id(parameter)]}


def _shared_names(root: nn.Module) -> dict[int, list[str]]:
    names: dict[int, list[str]] = {}
    for path, module in root.named_modules(remove_duplicate=False):
        names.setdefault(id(module), []).append(path)
    return names


def _called(path: str, calls: set[str]) -> bool:
    """Whether the module itself or one around it is a node (an opaque one hides its children)."""
    while True:
        if path in calls:
            return True
        if not path:
            return False
        path = path.rpartition(".")[0]
