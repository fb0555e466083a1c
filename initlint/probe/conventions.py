"""Values for constructor arguments by their annotation, by how the constructor uses them, and by the
names that the field has settled on. Small sizes, chosen to fit each other: 64 is a multiple of 4 heads,
an image of 32 holds whole patches of 8.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import functools
import inspect
import itertools
import re
import textwrap
import types
import typing
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any

import torch
from torch import nn

from initlint.probe.names import dotted
from initlint.probe.paths import Path, aliases, path_of, resolved
from initlint.records import dataclass

NOTHING = object()  # no value is known

# Names as in PyTorch, torchvision, timm, nanoGPT, Hugging Face and common GAN, RL and detection code;
# compared without underscores and case. The first entry that matches the whole name wins.
_NAMES: tuple[tuple[str, Any], ...] = (
    (r"(num|n|no|number(of)?|out(put)?)?(classes|class|labels|categories|cls)(num|count)?", 10),
    (r"(in|input|img|image)(put)?(channels?|chans?|ch|c|planes)|(n|num)?channels?(in)?|cin|nc|nch|inplanes", 3),
    (
        r"(out|output)(put)?(channels?|chans?|ch|planes)|cout|planes|(base|n|num|mid|hidden)?(filters?|channels?|width|ch)|ngf|ndf|nf",
        16,
    ),
    (r"(num|n|no)?(attn|attention|key|kv|query)?(heads?|nhead)|nheads?|(num|n)(kv|key|keyvalue)heads", 4),
    (
        r"(num|n|no)?(hidden|encoder|decoder|enc|dec|transformer|res(idual)?|conv)?(layers?|blocks?|resblocks?|stages?)|depths?|nlayers?",
        2,
    ),
    (r"(image|img|input|spatial|in)?(size|resolution|res)|(img|image)?(height|width|h|w)", 32),
    (r"patch(size|h|w)?", 8),
    (r"(n|num)?spatial(dim(ension)?s?|ndims?)", 2),  # how many axes an image has: MONAI's argument
    (
        r"(num|n)?(vocab(ulary)?|tokens?|words?|embeddings|items?|users?|entities|nodes|relations|characters?)(size|s|num)?(or\w*(file|path|json)\w*)?|ntokens?|(src|tgt|trg|source|target)vocab(size)?",
        120,  # neither its root nor its inverse is a round number, as 100's, that code may give for a std or a bound
    ),
    (
        r"(max|context|block|seq(uence)?|maxseq(uence)?|n|maxposition|num|window)?(len(gth)?|positions?|positionembeddings|ctx|contextlength|blocksize|sequencelength|seqlen|frames)|blocksize|windowsize",
        32,
    ),
    (r"kernel(size)?|ks|k", 3),
    (r"strides?|dilation|groups|scale|temperature|gain|gamma|beta|multiplier|widthmult(iplier)?", 1),
    (r"padding|pad|paddingidx|(src|tgt|trg|source|target)?pad(token)?(idx|id|index)|padtoken", 0),
    (r"\w*(drop(out)?(prob|rate|p|path|pathrate|pathprob)?|pdrop)|p", 0.0),
    (r"(layernorm|norm|rms(norm)?|bn)?eps(ilon)?", 1e-5),
    (r"momentum|negativeslope|slope|alpha", 0.1),
    (r"(mlp|ffn?|expand|expansion|hidden|reduction|squeeze|se)?(ratio|factor|expansion)", 4),
    (r"(n|num)?(experts?|groups|components|mixtures|basis|bases|codebooks)|rank|r|topk", 4),
    (r"batch(size)?|bs", 4),
    (
        r"(out|output|action|act|target)(put)?(dim(ension)?s?|size|features?|feats?|units)|nout(puts?)?|nactions?|numactions|numoutputs?|actiondim|dout",
        8,
    ),
    (
        r"(in|input|obs(ervation)?|state|z|latent|noise|code|cond|context|feature|feat)(put)?(dim(ension)?s?|size|features?|feats?|shape)?|nz|nin(puts?)?|numinputs?|numfeatures|din|latent",
        16,
    ),
    (
        r"(d|n|hidden|embed(ding)?|emb|model|inner|mlp|ffn?|dff|intermediate|feedforward|key|value|head|qk|v|k|q)?(dim(ension)?s?|size|embd|model|inner|hidden|ff|feedforward|units|features?|width|emb(ed(ding)?)?)|hidden(units)?|dk|dv|nhid|ninp|nembd|h",
        64,
    ),
    (r"(time|diffusion|num|n|max)?(steps|timesteps|t)|iterations?|iters", 8),
    (r"(n|num)?(mels?|melbins?|melchannels?)", 40),
    (r"n?fft(size|length|n)?|win(dow)?(len(gth)?|size)", 64),
    (r"bias|useb?ias|affine|bn|usebn|batchnorm|usebatchnorm|residual|causal", True),
    (r"bidirectional|bidir|batchfirst", False),
    (r"(attn|attention)(res(olution)?s?)", ()),  # no attention: the resolutions where a U-Net has some
    (r"lb|(lower|min)(bounds?)?|lowerbounds?", -1.0),
    (r"ub|(upper|max)(bounds?)?|upperbounds?", 1.0),
    (r"device", "cpu"),
    (r"dtype", torch.float32),
    (r"(layer|block|stage|level)?(id|idx|index)", 0),
)
_OPTIONS = ("use", "is", "has", "with", "enable", "apply", "add", "do")  # first words of options, usually off
_TABLE = tuple((re.compile(pattern), value) for pattern, value in _NAMES)
#: How many layers or blocks: two of them show what repeats.
COUNT = 2
#: Sizes of two successive stages, for arguments that are walked over.
STAGES = [16, 32]
# Of an argument called a shape and taken apart: an image, large enough for the three convolutions of Atari policies.
_SHAPE = (3, 64, 64)
# Of one of which only the number of elements is asked for: a vector.
FLAT_SHAPE = (8,)


@dataclass(slots=True)
class Usage:
    """How a constructor (and the class's forward) uses one argument."""

    iterated: bool = False
    parts: int = 0  # names that it is taken apart into: ``h, w = size``
    called: int = -1  # number of positional arguments it is called with, -1: never
    module: bool = False  # used as a sub-module: its result is never asked for in the constructor
    compared: list[Any] = field(default_factory=list)  # constants it is compared with or looked up among
    attributes: dict[str, None] = field(default_factory=dict)
    counted: bool = False  # range(x), x layers
    multiplied: bool = False  # np.prod(x): only how many elements there are
    checked: list[str] = field(default_factory=list)  # names of the classes that isinstance asks for
    unpacked: bool = False  # **x
    numeric: bool = False  # in arithmetic, or an argument of a torch layer
    tested: bool = False
    scales: bool = False  # a factor or term in the forward
    norm: type[nn.Module] = nn.LayerNorm  # the norm that suits the layers beside it


def value_for(name: str, annotation: Any, usage: Usage, namespace: Mapping[str, Any]) -> tuple[Any, str]:
    """A value and where it comes from; ``NOTHING`` when no rule fits."""
    if annotation is not inspect.Parameter.empty:
        value = by_annotation(name, annotation, usage, namespace)
        if value is not NOTHING:
            usual = by_name(name)
            return value, "convention" if usual is not NOTHING and usual == value else "annotation"
        if not _is_plain(annotation):
            return NOTHING, ""
    for value, origin in (
        (by_usage(name, usage), "use in the constructor"),
        (by_name(name), "convention"),
        (COUNT if usage.counted else NOTHING, "use in the constructor"),
        (1.0 if usage.scales else NOTHING, "use in the forward"),
        (8 if usage.numeric else NOTHING, "use in the constructor"),
        (False if usage.tested else NOTHING, "use in the constructor"),
    ):
        if value is not NOTHING:
            return value, origin
    return NOTHING, ""


#: How many there are of what an argument counts (``num_part``).
_FEW = 4


def by_name(name: str) -> Any:
    """The field's usual meaning of an argument name, at a small size; ``dim_in`` means what ``in_dim`` does."""
    words = ["num" if word == "nb" else word for word in name.lower().split("_")]
    keys = ["".join(words)] if len(words) != 2 else ["".join(words), "".join(reversed(words))]
    off = False if len(words) > 1 and words[0] in _OPTIONS else NOTHING
    return next((value for key in keys for pattern, value in _TABLE if pattern.fullmatch(key)), off)


def counted(name: str) -> Any:
    """A few of what an argument counts that no convention knows."""
    return _FEW if re.match(r"(num|nb|n)_\w", name.lower()) and by_name(name) is NOTHING else NOTHING


def is_width(name: str) -> bool:
    """Whether the field's meaning of an argument name is a number of channels or features inside the model."""
    words = name.lower().split("_")
    keys = ["".join(words), "".join(reversed(words))]
    found = next((p.pattern for key in keys for p, _ in _TABLE if p.fullmatch(key)), "")
    return any(word in found for word in ("channels?", "dim(ension)?"))


def by_annotation(name: str, annotation: Any, usage: Usage, namespace: Mapping[str, Any]) -> Any:
    """A value of the annotated type: by name where the type is a number, an instance of a config class."""
    if isinstance(annotation, str):
        annotation = namespace.get(annotation, _BASIC.get(annotation, annotation))
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        if type(None) in arguments:
            return None
        return next((v for a in arguments if (v := by_annotation(name, a, usage, namespace)) is not NOTHING), NOTHING)
    if origin is typing.Literal:
        return arguments[0]
    if origin is typing.Annotated:
        return by_annotation(name, arguments[0], usage, namespace)
    if annotation is bool:
        value = by_name(name)
        return value if isinstance(value, bool) else False
    if annotation in (int, float):
        return _number(name, annotation, usage)
    if annotation is str:
        texts = [v for v in usage.compared if isinstance(v, str)]
        return texts[0] if texts else NOTHING
    base = origin or annotation
    if isinstance(base, type) and issubclass(base, (list, tuple, Sequence)) and base is not str:
        return _sequence(base, arguments, name)
    if base in (type, Callable) or base is getattr(typing, "Type", None):
        return by_usage(name, usage)
    if annotation in (torch.device, "torch.device"):
        return torch.device("cpu")
    if annotation is torch.dtype:
        return torch.float32
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return next(iter(annotation), NOTHING)
    if isinstance(annotation, type) and not issubclass(annotation, nn.Module):
        return instance_of(annotation)
    return NOTHING


def by_usage(name: str, usage: Usage) -> Any:
    """What the code around the argument says about it."""
    if usage.compared:
        return usage.compared[0]
    if usage.module:
        return NOTHING
    if usage.unpacked:  # whatever the callee has defaults for
        return {}
    if usage.called >= 0:
        return nn.ReLU if usage.called == 0 else usage.norm
    if usage.parts:
        return _taken_apart(name, usage.parts)
    if usage.multiplied and name.lower().endswith("shape"):
        return FLAT_SHAPE
    if usage.iterated:
        return _SHAPE if name.lower().endswith("shape") else list(STAGES)
    return NOTHING


def _taken_apart(name: str, parts: int) -> Any:
    """So many sizes: of an image, each the usual one of that name, or of successive stages."""
    usual = by_name(name)
    if name.lower().endswith("shape"):
        return _SHAPE if parts == len(_SHAPE) else FLAT_SHAPE * parts
    if isinstance(usual, int) and not isinstance(usual, bool):
        return (usual,) * parts
    return tuple(STAGES[0] << index for index in range(parts))


def instance_of(cls: type) -> Any:
    """An instance of a configuration class whose fields all have defaults, or can be filled by name."""
    if cls.__module__ in ("builtins", "typing", "collections.abc"):
        return NOTHING
    kwargs: dict[str, Any] = {}
    try:
        for parameter in inspect.signature(cls).parameters.values():
            if parameter.default is not parameter.empty or parameter.kind in (
                parameter.VAR_KEYWORD,
                parameter.VAR_POSITIONAL,
            ):
                continue
            value = value_for(parameter.name, parameter.annotation, Usage(), {})[0]
            if value is NOTHING:
                return NOTHING
            kwargs[parameter.name] = value
        return cls(**kwargs)
    except Exception:  # a configuration class of user code may refuse for any reason
        return NOTHING


def config_for(attributes: Mapping[str, None], namespace: Mapping[str, Any]) -> tuple[Any, str]:
    """An instance of a class of the module that has the attributes that the code reads."""
    wanted = set(attributes)
    for value in namespace.values():
        if isinstance(value, type) and not issubclass(value, (nn.Module, enum.Enum)) and _offers(value, wanted):
            instance = instance_of(value)
            if instance is not NOTHING and all(hasattr(instance, attribute) for attribute in wanted):
                return instance, f"defaults of {value.__name__}"
    return NOTHING, ""


def completed(name: str, value: Any, subject: Any) -> Any:
    """A configuration with sizes for the fields that are nothing by default and that the constructor will not have so:
    ``assert config.vocab_size is not None``."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    tree = tree_of(constructor(subject) if isinstance(subject, type) else subject)
    if tree is None:
        return value
    missing = {f.name: f.type for f in dataclasses.fields(value) if getattr(value, f.name) is None}
    sizes = {}
    for node in ast.walk(tree):
        test = node.test if isinstance(node, ast.Assert) else None
        if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.IsNot):
            owner, _, field = dotted(test.left).rpartition(".")
            if owner == name and field in missing:
                sizes[field] = value_for(field, int, Usage(), {})[0]
    try:
        return dataclasses.replace(value, **sizes) if sizes and NOTHING not in sizes.values() else value
    except Exception:  # a configuration class of user code may refuse for any reason
        return value


def config_called(name: str, subject: Any, namespace: Mapping[str, Any]) -> tuple[Any, str]:
    """An instance of a configuration class of the module, for an argument that is called a configuration.

    Of several the one whose name begins as the model's does: ``BertConfig`` for ``BertModel``.
    """
    if not re.fullmatch(r"(model_?)?(config|cfg|conf|configuration)", name.lower()):
        return NOTHING, ""
    classes = [
        value
        for value in namespace.values()
        if isinstance(value, type) and not issubclass(value, nn.Module) and re.search(r"Conf(ig\w*)?$", value.__name__)
    ]
    own = str(getattr(subject, "__name__", ""))
    classes.sort(key=lambda cls: -sum(1 for _ in itertools.takewhile(bool, map(str.__eq__, cls.__name__, own))))
    for cls in classes:
        instance = instance_of(cls)
        if instance is not NOTHING:
            return instance, f"defaults of {cls.__name__}"
    return NOTHING, ""


def uses(subject: Any) -> dict[str, Usage]:
    """How each argument is used in the constructor of a class, or in a function."""
    function = constructor(subject) if isinstance(subject, type) else subject
    found: dict[str, Usage] = {}
    tree = tree_of(function)
    if tree is None:
        return found
    names = [a.arg for a in (*tree.args.posonlyargs, *tree.args.args, *tree.args.kwonlyargs)]
    norm = _norm_beside(tree)
    found = {name: Usage(norm=norm) for name in names}
    tree = resolved(tree, aliases(tree))
    for node in ast.walk(tree):
        for name, usage in roles(node, found):
            usage(found[name])
    if isinstance(subject, type):
        _mark_modules(subject, tree, found)
    return found


def _norm_beside(tree: ast.AST) -> type[nn.Module]:
    """The usual norm for the layers that a constructor makes: of batches after convolutions, else of features."""
    made = {dotted(node.func).rpartition(".")[2] for node in ast.walk(tree) if isinstance(node, ast.Call)}
    norms = {"Conv1d": nn.BatchNorm1d, "Conv2d": nn.BatchNorm2d, "Conv3d": nn.BatchNorm3d}
    return next((norm for layer, norm in norms.items() if layer in made), nn.LayerNorm)


_BASIC: Mapping[str, Any] = {"int": int, "float": float, "bool": bool, "str": str, "list": list, "tuple": tuple}


def _number(name: str, kind: type, usage: Usage) -> Any:
    numbers = [v for v in usage.compared if isinstance(v, kind) and not isinstance(v, bool)]
    if numbers:
        return numbers[0]
    value = by_name(name)
    if value is NOTHING or isinstance(value, (str, bool)) or not isinstance(value, (int, float)):
        return COUNT if usage.counted else 8 if kind is int else 1.0
    if kind is int:
        return int(value) if float(value).is_integer() else 1
    return float(value)


def _sequence(base: type, arguments: tuple[Any, ...], name: str) -> Any:
    items = [argument for argument in arguments if argument is not Ellipsis]
    make = tuple if issubclass(base, tuple) else list
    if not items or items[0] is int or isinstance(items[0], typing.TypeVar):
        if base is tuple and len(items) > 1 and Ellipsis not in arguments:
            return tuple(8 for _ in items)
        if name.lower().endswith("shape") and len(items) < 2:
            return make(_SHAPE)
        return make(STAGES)
    if items[0] is float:
        return make((1.0, 1.0))
    if items[0] is str:
        return NOTHING
    return NOTHING


def _is_plain(annotation: Any) -> bool:
    return annotation in (
        int,
        float,
        bool,
        str,
        list,
        tuple,
        Any,
        "int",
        "float",
        "bool",
        "str",
        "list",
        "tuple",
        "Any",
    )


def _offers(cls: type, wanted: set[str]) -> bool:
    if not wanted or cls.__module__.startswith(("torch", "builtins", "typing")):
        return False
    if dataclasses.is_dataclass(cls):
        return wanted <= {f.name for f in dataclasses.fields(cls)} | set(dir(cls))
    code = getattr(constructor(cls), "__code__", None)
    return wanted <= set(dir(cls)) | set(code.co_names if code is not None else ())


def constructor(cls: type) -> Any:
    """The ``__init__`` of a class, its own or inherited."""
    return next((vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base)), None)


def tree_of(function: Any) -> ast.FunctionDef | None:
    """The definition of a function, from its source; ``None`` where there is none. It is shared: not to be changed."""
    return _parsed(function) if isinstance(function, Hashable) else None


@functools.lru_cache(maxsize=4096)
def _parsed(function: Any) -> ast.FunctionDef | None:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    node = tree.body[0] if tree.body else None
    return node if isinstance(node, ast.FunctionDef) else None


def _is(node: ast.AST | None, known: Mapping[str, Usage]) -> str | None:
    if isinstance(node, ast.Name):
        return node.id if node.id in known else None
    path = ".".join(path_of(node)) if isinstance(node, (ast.Attribute, ast.Subscript)) else ""
    return path if path in known else None


def roles(node: ast.AST, known: Mapping[str, Usage]) -> Iterator[tuple[str, Callable[[Usage], None]]]:
    """Each use of an argument in one node, as a change of its :class:`Usage`."""

    def mark(attribute: str, value: Any = True) -> Callable[[Usage], None]:
        return lambda usage: setattr(usage, attribute, value)

    if isinstance(node, (ast.For, ast.comprehension)):
        if name := _is(node.iter, known):
            yield name, mark("iterated")
    elif isinstance(node, ast.Assign):
        into = node.targets[0]
        if isinstance(into, (ast.Tuple, ast.List)) and (name := _is(node.value, known)):
            count = len(into.elts)
            yield name, mark("parts", count)
    elif isinstance(node, ast.Subscript):
        keyed = isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str)
        if (name := _is(node.value, known)) and not keyed:
            yield name, mark("iterated")
        if (name := _is(node.slice, known)) and isinstance(node.value, ast.Dict):
            constants = [key.value for key in node.value.keys if isinstance(key, ast.Constant)]
            yield name, lambda usage: usage.compared.extend(constants)
    elif isinstance(node, ast.Starred):
        if name := _is(node.value, known):
            yield name, mark("iterated")
    elif isinstance(node, ast.Attribute):
        attribute = node.attr
        if (name := _is(node.value, known)) and not _is_pythons(attribute):
            yield name, lambda usage: usage.attributes.setdefault(attribute)
    elif isinstance(node, ast.Compare):
        if name := _is(node.left, known):
            constants = list(_compared(node))
            yield name, lambda usage: usage.compared.extend(constants)
    elif isinstance(node, ast.BinOp):
        for side in (node.left, node.right):
            if name := _is(side, known):
                yield name, mark("numeric")
    elif isinstance(node, (ast.If, ast.IfExp)):
        if name := _is(node.test, known):
            yield name, mark("tested")
    elif isinstance(node, ast.Call):
        yield from _call_roles(node, known, mark)


def of_entries(path: Path) -> Path:
    """A path up to where it leaves the entries: every object has ``__name__`` and ``__class__``, whatever it is."""
    return tuple(itertools.takewhile(lambda part: not _is_pythons(part), path))


def _is_pythons(attribute: str) -> bool:
    return attribute.startswith("__") and attribute.endswith("__")


def _call_roles(
    node: ast.Call, known: Mapping[str, Usage], mark: Callable[..., Callable[[Usage], None]]
) -> Iterator[tuple[str, Callable[[Usage], None]]]:
    if name := _is(node.func, known):
        yield name, mark("called", len(node.args))
    function = dotted(node.func).rpartition(".")[2]
    if function == "isinstance" and len(node.args) == 2 and (name := _is(node.args[0], known)):
        kinds = node.args[1].elts if isinstance(node.args[1], ast.Tuple) else [node.args[1]]
        yield name, lambda usage: usage.checked.extend(dotted(kind) for kind in kinds)
        return
    for keyword in node.keywords:
        if keyword.arg is None and (name := _is(keyword.value, known)):
            yield name, mark("unpacked")
    for argument in (*node.args, *(keyword.value for keyword in node.keywords if keyword.arg is not None)):
        if name := _is(argument, known):
            if function == "range":
                yield name, mark("counted")
            elif function in ("prod", "array", "asarray"):
                yield name, mark("multiplied")
            elif function in ("len", "zip", "enumerate", "list", "tuple", "reversed", "sum"):
                yield name, mark("iterated")
            elif function[:1].isupper() or function in (
                "randn",
                "zeros",
                "ones",
                "empty",
                "rand",
                "full",
                "sqrt",
                "int",
            ):
                yield name, mark("numeric")


def _compared(node: ast.Compare) -> Iterator[Any]:
    for operation, right in zip(node.ops, node.comparators, strict=True):
        if isinstance(operation, (ast.Eq, ast.In)):
            items = right.elts if isinstance(right, (ast.Tuple, ast.List, ast.Set)) else [right]
            yield from (i.value for i in items if isinstance(i, ast.Constant) and isinstance(i.value, str))


def _mark_modules(cls: type, tree: ast.FunctionDef, found: dict[str, Usage]) -> None:
    """Arguments kept as attributes and called in a method are sub-networks: no convention provides those."""
    forward = tree_of(cls.__dict__.get("forward"))
    if forward is None:
        return
    methods = [
        tree_of(method) for name, method in vars(cls).items() if inspect.isfunction(method) and name != "__init__"
    ]
    called = {
        call.func.attr
        for method in methods
        for call in (ast.walk(method) if method is not None else ())
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and dotted(call.func.value) == "self"
    }
    factors = {
        side.attr
        for operation in ast.walk(forward)
        if isinstance(operation, ast.BinOp) and isinstance(operation.op, (ast.Mult, ast.Div, ast.Add, ast.Sub))
        for side in (operation.left, operation.right)
        if isinstance(side, ast.Attribute) and dotted(side.value) == "self"
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and (name := _is(node.value, found)):
            for target in node.targets:
                if isinstance(target, ast.Attribute):
                    found[name].module |= target.attr in called
                    found[name].scales |= target.attr in factors
