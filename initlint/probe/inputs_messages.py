"""What an error's message says of shapes: the one that an argument has and the one that it should have."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace

from initlint.probe.inputs_failed import Assignment, Failed, changed, feeders, fitted, numbers_in, operands_of, scaled
from initlint.probe.inputs_wants import Guess, spatial
from initlint.probe.traced import meta_of

#: Also of a convolution called as a function, whose weight is computed first (weight standardisation).
CHANNELS = re.compile(r"expected input\[[\d, ]+\] to have (\d+) channels, but got (\d+) channels")
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
_VIEW = re.compile(r"shape '\[([-\d, ]+)\]' is invalid for input of size (\d+)")
# ``mask[..., None].repeat`` or ``expand(n, -1, -1)`` of a tensor with fewer axes.
_FEWER_AXES = re.compile(r"in a leading, non-existing dimension|number of sizes provided .* must be greater or equal")
# "image size (128*64) doesn't match model (896*448)"
_SIDES = re.compile(r"(\d+) ?[*x×] ?(\d+)\D+(\d+) ?[*x×] ?(\d+)")
# "Expected input to be 1D or 2D, got 3D instead", "expected 5D input (got 4D input)", "batch2 must be a 3D tensor",
# "input must have 3 dimensions, got 2", "Expected 2D or 3D (batch mode) tensor with ..., but got: [4, 8]"
_AXES = re.compile(r"\b(\d)-?[dD]\b|\b(\d) dim(?:ension)?s?\b")
_SIZE = re.compile(r"\[([\d, ]+)\]")
# Of a product of batches (bmm): samples and rows that the second operand should have, and those that it has.
_BATCHES = re.compile(r"first two dimensions of batch2 tensor to be: \[(\d+), (\d+)\] but got: \[(\d+), (\d+)\]")
_BROADCAST = "must match the size of tensor"
#: Elements of an axis that is put in: few, and no size that other axes usually have.
_AXIS = 6


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
        yield from _viewed(attempt, numbers_in(found[1]), int(found[2]))
    if _FEWER_AXES.search(text):
        for name in feeders(attempt):
            guess = attempt.guesses[name]
            if guess.kind in ("mask", "ids"):  # a mask of texts and images: one image
                yield changed(attempt, name, guess.resized((*guess.shape, 1)))
    found = _SIDES.search(text) if attempt.failure is None else None
    if found is not None:
        yield from _in_proportion(attempt, (int(found[1]), int(found[2])), (int(found[3]), int(found[4])))
    found = _BATCHES.search(text)
    if found is not None:
        yield from _batches(attempt, *map(int, found.groups()))
    found = CHANNELS.search(text)
    if found is not None:
        yield from _turned(attempt, int(found[1]), int(found[2]))
    found = _SPLIT.search(text)
    if found is not None:
        for name in feeders(attempt):
            for fixed in scaled(attempt.guesses[name], int(found[1]), sum(numbers_in(found[3])), channels_second=False):
                yield changed(attempt, name, fixed)


def _batches(attempt: Failed, samples: int, rows: int, samples_had: int, rows_had: int) -> Iterator[Assignment]:
    """Matrices generated for each sample meet its features: one index a sample, and features of that size."""
    for name in feeders(attempt) if samples != samples_had else ():
        guess = attempt.guesses[name]
        if guess.high is not None and len(guess.shape) == 2 and math.prod(guess.shape) in (samples, samples_had):
            yield changed(attempt, name, guess.resized(guess.shape[:1]))
    for name in feeders(attempt) if rows != rows_had else ():
        guess = attempt.guesses[name]
        for fixed in fitted(guess, rows_had, rows):
            yield changed(attempt, name, Guess("features", fixed.shape) if guess.high is not None else fixed)


def _turned(attempt: Failed, want: int, have: int) -> Iterator[Assignment]:
    """Sequences with the channels last, all of one kind: the model exchanges the axes before its convolution."""
    for name in feeders(attempt):
        guess = attempt.guesses[name]
        if guess.kind == "sequence" and guess.shape[1:] == (want, have):
            shape = (guess.shape[0], have, want)
            alike = {n: g for n, g in attempt.guesses.items() if g.kind == "sequence" and g.shape[1] == want}
            yield {n: Guess("other", shape, g.dtype) if n in alike else g for n, g in attempt.guesses.items()}


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


def _viewed(attempt: Failed, shape: tuple[int, ...], have: int) -> Iterator[Assignment]:
    """``x.view(-1, 784)``: samples of as many elements as the known sizes multiply to."""
    sizes = [n for n in shape if n > 0]
    whole = len(sizes) == len(shape)
    batch = max((g.shape[0] for g in attempt.guesses.values() if g.shape), default=1)
    if whole and batch > 1 and math.prod(sizes) == have * batch:  # what is viewed has no axis of samples
        yield {n: g.resized((1, *g.shape[1:])) if g.shape[:1] == (batch,) else g for n, g in attempt.guesses.items()}
    yield from _mapped(attempt, shape)
    inner = sizes[1:] if whole and sizes[:1] == [batch] else sizes
    for name in feeders(attempt):
        guess = attempt.guesses[name]
        if guess.kind == "mask" and len(guess.shape) == 2:
            yield changed(attempt, name, guess.resized((guess.shape[0], math.prod(inner))))
        elif guess.shape and guess.high is None:
            yield changed(attempt, name, Guess("features", (guess.shape[0], math.prod(inner)), guess.dtype))
            yield changed(attempt, name, Guess("other", (guess.shape[0], *inner), guess.dtype))


def _mapped(attempt: Failed, shape: tuple[int, ...]) -> Iterator[Assignment]:
    """``tokens.view(batch, -1, 64, 64)``: images whose patches are as many as the map has places."""
    failure = attempt.failure
    seen = failure.shapes[0] if failure is not None and failure.shapes else ()
    if len(shape) < 3 or shape[-1] <= 1 or shape[-2] <= 1:
        return
    places = shape[-1] * shape[-2]
    for name in feeders(attempt):
        guess = attempt.guesses[name]
        axes = spatial(guess) if guess.kind == "image" else ()
        for have in dict.fromkeys(n for n in seen[1:] if n > 1 and n != places):
            factor = math.sqrt(places / have)
            sides = {a: round(guess.shape[a] * factor) for a in axes}
            if axes and all(n * n * have == guess.shape[a] ** 2 * places for a, n in sides.items()):
                yield changed(attempt, name, guess.resized(tuple(sides.get(i, n) for i, n in enumerate(guess.shape))))


def _in_proportion(attempt: Failed, have: tuple[int, int], want: tuple[int, int]) -> Iterator[Assignment]:
    """All images with the sides that turn the sizes that the model saw into those that it wants."""
    fixed: Assignment = {}
    for name, guess in attempt.guesses.items():
        axes = spatial(guess)
        if len(axes) == 2 and all(guess.shape[a] * w % h == 0 for a, h, w in zip(axes, have, want, strict=True) if h):
            sides = {a: guess.shape[a] * w // h for a, h, w in zip(axes, have, want, strict=True) if h}
            fixed[name] = guess.resized(tuple(sides.get(i, n) or n for i, n in enumerate(guess.shape)))
    if fixed:
        yield {**attempt.guesses, **fixed}


def by_axes(attempt: Failed) -> Iterator[Assignment]:
    """The message names the numbers of axes that an op takes: an axis more or fewer for what reaches it.

    A flag for each sample (``is_first[:, None] * state``) has no features; made with some it does not fit, or gives all
    the rest an axis. Every argument of the op is tried, the last first, since what leads the list is the signal.
    """
    text = str(attempt.error)
    yield from _lower(attempt, text)
    head, _, tail = text.partition(" got ")
    wanted = _axes(head)
    if not wanted:
        return
    given = _axes(tail) | {len(numbers_in(found)) for found in _SIZE.findall(tail)}
    few = not given or min(given) < min(wanted)
    many = not given or max(given) > max(wanted)
    for name in reversed(feeders(attempt)):
        shape = attempt.guesses[name].shape
        if many and len(shape) > 1:
            yield _shaped(attempt, name, shape[:-1])
            if len(shape) > 2:
                yield _shaped(attempt, name, (shape[0], *shape[2:]))
        if few and shape:
            yield _shaped(attempt, name, (shape[0], _AXIS, *shape[1:]))


def _axes(text: str) -> set[int]:
    return {int(number) for found in _AXES.findall(text) for number in found if number}


def _shaped(attempt: Failed, name: str, shape: tuple[int, ...]) -> Assignment:
    return changed(attempt, name, replace(attempt.guesses[name], shape=shape, kind="other"))


def _lower(attempt: Failed, text: str) -> Iterator[Assignment]:
    """Two operands that do not fit, one with more axes than the other: an axis fewer for what reaches that one."""
    if _BROADCAST not in text or attempt.failure is None:
        return
    shapes = [meta_of(node).shape or () for node in operands_of(attempt.failure)]
    most = max((len(shape) for shape in shapes), default=0)
    if all(len(shape) == most for shape in shapes):
        return
    for index in (index for index, shape in enumerate(shapes) if len(shape) == most):
        for name in feeders(attempt, index):
            if len(attempt.guesses[name].shape) > 1:
                yield _shaped(attempt, name, attempt.guesses[name].shape[:-1])
