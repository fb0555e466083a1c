"""The size of a map that a flattening layer asks for, found by bisection: each attempt says how far off it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import fx, nn

from initlint.probe.inputs_failed import Assignment, Failed
from initlint.probe.inputs_wants import spatial
from initlint.probe.submodules import submodule

#: Attempts at most; a side of 1024 takes ten.
_STEPS = 12
_LARGEST = 1024


def converge(failed: Failed, root: nn.Module, attempt: Callable[[Assignment], Failed | None]) -> Assignment | None:
    """The assignment whose maps, flattened, have the size that the failing layer wants; ``None`` when there is none.

    All arguments of the failing one's kind and shape are resized together: a pair of images goes through one network.

    Args:
        attempt: tries an assignment; ``None`` when it passes.
    """
    names = _maps(failed)
    if not names:
        return None
    guesses = dict(failed.guesses)
    axes = spatial(guesses[names[0]])
    side = guesses[names[0]].shape[axes[0]]
    below, above = 0, _LARGEST + 1
    now: Failed | None = failed
    for _ in range(_STEPS):
        sizes = _sizes(now, root) if now is not None else None
        if sizes is None or now is None:  # failed elsewhere: too small a map, or another layer
            if now is None:
                return guesses
            below = max(below, side)
            following = 2 * side
        else:
            have, want = sizes
            if have == want:
                return None
            below, above = (max(below, side), above) if have < want else (below, min(above, side))
            following = round(side * (want / have) ** (1 / len(axes)))
        if not below < following < above:
            following = (below + above) // 2
        if not below < following < above:
            return None
        side = following
        shape = tuple(side if i in axes else n for i, n in enumerate(guesses[names[0]].shape))
        guesses = {n: g.resized(shape) if n in names else g for n, g in guesses.items()}
        now = attempt(guesses)
    return None


def flattened(failed: Failed, root: nn.Module) -> bool:
    """Whether an attempt failed at a layer that takes flattened maps of another size."""
    return bool(_maps(failed)) and _sizes(failed, root) is not None


def _maps(failed: Failed) -> list[str]:
    """The arguments that hold maps, all of one shape; empty where several shapes are in play."""
    found = [n for n, g in failed.guesses.items() if g.kind in ("image", "sequence")]
    return found if len({failed.guesses[n].shape for n in found}) == 1 else []


def _sizes(failed: Failed, root: nn.Module) -> tuple[int, int] | None:
    """Features that the failing linear layer got and wants, where they came from flattened maps."""
    failure = failed.failure
    if failure is None or failure.op != "call_module" or not failure.shapes:
        return None
    module = submodule(root, str(failure.target))
    if not isinstance(module, nn.Linear) or not any(_flattens(node) for node in _upstream(failure.args)):
        return None
    return failure.shapes[0][-1], module.in_features


def _upstream(args: Any) -> Iterator[fx.Node]:
    """The nodes that lead to the failing layer without another weighted layer in between."""
    stack: list[fx.Node] = []
    fx.node.map_arg(args, stack.append)
    for _ in range(8):
        if not stack:
            return
        node = stack.pop()
        yield node
        if node.op != "call_module":
            stack.extend(node.all_input_nodes[:1])


def _flattens(node: fx.Node) -> bool:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return name in ("view", "reshape", "flatten") or (node.op == "call_module" and "latten" in name)
