"""What to try next after a forward failed: read the failing op and the error, change one argument."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import fx, nn

from initlint.probe.inputs_failed import (
    ATTRIBUTE,
    Assignment,
    Failed,
    changed,
    feeders,
    fitted,
    operands_of,
    placeholder,
    scaled,
)
from initlint.probe.inputs_leads import consumer_wants
from initlint.probe.inputs_messages import CHANNELS, by_axes, by_shapes
from initlint.probe.inputs_patterns import by_pattern
from initlint.probe.inputs_spec import smallest_table
from initlint.probe.inputs_wants import IMAGE_SIZES, SEQUENCE_SIZES, TOKENS, VOLUME_SIZES, Guess, spatial, variants
from initlint.probe.recorded import Failure
from initlint.probe.submodules import submodule

#: An argument that gets ``None``.
NO_VALUE = Guess("scalar", (), fill="None")

# ``torch.cat(features, 1)`` of one tensor.
_TENSORS = re.compile(r"must be tuple of Tensors, not Tensor")
#: Frames of a clip that is given frame by frame.
FRAMES = 3

# Numbers of tokens tried: patches of small images, windows, powers of two.
_LENGTHS = (8, 32, 64, 4, 49, 196, 128, 50, 197, 10, 20, 100)

_NEEDS_INDEX = re.compile(
    r"must be (long|int)|scalar types: Long|used as indices|expected .*Long|integer tensors|Float.*instead.*indices|"
    r"one_hot is only applicable|index.*int64|only support integer|Expected dtype int",
    re.IGNORECASE,
)
# "~ (operator.invert) is only implemented on integer and Boolean-type tensors"
_NEEDS_TRUTH = re.compile("only implemented on integer and Boolean|expected a (?:bool|boolean) tensor", re.IGNORECASE)
_OTHER_FLOAT = re.compile(r"same dtype|scalar type|Input type|should be the same", re.IGNORECASE)
_NEEDS_FLOAT = re.compile(
    r"must have the same dtype|not implemented for '(Long|Int|Bool)'|expected .*(Float|Half|Double)|"
    r"floating point|found dtype Long",
    re.IGNORECASE,
)
_NOTHING_LEFT = re.compile(
    r"output size is too small|kernel size can't be greater than actual input size|more than 1 value per channel|"
    r"padding size should be less than the corresponding input|more than 1 spatial element|smaller than kernel size",
    re.IGNORECASE,
)
_CONVERSIONS = frozenset({"to", "float", "half", "double", "bfloat16", "long", "int", "contiguous", "clone"})
_LARGEST_SIDE = 512
# A second of sound has 16000 samples, and a codec's encoder may make one of 320.
_LONGEST = 16_384
#: Tensors in one argument: more names are the sizes of one.
LARGEST_TUPLE = 4
# "length 8000 is not a multiple of 1920", "must be divisible by 14", "a multiple of `n_window * 2` (100), but got 128"
_MULTIPLE = re.compile(r"(?:multiple of|divisible by)\D{0,12}\d[^.,;]*", re.IGNORECASE)
_UNPACK = re.compile(r"(?:not enough|too many) values to unpack \(expected(?: at least)? (\d+)(?:, got (\d+))?")


def repairs(attempt: Failed, root: nn.Module, batch: int) -> Iterator[Assignment]:
    """Changed assignments, the likeliest first."""
    if attempt.missing:
        return
    yield from _composites(attempt, root)
    yield from _dtypes(attempt, root)
    yield from by_pattern(attempt, root)
    yield from by_shapes(attempt)
    if attempt.failure is not None:
        yield from _by_failure(attempt, attempt.failure, root, batch)
    yield from by_axes(attempt)
    yield from _by_rank(attempt)
    if attempt.failure is None and isinstance(attempt.error, (ValueError, AssertionError, RuntimeError)):
        yield from _without(attempt)
        yield from _by_demand(attempt)


def _without(attempt: Failed) -> Iterator[Assignment]:
    """Nothing for an argument that a refusal names: "x_cat is needed exactly when there are categories"."""
    words = set(re.findall(r"\w+", str(attempt.error)))
    for name, guess in attempt.guesses.items():
        if name in words and guess.shape and len(attempt.guesses) > 1:
            yield changed(attempt, name, NO_VALUE)


def _composites(attempt: Failed, root: nn.Module) -> Iterator[Assignment]:
    """A tensor where a dict, an object or a list is expected."""
    text = str(attempt.error)
    plain = [n for n, g in attempt.guesses.items() if g.kind not in ("dict", "object", "list") and "[" not in n]
    found = ATTRIBUTE.search(text)
    if isinstance(attempt.error, AttributeError) and found and "'Tensor'" in text:
        for name in plain:
            yield changed(attempt, name, Guess("object", ()))
    elif isinstance(attempt.error, ValueError) and attempt.failure is None and (found := _UNPACK.search(text)):
        for name in plain:
            yield from _listed(attempt, name, int(found[1]))
    elif isinstance(attempt.error, TypeError) and _TENSORS.search(text):
        counts = {len(m) for m in root.modules() if isinstance(m, nn.ModuleList)} or {2, 3}
        for name in plain:
            for count in sorted(n for n in counts if 1 < n <= LARGEST_TUPLE):
                yield {**attempt.guesses, **listed(name, [attempt.guesses[name]] * count)}
    elif _looked_up(attempt):
        names = [n for n in feeders(attempt, 0) if n in plain]
        for name in names or plain:
            yield changed(attempt, name, Guess("dict", ()))
    elif isinstance(attempt.error, (IndexError, TypeError, KeyError)) and (
        "str" in text or "valid indices" in text or isinstance(attempt.error, KeyError)
    ):
        for name in plain:
            yield changed(attempt, name, Guess("dict", ()))


def _listed(attempt: Failed, name: str, count: int) -> Iterator[Assignment]:
    """``x, y = batch``: a pair of samples and their classes, or several alike."""
    first = attempt.guesses[name]
    if not first.shape or count > LARGEST_TUPLE:
        return
    classes = Guess("ids", first.shape[:1], torch.int64, 10)
    for other in (classes, first) if count == 2 else (first,):
        yield {**attempt.guesses, **listed(name, [first, *[other] * (count - 1)])}


def listed(name: str, items: Sequence[Guess]) -> Assignment:
    """Several tensors for one argument."""
    return {name: Guess("list", ()), **{f"{name}[{index}]": item for index, item in enumerate(items)}}


def _looked_up(attempt: Failed) -> bool:
    """Whether a tensor was indexed with a text."""
    failure = attempt.failure
    return failure is not None and failure.target is operator.getitem and isinstance(failure.args[1], str)


def _dtypes(attempt: Failed, root: nn.Module) -> Iterator[Assignment]:
    text = str(attempt.error)
    names = feeders(attempt) or list(attempt.guesses)
    if "index out of range" in text or "out of bounds" in text or "idx < num_embeddings" in text:
        for name in names:
            guess = attempt.guesses[name]
            if guess.high is not None and guess.high > 2:
                yield changed(attempt, name, replace(guess, high=max(2, min(smallest_table(root), guess.high // 4))))
    if "offsets has to be" in text:
        yield from _bags(attempt)
    if attempt.failure is not None and attempt.failure.target is F.one_hot:
        classes = _classes(attempt.failure)
        for name in names:
            if attempt.guesses[name].high != classes:
                shape = attempt.guesses[name].shape
                if attempt.guesses[name].high is not None or not attempt.guesses[name].dtype.is_floating_point:
                    yield changed(attempt, name, replace(attempt.guesses[name], high=classes))
                yield changed(attempt, name, Guess("ids", shape[:1], torch.int64, classes))
                yield changed(attempt, name, Guess("ids", shape[:2], torch.int64, classes))
    if _NEEDS_TRUTH.search(text):
        for name in names:
            if attempt.guesses[name].dtype.is_floating_point:
                yield changed(attempt, name, Guess("mask", attempt.guesses[name].shape, torch.bool, fill="ones"))
    if _OTHER_FLOAT.search(text):
        yield from _as_parameters(attempt, root)
    if _NEEDS_INDEX.search(text):
        high = smallest_table(root)
        for name in names:
            if attempt.guesses[name].dtype.is_floating_point:
                shape = attempt.guesses[name].shape
                beside = {g.shape[:2] for g in attempt.guesses.values() if g.kind == "tokens" and g.shape[:1] == shape}
                for positions in beside:  # one for each position of a sequence, as others have
                    yield changed(attempt, name, Guess("ids", positions, torch.int64, high))
                yield changed(attempt, name, Guess("ids", shape[:2] or shape, torch.int64, high))
                yield changed(attempt, name, Guess("ids", shape[:1], torch.int64, high))
    if _NEEDS_FLOAT.search(text):
        for name in names:
            guess = attempt.guesses[name]
            if not guess.dtype.is_floating_point:
                yield changed(attempt, name, replace(guess, dtype=torch.float32, high=None, kind="other"))
                if len(guess.shape) == 1:  # not one number a sample, but a few
                    yield changed(attempt, name, Guess("features", (*guess.shape, TOKENS)))


def _bags(attempt: Failed) -> Iterator[Assignment]:
    """All indices in one row, and where each bag of them begins: what an ``EmbeddingBag`` takes with offsets."""
    operands = operands_of(attempt.failure) if attempt.failure is not None else []
    if len(operands) < 2:
        return
    for indices in feeders(attempt, 0):
        for offsets in (name for name in feeders(attempt, len(operands) - 1) if name != indices):
            count = math.prod(attempt.guesses[indices].shape)
            bags = attempt.guesses[offsets].shape[:1] or (1,)
            starts = Guess("other", bags, torch.int64, fill=f"every {max(count // bags[0], 1)}")
            yield {**attempt.guesses, indices: attempt.guesses[indices].resized((count,)), offsets: starts}


def _classes(failure: Failure) -> int:
    """Bound of the indices that a ``one_hot`` takes; few classes where it does not say."""
    given = failure.args[1] if len(failure.args) > 1 else failure.kwargs.get("num_classes")
    return given if isinstance(given, int) and given > 0 else 10


def _as_parameters(attempt: Failed, root: nn.Module) -> Iterator[Assignment]:
    """All floating-point arguments in the dtype of the model's parameters: models cast to double or half."""
    own = next((p.dtype for p in root.parameters() if p.is_floating_point()), torch.float32)
    cast = {n: replace(g, dtype=own) if g.dtype.is_floating_point else g for n, g in attempt.guesses.items()}
    if cast != attempt.guesses:
        yield cast


def _by_failure(attempt: Failed, failure: Failure, root: nn.Module, batch: int) -> Iterator[Assignment]:
    operands = operands_of(failure)
    for index, operand in enumerate(operands):
        source = _uncast(operand)
        for name in feeders(attempt, index):
            if source.op == "placeholder" and placeholder(name) == source.target:
                yield from (changed(attempt, name, g) for g in _accepted(failure, operand, root, batch))
    if failure.op == "call_module":
        module = submodule(root, str(failure.target))
        if isinstance(module, nn.RNNBase) and len(operands) > 1:
            for name in feeders(attempt, 1):  # a state may be left out: the layer begins with zeros
                yield changed(attempt, name, NO_VALUE)
        yield from _frames(attempt, failure, module)
        yield from _sizes(attempt, failure, module)
    else:
        found = CHANNELS.search(str(attempt.error))
        if found is not None:
            want, have = int(found[1]), int(found[2])
            for name in feeders(attempt, 0):
                for fixed in scaled(attempt.guesses[name], have, want, channels_second=True):
                    yield changed(attempt, name, fixed)
        yield from _mismatch(attempt, failure)
        for name in feeders(attempt):
            yield from _resized(attempt, name)


def _frames(attempt: Failed, failure: Failure, module: nn.Module) -> Iterator[Assignment]:
    """A convolution got a sample less its batch: one of several frames was taken of what has none, ``clip[:, t]``."""
    shape = failure.shapes[0] if failure.shapes else ()
    if isinstance(module, nn.modules.conv._ConvNd) and len(shape) == len(module.kernel_size) + 1:
        for name in feeders(attempt, 0):
            guess = attempt.guesses[name]
            if guess.kind == "wave" and len(shape) == 2:  # channels that were computed of a waveform before
                yield changed(attempt, name, Guess("sequence", (guess.shape[0], module.in_channels, TOKENS)))
            if len(guess.shape) == len(shape) + 1 and guess.high is None:
                frames = (guess.shape[0], FRAMES, module.in_channels, *guess.shape[2:])
                yield changed(attempt, name, Guess("other", frames, guess.dtype))


def _uncast(node: fx.Node) -> fx.Node:
    """The node behind conversions, which keep the sizes."""
    while node.op == "call_method" and node.target in _CONVERSIONS and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node


def _accepted(failure: Failure, operand: fx.Node, root: nn.Module, batch: int) -> Iterator[Guess]:
    direct = list(consumer_wants(failure, operand, root, batch))
    for guess in direct[:3]:
        yield guess
    for guess in direct[:1]:
        yield from variants(guess)


def _sizes(attempt: Failed, failure: Failure, module: nn.Module) -> Iterator[Assignment]:
    """A layer inside got the wrong number of features or channels."""
    shape = failure.shapes[0] if failure.shapes else ()
    want, axis = _wanted(module, len(shape))
    names = feeders(attempt, 0)
    if want is not None and axis is not None and -len(shape) <= axis < len(shape):
        have = shape[axis]
        if len(names) > 1:  # a concatenation of several arguments: equal parts
            yield {**attempt.guesses, **dict(_shares(attempt, names, have, want))}
        for name in names:
            guess = attempt.guesses[name]
            if guess.high is not None and have == want * math.prod(guess.shape):
                yield changed(attempt, name, guess.resized((1,)))  # ``embedding(token).view(1, 1, -1)``: one at a time
            for fixed in scaled(guess, have, want, channels_second=axis == 1):
                yield changed(attempt, name, fixed)
    for name in names:
        yield from _resized(attempt, name)


def _shares(attempt: Failed, names: list[str], have: int, want: int) -> Iterator[tuple[str, Guess]]:
    for name in names:
        guess = attempt.guesses[name]
        if guess.shape and guess.high is None and guess.shape[-1] * want % have == 0 and guess.shape[-1] * want >= have:
            yield name, guess.resized((*guess.shape[:-1], guess.shape[-1] * want // have))


def _wanted(module: nn.Module, rank: int) -> tuple[int | None, int | None]:
    """Size that a layer wants, and on which axis."""
    if isinstance(module, nn.Linear):
        return module.in_features, -1
    if isinstance(module, nn.modules.conv._ConvNd):
        return module.in_channels, 1
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return module.input_size, -1
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return module.num_features, 1
    if isinstance(module, nn.LayerNorm):
        return int(module.normalized_shape[-1]), -1
    return None, None


def _resized(attempt: Failed, name: str) -> Iterator[Assignment]:
    """Other sizes of positions."""
    guess = attempt.guesses[name]
    axes = spatial(guess)
    if not axes:
        return
    if guess.kind == "volume":
        shape = guess.shape[2:]
        if len(shape) != len(VOLUME_SIZES[0]):
            return
        larger: list[tuple[int, ...]] = [
            v for v in VOLUME_SIZES if all(n >= m for n, m in zip(v, shape, strict=True)) and v != shape
        ]
        options = larger if _too_small(attempt) else [tuple(v) for v in VOLUME_SIZES]
    else:
        table = IMAGE_SIZES if guess.kind == "image" else SEQUENCE_SIZES if guess.kind == "sequence" else _LENGTHS
        options = [(n,) * len(axes) for n in (_larger(guess, axes) if _too_small(attempt) else table)]
    for sizes in options:
        by_axis = dict(zip(axes, sizes, strict=True))
        yield changed(attempt, name, guess.resized(tuple(by_axis.get(i, n) for i, n in enumerate(guess.shape))))


def _too_small(attempt: Failed) -> bool:
    """Whether a map inside shrank to nothing: only larger inputs can help then."""
    return _NOTHING_LEFT.search(str(attempt.error)) is not None


def _larger(guess: Guess, axes: tuple[int, ...]) -> Iterator[int]:
    """Doubled sizes: each doubling of an image costs four times as much, and few of them reach any size."""
    size = max(guess.shape[axis] for axis in axes)
    while size < (_LONGEST if guess.kind == "sequence" else _LARGEST_SIDE):
        size *= 2
        yield size


def _mismatch(attempt: Failed, failure: Failure) -> Iterator[Assignment]:
    """Two operands that do not fit: give an argument's axis of positions the other's length."""
    if len(failure.shapes) < 2:
        return
    first, second = failure.shapes[0], failure.shapes[1]
    for index, (mine, other) in enumerate(((first, second), (second, first))):
        for a, b in zip(reversed(mine), reversed(other), strict=False):
            if a == b or 1 in (a, b):
                continue
            for name in feeders(attempt, index):
                yield from (changed(attempt, name, g) for g in fitted(attempt.guesses[name], a, b))


def _by_rank(attempt: Failed) -> Iterator[Assignment]:
    """``b, c, h, w = x.shape``, ``b, n, d, e = *x.shape, self.e`` and indices past the last axis: other ranks."""
    found = _UNPACK.search(str(attempt.error))
    expected = int(found[1]) if found else None
    lacking = int(found[1]) - int(found[2]) if found and found[2] else None
    grow = isinstance(attempt.error, IndexError) or "imension" in str(attempt.error) or expected is not None
    if not grow:
        return
    for name, guess in attempt.guesses.items():
        ranks = {expected, len(guess.shape) + lacking} if lacking is not None else {expected}
        for other in variants(guess):
            if expected is None or len(other.shape) in ranks:
                yield changed(attempt, name, other)
        if guess.kind == "adjacency" and expected is None:  # one matrix for all heads, or a batch of one graph
            yield changed(attempt, name, guess.resized((*guess.shape, 1)))
            yield changed(attempt, name, guess.resized((1, *guess.shape)))
        for rank in sorted(r for r in ranks if r is not None):
            if 0 < len(guess.shape) < rank and guess.dtype.is_floating_point:
                middle = (8,) * (rank - len(guess.shape))
                yield changed(attempt, name, guess.resized((*guess.shape[:1], *middle, *guess.shape[1:])))


def _by_demand(attempt: Failed) -> Iterator[Assignment]:
    """The model's own check of its inputs failed: the sizes that the message names, then the usual ones."""
    found = _MULTIPLE.search(str(attempt.error))
    steps = {int(n) for n in re.findall(r"\d+", found[0])} if found is not None else set()
    said = {int(n) for n in re.findall(r"\d+", str(attempt.error))} - steps
    for step in sorted(n for n in steps if n > 1)[::-1]:
        for name, guess in attempt.guesses.items():
            if guess.shape and guess.high is None:
                yield changed(attempt, name, _rounded(guess, step, said))
    numbers = [int(n) for n in re.findall(r"\d+", str(attempt.error))]
    for name, guess in attempt.guesses.items():
        axes = spatial(guess)
        for size in dict.fromkeys(n for n in numbers if 4 <= n <= 1024):
            if axes:
                yield changed(
                    attempt, name, guess.resized(tuple(size if i in axes else n for i, n in enumerate(guess.shape)))
                )
    same = {n: g for n, g in attempt.guesses.items() if spatial(g)}
    if len(same) > 1 and len({g.shape for g in same.values()}) == 1:  # a pair of images
        first = next(iter(same))
        for other in _resized(attempt, first):
            yield {**attempt.guesses, **{n: g.resized(other[first].shape) for n, g in same.items()}}
    for name in same:
        yield from _resized(attempt, name)


def _rounded(guess: Guess, step: int, said: set[int]) -> Guess:
    """The axes of a size that the message names (else those of positions, or the last) rounded up to a multiple."""
    axes = tuple(i for i, n in enumerate(guess.shape) if i and n in said and n % step)
    axes = axes or spatial(guess) or (len(guess.shape) - 1,)
    return guess.resized(tuple(-(-n // step) * step if i in axes else n for i, n in enumerate(guess.shape)))
