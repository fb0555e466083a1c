"""Which parameters a statement was meant to initialise and did not, where structure tells."""

from __future__ import annotations

import ast
from typing import Any

import torch

from initlint.facts import Guard, Plain
from initlint.probe.statements_conditions import Condition
from initlint.probe.statements_guards import Guards, Place, Subjects
from initlint.probe.statements_lost import looped
from initlint.probe.statements_names import Names
from initlint.probe.statements_near import kin
from initlint.probe.statements_source import Candidate, Scope, Source, Test

#: Layers of torch that hold other layers.
_NESTED = (
    torch.nn.MultiheadAttention,
    torch.nn.Transformer,
    torch.nn.TransformerEncoder,
    torch.nn.TransformerDecoder,
    torch.nn.TransformerEncoderLayer,
    torch.nn.TransformerDecoderLayer,
    torch.nn.AdaptiveLogSoftmaxWithLoss,
)


class Meant:
    """Answers for one model.

    Args:
        model: the built model.
        names: resolves names of the source.
        guards: compiles conditions.
        subjects: the model's modules and names.
    """

    def __init__(self, model: torch.nn.Module, names: Names, guards: Guards, subjects: Subjects) -> None:
        self._names = names
        self._guards = guards
        self._subjects = subjects
        self._paths = dict(zip(map(id, subjects.modules), subjects.module_names, strict=True))
        self._tensors = dict(model.named_parameters(remove_duplicate=False))
        self._by_tensor: dict[int, str] = {}
        for name, tensor in self._tensors.items():
            self._by_tensor.setdefault(id(tensor), name)

    def never_called(self, candidate: Candidate, source: Source) -> tuple[str, ...]:
        """Parameters that a statement of a function that never ran would have written."""
        if candidate.target is None or _of_its_own_making(candidate):
            return ()
        direct = self._through_self(candidate.target, candidate.scope, source)
        return direct or self._selected(candidate, source, _below_tested(candidate))

    def direct(self, candidate: Candidate, source: Source) -> tuple[str, ...]:
        """The parameters of a target that starts with the model's own instance: ``self.head.bias``."""
        return () if candidate.target is None else self._through_self(candidate.target, candidate.scope, source)

    def behind(self, candidate: Candidate, source: Source) -> tuple[str, ...]:
        """Parameters whose new values a statement computes and throws away."""
        direct = self.never_called(candidate, source)
        path, scope = _attribute_path(candidate.target) if candidate.target is not None else [], candidate.scope
        if direct or len(path) != 2:
            return direct
        local, attr = path
        if local in scope.loops:  # ``for table in self.tables: table.from_pretrained(...)``
            owners = self._members(scope.loops[local][0], scope, source)
            held = [_member(part, attr) for owner in owners if _many(owner) for part in owner]
            return tuple(self._by_tensor[id(value)] for value in held if id(value) in self._by_tensor)
        # ``table = nn.Embedding(...)``, which becomes ``self.table`` in the end
        own = self._names.owner(scope)
        found: dict[str, None] = {}
        if own is None:
            return ()
        for (cls, name), values in source.attributes.items():
            if cls == scope.cls and any(
                where is scope and isinstance(value, ast.Name) and value.id == local for where, value in values
            ):
                target = ast.Attribute(ast.Attribute(ast.Name(own[1]), name), attr)
                found.update(dict.fromkeys(self._through_self(target, scope, source)))
        return tuple(found)

    def through_loop(self, candidate: Candidate, source: Source) -> tuple[str, ...]:
        """All that the loop around an assignment goes through, if it is the loop that binds its target."""
        target, scope = candidate.target, candidate.scope
        if not isinstance(target, ast.Name) or scope.node is None:
            return ()
        loops = [loop for loop in ast.walk(scope.node) if isinstance(loop, ast.For)]
        around = [loop for loop in loops if any(part is candidate.node for part in ast.walk(loop))]
        owners = [owner for loop in around for name, owner in looped(loop) if name == target.id]
        modules = self._members(owners[-1], scope, source) if owners else []
        tensors = [tensor for item in modules if isinstance(item, torch.nn.Module) for tensor in item.parameters()]
        return tuple(dict.fromkeys(self._by_tensor[id(t)] for t in tensors if id(t) in self._by_tensor))

    def other_than_tested(self, candidate: Candidate, source: Source, written: tuple[str, ...]) -> tuple[str, ...]:
        """For ``if isinstance(module, T): init(self.proj.weight)``: the same parameter of all tested modules."""
        if candidate.target is None:
            return ()
        tested = {_root(name) for test in candidate.tests if test.positive for name in _subjects_of(test.expr)}
        if (
            not tested
            or _root_name(candidate.target) in tested
            or _root_name(candidate.target) in candidate.scope.loops
        ):
            return ()
        return tuple(name for name in self._selected(candidate, source) if name not in written)

    def kin(
        self,
        candidate: Candidate,
        source: Source,
        guards: tuple[Guard, ...],
        bindings: dict[str, Any],
        args: dict[str, Plain],
    ) -> tuple[str, ...]:
        """For a class selector that matched nothing: the same parameter of modules of the same op family.

        For ``m.conv.weight`` of a layer that holds no other layer: of all modules that hold one of that name.
        """
        failed = [guard for guard in guards if guard.matched == 0]
        if not failed or any(guard.kind not in ("isinstance", "type", "class_name") for guard in failed):
            return ()
        below = _below_tested(candidate)
        local = below or _local(candidate.target)
        if not local:
            return ()
        wanted: list[type] = []
        for condition in self._guards.conditions(candidate.tests, Place(candidate.scope, source, bindings)):
            if condition.kind in ("isinstance", "type") and self._count(condition) == 0:
                wanted += condition.classes
        modules = [item for item in self._subjects.modules if any(kin(type(item), cls) for cls in wanted)]
        holds = below.partition(".")[0] if "." in below else ""
        if holds and wanted and all(_holds_none(cls, holds) for cls in wanted):
            modules = list(self._subjects.modules)
        return self._locals(modules, local, candidate.op, args)

    def apart(self, candidate: Candidate, source: Source) -> tuple[str, ...]:
        """For a class and an attribute that no module has together: what is meant lies in the attribute of another.

        ``isinstance(m, nn.Linear) and hasattr(m, "heads")``, where the model has the linear layers in its ``heads``.
        """
        place, local = Place(candidate.scope, source), _local(candidate.target)
        for test in candidate.tests if local else ():
            if not test.positive or not isinstance(test.expr, ast.BoolOp) or not isinstance(test.expr.op, ast.And):
                continue
            parts = self._guards.conditions([Test(value, True) for value in test.expr.values], place)
            classes = [part for part in parts if part.kind in ("isinstance", "type")]
            attributes = [part for part in parts if part.kind == "hasattr"]
            owners = [m for m in self._subjects.modules if attributes and all(c.test(m) for c in attributes)]
            if not classes or any(all(c.test(owner) for c in classes) for owner in owners):
                continue
            inner = [owner._modules.get(name) for owner in owners for c in attributes for name in c.values]
            held = {id(m): m for child in inner if child is not None for m in child.modules()}
            found = self._locals([m for m in held.values() if all(c.test(m) for c in classes)], local, "", {})
            if found:
                return found
        return ()

    def of(self, modules: list[torch.nn.Module], candidate: Candidate) -> tuple[str, ...]:
        """The parameter of a statement's target in these modules."""
        local = _local(candidate.target)
        return self._locals(modules, local, "", {}) if local else ()

    def passed_over(self, candidate: Candidate, siblings: list[Candidate], source: Source) -> tuple[str, ...]:
        """For a branch that does nothing: what the other branches initialise, of the selected modules."""
        found: dict[str, None] = {}
        for sibling in siblings:
            stand_in = Candidate(sibling.op, sibling.target, sibling.node, candidate.scope, candidate.tests)
            found.update(dict.fromkeys(self._selected(stand_in, source)))
        return tuple(found)

    def lacking(self, names: tuple[str, ...], op: str, args: dict[str, Plain]) -> tuple[str, ...]:
        """The parameters that a constant init would change."""
        return tuple(name for name in names if not _holds_already(self._tensors.get(name), op, args))

    # -- parts ---------------------------------------------------------------------------------

    def _through_self(self, target: ast.expr, scope: Scope, source: Source) -> tuple[str, ...]:
        """``self.head.bias`` on the instances of the class that the model has."""
        found = self._members(target, scope, source)
        return tuple(self._by_tensor[id(value)] for value in found if id(value) in self._by_tensor)

    def _members(self, target: ast.expr, scope: Scope, source: Source) -> list[Any]:
        """``self.head`` of each instance that the model has of the class around a function."""
        path = _attribute_path(target)
        owner = self._names.owner(scope)
        if not path or owner is None or path[0] != owner[1]:
            return []
        found = []
        for instance in self._names.instances(source.path, owner[0]):
            value: Any = instance
            for part in path[1:]:
                value = _member(value, part)
            found.append(value)
        return found

    def _selected(self, candidate: Candidate, source: Source, local: str = "") -> tuple[str, ...]:
        """The target's parameter in all modules that satisfy the conditions on classes."""
        local = local or _local(candidate.target)
        conditions = [
            condition
            for condition in self._guards.conditions(candidate.tests, Place(candidate.scope, source))
            if condition.subject == "module"
        ]
        if not local or not conditions:
            return ()
        modules = [item for item in self._subjects.modules if all(c.test(item) for c in conditions)]
        return self._locals(modules, local, "", {})

    def _locals(self, modules: list[torch.nn.Module], local: str, op: str, args: dict[str, Plain]) -> tuple[str, ...]:
        found = []
        for module in modules:
            path = self._paths[id(module)]
            name = f"{path}.{local}" if path else local
            tensor = self._tensors.get(name)
            if tensor is not None and not _holds_already(tensor, op, args):
                found.append(name)
        return tuple(found)

    def _count(self, condition: Condition) -> int:
        return sum(bool(condition.test(item)) for item in self._subjects.of(condition.subject))


def _holds_already(tensor: Any, op: str, args: dict[str, Plain]) -> bool:
    """Whether a constant init would change nothing."""
    constants = {"ones_": 1.0, "zeros_": 0.0, "zero_": 0.0}
    value = constants.get(op, args.get("val") if op in ("constant_", "fill_", "constant") else None)
    if not isinstance(value, int | float) or tensor is None or torch.nn.parameter.is_lazy(tensor):
        return False
    return not tensor.is_meta and bool((tensor == value).all())


def _holds_none(cls: type, name: str) -> bool:
    """Whether a class is a layer of torch, or the user's with the same parts, and has no attribute of that name."""
    layer = next((base for base in cls.__mro__ if base.__module__.startswith("torch.nn.modules.")), None)
    containers = (torch.nn.Module, torch.nn.Sequential, torch.nn.ModuleList, torch.nn.ModuleDict)
    if layer is None or layer in containers or hasattr(layer, name) or hasattr(cls, name):
        return False
    own = cls.__mro__[: cls.__mro__.index(layer)]
    leaf = not any(issubclass(layer, kind) for kind in _NESTED)
    return leaf and not any("__init__" in vars(base) for base in own)


def _of_its_own_making(candidate: Candidate) -> bool:
    """Whether a function initialises what it constructs itself: a factory of another model, or a script's ``main``."""
    name, scope = _root_name(candidate.target) if candidate.target is not None else "", candidate.scope
    for _ in range(4):
        if name not in scope.loops:
            break
        name = _base_name(scope.loops[name][0])
    return any(isinstance(value, ast.Call) and _base_name(value) != "self" for value in scope.assigned.get(name, ()))


def _base_name(node: ast.expr) -> str:
    """``net`` of ``net.blocks.modules()``; "" for a call of a bare name (``range(3)``, ``Net()``)."""
    while isinstance(node, ast.Attribute | ast.Subscript) or (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _local(target: ast.expr | None) -> str:
    """``weight`` of ``m.weight.data[0]``."""
    path = _attribute_path(target) if target is not None else []
    path = [part for part in path if part != "data"]
    return path[-1] if len(path) > 1 else ""


def _below_tested(candidate: Candidate) -> str:
    """``key.weight`` of ``m.key.weight`` where it is ``m`` whose class is tested."""
    path = [part for part in _attribute_path(candidate.target) if part != "data"] if candidate.target else []
    tested = {_root(node) for test in (*candidate.tests, *candidate.exits) for node in _subjects_of(test.expr)}
    return ".".join(path[1:]) if path and path[0] in tested else ""


def _attribute_path(node: ast.expr) -> list[str]:
    """``["self", "head", "0", "bias"]`` of ``self.head[0].bias``; empty when it is something else."""
    parts: list[str] = []
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        elif isinstance(node, ast.Subscript):
            if isinstance(node.slice, ast.Constant) and parts:
                parts.append(str(node.slice.value))
            elif isinstance(node.slice, ast.UnaryOp) and parts:
                parts.append(ast.unparse(node.slice))
            node = node.value
        else:
            return []
    parts.append(node.id)
    return parts[::-1]


def _many(value: Any) -> bool:
    return isinstance(value, torch.nn.Sequential | torch.nn.ModuleList | list | tuple)


def _member(value: Any, part: str) -> Any:
    if part == "data":
        return value
    if isinstance(value, torch.nn.Sequential | torch.nn.ModuleList | torch.nn.ParameterList | list | tuple):
        try:
            return value[int(part)]
        except (ValueError, IndexError):
            return None
    if isinstance(value, torch.nn.Module):
        for table in (value._parameters, value._buffers, value._modules):
            if part in table:
                return table[part]
    return None


def _subjects_of(expr: ast.expr) -> list[ast.expr]:
    """What the class tests in a condition are about: ``m`` of ``isinstance(m, nn.Linear)``."""
    found: list[ast.expr] = []
    for node in ast.walk(expr):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        if node.args and node.func.id in ("isinstance", "type"):
            found.append(node.args[0])
    return found


def _root(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _root_name(node: ast.expr) -> str:
    path = _attribute_path(node)
    return path[0] if path else ""
