"""Focal losses in the source of a model, and which of its outputs they are given; pure ``ast``, nothing is run.

A focal loss is told by what it computes: (1 - p_t) ** gamma times a binary cross entropy, whatever it is called (Lin et
al. 2017, eq. 4), or a call of torchvision's.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping

from initlint.facts import FocalLoss, Site
from initlint.probe.names import Definition, called, dotted
from initlint.records import dataclass

#: A file without all of these holds no focal loss.
_CLUES = (
    re.compile(r"\bpow\b|\*\*|sigmoid_focal_loss"),
    re.compile(r"binary_cross_entropy|BCE|logsigmoid|\blog\w*\(|sigmoid_focal_loss"),
)
_SIZE = 400_000
_LIBRARY = "sigmoid_focal_loss"
#: Functions of logits and functions of probabilities whose first argument is the prediction.
_ENTROPIES = ("binary_cross_entropy_with_logits", "binary_cross_entropy", "logsigmoid", "log_sigmoid")
_MODULES = ("BCEWithLogitsLoss", "BCELoss")
#: A softmax over classes shares its bias: a prior is of no use there.
_SOFTMAX = ("cross_entropy", "softmax", "log_softmax", "nll_loss")
#: Methods that hand a tensor on in another shape, and what else stands between an output and its loss.
_SHAPES = frozenset(
    "view reshape flatten permute transpose contiguous squeeze unsqueeze float sigmoid clamp view_as reshape_as".split()
)
#: Local names are followed so far.
_DEPTH = 4
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class _Focal:
    """A function that computes a focal loss: its name (of the class where it is a method), and its prediction."""

    name: str
    position: int  # of the prediction among the arguments of a call
    keyword: str
    summed: bool | None  # None: an argument decides
    line: int
    function: str
    owner: str = ""


def focal_losses(path: str, text: str, models: Iterable[str], root: str) -> Iterator[FocalLoss]:
    """The focal losses of a file: one for each call on an output of a model of these classes, else one for each.

    Args:
        path: the file.
        text: its source.
        models: qualified names of the classes in this file that the model is made of.
        root: the qualified name of the model's own class.
    """
    if len(text) > _SIZE or not all(clue.search(text) for clue in _CLUES):
        return
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    lines = text.splitlines()
    known = {found.name: found for found in _definitions(tree)}
    made = dict(_instances(tree, known))
    used: set[str] = set()
    for owner, function in _functions(tree):
        for node in _own(function):
            focal = _called(node, known, made) if isinstance(node, ast.Call) else None
            if (
                focal is None
                or not isinstance(node, ast.Call)
                or (owner, function.name) == (focal.owner, focal.function)
            ):
                continue
            used.add(focal.name)
            if owner not in models and root not in _classes_made(tree, function):
                continue
            summed = _summed(node, focal, function)
            callee, output = _prediction(node, focal, function, owner)
            where = Site(path, node.lineno, node.col_offset + 1, function.name, lines[node.lineno - 1].strip())
            yield FocalLoss(where, summed, owner, callee, output)
    for focal in known.values():
        of_another = bool(focal.owner) and not _is_class(focal) and focal.owner not in models
        if focal.name not in used and focal.line and not of_another:
            where = Site(path, focal.line, None, focal.function, lines[focal.line - 1].strip())
            yield FocalLoss(where, bool(focal.summed))


def _functions(tree: ast.AST, owner: str = "") -> Iterator[tuple[str, _Function]]:
    """All functions with the qualified name of the class that they are methods of."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from _functions(node, f"{owner}.{node.name}" if owner else node.name)
        elif isinstance(node, _Function):
            yield owner, node
            yield from _functions(node, f"{owner}.{node.name}.<locals>".lstrip("."))
        elif not isinstance(node, ast.expr):
            yield from _functions(node, owner)


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function, without the functions and classes in it."""
    for inner in ast.iter_child_nodes(node):
        if not isinstance(inner, Definition):
            yield inner
            yield from _own(inner)


def _definitions(tree: ast.Module) -> Iterator[_Focal]:
    for owner, function in _functions(tree):
        found = _computes(function)
        if found is None:
            continue
        line, prediction = found
        names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
        names = names[1:] if owner and names[:1] == ["self"] else names
        position = names.index(prediction) if prediction in names else 0
        keyword = names[position] if names else ""
        name = owner.rpartition(".")[2] if owner and function.name in ("forward", "__call__") else function.name
        yield _Focal(name, position, keyword, _reduction(function), line, function.name, owner)
    yield _Focal(_LIBRARY, 0, "inputs", None, 0, "")


def _computes(function: _Function) -> tuple[int, str] | None:
    """The line of (1 - p) ** gamma in a function that also holds a binary cross entropy, and its prediction."""
    calls = [node for node in _own(function) if isinstance(node, ast.Call)]
    names = {called(call) for call in calls}
    if names.intersection(_SOFTMAX) or not names.intersection((*_ENTROPIES, *_MODULES, "log")):
        return None
    entropy = bool(names.intersection((*_ENTROPIES, *_MODULES)))
    local = _assigned(function)
    for node in _own(function):
        base = _base(node)
        if base is None or not _complement(base, local) or not (entropy or _times_its_logarithm(node, base, function)):
            continue
        read = next((_prediction_of(call) for call in calls if _prediction_of(call) is not None), None)
        read = read or next((_prediction_of(c, ("sigmoid",)) for c in calls if _prediction_of(c, ("sigmoid",))), None)
        prediction = _resolved(read, local) if read is not None else None
        return node.lineno, prediction.id if isinstance(prediction, ast.Name) else ""  # type: ignore[attr-defined]
    return None


def _times_its_logarithm(power: ast.AST, base: ast.expr, function: _Function) -> bool:
    """Whether (1 - p) ** gamma is a factor of a product with log(p)."""
    names = {n.id for n in ast.walk(base) if isinstance(n, ast.Name)}
    for product in _own(function):
        if not isinstance(product, ast.BinOp) or not isinstance(product.op, ast.Mult):
            continue
        parts = list(ast.walk(product))
        logs = [n for n in parts if isinstance(n, ast.Call) and getattr(n.func, "attr", "") == "log"]
        if power in parts and any(names & {n.id for n in ast.walk(x) if isinstance(n, ast.Name)} for x in logs):
            return True
    return False


def _base(node: ast.AST) -> ast.expr | None:
    """What a power is taken of."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return node.left
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "pow":
        return node.args[0] if dotted(node.func) == "torch.pow" and node.args else node.func.value
    return None


def _complement(node: ast.expr, local: Mapping[str, ast.expr], depth: int = 0) -> bool:
    """Whether 1 - p is in an expression, also behind local names."""
    for inner in ast.walk(node):
        one = inner.left if isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Sub) else None
        if isinstance(one, ast.Constant) and one.value in (1, 1.0) and not isinstance(one.value, bool):
            return True
        known = local.get(inner.id) if isinstance(inner, ast.Name) and depth < _DEPTH else None
        if known is not None and _complement(known, local, depth + 1):
            return True
    return False


def _assigned(function: ast.AST) -> dict[str, ast.expr]:
    """The expression that each local name is first given."""
    found: dict[str, ast.expr] = {}
    for node in _own(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    found.setdefault(target.id, node.value)
    return found


def _prediction_of(call: ast.Call, functions: tuple[str, ...] = _ENTROPIES) -> ast.expr | None:
    """What a call takes as the prediction."""
    name = called(call)
    if name not in functions:
        return None
    if isinstance(call.func, ast.Attribute) and not call.args and not call.keywords:
        return call.func.value  # pred.sigmoid()
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    return call.args[0] if call.args else given.get("input")


def _resolved(node: ast.expr, local: Mapping[str, ast.expr]) -> ast.expr:
    """An expression without what only shapes it: local names, views, sigmoids."""
    for _ in range(4 * _DEPTH):
        if isinstance(node, ast.Name) and node.id in local:
            following = _plain(local[node.id])
            if isinstance(following, ast.Name) and following.id == node.id:
                return following
            node = following
            continue
        inner = _plain(node)
        if inner is node:
            return node
        node = inner
    return node


def _plain(node: ast.expr) -> ast.expr:
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        name = node.func.attr
        module = dotted(node.func.value) in ("torch", "F", "nn.functional", "torch.nn.functional")
        if name not in _SHAPES or (module and not node.args):
            return node
        node = node.args[0] if module else node.func.value
    return node


def _reduction(function: _Function) -> bool | None:
    """Whether a function adds up the losses of all positions; ``None`` where an argument decides, or the caller."""
    kinds = {
        node.func.attr
        for node in _own(function)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("sum", "mean")
    }
    kinds |= {
        str(keyword.value.value)
        for node in _own(function)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "reduction" and isinstance(keyword.value, ast.Constant)
    } - {"none"}
    if "sum" in kinds and any(_by_number(node) for node in _own(function)):
        return False
    return None if len(kinds & {"sum", "mean"}) != 1 else "sum" in kinds


def _summed(call: ast.Call, focal: _Focal, function: _Function) -> bool:
    """Whether the losses of a call are added up, by the function, an argument, or what is called on the result."""
    given = {k.arg: k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)}
    if "reduction" in given:
        return given["reduction"] == "sum"
    if focal.summed is not None:
        return focal.summed
    held = {name for name, value in _assigned(function).items() if value is call}
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "sum"
        and (node.func.value is call or (isinstance(node.func.value, ast.Name) and node.func.value.id in held))
        for node in _own(function)
    )


def _by_number(node: ast.AST) -> bool:
    """A division by the number of elements, which makes a mean of a sum."""
    return (
        isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Div)
        and any(isinstance(n, ast.Attribute) and n.attr in ("numel", "nelement") for n in ast.walk(node.right))
    )


def _instances(tree: ast.Module, known: Mapping[str, _Focal]) -> Iterator[tuple[str, _Focal]]:
    """``self.criterion = FocalLoss()``: names and attributes that hold a loss of a class of this file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            focal = known.get(dotted(node.value.func))
            if focal is not None and focal.owner:
                yield from ((name, focal) for target in node.targets if (name := dotted(target)))


def _called(call: ast.Call, known: Mapping[str, _Focal], made: Mapping[str, _Focal]) -> _Focal | None:
    name = dotted(call.func)
    if name in made:
        return made[name]
    focal = known.get(name.rpartition(".")[2])
    if focal is None or _is_class(focal):
        return None  # the class itself: that makes an instance
    own = name.startswith("self.") if focal.owner else True
    return focal if own else None


def _is_class(focal: _Focal) -> bool:
    """Whether the loss is a class, whose instances are called."""
    return bool(focal.owner) and focal.name == focal.owner.rpartition(".")[2]


def _classes_made(tree: ast.Module, function: _Function) -> set[str]:
    """Names of the classes that a function, or the module around it, makes instances of."""
    top = [node for node in tree.body if not isinstance(node, Definition)]
    return {dotted(n.func) for part in (*top, function) for n in (part, *_own(part)) if isinstance(n, ast.Call)}


def _prediction(call: ast.Call, focal: _Focal, function: _Function, owner: str) -> tuple[str | None, int | None]:
    """What made the prediction: the path of the module that was called ("" for the model itself), and which output.

    (None, None) where that cannot be told.
    """
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    node = call.args[focal.position] if focal.position < len(call.args) else given.get(focal.keyword)
    if node is None:
        return None, None
    output: int | None = None
    local, unpacked = _assigned(function), dict(_unpacked(function))
    for _ in range(2 * _DEPTH):
        node = _resolved(node, local)
        if isinstance(node, ast.Name) and node.id in unpacked:
            node, output = unpacked[node.id]
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            index = node.slice.value
            if not isinstance(index, int) or isinstance(index, bool):
                return None, None
            node, output = node.value, index
        else:
            break
    if not isinstance(node, ast.Call):
        return None, None
    name = dotted(node.func)
    if owner:
        path = "" if name in ("self", "self.forward") else name.removeprefix("self.").removesuffix(".forward")
        return (path, output) if name.partition(".")[0] == "self" else (None, None)
    return ("", output) if name and "." not in name else (None, None)


def _unpacked(function: _Function) -> Iterator[tuple[str, tuple[ast.expr, int]]]:
    """``boxes, classes = self(images)``: for each name the call and its place."""
    for node in _own(function):
        if not isinstance(node, ast.Assign) or not isinstance(node.value, (ast.Call, ast.Name)):
            continue
        for target in node.targets:
            if isinstance(target, ast.Tuple):
                for place, item in enumerate(target.elts):
                    if isinstance(item, ast.Name):
                        yield item.id, (node.value, place)
