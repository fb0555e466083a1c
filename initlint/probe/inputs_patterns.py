"""What a pattern of einops says of the tensor that it takes: its axes, and what some of them are made of."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from torch import nn

from initlint.probe.inputs_failed import Assignment, Failed, changed
from initlint.probe.inputs_wants import Guess
from initlint.probe.standins_einops import REST, EinopsError, Side, numbers, sides

# einops' own words, which the stand-in uses too.
_REFUSED = re.compile(r'pattern "(?P<pattern>[^"]+)"\.\s+Input tensor shape: (?:torch\.Size\()?\[(?P<shape>[\d, ]*)\]')
_SIZE = re.compile(r"'(\w+)': (\d+)")
#: Sides of images, and of the other axes of clips and volumes: as small as the usual first guesses.
_SIDE, _DEPTH = 32, 4
#: Patches along an axis at least: one alone has no neighbours.
_PATCHES = 2


def by_pattern(attempt: Failed, root: nn.Module) -> Iterator[Assignment]:
    """Arguments in the form that the refused pattern asks for."""
    refused = _refused(attempt, root) if attempt.failure is None else None
    if refused is None:
        return
    pattern, sizes, shape = refused
    for name, guess in attempt.guesses.items():
        if not guess.shape or guess.high is not None:
            continue
        times = _stacked(guess.shape, shape or guess.shape)
        fitting = _fitting(pattern, sizes, shape or guess.shape)
        if times is not None and fitting is not None and fitting[1][1] % times == 0:
            kind, (first, channels, *rest) = fitting
            yield changed(attempt, name, Guess(kind, (first, channels // times, *rest), guess.dtype))


def _stacked(shape: tuple[int, ...], refused: tuple[int, ...]) -> int | None:
    """How many copies of an argument (shifted images) lie along a tensor's channels; ``None`` for another tensor."""
    if shape == refused:
        return 1
    rest = shape[:1] + shape[2:]
    if len(shape) < 3 or rest != refused[:1] + refused[2:] or refused[1] % shape[1]:
        return None
    return refused[1] // shape[1]


def _refused(attempt: Failed, root: nn.Module) -> tuple[str, Mapping[str, int], tuple[int, ...] | None] | None:
    """The pattern that failed, the sizes that came with it, and the shape of the tensor.

    A layer of einops looks its pattern up by the number of axes, and fails with that number alone: it may be any.
    """
    text = str(attempt.error)
    found = _REFUSED.search(text)
    if found is not None:
        return found["pattern"], _given(text), tuple(map(int, re.findall(r"\d+", found["shape"])))
    if type(attempt.error).__name__ == "EinopsError" or (
        isinstance(attempt.error, KeyError) and attempt.error.args and isinstance(attempt.error.args[0], int)
    ):
        for module in root.modules():
            if type(module).__module__.partition(".")[0] == "einops" and isinstance(getattr(module, "pattern", 0), str):
                return module.pattern, getattr(module, "axes_lengths", {}), None  # type: ignore[return-value]
    return None


def _given(text: str) -> dict[str, int]:
    """The sizes that a message repeats; those that are no plain numbers are left out."""
    return {name: int(size) for name, size in _SIZE.findall(text) if int(size) > 0}


def _fitting(pattern: str, sizes: Mapping[str, int], shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]] | None:
    """The kind and shape of a tensor that the pattern takes, with what is known of the one that it refused."""
    try:
        left, right = sides(pattern)
    except EinopsError:  # no pattern at all
        return None
    known = {**numbers(left), **numbers(right), **sizes}
    if len(left) < 2 or any(REST in group for group in left) or min(known.values(), default=1) < 1:
        return None
    if len(left) != len(shape):
        known |= _features(right, known, shape[-1])
    kind = {3: "tokens", 4: "image", 5: "volume"}.get(len(left), "other")
    kind = kind if len(left) < 4 or len(left[1]) == 1 else "other"
    return kind, tuple(_size(group, axis, len(left), known, shape) for axis, group in enumerate(left))


def _features(right: Side, known: Mapping[str, int], last: int) -> dict[str, int]:
    """``p1 p2 c`` become the features that the next layer takes, as the refused tensor had them: c is what is left."""
    last_group = right[-1] if right else []
    unknown = [name for name in last_group if name not in known]
    rest = math.prod(known[name] for name in last_group if name in known)
    return {unknown[0]: last // rest} if len(unknown) == 1 and last % rest == 0 else {}


def _size(group: list[str], axis: int, rank: int, known: Mapping[str, int], shape: tuple[int, ...]) -> int:
    step = math.prod(known[name] for name in group if name in known)
    if all(name in known for name in group):
        return step
    if axis == 0:
        return step * shape[0]
    if len(shape) == rank and shape[axis] % step == 0:
        return shape[axis]
    usual = _SIDE if axis >= max(2, rank - 2) else _DEPTH
    return step * max(_PATCHES, -(-usual // step)) if step > 1 else usual
