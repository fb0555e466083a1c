"""Arguments that ask for trained weights: nothing is downloaded, and what is looked at is the init.

By the names that torchvision, timm and segmentation_models_pytorch have settled on.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from inspect import Parameter
from typing import Any

_PRETRAINED = re.compile(r"(\w+_)?pretrained(_(backbone|encoder|weights|path|url|checkpoint))?")
_WEIGHTS = re.compile(r"(backbone_|encoder_)?weights(_backbone)?")
# What such an argument holds where it asks for trained ones: a data set, a release, a file. (``weights="uniform"`` is
# how something is weighted.)
_TRAINED = re.compile(
    r"(?i)default|imagenet.*|coco.*|.*_v\d+|noisy-student|advprop|ss?w?sl|.*://.*|.*\.(pth?|bin|ckpt|safetensors)"
)
#: What the origin of such an argument says.
LEFT_OUT = "trained weights are left out"


def may_ask(name: str) -> bool:
    """Whether an argument of this name may ask for trained weights."""
    return (_PRETRAINED.fullmatch(name) or _WEIGHTS.fullmatch(name)) is not None


def asks(name: str, value: Any) -> bool:
    """Whether an argument of this value asks for trained weights; one that holds numbers does not."""
    if _PRETRAINED.fullmatch(name):
        return value is True or (isinstance(value, (str, enum.Enum)) and value != "")
    if not _WEIGHTS.fullmatch(name):
        return False
    return isinstance(value, enum.Enum) or (isinstance(value, str) and _TRAINED.fullmatch(value) is not None)


def without(name: str, value: Any, origin: str) -> tuple[Any, str]:
    """The argument that asks for no weights in place of one that does, any other as it is; and where it comes from."""
    if not asks(name, value):
        return value, origin
    return (False if value is True else None), f"{origin} gives {value!r}; {LEFT_OUT}"


def by_default(parameters: Iterable[Parameter]) -> dict[str, tuple[Any, str]]:
    """Arguments for what asks for trained weights unless it is told otherwise."""
    asking = (p for p in parameters if p.default is not p.empty and asks(p.name, p.default))
    return {p.name: without(p.name, p.default, "default") for p in asking}
