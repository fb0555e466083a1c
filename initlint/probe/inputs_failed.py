"""A failed attempt at a forward, and how its arguments led to the op that failed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import fx

from initlint.probe.inputs_wants import Guess, spatial
from initlint.probe.recorded import Failure
from initlint.records import dataclass

#: A guess for each argument, and for each part of a composite one (``batch[x]``).
Assignment = dict[str, Guess]

ATTRIBUTE = re.compile(r"object has no attribute '(\w+)'")


@dataclass(frozen=True, slots=True)
class Failed:
    """A failed attempt."""

    guesses: Mapping[str, Guess]
    error: BaseException
    failure: Failure | None  # the torch op that raised, None when Python code did
    graph: fx.Graph
    missing: str = ""  # key or attribute that a composite argument was asked for


def changed(attempt: Failed, name: str, guess: Guess) -> Assignment:
    """The attempt's guesses with another one for an argument."""
    return {**attempt.guesses, name: guess}


def numbers_in(text: str) -> tuple[int, ...]:
    """The sizes in a text such as ``4, 3, 32``."""
    return tuple(int(n) for n in text.split(",") if n.strip())


def feeders(attempt: Failed, operand: int | None = None) -> list[str]:
    """Names of the arguments that reach the failing op (or only one operand of it)."""
    if attempt.failure is None:
        return []
    nodes = operands_of(attempt.failure)
    chosen = nodes if operand is None else nodes[operand : operand + 1]
    seen: set[fx.Node] = set()
    stack = list(chosen)
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(node.all_input_nodes)
    return [n for n in attempt.guesses if any(s.op == "placeholder" and s.target == placeholder(n) for s in seen)]


def placeholder(name: str) -> str:
    """Placeholder that stands for an argument, or for a part of one (``batch[x]``)."""
    return name.replace("[", "_").replace("]", "")


def operands_of(failure: Failure) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.node.map_arg((failure.args, failure.kwargs), found.append)
    return found


def scaled(guess: Guess, have: int, want: int, *, channels_second: bool) -> Iterator[Guess]:
    """Guesses whose change would turn ``have`` features into ``want``."""
    if have == want or have <= 0:
        return
    axes = spatial(guess)
    shape = list(guess.shape)
    if axes and not channels_second:  # a flattened map: scale its sides
        for side in {round(shape[axes[0]] * (want / have) ** (1 / len(axes))), shape[axes[0]] * want // have}:
            if 0 < side <= 1024:
                yield guess.resized(tuple(side if i in axes else n for i, n in enumerate(shape)))
    axis = 1 if channels_second and len(shape) > 1 else len(shape) - 1
    if axis > 0 and axis not in axes and guess.high is None:  # a concatenation: the rest comes from elsewhere
        for size in (shape[axis] + want - have, shape[axis] * want // have):
            if size > 0:
                yield guess.resized((*shape[:axis], size, *shape[axis + 1 :]))


def missing_key(error: BaseException) -> str:
    """The key or attribute that a composite argument lacks, "" for other errors."""
    if isinstance(error, KeyError) and error.args and isinstance(error.args[0], str):
        return error.args[0]
    found = ATTRIBUTE.search(str(error)) if isinstance(error, AttributeError) else None
    return found[1] if found and "SimpleNamespace" in str(error) else ""


def fitted(guess: Guess, have: int, want: int) -> Iterator[Guess]:
    """The guess with an axis of ``have`` (or the axes of positions in proportion) turned into ``want``."""
    shape, axes = guess.shape, spatial(guess)
    if guess.kind != "image" and have in shape[1:]:
        axis = shape.index(have, 1)
        yield guess.resized((*shape[:axis], want, *shape[axis + 1 :]))
    elif guess.kind != "image" and len(shape) > 1 and shape[-1] < have < shape[-1] + want:
        yield guess.resized((*shape[:-1], shape[-1] + want - have))  # the rest is put beside it inside
    if len(axes) > 1 and have > 0:  # as many positions as the sides multiply to: patches against a table of places
        side = round(shape[axes[0]] * (want / have) ** (1 / len(axes)))
        if side ** len(axes) * have == shape[axes[0]] ** len(axes) * want:
            yield guess.resized(tuple(side if i in axes else n for i, n in enumerate(shape)))
    if axes and have > 0 and shape[axes[0]] * want % have == 0:
        side = shape[axes[0]] * want // have
        yield guess.resized(tuple(side if i in axes else n for i, n in enumerate(shape)))
