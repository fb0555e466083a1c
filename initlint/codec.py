"""Turn the frozen dataclasses of this package into JSON-able values and back, driven by their annotations.

For each class one encoder and one decoder are compiled on first use and kept. An encoder walks the
declared types only, so fields whose type is already plain (``str``, ``int``, ``bool``) cost a plain
attribute read. Encoded forms:

- a dataclass is an object of its fields; with ``compact=True`` fields equal to their default are left out;
- tuples and lists are lists, mappings with string keys are objects, enums are their member's name;
- equal instances of a class with a true ``SHARED`` are decoded to one object: thousands of writes name few lines;
- equal strings of declared fields are decoded to one object;
- NaN and infinities are ``null``, since JSON has neither. A float field that may not be ``None`` is
  decoded from ``null`` to NaN.

Rounding for people is the emitters' work: numbers are kept as they are.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

Converter = Callable[[Any], Any]
_T = TypeVar("_T")

_SCALARS = (str, int, bool)  # encoded as they are
_NAN = float("nan")

_encoders: dict[tuple[Any, bool], Converter | None] = {}
_decoders: dict[Any, Converter | None] = {}
_types: dict[tuple[str, str], Any] = {}  # by annotation and module


def to_plain(obj: Any, *, compact: bool = False) -> Any:
    """The JSON-able form of a dataclass instance (or of a list, tuple or mapping of such).

    Args:
        obj: the value.
        compact: leave out fields that equal their default; ``from_plain`` reads both forms.

    Raises:
        TypeError: a field's annotation or value has no JSON form.
    """
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        encode = _encoder(type(obj), compact)
        return encode(obj) if encode else obj
    if isinstance(obj, Mapping):
        return {str(key): to_plain(value, compact=compact) for key, value in obj.items()}
    if isinstance(obj, list | tuple | frozenset | set):
        return [to_plain(value, compact=compact) for value in obj]
    return _encode_plain(obj)


def from_plain(cls: type[_T], data: Any) -> _T:
    """The instance of ``cls`` that ``data`` (what ``to_plain`` made of one) describes.

    Raises:
        ValueError: ``data`` does not have the shape of ``cls``: no object, a field missing or unknown.
    """
    decode = _decoder(cls)
    try:
        return cast(_T, decode(data) if decode else data)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not a {getattr(cls, '__name__', cls)}: {error}") from error


def prepare(cls: type) -> None:
    """Compile the decoder of a class now, in time that would be spent waiting."""
    _decoder(cls)


def _optional(inner: Converter) -> Converter:
    return lambda value: None if value is None else inner(value)


def _each(make: Callable[[list[Any]], Any], inner: Converter) -> Converter:
    return lambda values: make([inner(value) for value in values])


def _values(inner: Converter) -> Converter:
    return lambda values: {key: inner(value) for key, value in values.items()}


# -- encoding ------------------------------------------------------------------------------------


def _encoder(kind: Any, compact: bool) -> Converter | None:
    """The encoder of a type; ``None`` where values are JSON-able as they are."""
    key = (kind, compact)
    try:
        return _encoders[key]
    except KeyError:
        pass
    if dataclasses.is_dataclass(kind):
        # Registered before it is built, so that classes may refer to themselves.
        _encoders[key] = lambda value: cast(Converter, _encoders[key])(value)
        _encoders[key] = _compile_encoder(cast(type, kind), compact)
    else:
        _encoders[key] = _build_encoder(kind, compact)
    return _encoders[key]


def _build_encoder(kind: Any, compact: bool) -> Converter | None:
    if kind in _SCALARS or kind is type(None):
        return None
    if kind is float:
        return _encode_float
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _encode_enum
    if _is_plain(kind):
        return _encode_plain
    members = _members(kind)
    if members is not None:
        inner = _encoder(members, compact)
        return inner and _optional(inner)
    item = _item(kind)
    if item is not None:
        inner = _encoder(item, compact)
        return _each(list, inner) if inner else list
    value_type = _mapped(kind)
    if value_type is not None:
        inner = _encoder(value_type, compact)
        return _values(inner) if inner else dict
    raise TypeError(f"no JSON form for {kind!r}")


def _compile_encoder(cls: type, compact: bool) -> Converter:
    """Write the source of an encoder for the dataclass and compile it: one attribute read per field."""
    names: dict[str, Any] = {}
    lines = ["def encode(o):", " d = {}"]
    for index, (field, kind) in enumerate(_fields(cls)):
        encode = _encoder(kind, compact)
        names[f"e{index}"] = encode
        value = f"e{index}(v)" if encode else "v"
        lines.append(f" v = o.{field.name}")
        condition = _differs(field, index, names) if compact else ""
        lines.append(f" {condition}d[{field.name!r}] = {value}")
    lines.append(" return d")
    exec("\n".join(lines), names)
    return cast(Converter, names["encode"])


def _differs(field: dataclasses.Field[Any], index: int, names: dict[str, Any]) -> str:
    """Source of the condition that a field's value ``v`` is not its default."""
    if field.default is not dataclasses.MISSING:
        if field.default is None:
            return "if v is not None: "
        if field.default in ("", ()):
            return "if v: "
        names[f"c{index}"] = field.default
        return f"if v != c{index}: "
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
        if default == {}:
            return "if v: "
        names[f"c{index}"] = default
        return f"if v != c{index}: "
    return ""


def _encode_float(value: Any) -> Any:
    return value if value is not None and math.isfinite(value) else None


def _encode_enum(value: enum.Enum) -> str:
    return value.name


def _encode_plain(value: Any) -> Any:
    """Any nesting of scalars, sequences and mappings, without NaN and infinities."""
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if kind is float:
        return value if math.isfinite(value) else None
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, Mapping):
        return {str(key): _encode_plain(item) for key, item in value.items()}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes):
        return [_encode_plain(item) for item in value]
    if isinstance(value, str):  # subclasses of str, int and float: their plain value
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return _encode_float(float(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_plain(value)
    raise TypeError(f"no JSON form for a value of type {kind.__name__}")


# -- decoding ------------------------------------------------------------------------------------


def _decoder(kind: Any) -> Converter | None:
    """The decoder of a type; ``None`` where JSON values are kept as they are."""
    try:
        return _decoders[kind]
    except KeyError:
        pass
    if dataclasses.is_dataclass(kind):
        _decoders[kind] = lambda data: cast(Converter, _decoders[kind])(data)
        _decoders[kind] = _compile_decoder(cast(type, kind))
    else:
        _decoders[kind] = _build_decoder(kind)
    return _decoders[kind]


def _build_decoder(kind: Any) -> Converter | None:
    if kind is str:
        return sys.intern  # names occur again and again, in one model and in the next: a third of all memory
    if kind in _SCALARS or kind is type(None) or _is_plain(kind):
        return None
    if kind is float:
        return _decode_float
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return lambda name: kind[name]
    members = _members(kind)
    if members is not None:
        # ``float | None`` keeps null as None; only a float that must be there becomes NaN.
        inner = None if members is float else _decoder(members)
        return inner and _optional(inner)
    item = _item(kind)
    if item is not None:
        inner = _decoder(item)
        make = list if typing.get_origin(kind) is list else tuple
        return _each(make, inner) if inner else make
    value_type = _mapped(kind)
    if value_type is not None:
        inner = _decoder(value_type)
        return inner and _values(inner)
    raise TypeError(f"no JSON form for {kind!r}")


def _compile_decoder(cls: type) -> Converter:
    fields = [(field, _decoder(kind)) for field, kind in _fields(cls)]
    if hasattr(cls, "__post_init__") or not all(hasattr(vars(cls).get(field.name), "__set__") for field, _ in fields):
        return _calling_decoder(cls, {field.name: convert for field, convert in fields})
    return _slot_decoder(cls, fields)


def _calling_decoder(cls: type, converters: Mapping[str, Converter | None]) -> Converter:
    """A decoder that goes through the class's own ``__init__``."""

    def decode(data: Any) -> Any:
        values = dict(data)
        for name in values:
            convert = converters[name]
            if convert is not None:
                values[name] = convert(values[name])
        return cls(**values)

    return decode


def _slot_decoder(cls: type, fields: Sequence[tuple[dataclasses.Field[Any], Converter | None]]) -> Converter:
    """A decoder that fills the slots directly.

    The generated ``__init__`` of a frozen dataclass costs one ``object.__setattr__`` call for each field; on
    10,000 nodes that is most of the time of a cached check (measured: 9 us a node against 2 us).
    """
    names: dict[str, Any] = {"new": object.__new__, "cls": cls, "known": frozenset(field.name for field, _ in fields)}
    lines = [
        "def decode(d):",
        " if not d.keys() <= known: raise KeyError(f'unknown field {min(d.keys() - known)!r}')",
        " o = new(cls)",
        " get = d.get",
    ]
    for index, (field, convert) in enumerate(fields):
        names[f"s{index}"] = vars(cls)[field.name].__set__
        names[f"f{index}"] = convert
        value = f"f{index}(v)" if convert else "v"
        default = ""
        if field.default is not dataclasses.MISSING:
            names[f"c{index}"], default = field.default, f"c{index}"
        elif field.default_factory is not dataclasses.MISSING:
            names[f"c{index}"], default = field.default_factory, f"c{index}()"
        if default:
            lines.append(f" v = get({field.name!r}, missing)")
            lines.append(f" s{index}(o, {default} if v is missing else {value})")
        else:
            lines.append(f" v = d[{field.name!r}]")
            lines.append(f" s{index}(o, {value})")
    names["missing"] = object()
    names["shared"] = {}.setdefault
    lines.append(" return shared(o, o)" if getattr(cls, "SHARED", False) else " return o")
    exec("\n".join(lines), names)
    return cast(Converter, names["decode"])


def _decode_float(value: Any) -> float:
    return _NAN if value is None else value


# -- reading annotations ---------------------------------------------------------------------------


def _fields(cls: type) -> list[tuple[dataclasses.Field[Any], Any]]:
    """The fields that a class is made of, with their types."""
    kinds = {name: _type_of(text, base.__module__) for base in reversed(cls.__mro__) for name, text in _declared(base)}
    return [(field, kinds[field.name]) for field in dataclasses.fields(cls) if field.init]


def _declared(base: type) -> Iterable[tuple[str, Any]]:
    found: Mapping[str, Any] = vars(base).get("__annotations__", {})
    return found.items()


def _type_of(annotation: Any, module: str) -> Any:
    """What an annotation means in a module (``typing.get_type_hints`` compiles the same few texts for each field)."""
    if not isinstance(annotation, str):
        return annotation
    key = (annotation, module)
    if key not in _types:
        _types[key] = eval(annotation, vars(sys.modules[module]))
    return _types[key]


def _union(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else ()


def _is_plain(kind: Any) -> bool:
    """Whether the type is ``Plain``, ``Scalar``, ``Any`` or another mixture that only its values can tell."""
    if kind is Any or kind is object:
        return True
    members = [member for member in _union(kind) if member is not type(None)]
    return len(members) > 1 and not any(dataclasses.is_dataclass(member) for member in members)


def _members(kind: Any) -> Any:
    """``T`` of ``T | None``, else ``None``."""
    members = [member for member in _union(kind) if member is not type(None)]
    return members[0] if len(members) == 1 else None


def _item(kind: Any) -> Any:
    """The item type of ``tuple[T, ...]``, ``tuple[T, T]``, ``list[T]`` or ``Sequence[T]``, else ``None``."""
    if typing.get_origin(kind) not in (tuple, list, Sequence, frozenset):
        return None
    arguments = [argument for argument in typing.get_args(kind) if argument is not Ellipsis]
    return arguments[0] if len(set(arguments)) == 1 else Any


def _mapped(kind: Any) -> Any:
    """The value type of ``Mapping[str, T]`` or ``dict[str, T]``, else ``None``."""
    if typing.get_origin(kind) not in (dict, Mapping):
        return None
    return typing.get_args(kind)[1]
