"""What to try next after a forward failed: read the failing op and the error, change one argument."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import fx, nn

from initlint.probe.inputs_leads import consumer_wants
from initlint.probe.inputs_spec import smallest_table
from initlint.probe.inputs_wants import IMAGE_SIZES, SEQUENCE_SIZES, VOLUME_SIZES, Guess, spatial, variants
from initlint.probe.recorded import Failure
from initlint.probe.submodules import submodule

Assignment = dict[str, Guess]

#: An argument that gets ``None``.
NO_VALUE = Guess("scalar", (), fill="None")

# Numbers of tokens tried: patches of small images, windows, powers of two.
_LENGTHS = (8, 32, 64, 4, 49, 196, 128, 50, 197, 10, 20, 100)

_NEEDS_INDEX = re.compile(
    r"must be (long|int)|scalar types: Long|used as indices|expected .*Long|integer tensors|Float.*instead.*indices|"
    r"one_hot is only applicable|index.*int64|only support integer|Expected dtype int",
    re.IGNORECASE,
)
_OTHER_FLOAT = re.compile(r"same dtype|scalar type|Input type|should be the same", re.IGNORECASE)
_NEEDS_FLOAT = re.compile(
    r"must have the same dtype|not implemented for '(Long|Int|Bool)'|expected .*(Float|Half|Double)|"
    r"floating point|found dtype Long",
    re.IGNORECASE,
)
_ATTRIBUTE = re.compile(r"object has no attribute '(\w+)'")
_NOTHING_LEFT = re.compile(
    r"output size is too small|kernel size can't be greater than actual input size|more than 1 value per channel|"
    r"padding size should be less than the corresponding input|more than 1 spatial element|smaller than kernel size",
    re.IGNORECASE,
)
_LARGEST_SIDE = 512
_LARGEST_TUPLE = 4
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
# "length 8000 is not a multiple of 1920", "must be divisible by 14"
_MULTIPLE = re.compile(r"(?:multiple of|divisible by)\D{0,12}(\d+)", re.IGNORECASE)
#: A convolution called as a function, whose weight is computed first (weight standardisation).
_CHANNELS = re.compile(r"expected input\[[\d, ]+\] to have (\d+) channels, but got (\d+) channels")
# A letter of an einsum with two sizes.
_LETTER = re.compile(r"subscript \w+ has size (\d+) for operand \d+ which does not broadcast .*seen size (\d+)")
_VIEW = re.compile(r"shape '\[([-\d, ]+)\]' is invalid for input of size")
_UNPACK = re.compile(r"(?:not enough|too many) values to unpack \(expected(?: at least)? (\d+)(?:, got (\d+))?")


@dataclass(frozen=True, slots=True)
class Failed:
    """A failed attempt."""

    guesses: Mapping[str, Guess]
    error: BaseException
    failure: Failure | None  # the torch op that raised, None when Python code did
    graph: fx.Graph
    missing: str = ""  # key or attribute that a composite argument was asked for


def repairs(attempt: Failed, root: nn.Module, batch: int) -> Iterator[Assignment]:
    """Changed assignments, the likeliest first."""
    if attempt.missing:
        return
    yield from _composites(attempt)
    yield from _dtypes(attempt, root)
    yield from _by_shapes(attempt)
    if attempt.failure is not None:
        yield from _by_failure(attempt, attempt.failure, root, batch)
    yield from _by_rank(attempt)
    if attempt.failure is None and isinstance(attempt.error, (ValueError, AssertionError, RuntimeError)):
        yield from _by_demand(attempt)


def _with(attempt: Failed, name: str, guess: Guess) -> Assignment:
    return {**attempt.guesses, name: guess}


def _composites(attempt: Failed) -> Iterator[Assignment]:
    """A tensor where a dict, an object or a list is expected."""
    text = str(attempt.error)
    plain = [n for n, g in attempt.guesses.items() if g.kind not in ("dict", "object", "list") and "[" not in n]
    found = _ATTRIBUTE.search(text)
    if isinstance(attempt.error, AttributeError) and found and "'Tensor'" in text:
        for name in plain:
            yield _with(attempt, name, Guess("object", ()))
    elif isinstance(attempt.error, ValueError) and attempt.failure is None and (found := _UNPACK.search(text)):
        for name in plain:
            yield from _listed(attempt, name, int(found[1]))
    elif _looked_up(attempt):
        names = [n for n in _feeders(attempt, 0) if n in plain]
        for name in names or plain:
            yield _with(attempt, name, Guess("dict", ()))
    elif isinstance(attempt.error, (IndexError, TypeError, KeyError)) and (
        "str" in text or "valid indices" in text or isinstance(attempt.error, KeyError)
    ):
        for name in plain:
            yield _with(attempt, name, Guess("dict", ()))


def _listed(attempt: Failed, name: str, count: int) -> Iterator[Assignment]:
    """``x, y = batch``: a pair of samples and their classes, or several alike."""
    first = attempt.guesses[name]
    if not first.shape or count > _LARGEST_TUPLE:
        return
    classes = Guess("ids", first.shape[:1], torch.int64, 10)
    for other in (classes, first) if count == 2 else (first,):
        parts = {f"{name}[{index}]": first if index == 0 else other for index in range(count)}
        yield {**attempt.guesses, name: Guess("list", ()), **parts}


def _looked_up(attempt: Failed) -> bool:
    """Whether a tensor was indexed with a text."""
    failure = attempt.failure
    return failure is not None and failure.target is operator.getitem and isinstance(failure.args[1], str)


def _dtypes(attempt: Failed, root: nn.Module) -> Iterator[Assignment]:
    text = str(attempt.error)
    names = _feeders(attempt) or list(attempt.guesses)
    if "index out of range" in text or "out of bounds" in text:
        for name in names:
            guess = attempt.guesses[name]
            if guess.high is not None and guess.high > 2:
                yield _with(attempt, name, replace(guess, high=max(2, min(smallest_table(root), guess.high // 4))))
    if attempt.failure is not None and attempt.failure.target is F.one_hot:
        classes = _classes(attempt.failure)
        for name in names:
            if attempt.guesses[name].high != classes:
                shape = attempt.guesses[name].shape
                yield _with(attempt, name, Guess("ids", shape[:1], torch.int64, classes))
                yield _with(attempt, name, Guess("ids", shape[:2], torch.int64, classes))
    if _OTHER_FLOAT.search(text):
        yield from _as_parameters(attempt, root)
    if _NEEDS_INDEX.search(text):
        high = smallest_table(root)
        for name in names:
            if attempt.guesses[name].dtype.is_floating_point:
                shape = attempt.guesses[name].shape
                yield _with(attempt, name, Guess("ids", shape[:2] or shape, torch.int64, high))
                yield _with(attempt, name, Guess("ids", shape[:1], torch.int64, high))
    if _NEEDS_FLOAT.search(text):
        for name in names:
            if not attempt.guesses[name].dtype.is_floating_point:
                yield _with(attempt, name, replace(attempt.guesses[name], dtype=torch.float32, high=None, kind="other"))


def _classes(failure: Failure) -> int:
    """Bound of the indices that a ``one_hot`` takes; few classes where it does not say."""
    given = failure.args[1] if len(failure.args) > 1 else failure.kwargs.get("num_classes")
    return given if isinstance(given, int) and given > 0 else 10


def _by_shapes(attempt: Failed) -> Iterator[Assignment]:
    """The message names the shape that an argument has and the one that it should have, or sizes that sum to it."""
    text = str(attempt.error)
    for pattern in _SHAPES:
        found = pattern.search(text)
        if found is not None:
            wrong, right = _numbers(found["have"]), _numbers(found["want"])
            for name, guess in attempt.guesses.items():
                if guess.shape == wrong:
                    yield _with(attempt, name, guess.resized(right))
    found = _NAMED_SHAPE.search(text) if attempt.failure is None else None
    if found is not None:
        for name, guess in attempt.guesses.items():
            shape = _named_shape(guess, [word.strip().lower() for word in found[1].split(",")])
            if shape is not None:
                yield _with(attempt, name, guess.resized(shape))
    found = _RANK.search(text)
    if found is not None and len(_numbers(found[2])) == int(found[1]) + 1:  # the model adds the axis of channels itself
        for name in _feeders(attempt):
            guess = attempt.guesses[name]
            if guess.shape[1:2] == (1,):
                yield _with(attempt, name, Guess("other", (*guess.shape[:1], *guess.shape[2:]), guess.dtype))
    found = _LETTER.search(text)
    if found is not None:
        one, other = int(found[1]), int(found[2])
        for name in _feeders(attempt):
            for have, want in ((other, one), (one, other)):
                yield from (_with(attempt, name, g) for g in _fitted(attempt.guesses[name], have, want))
    found = _VIEW.search(text)
    if found is not None:
        yield from _viewed(attempt, [n for n in _numbers(found[1]) if n > 0])
    found = _SPLIT.search(text)
    if found is not None:
        for name in _feeders(attempt):
            for fixed in _scaled(attempt.guesses[name], int(found[1]), sum(_numbers(found[3])), channels_second=False):
                yield _with(attempt, name, fixed)


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
    for name in _feeders(attempt):
        guess = attempt.guesses[name]
        if guess.shape and guess.high is None:
            yield _with(attempt, name, Guess("features", (guess.shape[0], math.prod(sizes)), guess.dtype))
            yield _with(attempt, name, Guess("other", (guess.shape[0], *sizes), guess.dtype))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split(",") if n.strip())


def _as_parameters(attempt: Failed, root: nn.Module) -> Iterator[Assignment]:
    """All floating-point arguments in the dtype of the model's parameters: models cast to double or half."""
    own = next((p.dtype for p in root.parameters() if p.is_floating_point()), torch.float32)
    cast = {n: replace(g, dtype=own) if g.dtype.is_floating_point else g for n, g in attempt.guesses.items()}
    if cast != attempt.guesses:
        yield cast


def _feeders(attempt: Failed, operand: int | None = None) -> list[str]:
    """Names of the arguments that reach the failing op (or only one operand of it)."""
    if attempt.failure is None:
        return []
    nodes = _operands(attempt.failure)
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


def _operands(failure: Failure) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.node.map_arg((failure.args, failure.kwargs), found.append)
    return found


def _by_failure(attempt: Failed, failure: Failure, root: nn.Module, batch: int) -> Iterator[Assignment]:
    operands = _operands(failure)
    for index, operand in enumerate(operands):
        direct = operand.op == "placeholder"
        for name in _feeders(attempt, index):
            if direct and placeholder(name) == operand.target:
                yield from (_with(attempt, name, g) for g in _accepted(failure, operand, root, batch))
    if failure.op == "call_module":
        module = submodule(root, str(failure.target))
        if isinstance(module, nn.RNNBase) and len(operands) > 1:
            for name in _feeders(attempt, 1):  # a state may be left out: the layer begins with zeros
                yield _with(attempt, name, NO_VALUE)
        yield from _sizes(attempt, failure, module)
    else:
        found = _CHANNELS.search(str(attempt.error))
        if found is not None:
            want, have = int(found[1]), int(found[2])
            for name in _feeders(attempt, 0):
                for fixed in _scaled(attempt.guesses[name], have, want, channels_second=True):
                    yield _with(attempt, name, fixed)
        yield from _mismatch(attempt, failure)
        for name in _feeders(attempt):
            yield from _resized(attempt, name)


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
    names = _feeders(attempt, 0)
    if want is not None and axis is not None and -len(shape) <= axis < len(shape):
        have = shape[axis]
        if len(names) > 1:  # a concatenation of several arguments: equal parts
            yield {**attempt.guesses, **dict(_shares(attempt, names, have, want))}
        for name in names:
            guess = attempt.guesses[name]
            if guess.high is not None and have == want * math.prod(guess.shape):
                yield _with(attempt, name, guess.resized((1,)))  # ``embedding(token).view(1, 1, -1)``: one at a time
            for fixed in _scaled(guess, have, want, channels_second=axis == 1):
                yield _with(attempt, name, fixed)
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


def _scaled(guess: Guess, have: int, want: int, *, channels_second: bool) -> Iterator[Guess]:
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


def _resized(attempt: Failed, name: str) -> Iterator[Assignment]:
    """Other sizes of positions."""
    guess = attempt.guesses[name]
    axes = spatial(guess)
    if not axes:
        return
    if guess.kind == "volume":
        shape = guess.shape[2:]
        larger: list[tuple[int, ...]] = [
            v for v in VOLUME_SIZES if all(n >= m for n, m in zip(v, shape, strict=True)) and v != shape
        ]
        options = larger if _too_small(attempt) else [tuple(v) for v in VOLUME_SIZES]
    else:
        table = IMAGE_SIZES if guess.kind == "image" else SEQUENCE_SIZES if guess.kind == "sequence" else _LENGTHS
        options = [(n,) * len(axes) for n in (_larger(guess, axes) if _too_small(attempt) else table)]
    for sizes in options:
        by_axis = dict(zip(axes, sizes, strict=True))
        yield _with(attempt, name, guess.resized(tuple(by_axis.get(i, n) for i, n in enumerate(guess.shape))))


def _too_small(attempt: Failed) -> bool:
    """Whether a map inside shrank to nothing: only larger inputs can help then."""
    return _NOTHING_LEFT.search(str(attempt.error)) is not None


def _larger(guess: Guess, axes: tuple[int, ...]) -> Iterator[int]:
    """Doubled sizes: each doubling costs four times as much, and few of them reach any size."""
    size = max(guess.shape[axis] for axis in axes)
    while size < _LARGEST_SIDE:
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
            for name in _feeders(attempt, index):
                yield from (_with(attempt, name, g) for g in _fitted(attempt.guesses[name], a, b))


def _fitted(guess: Guess, have: int, want: int) -> Iterator[Guess]:
    """The guess with an axis of ``have`` (or the axes of positions in proportion) turned into ``want``."""
    shape, axes = guess.shape, spatial(guess)
    if guess.kind != "image" and have in shape[1:]:
        axis = shape.index(have, 1)
        yield guess.resized((*shape[:axis], want, *shape[axis + 1 :]))
    if len(axes) > 1 and have > 0:  # as many positions as the sides multiply to: patches against a table of places
        side = round(shape[axes[0]] * (want / have) ** (1 / len(axes)))
        if side ** len(axes) * have == shape[axes[0]] ** len(axes) * want:
            yield guess.resized(tuple(side if i in axes else n for i, n in enumerate(shape)))
    if axes and have > 0 and shape[axes[0]] * want % have == 0:
        side = shape[axes[0]] * want // have
        yield guess.resized(tuple(side if i in axes else n for i, n in enumerate(shape)))


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
                yield _with(attempt, name, other)
        if guess.kind == "adjacency" and expected is None:  # one matrix for all heads, or a batch of one graph
            yield _with(attempt, name, guess.resized((*guess.shape, 1)))
            yield _with(attempt, name, guess.resized((1, *guess.shape)))
        for rank in sorted(r for r in ranks if r is not None):
            if 0 < len(guess.shape) < rank and guess.dtype.is_floating_point:
                middle = (8,) * (rank - len(guess.shape))
                yield _with(attempt, name, guess.resized((*guess.shape[:1], *middle, *guess.shape[1:])))


def _by_demand(attempt: Failed) -> Iterator[Assignment]:
    """The model's own check of its inputs failed: the sizes that the message names, then the usual ones."""
    found = _MULTIPLE.search(str(attempt.error))
    if found is not None and int(found[1]) > 1:
        for name, guess in attempt.guesses.items():
            if guess.shape and guess.high is None:
                yield _with(attempt, name, _rounded(guess, int(found[1])))
    numbers = [int(n) for n in re.findall(r"\d+", str(attempt.error))]
    for name, guess in attempt.guesses.items():
        axes = spatial(guess)
        for size in dict.fromkeys(n for n in numbers if 4 <= n <= 1024):
            if axes:
                yield _with(
                    attempt, name, guess.resized(tuple(size if i in axes else n for i, n in enumerate(guess.shape)))
                )
    same = {n: g for n, g in attempt.guesses.items() if spatial(g)}
    if len(same) > 1 and len({g.shape for g in same.values()}) == 1:  # a pair of images
        first = next(iter(same))
        for changed in _resized(attempt, first):
            yield {**attempt.guesses, **{n: g.resized(changed[first].shape) for n, g in same.items()}}
    for name in same:
        yield from _resized(attempt, name)


def _rounded(guess: Guess, step: int) -> Guess:
    """The axes of positions (or the last one) rounded up to a multiple."""
    axes = spatial(guess) or (len(guess.shape) - 1,)
    return guess.resized(tuple(-(-n // step) * step if i in axes else n for i, n in enumerate(guess.shape)))


def missing_key(error: BaseException) -> str:
    """The key or attribute that a composite argument lacks, "" for other errors."""
    if isinstance(error, KeyError) and error.args and isinstance(error.args[0], str):
        return error.args[0]
    found = _ATTRIBUTE.search(str(error)) if isinstance(error, AttributeError) else None
    return found[1] if found and "SimpleNamespace" in str(error) else ""
