"""Inputs that the forward's docstring describes: ``states (`torch.Tensor` of shape `(batch_size, state_dim)`)``.

The usual spellings (Google, NumPy and reST style, and shapes in backticks). Sizes are numbers, names of
attributes of the model or its configuration, products of such, or customary words; equal words are equal sizes.
"""

from __future__ import annotations

import ast
import inspect
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from initlint.probe.inputs_arguments import Argument
from initlint.probe.inputs_wants import Guess, tokens
from initlint.records import dataclass

# "name (`torch.LongTensor` of shape", "name: Tensor", ":param name: ", "name : array"
_ENTRY = (
    r"^[ \t]*(?:[-*][ \t]+)?(?::param[ \t]+)?[`*]{{0,2}}{name}[`*]{{0,2}}[ \t]*[:(]"
    r"(?P<text>.*(?:\n(?![ \t]*(?:[-*][ \t]+)?(?::\w+[ \t]+)?[`*]*(?:{others})[`*]*[ \t]*[:(]).*){{0,2}})"
)
# A shape after the word, or one of capital letters alone: "of shape `(batch, n)`", "[B, T, D]".
_AFTER_WORD = re.compile(r"(?:shape|size)s?[ :=`]*[(\[]([^()\[\]`]+)[)\]]")
_LETTERS = re.compile(r"[(\[]((?:[A-Z]|\d+)(?: *, *(?:[A-Z]|\d+))+)[)\]]")
_NO_TENSOR = re.compile(r"^[` ]*(list|tuple|dict|sequence|optional\[(list|tuple|dict))\b", re.IGNORECASE)
_OPTIONAL = re.compile(r"\boptional\b", re.IGNORECASE)
_INTEGER = re.compile(r"LongTensor|IntTensor|int64|int32|torch\.long")
_BOOLEAN = re.compile(r"BoolTensor|torch\.bool\b|\bbool tensor", re.IGNORECASE)

# "x: Tensor,  # (B, C, T)" in a signature
_BEHIND = re.compile(r"^[ \t]*(\w+)[ \t]*(?::[^#=]+)?(?:=[^#]*)?,[ \t]*#[ \t]*(.+)$")
_POSITIONS = re.compile(r"position|coord")
_BATCH = re.compile(r"^(batch\w*|bs|bsz|b|n|num_(images|videos|audios|images_or_videos|samples))$")
_LENGTH = re.compile(r"(^|_)(len|length|seq|seqlen|tokens?|time|steps?|frames|patches|t|l|s)(_|$)")
_HEIGHT, _WIDTH = re.compile(r"^(h|height|image_height)$"), re.compile(r"^(w|width|image_width)$")
_CHANNELS = re.compile(r"^(c|channels|num_channels|in_channels|in_chans)$")
_ALIASES: Mapping[str, tuple[str, ...]] = {
    "channels": ("num_channels", "in_channels", "in_chans"),
    "sides": ("image_size", "img_size"),
}
# Where composite configurations keep the parts that know sizes.
_PARTS = ("vision_config", "backbone_config", "audio_config", "text_config", "encoder_config", "decoder_config")
#: A size under a name that says nothing, the side of images of no declared size, and their channels.
_OTHER, _SIDE, _COLOURS = 4, 64, 3
_LARGEST = 1 << 16
_AXES = 5


@dataclass(frozen=True, slots=True)
class Described:
    """What a docstring says of an argument."""

    shape: tuple[str, ...]
    dtype: torch.dtype
    optional: bool


def described(model: nn.Module) -> dict[str, Described]:
    """The arguments whose shape the docstring of the forward (or of the class) gives."""
    try:
        names = [n for n in inspect.signature(model.forward).parameters if n != "self"]
    except (TypeError, ValueError):
        return {}
    texts = [inspect.getdoc(model.forward) or "", type(model).__doc__ or "", _comments(model)]
    found: dict[str, Described] = {}
    for name in names:
        for text in texts:
            entry = _entry(_before_results(text), name, names)
            if entry is not None:
                found[name] = entry
                break
    return found


def _comments(model: nn.Module) -> str:
    """Comments of the forward, one a line; one behind an argument of the signature is about that argument."""
    try:
        lines = inspect.getsource(type(model).forward).splitlines()
    except (OSError, TypeError, AttributeError):  # of scripted models there is none
        return ""
    found = []
    for line in lines:
        if (match := _BEHIND.match(line)) is not None:
            found.append(f"{match[1]}: {match[2]}")
        elif line.lstrip().startswith("#"):
            found.append(line.strip().lstrip("# "))
    return "\n".join(found)


def described_guesses(
    model: nn.Module, docs: Mapping[str, Described], names: Iterable[str], batch: int
) -> dict[str, tuple[Guess, bool]]:
    """Guesses for arguments, with sizes that agree among them, and whether all sizes of each are known."""
    listed = [n for n in names if n in docs]
    sizes = _Sizes(model, batch, packed=any(_is_grid(n) for n in listed))
    return {name: (_guess(name, docs[name], sizes), sizes.known(docs[name].shape)) for name in listed}


def agrees(doc: Described, guess: Guess) -> bool:
    """Whether a guess has the axes that a docstring gives: as many, samples first, and the numbers that it names."""
    fits = len(doc.shape) == len(guess.shape) and bool(_BATCH.match(doc.shape[0].lower()))
    return fits and all(int(w) == n for w, n in zip(doc.shape, guess.shape, strict=True) if w.isdecimal())


def expected(docs: Mapping[str, Described], needed: list[Argument]) -> list[str]:
    """The arguments that a call should have: those without a default, and those described and not called optional."""
    required = [n for n, d in docs.items() if not d.optional]
    return list(dict.fromkeys([*(a.name for a in needed if not a.variadic), *required]))


def grids(shape: tuple[int, ...]) -> torch.Tensor:
    """Frames, rows and columns of the patches of images: one frame each."""
    return torch.tensor([1, GRID, GRID][-shape[-1] :]).expand(shape).contiguous()


def placed(name: str, guess: Guess) -> torch.Tensor | None:
    """Values that are no random indices: the grids of patches of images, and the places of patches in a grid."""
    shape = guess.shape
    if _is_grid(name) and len(shape) == 2 and shape[-1] in (2, 3):
        return grids(shape)
    if _POSITIONS.search(name) and len(shape) == 3 and shape[-1] == 2 and not guess.dtype.is_floating_point:
        columns = math.isqrt(shape[1] - 1) + 1
        places = torch.arange(shape[1])
        return torch.stack([places % columns, places // columns], -1).expand(shape).contiguous()
    return None


#: Rows and columns of a grid of patches: a multiple of the 2x2 patches that are merged.
GRID = 4


def _is_grid(name: str) -> bool:
    return re.search(r"grid_(t?hws?)$", name) is not None


def _before_results(text: str) -> str:
    return re.split(r"^[ \t]*(?:Returns?|Outputs?|Examples?|Raises)\b.*$", text, maxsplit=1, flags=re.MULTILINE)[0]


def _entry(text: str, name: str, names: list[str]) -> Described | None:
    others = "|".join(re.escape(n) for n in names)
    found = re.search(_ENTRY.format(name=re.escape(name), others=others), text, re.MULTILINE)
    if found is None or _NO_TENSOR.match(found["text"]):
        return None
    head = found["text"]
    shape = _AFTER_WORD.search(head) or _LETTERS.search(head)
    if shape is None:
        return None
    words = tuple(w.strip(" `*") for w in shape[1].split(",") if w.strip())
    if not words or len(words) > _AXES or not all(_readable(w) for w in words):
        return None
    first = head.partition("\n")[0]
    integer = torch.int64 if _INTEGER.search(first) else torch.float32
    return Described(words, torch.bool if _BOOLEAN.search(first) else integer, bool(_OPTIONAL.search(first)))


def _readable(word: str) -> bool:
    try:
        ast.parse(word, mode="eval")
    except (SyntaxError, ValueError):
        return False
    return True


def _guess(name: str, doc: Described, sizes: _Sizes) -> Guess:
    shape = tuple(sizes.of(word, axis) for axis, word in enumerate(doc.shape))
    if "mask" in name and len(shape) < 4:
        return Guess("mask", shape, doc.dtype if doc.dtype != torch.float32 else torch.int64, fill="ones")
    if _is_grid(name):
        return Guess("other", shape, torch.int64, GRID + 1)
    if doc.dtype == torch.int64:
        # Bounds of indices are not described: labels of points have two values, tokens more than anybody needs here.
        high = 2 if not re.search(r"(^|_)(ids?|tokens?)$", name) else None
        return Guess("ids" if len(shape) == 2 else "other", shape, torch.int64, high)
    words = [w.lower() for w in doc.shape]
    if len(shape) == 4 and _CHANNELS.match(words[1]):
        return Guess("image", shape, doc.dtype)
    return Guess("tokens" if len(shape) == 3 else "other", shape, doc.dtype)


class _Sizes:
    """Sizes by their words: the same word always has the same."""

    def __init__(self, model: nn.Module, batch: int, *, packed: bool) -> None:
        config = getattr(model, "config", None)
        parts = [getattr(config, p, None) for p in _PARTS]
        self.owners = [o for o in (model, config, *parts) if o is not None]
        self.batch, self.packed = batch, packed
        self.unknown: set[str] = set()

    def known(self, shape: tuple[str, ...]) -> bool:
        """Whether no size of a shape was made up."""
        return not self.unknown & set(shape)

    def of(self, word: str, axis: int) -> int:
        """The size that a word stands for on an axis."""
        try:
            value = self._value(ast.parse(word, mode="eval").body, axis)
        except (SyntaxError, ValueError):
            value = None
        if value is None or not 0 < value <= _LARGEST:
            self.unknown.add(word)
            return _OTHER
        return value

    def _value(self, tree: ast.expr, axis: int) -> int | None:
        if isinstance(tree, ast.Constant) and isinstance(tree.value, int):
            return tree.value
        if isinstance(tree, ast.BinOp):
            left, right = self._value(tree.left, axis), self._value(tree.right, axis)
            return _combined(tree.op, left, right) if left is not None and right is not None else None
        name = tree.attr if isinstance(tree, ast.Attribute) else tree.id if isinstance(tree, ast.Name) else ""
        return self._named(name, axis) if name else None

    def _named(self, name: str, axis: int) -> int | None:
        lower = name.lower()
        if axis == 0 and _BATCH.match(lower):
            return self.batch
        if axis == 0 and self.packed:  # the patches of all images in one row
            return self.batch * GRID * GRID
        if _CHANNELS.match(lower):
            return next(self._attributes(*_ALIASES["channels"], name), _COLOURS)
        for pattern, position in ((_HEIGHT, 0), (_WIDTH, 1)):
            if pattern.match(lower):
                return next(self._attributes(*_ALIASES["sides"], at=position), _SIDE)
        own = next(self._attributes(name, at=axis % 2), None)
        if own is not None:
            return own
        if lower in _ALIASES["sides"]:
            return _SIDE
        return tokens(self.batch) if _LENGTH.search(lower) else None

    def _attributes(self, *names: str, at: int = 0) -> Iterator[int]:
        for owner in self.owners:
            for name in names:
                try:
                    value: Any = getattr(owner, name, None)
                except Exception:  # a property that needs what this model lacks
                    continue
                if isinstance(value, Mapping):
                    value = [value.get("height"), value.get("width")]
                if isinstance(value, (tuple, list)) and 0 < len(value) <= 2:
                    value = value[min(at, len(value) - 1)]
                if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                    yield value


def _combined(op: ast.operator, left: int, right: int) -> int | None:
    if isinstance(op, ast.Mult):
        return left * right
    if isinstance(op, ast.Add):
        return left + right
    if isinstance(op, ast.Sub):
        return left - right
    if isinstance(op, (ast.FloorDiv, ast.Div)):
        return left // right if right else None
    return left**right if isinstance(op, ast.Pow) and 0 <= right <= 4 else None
