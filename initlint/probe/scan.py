"""What models a file seems to offer, from its syntax tree alone: no import, no torch.

The answers decide what is worth building and which top-level statements it needs; what really is a
model is seen once the file has been imported.
"""

from __future__ import annotations

import ast
import functools
import os
import sys
from collections.abc import Iterator
from dataclasses import field

from initlint.probe.names import Definition, dotted, is_main_guard, statements, used
from initlint.records import dataclass

#: Packages whose classes and functions yield torch modules; a file that imports none of them (nor a
#: project file that does) is skipped without importing torch.
TORCH_PACKAGES = frozenset(
    [
        "torch",
        "torchvision",
        "torchaudio",
        "torchtext",
        "timm",
        "transformers",
        "diffusers",
        "lightning",
        "pytorch_lightning",
        "fairseq",
        "mmcv",
        "mmengine",
        "mmdet",
        "mmseg",
        "detectron2",
        "segmentation_models_pytorch",
        "monai",
        "einops",
        "xformers",
        "flash_attn",
        "accelerate",
        "peft",
        "torch_geometric",
        "dgl",
        "e3nn",
        "kornia",
        "escnn",
        "fastai",
        "open_clip",
        "sentence_transformers",
        "bitsandbytes",
        "torchrl",
        "ignite",
    ]
)
# Their functions and classes are models even where their source is not looked at.
_MODEL_ORIGINS = ("torchvision.models.", "timm.create_model", "transformers.", "segmentation_models_pytorch.")
# Methods of nn.Module that return the module itself.
_CHAIN = frozenset(
    [
        "to",
        "cuda",
        "cpu",
        "half",
        "float",
        "double",
        "bfloat16",
        "train",
        "eval",
        "requires_grad_",
        "apply",
        "type",
        "to_empty",
    ]
)
#: Methods whose mention in a body means that it trains; such code is never executed.
TRAINING = frozenset(
    ["backward", "zero_grad", "fit", "fit_transform", "step", "training_step", "train_epoch", "minimize"]
)
LOADING = frozenset(
    ["open", "urlopen", "urlretrieve", "DataLoader", "load_dataset", "from_pretrained", "snapshot_download", "input"]
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(slots=True)
class Scan:
    """The models that one file's syntax shows."""

    path: str
    tree: ast.Module
    imports: dict[str, str] = field(default_factory=dict)  # local name -> what it is: "nn" -> "torch.nn"
    definitions: dict[str, Definition] = field(default_factory=dict)
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)  # those that look like nn.Module
    factories: dict[str, ast.FunctionDef] = field(default_factory=dict)  # callable without arguments
    makers: dict[str, ast.FunctionDef] = field(default_factory=dict)  # return a module, arguments or not
    instances: dict[str, ast.stmt] = field(default_factory=dict)  # module-level names bound to a module
    inner: dict[str, tuple[Function, ast.ClassDef]] = field(default_factory=dict)  # "main.Net": inside functions
    torch: bool = False  # torch is imported, here or in a project file that this one imports

    def canonical(self, node: ast.AST) -> str:
        """``"torch.nn.Linear"`` for ``nn.Linear``, by the file's imports; ``""`` when it is no dotted name."""
        name = dotted(node)
        if not name:
            return ""
        head, _, rest = name.partition(".")
        head = self.imports.get(head, head)
        return f"{head}.{rest}" if rest else head

    def makes_module(
        self, node: ast.AST | None, local: frozenset[str] = frozenset(), classes: frozenset[str] = frozenset()
    ) -> bool:
        """Whether an expression yields a module: a call of a module class or maker, perhaps ``.to(...)`` after it.

        Args:
            local: names bound to modules.
            classes: names of further module classes.
        """
        if isinstance(node, ast.Name):
            return node.id in local
        if isinstance(node, ast.IfExp):
            return self.makes_module(node.body, local, classes) or self.makes_module(node.orelse, local, classes)
        if not isinstance(node, ast.Call):
            return False
        if isinstance(node.func, ast.Attribute) and node.func.attr in _CHAIN:
            return self.makes_module(node.func.value, local, classes)
        return dotted(node.func) in classes or self.is_maker(self.canonical(node.func))

    def is_maker(self, name: str) -> bool:
        """Whether calling this (canonical) name yields a module."""
        if name in self.classes or name in self.makers:
            return True
        if name.startswith("torch.nn."):
            last = name.rpartition(".")[2]
            return last[:1].isupper() and last not in ("Parameter", "Buffer", "UninitializedParameter")
        if name.startswith(_MODEL_ORIGINS):
            return True
        return _made_elsewhere(name, self.path)


def scan(path: str) -> Scan | None:
    """Read and scan a file; ``None`` when it cannot be read or is no valid Python."""
    return _scan(path, *_stamp(path))


def forget() -> None:
    """Let go of the syntax trees: twenty times the size of their sources, and of many files once jobs are known."""
    _scan.cache_clear()


def _stamp(path: str) -> tuple[int, int]:
    """What changes when a file does, so that what was read of it before is not used again."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=4096)
def _scan(path: str, _time: int, _size: int) -> Scan | None:
    tree = parse_file(path)
    return None if tree is None else scan_tree(path, tree)


def parse_file(path: str) -> ast.Module | None:
    """The syntax tree of a file, or ``None``."""
    try:
        with open(path, "rb") as file:
            return ast.parse(file.read(), path)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def scan_tree(path: str, tree: ast.Module) -> Scan:
    """Scan a parsed file."""
    result = Scan(path, tree)
    top = list(statements(_without_main(tree.body)))
    _imports(result, tree)
    result.definitions = {node.name: node for node in top if isinstance(node, Definition)}
    result.torch = _reaches_torch(result)
    if not result.torch:
        return result
    for name, definition in result.definitions.items():
        if isinstance(definition, ast.ClassDef) and _is_module_class(result, definition, frozenset()):
            result.classes[name] = definition
    result.inner = dict(_inner_classes(result, _without_main(tree.body)))
    for _ in range(3):  # makers that return what other makers return
        for name, definition in result.definitions.items():
            if isinstance(definition, ast.FunctionDef) and name not in result.makers and _is_maker(result, definition):
                result.makers[name] = definition
    result.factories = {n: f for n, f in result.makers.items() if not n.startswith("_") and not required(f)}
    for node in top:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if result.makes_module(node.value, frozenset(result.instances)):
                result.instances[name] = node
    return result


def required(function: ast.FunctionDef | ast.AsyncFunctionDef, skip: int = 0) -> list[str]:
    """Names of the arguments without a default, after the first ``skip``."""
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    count = len(positional) - len(arguments.defaults)
    missing = [a.arg for a in positional[skip:count]]
    return missing + [a.arg for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if d is None]


def calls(node: ast.AST) -> Iterator[ast.Call]:
    """All calls inside."""
    return (item for item in ast.walk(node) if isinstance(item, ast.Call))


def last_name(node: ast.AST) -> str:
    """``"backward"`` for ``loss.backward``."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def trains(node: ast.AST) -> bool:
    """Whether the code mentions what only training does."""
    return any(last_name(call.func) in TRAINING for call in calls(node))


def loads(node: ast.AST) -> bool:
    """Whether the code opens files, downloads or asks."""
    return any(last_name(c.func) in LOADING or _wants(c, "download") for c in calls(node))


def locate(name: str, path: str) -> str | None:
    """The project file of a dotted module name, as seen from a file: its folder and the folders above it."""
    parts = name.split(".")
    folder = os.path.dirname(path)
    for _ in range(6):  # deeper nesting than this between a script and its package root is not seen in practice
        base = os.path.join(folder, *parts)
        for candidate in (base + ".py", os.path.join(base, "__init__.py")):
            if os.path.isfile(candidate):
                return candidate
        if _is_project_root(folder) or os.path.dirname(folder) == folder:
            break
        folder = os.path.dirname(folder)
    return None


def _is_project_root(folder: str) -> bool:
    return any(
        os.path.exists(os.path.join(folder, name)) for name in (".git", "pyproject.toml", "setup.py", "setup.cfg")
    )


def _wants(call: ast.Call, keyword: str) -> bool:
    return any(
        k.arg == keyword and not (isinstance(k.value, ast.Constant) and not k.value.value) for k in call.keywords
    )


def _without_main(body: list[ast.stmt]) -> list[ast.stmt]:
    return [node for node in body if not is_main_guard(node)]


def _imports(result: Scan, tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split(".")[0]
                result.imports[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            for alias in node.names:
                separator = "" if origin.endswith(".") else "."
                result.imports[alias.asname or alias.name] = f"{origin}{separator}{alias.name}"


def _reaches_torch(result: Scan, depth: int = 4) -> bool:
    """Whether this file or a project file that it imports (a few steps away) imports torch or a library on it."""
    for origin in dict.fromkeys(result.imports.values()):
        top = origin.split(".")[0]
        if top in TORCH_PACKAGES or top.startswith("torch"):
            return True
    files = _imported_files(result) if depth else ()
    return any(_file_reaches_torch(path, depth - 1, *_stamp(path)) for path in files)


@functools.lru_cache(maxsize=4096)
def _file_reaches_torch(path: str, depth: int, _time: int, _size: int) -> bool:
    tree = parse_file(path)
    if tree is None:
        return False
    other = Scan(path, tree)
    _imports(other, tree)
    return _reaches_torch(other, depth)


def _imported_files(result: Scan) -> Iterator[str]:
    for origin in dict.fromkeys(result.imports.values()):
        found = file_of(origin, result.path)
        if found is not None and found[0] != result.path:
            yield found[0]


def file_of(origin: str, path: str) -> tuple[str, str] | None:
    """The project file, and the name in it, that an imported name comes from."""
    stripped = origin.lstrip(".")
    level = len(origin) - len(stripped)
    if not level and (stripped.split(".")[0] in sys.stdlib_module_names or stripped.split(".")[0] in TORCH_PACKAGES):
        return None
    if level:
        folder = path
        for _ in range(level):
            folder = os.path.dirname(folder)
        path = os.path.join(folder, "_")
    module, _, name = stripped.rpartition(".")
    for candidate, attribute in ((stripped, ""), (module, name)):
        if candidate:
            file = locate(candidate, path)
            if file is not None:
                return file, attribute
    init = os.path.join(os.path.dirname(path), "__init__.py")
    return (init, stripped) if level and not module and os.path.isfile(init) else None


_looking: set[str] = set()  # files being scanned, against import cycles


def _made_elsewhere(name: str, path: str) -> bool:
    """Whether a name imported from a project file is a module class or maker there."""
    if "." not in name:
        return False
    found = file_of(name, path)
    if found is None or not found[1] or found[0] in _looking:
        return False
    _looking.add(path)
    try:
        other = scan(found[0])
    finally:
        _looking.discard(path)
    if other is None:
        return False
    if found[1] in other.classes or found[1] in other.makers:
        return True
    again = other.imports.get(found[1], "")  # re-exported
    return bool(again) and _made_elsewhere(again, found[0])


def _is_module_class(result: Scan, node: ast.ClassDef, seen: frozenset[str]) -> bool:
    for base in node.bases:
        base = base.value if isinstance(base, ast.Subscript) else base
        name = result.canonical(base)
        own = result.definitions.get(name)
        if isinstance(own, ast.ClassDef):
            if name in seen:
                continue
            if _is_module_class(result, own, seen | {node.name}):
                return True
            if _has_unknown_base(result, own, seen | {node.name}) and _uses_modules(result, node):
                return True
        elif name.startswith("torch."):
            if result.is_maker(name):
                return True
        elif "." not in name or name.split(".")[0] in sys.stdlib_module_names:
            continue
        elif _made_elsewhere(name, result.path) or _uses_modules(result, node):
            return True
    return False


def _has_unknown_base(result: Scan, node: ast.ClassDef, seen: frozenset[str]) -> bool:
    """Whether a class, or one of this file that it builds upon, has a base from a library that is not read here."""
    for base in node.bases:
        name = result.canonical(base.value if isinstance(base, ast.Subscript) else base)
        own = result.definitions.get(name)
        if isinstance(own, ast.ClassDef):
            if name not in seen and _has_unknown_base(result, own, seen | {node.name}):
                return True
        elif "." in name and name.split(".")[0] not in sys.stdlib_module_names:
            return True
    return False


def _uses_modules(result: Scan, node: ast.ClassDef) -> bool:
    """Whether a class with an unknown base behaves like a module: has a forward, or builds layers in a method."""
    if any(isinstance(item, ast.FunctionDef) and item.name == "forward" for item in node.body):
        return True
    return any(result.canonical(call.func).startswith("torch.nn.") for call in calls(node))


def _inner_classes(
    result: Scan, body: list[ast.stmt], path: tuple[str, ...] = (), function: Function | None = None
) -> Iterator[tuple[str, tuple[Function, ast.ClassDef]]]:
    """Module classes inside functions and methods, by their dotted names, each with the function around it."""
    for node in statements(body):
        if not isinstance(node, Definition):
            continue
        here = (*path, node.name)
        if not isinstance(node, ast.ClassDef):
            yield from _inner_classes(result, node.body, here, node)
        elif function is None:
            yield from _inner_classes(result, node.body, here)
        elif _is_module_class(result, node, frozenset()):
            yield ".".join(here), (function, node)


def returns(function: ast.AST, name: str) -> str:
    """Whether a function returns a class of this name ("class"), what calling it makes ("instance"), or neither."""
    values = [node.value for node in ast.walk(function) if isinstance(node, ast.Return)]
    made = {target.id for node in ast.walk(function) for target in _bound_to(node, name)}
    if any(isinstance(v, ast.Call) and dotted(v.func) == name for v in values):
        return "instance"
    names = {value.id for value in values if isinstance(value, ast.Name)}
    return "class" if name in names else "instance" if made & names else ""


def _bound_to(node: ast.AST, name: str) -> list[ast.Name]:
    """Names that an assignment binds to what calling ``name`` makes."""
    if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call) or dotted(node.value.func) != name:
        return []
    return [target for target in node.targets if isinstance(target, ast.Name)]


def _is_maker(result: Scan, function: ast.FunctionDef) -> bool:
    if function.name == "example_inputs":
        return False
    annotation = function.returns
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            annotation = ast.parse(annotation.value, mode="eval").body
        except SyntaxError:
            annotation = None
    if annotation is not None:
        return result.is_maker(result.canonical(annotation))
    classes = frozenset(node.name for around, node in result.inner.values() if around is function)
    local: set[str] = set()
    for node in statements(function.body):
        if not isinstance(node, ast.Assign | ast.Return):
            continue
        if not result.makes_module(passed_on(result, node.value), frozenset(local), classes):
            continue
        if isinstance(node, ast.Return):
            return True
        local |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return False


def passed_on(result: Scan, node: ast.expr | None) -> ast.expr | None:
    """What is handed to a function of the file that returns it: ``net`` of ``init_net(net, "normal")``."""
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        function = result.definitions.get(node.func.id)
        if not isinstance(function, ast.FunctionDef):
            break
        names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
        returns = (n.value for n in statements(function.body) if isinstance(n, ast.Return))
        values = {value.id for value in returns if isinstance(value, ast.Name)}
        given = dict(zip(names, node.args, strict=False)) | {k.arg: k.value for k in node.keywords if k.arg in names}
        inner = next((given[name] for name in names if name in values and name in given), None)
        if inner is None:
            break
        node = inner
    return node


def mentions(result: Scan, name: str) -> set[str]:
    """Names of this file that a definition's code mentions."""
    node = result.definitions.get(name)
    return set() if node is None else used(node) & set(result.definitions) - {name}
