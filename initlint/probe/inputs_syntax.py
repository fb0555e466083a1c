"""The text form of an input, without torch: ``x: float32[1,3,32,32]``, ``ids: int64[1,16]<50257``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence

from initlint.errors import UsageError
from initlint.records import dataclass

HINT = "give inputs by --input 'x: float32[4,3,32,32]' or define example_inputs() in the file"

#: What may be written for a dtype, and torch's name for it.
DTYPES: Mapping[str, str] = {
    "float": "float32",
    "double": "float64",
    "half": "float16",
    "int": "int64",
    "long": "int64",
    "bool": "bool",
    **{
        name: name
        for name in (
            *("float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64"),
            *("uint8", "complex64", "complex128"),
        )
    },
}

_SPEC = re.compile(
    r"""\s* (?: (?P<name>[A-Za-z_]\w*) \s* : \s* )?
        (?P<dtype>[A-Za-z]\w*) \s*
        \[ (?P<shape>[\d\s,x]*) \] \s*
        (?: < \s* (?P<high>\d+) )? \s* $""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Written:
    """One input as it was written: ``dtype`` is torch's name, ``high`` the exclusive bound of indices."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    high: int | None = None


def read(texts: Sequence[str]) -> tuple[Written, ...]:
    """Read specs; one text may hold several, separated by ``;``.

    Raises:
        UsageError: a text is not of the form ``[name:] dtype[shape][<high]``, or positional ones
            follow named ones.
    """
    specs = [_read(part) for text in texts for part in text.split(";") if part.strip()]
    named = [bool(spec.name) for spec in specs]
    if named != sorted(named):
        raise UsageError("inputs without a name must come before named ones", _sentence(HINT))
    return tuple(specs)


def _read(text: str) -> Written:
    match = _SPEC.match(text)
    if match is None:
        raise UsageError(f"cannot read the input {text.strip()!r}", "Write it as 'x: float32[4,3,32,32]'.")
    dtype = DTYPES.get(match["dtype"])
    if dtype is None:
        close = difflib.get_close_matches(match["dtype"], DTYPES, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"One of {', '.join(sorted(DTYPES))}."
        raise UsageError(f"unknown dtype {match['dtype']!r} of the input {text.strip()!r}", hint)
    shape = tuple(int(n) for n in re.findall(r"\d+", match["shape"]))
    high = int(match["high"]) if match["high"] else None
    if high is not None and (high < 1 or dtype.startswith(("float", "bfloat", "complex"))):
        raise UsageError(
            f"the bound <{high} is for index inputs and at least 1", "Write it as 'ids: int64[4,16]<1000'."
        )
    return Written(match["name"] or "", dtype, shape, high)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
