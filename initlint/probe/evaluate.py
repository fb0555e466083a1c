"""Values of simple expressions at call sites, computed by walking the tree; nothing of the call site is run.

Literals, arithmetic, names that resolve to such, options of ``argparse`` by their defaults, and classes
of the model's own module or of torch. What is called is limited to those classes, plain builtins and NumPy's arrays.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import dataclasses
import functools
import operator
import sys
from collections.abc import Callable, Mapping
from types import FunctionType, ModuleType
from typing import Any

import torch

from initlint.probe import config_formats, configs, project_names
from initlint.probe.callsites import CallSite, assigned, entries, loop_source, opened, option_default, scan_of
from initlint.probe.dependencies import depends_on
from initlint.probe.names import dotted
from initlint.probe.provenance_words import words

#: Numbers and lengths beyond this are no sizes of layers; computing with them could take for ever.
_LARGEST = 10**10
_LONGEST = 10_000
_DEPTH = 12

_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
_BUILTINS: Mapping[str, Any] = {
    f.__name__: f
    for f in (int, float, bool, str, len, list, tuple, dict, set, min, max, sum, round, abs, range, sorted)
} | {"partial": functools.partial}

#: What asks for nothing but the machine, and makes tensors of what can be told.
_TORCH = (torch.cuda.is_available, torch.device, torch.tensor, torch.as_tensor)
# Arrays of what can be told: sizes of tables and stages are handed on as such.
_ARRAYS = ("numpy.array", "numpy.asarray")
#: What reads a configuration from an open file, or by its name.
_READERS = words(
    "yaml.safe_load yaml.load yaml.full_load json.load toml.load tomllib.load tomli.load omegaconf.OmegaConf.load"
)


class Unknown(Exception):  # noqa: N818 - a signal, not an error
    """The expression's value cannot be told without running code."""


class Evaluator:
    """Evaluates expressions of one call site, with the model's module as the source of classes."""

    def __init__(self, site: CallSite, namespace: Mapping[str, Any], module: str) -> None:
        self.site = site
        self.namespace = namespace
        self.module = module
        self.scan = scan_of(site.source)

    def value(self, node: ast.expr, depth: int = 0) -> Any:
        """The value of an expression.

        Raises:
            Unknown: it is none of the simple forms.
        """
        if depth > _DEPTH:
            raise Unknown
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is None:
            raise Unknown
        try:
            return _small(method(node, depth + 1))
        except Unknown:
            raise
        except Exception as error:
            raise Unknown from error

    def _constant(self, node: ast.Constant, _: int) -> Any:
        return node.value

    def _list(self, node: ast.List, depth: int) -> Any:
        return self._items(node.elts, depth)

    def _tuple(self, node: ast.Tuple, depth: int) -> Any:
        return tuple(self._items(node.elts, depth))

    def _set(self, node: ast.Set, depth: int) -> Any:
        return set(self._items(node.elts, depth))

    def _items(self, nodes: list[ast.expr], depth: int) -> list[Any]:
        values: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                values += list(self.value(node.value, depth))
            else:
                values.append(self.value(node, depth))
        return values

    def _dict(self, node: ast.Dict, depth: int) -> Any:
        result: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                result |= self.value(value, depth)
            else:
                result[self.value(key, depth)] = self.value(value, depth)
        return result

    def _unaryop(self, node: ast.UnaryOp, depth: int) -> Any:
        value = self.value(node.operand, depth)
        if isinstance(node.op, ast.Not):
            return not value
        return -value if isinstance(node.op, ast.USub) else +value

    def _binop(self, node: ast.BinOp, depth: int) -> Any:
        left, right = self.value(node.left, depth), self.value(node.right, depth)
        if isinstance(node.op, ast.Pow) and (not isinstance(right, (int, float)) or abs(right) > 64):
            raise Unknown
        if isinstance(node.op, ast.Mult):
            for sequence, count in ((left, right), (right, left)):
                if isinstance(sequence, (list, tuple, str)) and (not isinstance(count, int) or count > _LONGEST):
                    raise Unknown
        function = _BINARY.get(type(node.op))
        if function is None:
            raise Unknown
        return function(left, right)

    def _compare(self, node: ast.Compare, depth: int) -> Any:
        function = _COMPARE.get(type(node.ops[0]))
        if len(node.ops) != 1 or function is None:
            raise Unknown
        return function(self.value(node.left, depth), self.value(node.comparators[0], depth))

    def _boolop(self, node: ast.BoolOp, depth: int) -> Any:
        value: Any = None
        for item in node.values:
            value = self.value(item, depth)
            if bool(value) == isinstance(node.op, ast.Or):
                return value
        return value

    def _ifexp(self, node: ast.IfExp, depth: int) -> Any:
        return self.value(node.body if self.value(node.test, depth) else node.orelse, depth)

    def _subscript(self, node: ast.Subscript, depth: int) -> Any:
        container = self.value(node.value, depth)
        if not isinstance(container, (list, tuple, dict, str)):
            raise Unknown
        try:
            return container[self.value(node.slice, depth)]
        except Unknown:  # a choice among classes by a name that is not told: any of them builds
            choices = list(container.values()) if isinstance(container, dict) else []
            if not choices or not all(isinstance(choice, type) for choice in choices):
                raise
            return choices[0]

    def _name(self, node: ast.Name, depth: int) -> Any:
        walked = loop_source(self.site, node.id)
        if walked is not None:  # the first of the models that a loop builds
            return next(iter(self.value(walked, depth)))
        expression = assigned(self.site, node.id)
        if expression is not None:
            return self._filled(node.id, self.value(expression, depth), depth)
        name = self.scan.imports.get(node.id, node.id)
        try:
            return self._resolved(name)
        except Unknown:
            return self._elsewhere(name, depth)

    def _elsewhere(self, name: str, depth: int) -> Any:
        """A constant of another file of the project."""
        source = project_names.module_of(name, self.site.source.path)
        last = name.rpartition(".")[2]
        if source is None or assigned(project_names.at_end(source), last) is None:
            raise Unknown
        return self._at(project_names.at_end(source)).value(ast.Name(last, ast.Load()), depth)

    def _at(self, site: CallSite) -> Evaluator:
        """An evaluator for another place of the project, whose file the value then depends on."""
        depends_on(site.source.path)
        return Evaluator(site, self.namespace, self.module)

    def _made(self, node: ast.Call, depth: int) -> Any:
        """What a function of the project returns without arguments, or what a class keeps of all that it is given."""
        name = self.scan.canonical(node.func)
        here = self.site.source if "." not in name else project_names.module_of(name, self.site.source.path)
        found = project_names.definition(here, name.rpartition(".")[2]) if here is not None else None
        if here is not None and isinstance(found, ast.FunctionDef) and not node.args and not node.keywords:
            end = project_names.returned(here, found)
            if end is not None:
                return self._at(end[0]).value(end[1], depth)
        if isinstance(found, ast.ClassDef) and not node.args and project_names.keeps_all(found):
            return configs.Section({k.arg: self.value(k.value, depth) for k in node.keywords if k.arg is not None})
        raise Unknown

    def _filled(self, name: str, value: Any, depth: int) -> Any:
        """A dictionary with the entries that later statements put into it."""
        if not isinstance(value, dict):
            return value
        more = {}
        for key, item in entries(self.site, name):
            with contextlib.suppress(Unknown):  # the others are told all the same
                more[self.value(key, depth)] = self.value(item, depth)
        return type(value)({**value, **more})

    def _attribute(self, node: ast.Attribute, depth: int) -> Any:
        if node.attr.startswith("_"):
            raise Unknown
        name = dotted(node)
        if name:
            head = name.split(".")[0]
            if head in self.scan.imports:
                return self._resolved(self.scan.canonical(node))
            if name.count(".") == 1:
                default = option_default(self.site, node.attr)
                if default is not None and self._is_options(head):
                    return self.value(default, depth)
        value = self.value(node.value, depth)
        named = isinstance(value, configs.Section) and node.attr in value
        if not (named or dataclasses.is_dataclass(value) or type(value).__name__ == "SimpleNamespace"):
            raise Unknown
        return getattr(value, node.attr)

    def _is_options(self, name: str) -> bool:
        """Whether a name may hold parsed options: assigned from a call, or handed to the function around."""
        expression = assigned(self.site, name)
        return expression is None or isinstance(expression, (ast.Call, ast.Subscript))

    def _listcomp(self, node: ast.ListComp | ast.GeneratorExp, depth: int) -> Any:
        """``[cfg[k] for k in ("data", "model")]``: one loop over constants."""
        loop, name = node.generators[0], getattr(node.generators[0].target, "id", "")
        items = list(self.value(loop.iter, depth))
        if len(node.generators) != 1 or loop.ifs or not name or not all(isinstance(i, (int, str)) for i in items):
            raise Unknown
        return [self.value(_replaced(node.elt, name, item), depth) for item in items]

    _generatorexp = _listcomp

    def _read(self, node: ast.Call, depth: int) -> Any:
        """The configuration that a call reads from a file, ``yaml.safe_load(open("config.yaml"))``; else None."""
        given = node.args[0] if node.args and self.scan.canonical(node.func) in _READERS else None
        if isinstance(given, ast.Name):
            given = opened(self.site, given.id) or given
        if isinstance(given, ast.Call) and dotted(given.func) == "open" and given.args:
            given = given.args[0]
        name = self.value(given, depth) if given is not None else None
        return config_formats.load(name, self.site.source.path) if isinstance(name, str) else None

    def _call(self, node: ast.Call, depth: int) -> Any:
        read = self._read(node, depth)
        if read is not None:
            return read
        try:
            function = self.value(node.func, depth)
        except Unknown:
            return self._made(node, depth)
        if not self._may_call(function):
            return self._made(node, depth)
        args = self._items(node.args, depth)
        kwargs: dict[str, Any] = {}
        for keyword in node.keywords:
            value = self.value(keyword.value, depth)
            kwargs |= value if keyword.arg is None else {keyword.arg: value}
        return function(*args, **kwargs)

    def _may_call(self, function: Any) -> bool:
        if function in _BUILTINS.values() or function in _arrays() or function in _TORCH:
            return True
        if not isinstance(function, type):
            return False
        return (
            function.__module__ == self.module
            or self._of_project(function)
            or (issubclass(function, tuple) and hasattr(function, "_fields") and self._same_package(function))
            or function.__module__.startswith("torch.nn.")
            or (dataclasses.is_dataclass(function) and function in self.namespace.values())
        )

    def _of_project(self, function: type) -> bool:
        """Whether this is another model of the target's package, as the encoder that a wrapper is given."""
        return self._same_package(function) and issubclass(function, torch.nn.Module)

    def _same_package(self, function: type) -> bool:
        return function.__module__.partition(".")[0] == self.module.partition(".")[0]

    def _resolved(self, name: str) -> Any:
        """An imported or module-level name: torch's own, the model's module's, or a builtin."""
        head, _, rest = name.partition(".")
        if head == "torch":
            value: Any = torch
            for part in rest.split(".") if rest else []:
                value = getattr(value, part)
            return value
        last = name.rpartition(".")[2]
        if last in self.namespace:
            value = self.namespace[last]
            if isinstance(value, (type, int, float, str, bool, tuple, list, dict)) or value is None:
                return value
            if isinstance(value, FunctionType) and value.__module__ == self.module:
                return value  # handed on, never called here
            raise Unknown
        if name in _BUILTINS or name == "functools.partial":
            return _BUILTINS[last]
        module = sys.modules.get(name.rpartition(".")[0]) if head == self.module.partition(".")[0] else None
        value = getattr(module, last, None)  # of what is imported already
        if isinstance(value, type) and self._of_project(value):
            return value
        if name in _ARRAYS and head in sys.modules:
            return getattr(sys.modules[head], last)
        if head in ("math",) and isinstance(sys.modules.get(head), ModuleType):
            return getattr(sys.modules[head], last)
        raise Unknown


def _replaced(node: ast.expr, name: str, value: int | str) -> ast.expr:
    class Replace(ast.NodeTransformer):
        def visit_Name(self, inner: ast.Name) -> ast.expr:
            return ast.Constant(value) if inner.id == name else inner

    replaced: ast.expr = Replace().visit(copy.deepcopy(node))
    return replaced


def _arrays() -> list[Any]:
    return [getattr(sys.modules.get(name.partition(".")[0]), name.rpartition(".")[2], None) for name in _ARRAYS]


def _small(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) > _LARGEST:
        raise Unknown
    if isinstance(value, (list, tuple, str, dict, set, range)) and len(value) > _LONGEST:
        raise Unknown
    return value
