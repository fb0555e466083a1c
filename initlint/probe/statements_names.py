"""What names in the user's source stand for, where that can be told without running anything."""

from __future__ import annotations

import ast
import builtins
import functools
import operator
import sys
from typing import Any

from torch.nn.init import calculate_gain

from initlint.probe.statements_source import Call, Scope, Source


class _Unknown:
    """Marks a value that cannot be told."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Any = _Unknown()


class Names:
    """Resolves expressions: literals, module globals, arguments through their call sites, seen arguments.

    Args:
        sources: the parsed files by path.
        seen: plain argument values of constructors that ran, by (file, qualified name of ``__init__``).
        instances: modules of the model by file and qualified class name.
        namespaces: globals by file, where seen; a file may be loaded without being in ``sys.modules``.
    """

    def __init__(
        self,
        sources: dict[str, Source],
        seen: dict[tuple[str, str], list[dict[str, Any]]],
        instances: dict[str, list[Any]],
        namespaces: dict[str, dict[str, Any]],
    ) -> None:
        self.sources = sources
        self._namespaces = namespaces
        self._seen = seen
        self._instances = instances

    @functools.cached_property
    def _modules(self) -> dict[Any, Any]:
        """Loaded modules by file: asked for late, since looking at thousands copies their memory in a fork."""
        return {
            getattr(module, "__file__", None): module for module in list(sys.modules.values()) if module is not None
        }

    def namespace(self, path: str) -> dict[str, Any]:
        """Globals of the module that was loaded from a file."""
        if path in self._namespaces:
            return self._namespaces[path]
        module = self._modules.get(path)
        return vars(module) if module is not None else {}

    def values(self, expr: ast.expr, scope: Scope, source: Source, depth: int = 0) -> list[Any]:
        """All values that an expression can be seen to have; ``[UNKNOWN]`` when it cannot be told."""
        if depth > 6:
            return [UNKNOWN]
        if isinstance(expr, ast.Constant):
            return [expr.value]
        if isinstance(expr, ast.Tuple | ast.List | ast.Set):
            items = [self.values(item, scope, source, depth + 1) for item in expr.elts]
            return [UNKNOWN] if any(len(item) != 1 for item in items) else [tuple(item[0] for item in items)]
        if isinstance(expr, ast.BoolOp):  # classes are true: ``A or B`` is A
            ends = self.values(expr.values[0 if isinstance(expr.op, ast.Or) else -1], scope, source, depth + 1)
            return ends if all(isinstance(value, type) for value in ends) else [UNKNOWN]
        if isinstance(expr, ast.Name):
            return self._name(expr.id, scope, source, depth)
        if isinstance(expr, ast.Attribute):
            return self._attribute(expr, scope, source, depth)
        if isinstance(expr, ast.BinOp):
            left = self.values(expr.left, scope, source, depth + 1)
            right = self.values(expr.right, scope, source, depth + 1)
            return [_binary(expr.op, left[0], right[0])] if len(left) == len(right) == 1 else [UNKNOWN]
        if isinstance(expr, ast.UnaryOp) and isinstance(expr.op, ast.USub):
            inner = self.values(expr.operand, scope, source, depth + 1)
            return [-inner[0]] if len(inner) == 1 and isinstance(inner[0], int | float) else [UNKNOWN]
        if isinstance(expr, ast.Call) and not expr.keywords:
            return self._called(expr, scope, source, depth)
        return [UNKNOWN]

    def _called(self, expr: ast.Call, scope: Scope, source: Source, depth: int) -> list[Any]:
        """``math.sqrt(2 * n)``: functions of the ``math`` module (and ``float``) on plain numbers."""
        function = self.values(expr.func, scope, source, depth + 1)
        args = [self.values(item, scope, source, depth + 1) for item in expr.args]
        if function == [calculate_gain] and all(
            len(item) == 1 and isinstance(item[0], int | float | str) for item in args
        ):
            return [_gain(*(item[0] for item in args))]
        if len(function) != 1 or any(len(item) != 1 or not isinstance(item[0], int | float) for item in args):
            return [UNKNOWN]
        if function[0] is not float and getattr(function[0], "__module__", None) != "math":
            return [UNKNOWN]
        try:
            return [function[0](*(item[0] for item in args))]
        except (ValueError, OverflowError, TypeError):
            return [UNKNOWN]

    def _attribute(self, expr: ast.Attribute, scope: Scope, source: Source, depth: int) -> list[Any]:
        if isinstance(expr.value, ast.Name) and expr.value.id == _self_name(scope):
            found = [vars(item).get(expr.attr, UNKNOWN) for item in self._instances_of(scope, source)]
            distinct: list[Any] = []
            for value in found:
                if not any(value is other or _same(value, other) for other in distinct):
                    distinct.append(value)
            return distinct or [UNKNOWN]
        bases = self.values(expr.value, scope, source, depth + 1)
        if len(bases) != 1 or not isinstance(bases[0], type | type(sys)):
            return [_entry(bases[0], expr.attr)] if len(bases) == 1 else [UNKNOWN]
        return [getattr(bases[0], expr.attr, UNKNOWN)]

    def _instances_of(self, scope: Scope, source: Source) -> list[Any]:
        owner = self.owner(scope)
        return [] if owner is None else self.instances(source.path, owner[0])

    def of_user(self, module: Any) -> bool:
        """Whether the very class of a module of the model is defined in the user's files."""
        name = type(module).__qualname__
        return any(
            key.endswith(f":{name}") and any(item is module for item in found) for key, found in self._instances.items()
        )

    def modules_of_user(self) -> list[list[Any]]:
        """The modules of the model that are of classes of the user's source, by class."""
        return list(self._instances.values())

    def instances(self, path: str, cls: str) -> list[Any]:
        """Modules of the model that are of a class of the user's source."""
        return self._instances.get(f"{path}:{cls}", [])

    @staticmethod
    def owner(scope: Scope) -> tuple[str, str] | None:
        """Class of the method around a scope, and the name that it gives to the instance."""
        outer: Scope | None = scope
        while outer is not None and not outer.cls:
            outer = outer.parent
        return None if outer is None else (outer.cls, _self_name(outer))

    def _name(self, name: str, scope: Scope, source: Source, depth: int) -> list[Any]:
        inner: Scope | None = scope
        while inner is not None and inner.node is not None:
            if name in inner.assigned:
                exprs = inner.assigned[name]
                return self.values(exprs[0], inner, source, depth + 1) if len(exprs) == 1 else [UNKNOWN]
            if name in inner.loops:
                return [UNKNOWN]
            if name in parameters(inner):
                return self.argument(name, inner, source, depth)
            inner = inner.parent
        namespace = self.namespace(source.path)
        if name in namespace:
            return [namespace[name]]
        if name in source.imports:
            return [_imported(*source.imports[name])]
        return [getattr(builtins, name, UNKNOWN)]

    def argument(self, name: str, scope: Scope, source: Source, depth: int) -> list[Any]:
        """Values of a function's parameter: seen in a constructor, or told from the call sites."""
        seen = self._seen.get((source.path, scope.name))
        if seen:
            return _distinct([values.get(name, UNKNOWN) for values in seen])
        found: list[Any] = []
        sites = self.call_sites(scope, source)
        if not sites:  # nobody passes anything else
            return self.default(name, scope, source, depth)
        for call, caller_source in sites:
            expr = bound(name, scope, call.node)
            if expr is not None:
                found += self.values(expr, call.scope, caller_source, depth + 1)
            else:
                found += self.default(name, scope, source, depth)
        return _distinct(found) or [UNKNOWN]

    def default(self, name: str, scope: Scope, source: Source, depth: int = 0) -> list[Any]:
        """The default value of a parameter."""
        expr = _default(name, scope)
        outer = scope.parent or scope
        return [UNKNOWN] if expr is None else self.values(expr, outer, source, depth + 1)

    def call_sites(self, scope: Scope, source: Source) -> list[tuple[Call, Source]]:
        """Calls of a function by its name, in all files; passing it to ``apply`` counts as none."""
        if not isinstance(scope.node, ast.FunctionDef | ast.AsyncFunctionDef):
            return []
        name = scope.node.name
        found = []
        for other in self.sources.values():
            for call in other.calls:
                function = call.node.func
                same = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)
                if same == name and (other is source or not scope.cls or isinstance(function, ast.Attribute)):
                    found.append((call, other))
        return found


_ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


def _binary(op: ast.operator, left: Any, right: Any) -> Any:
    """Arithmetic on plain numbers; ``|`` joins classes."""
    if isinstance(op, ast.BitOr) and isinstance(left, type | tuple) and isinstance(right, type | tuple):
        return (*_tuple(left), *_tuple(right))
    function = _ARITHMETIC.get(type(op))
    small = all(isinstance(value, int | float) and abs(value) < 1e9 for value in (left, right))
    if function is None or not small or (isinstance(op, ast.Pow) and abs(right) > 64):
        return UNKNOWN
    try:
        return function(left, right)
    except (ZeroDivisionError, OverflowError):
        return UNKNOWN


def _gain(*args: Any) -> Any:
    """``nn.init.calculate_gain("relu")``."""
    try:
        return calculate_gain(*args)
    except (ValueError, TypeError):
        return UNKNOWN


def parameters(scope: Scope) -> list[str]:
    """Names of a function's parameters."""
    if scope.node is None:
        return []
    args = scope.node.args
    return [item.arg for item in (*args.posonlyargs, *args.args, *args.kwonlyargs)]


def static(scope: Scope) -> bool:
    """Whether a function is a static method, which takes no ``self``."""
    decorators = getattr(scope.node, "decorator_list", [])
    return any(isinstance(item, ast.Name) and item.id == "staticmethod" for item in decorators)


def bound(name: str, scope: Scope, call: ast.Call) -> ast.expr | None:
    """The expression that a call passes for a parameter, ``None`` when it is left to the default."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    if scope.node is None:
        return None
    positional = [item.arg for item in (*scope.node.args.posonlyargs, *scope.node.args.args)]
    if scope.cls and isinstance(call.func, ast.Attribute) and not static(scope):
        positional = positional[1:]
    if name in positional:
        index = positional.index(name)
        if index < len(call.args) and not any(isinstance(item, ast.Starred) for item in call.args[: index + 1]):
            return call.args[index]
    return None


def _default(name: str, scope: Scope) -> ast.expr | None:
    if scope.node is None:
        return None
    args = scope.node.args
    positional = [item.arg for item in (*args.posonlyargs, *args.args)]
    if name in positional:
        offset = len(positional) - len(args.defaults)
        index = positional.index(name) - offset
        return args.defaults[index] if index >= 0 else None
    for item, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        if item.arg == name:
            return default
    return None


def _self_name(scope: Scope) -> str:
    inner: Scope | None = scope
    while inner is not None:
        if inner.cls and inner.node is not None:
            names = parameters(inner)
            return names[0] if names else ""
        inner = inner.parent
    return ""


def _entry(value: Any, name: str) -> Any:
    """A plain number or text in a configuration object, looked up without running a property of it."""
    if isinstance(value, tuple):
        names = getattr(type(value), "_fields", ())
        found = value[names.index(name)] if name in names else UNKNOWN
    else:
        found = getattr(value, "__dict__", {}).get(name, UNKNOWN)
    return found if isinstance(found, bool | int | float | str) else UNKNOWN


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _same(one: Any, other: Any) -> bool:
    plain = bool | int | float | str
    return isinstance(one, plain) and isinstance(other, plain) and type(one) is type(other) and one == other


def _distinct(values: list[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if not any(value is other or _same(value, other) for other in found):
            found.append(value)
    return found


def _imported(module: str, attribute: str) -> Any:
    """What an import inside a function binds; the module has been imported already, or it is unknown."""
    loaded = sys.modules.get(f"{module}.{attribute}") if attribute else None
    if loaded is not None:
        return loaded
    found = sys.modules.get(module)
    if found is None:
        return UNKNOWN
    return getattr(found, attribute, UNKNOWN) if attribute else found
