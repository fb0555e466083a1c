"""What an error's message says of shapes: the one that an argument has and the one that it should have."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from initlint.probe.inputs_failed import Assignment, Failed, changed, feeders, fitted, numbers_in, scaled
from initlint.probe.inputs_wants import Guess, spatial

_SPLIT = re.compile(r"sum exactly to (\d+) .*dimension (-?\d+)\), but got split_sizes=\[([\d, ]+)\]")
# A shape that was given and the one that was wanted: of attention masks, and of the states of recurrent layers.
_SHAPES = (
    re.compile(r"torch\.Size\(\[(?P<have>[\d, ]+)\]\).*should be \((?P<want>[\d, ]+)\)"),
    re.compile(r"Expected hidden(?:\[\d\])? size \((?P<want>[\d, ]+)\), got \[(?P<have>[\d, ]+)\]"),
)
# "a 5D tensor of shape (batch_size, 2, num_channels, height, width)"
_NAMED_SHAPE = re.compile(r"shape:? *[(\[]((?:[a-zA-Z_]+|\d+)(?: *, *(?:[a-zA-Z_]+|\d+))+)[)\]]")
_RANK = re.compile(
    r"Expected \dD \(unbatched\) or (\d)D \(batched\) input to conv\dd, but got input of size: \[([\d, ]+)\]"
)
# A letter of an einsum with two sizes.
_LETTER = re.compile(r"subscript \w+ has size (\d+) for operand \d+ which does not broadcast .*seen size (\d+)")
# ``text[image_mask] = image``: more vectors than places for them.
_PLACES = re.compile(r"value tensor of shape \[(\d+)[\d, ]*\] cannot be broadcast to indexing result of shape \[(\d+)")
_VIEW = re.compile(r"shape '\[([-\d, ]+)\]' is invalid for input of size")


def by_shapes(attempt: Failed) -> Iterator[Assignment]:
    """The message names the shape that an argument has and the one that it should have, or sizes that sum to it."""
    text = str(attempt.error)
    for pattern in _SHAPES:
        found = pattern.search(text)
        if found is not None:
            wrong, right = numbers_in(found["have"]), numbers_in(found["want"])
            for name, guess in attempt.guesses.items():
                if guess.shape == wrong:
                    yield changed(attempt, name, guess.resized(right))
    found = _NAMED_SHAPE.search(text) if attempt.failure is None else None
    if found is not None:
        for name, guess in attempt.guesses.items():
            shape = _named_shape(guess, [word.strip().lower() for word in found[1].split(",")])
            if shape is not None:
                yield changed(attempt, name, guess.resized(shape))
    found = _RANK.search(text)
    # the model adds the axis of channels itself
    if found is not None and len(numbers_in(found[2])) == int(found[1]) + 1:
        for name in feeders(attempt):
            guess = attempt.guesses[name]
            if guess.shape[1:2] == (1,):
                yield changed(attempt, name, Guess("other", (*guess.shape[:1], *guess.shape[2:]), guess.dtype))
    found = _LETTER.search(text)
    if found is not None:
        one, other = int(found[1]), int(found[2])
        for name in feeders(attempt):
            for have, want in ((other, one), (one, other)):
                yield from (changed(attempt, name, g) for g in fitted(attempt.guesses[name], have, want))
    found = _PLACES.search(text)
    if found is not None:
        want, have = int(found[1]), int(found[2])
        lengths = {g.shape[1] for g in attempt.guesses.values() if g.kind in ("ids", "mask") and len(g.shape) == 2}
        for length in lengths if have else ():  # a text and its masks keep one length
            other = -(-length * want // have)
            yield {
                n: g.resized((g.shape[0], other)) if g.kind in ("ids", "mask") and g.shape[1:] == (length,) else g
                for n, g in attempt.guesses.items()
            }
    found = _VIEW.search(text)
    if found is not None:
        yield from _viewed(attempt, [n for n in numbers_in(found[1]) if n > 0])
    found = _SPLIT.search(text)
    if found is not None:
        for name in feeders(attempt):
            for fixed in scaled(attempt.guesses[name], int(found[1]), sum(numbers_in(found[3])), channels_second=False):
                yield changed(attempt, name, fixed)


def _named_shape(guess: Guess, words: list[str]) -> tuple[int, ...] | None:
    """The shape that a message spells out, with the guess's own sizes under names; ``None`` where one is unknown."""
    axes = spatial(guess)
    if not axes or len(guess.shape) < 3:
        return None
    sides = [guess.shape[i] for i in axes]
    sizes: list[int] = []
    for word in words:
        if word.isdecimal():
            sizes.append(int(word))
        elif word[:1] in ("b", "n") and not sizes:  # batch, batch_size, bsz, n
            sizes.append(guess.shape[0])
        elif "channel" in word or word == "c":
            sizes.append(guess.shape[1])
        elif word in ("height", "width", "h", "w", "length", "time", "t", "l") and sides:
            sizes.append(sides.pop(0))
        else:
            return None
    return tuple(sizes)


def _viewed(attempt: Failed, sizes: list[int]) -> Iterator[Assignment]:
    """``x.view(-1, 784)``: samples of as many elements as the known sizes multiply to."""
    for name in feeders(attempt):
        guess = attempt.guesses[name]
        if guess.shape and guess.high is None:
            yield changed(attempt, name, Guess("features", (guess.shape[0], math.prod(sizes)), guess.dtype))
            yield changed(attempt, name, Guess("other", (guess.shape[0], *sizes), guess.dtype))
