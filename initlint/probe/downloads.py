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
#: What the origin of such an argument says.
LEFT_OUT = "trained weights are left out"


def asks(name: str, value: Any) -> bool:
    """Whether an argument of this value asks for trained weights; one that holds numbers does not."""
    if not _PRETRAINED.fullmatch(name) and not _WEIGHTS.fullmatch(name):
        return False
    return value is True or (isinstance(value, (str, enum.Enum)) and value != "")


def without(name: str, value: Any, origin: str) -> tuple[Any, str]:
    """The argument that asks for no weights in place of one that does, any other as it is; and where it comes from."""
    if not asks(name, value):
        return value, origin
    return (False if value is True else None), f"{origin} gives {value!r}; {LEFT_OUT}"


def by_default(parameters: Iterable[Parameter]) -> dict[str, tuple[Any, str]]:
    """Arguments for what asks for trained weights unless it is told otherwise."""
    asking = (p for p in parameters if p.default is not p.empty and asks(p.name, p.default))
    return {p.name: without(p.name, p.default, "default") for p in asking}
