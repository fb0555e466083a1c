"""What each axis of a signal means: samples (b), channels (c), positions (p), heads or groups (h).

The roles follow the signal through the graph: a convolution says where its channels are, a
permutation moves them, a reshape splits and merges them. ``?`` is an axis nothing is known about.
"""

from __future__ import annotations

import math

Roles = tuple[str, ...]
Shape = tuple[int, ...]

_NAMES = {"b": "batch", "c": "channel", "p": "position", "h": "other", "?": "other"}


def channel_axis(roles: Roles | None) -> int | None:
    """The axis of the channels, or ``None``."""
    return roles.index("c") if roles and "c" in roles else None


def batch_axis(roles: Roles | None) -> int | None:
    """The axis of the samples, or ``None``."""
    return roles.index("b") if roles and "b" in roles else None


def axis_name(roles: Roles | None, axis: int | None) -> str:
    """``channel``, ``position``, ``batch`` or ``other`` for an axis."""
    if roles is None or axis is None or not -len(roles) <= axis < len(roles):
        return "other"
    return _NAMES[roles[axis]]


def guess(shape: Shape | None, batched: bool = True) -> Roles | None:
    """Roles of a tensor nothing is known about: samples first, then unknown."""
    if shape is None:
        return None
    if not shape:
        return ()
    return ("b" if batched else "?", *("?" for _ in shape[1:]))


def given(shape: Shape | None, batch: int | None, channel: int | None) -> Roles | None:
    """Roles from the axes of samples and channels, where they are known."""
    if shape is None or channel is None or not 0 <= channel < len(shape) or channel == batch:
        return guess(shape, batch is not None)
    return tuple("b" if i == batch else ("c" if i == channel else "p") for i in range(len(shape)))


def constant(shape: Shape | None) -> Roles | None:
    """Roles of a parameter or constant read as a signal: no samples, channels last."""
    if shape is None:
        return None
    return ("p",) * (len(shape) - 1) + (("c",) if shape else ())


def linear(roles: Roles | None, rank: int | None) -> Roles | None:
    """Roles after a map over the last axis."""
    if rank is None:
        return None
    if roles is None or len(roles) != rank:
        roles = ("b",) + ("?",) * (rank - 1) if rank > 1 else ("?",)
    return (*("b" if r == "b" else "p" for r in roles[:-1]), "c")


def convolution(rank: int | None, spatial: int) -> Roles | None:
    """Roles after a convolution over ``spatial`` axes, batched or not."""
    if rank is None:
        return None
    return (*(("b",) if rank == spatial + 2 else ()), "c", *("p",) * spatial)


def permuted(roles: Roles | None, order: tuple[int, ...] | None) -> Roles | None:
    """Roles after a permutation of the axes."""
    if roles is None or order is None or len(order) != len(roles):
        return None
    return tuple(roles[i] for i in order)


def without(roles: Roles | None, axes: tuple[int, ...], keepdim: bool) -> Roles | None:
    """Roles after a reduction over ``axes``."""
    if roles is None:
        return None
    gone = {a % len(roles) for a in axes} if roles else set()
    if keepdim:
        return roles
    return tuple(r for i, r in enumerate(roles) if i not in gone)


def broadcast(first: Roles | None, second: Roles | None, rank: int | None) -> Roles | None:
    """Roles of an elementwise result: the more telling role of each axis, aligned at the end."""
    if rank is None:
        return None
    a = ("?",) * (rank - len(first)) + first if first is not None and len(first) <= rank else ("?",) * rank
    b = ("?",) * (rank - len(second)) + second if second is not None and len(second) <= rank else ("?",) * rank
    found = [x if x not in "?" else y for x, y in zip(a, b, strict=True)]
    for role in "bc":  # one axis of samples and one of channels at most; the first operand's choice counts
        places = [i for i, r in enumerate(found) if r == role]
        for place in places[1:] if role == "b" else places[:-1]:
            found[place] = "p"
    return tuple(found)


def reshaped(roles: Roles | None, before: Shape | None, after: Shape | None) -> Roles | None:
    """Roles after a reshape, by matching products of sizes from the left."""
    if roles is None or before is None or after is None:
        return None
    if math.prod(before) != math.prod(after) or not math.prod(before) or len(roles) != len(before):
        return guess(after, "b" in roles)
    result: list[str] = []
    i = j = 0
    while i < len(before) or j < len(after):
        left, right = [i] if i < len(before) else [], [j] if j < len(after) else []
        size_in = before[i] if left else 1
        size_out = after[j] if right else 1
        i, j = i + len(left), j + len(right)
        while size_in != size_out:
            if size_in < size_out and i < len(before):
                size_in *= before[i]
                left.append(i)
                i += 1
            elif j < len(after):
                size_out *= after[j]
                right.append(j)
                j += 1
            else:
                return guess(after, "b" in roles)
        result.extend(_regroup([roles[k] for k in left if before[k] != 1] or [roles[k] for k in left], right, after))
    return tuple(result)


def _regroup(left: list[str], right: list[int], after: Shape) -> list[str]:
    """Roles of the axes ``right`` that hold what the axes with roles ``left`` held."""
    if not right:
        return []
    if len(left) == len(right):
        return left
    real = [k for k in right if after[k] != 1] or right[-1:]
    if not left:
        return ["p"] * len(right)
    if len(real) == len(left):
        roles = dict(zip(real, left, strict=True))
        return [roles.get(k, "p") for k in right]
    merged = next((r for r in "bc" if r in left), left[0])
    roles = {}
    for place, k in enumerate(real):
        if merged == "c":
            roles[k] = "c" if place == len(real) - 1 else "h"
        elif merged == "b":
            tail = "c" if "c" in left and place == len(real) - 1 and len(real) > 1 else "p"
            roles[k] = "b" if place == 0 else tail
        else:
            roles[k] = merged
    return [roles.get(k, "p") for k in right]
