"""Planners that add lines, or change what surrounds an init call: selections, constructors, comments."""

from __future__ import annotations

import ast
import re
from collections import Counter

from initlint.facts import ParameterFacts
from initlint.findings import Edit
from initlint.fix.calls import _edit
from initlint.fix.scope import Scope, module_of
from initlint.fix.source import Change

_COMMENT = re.compile(r"\s*#\s*initlint\s*:\s*ignore(-file)?\s*\[(?P<codes>[^\]]*)\]", re.IGNORECASE)

#: Std of GPT-2's tied table (Radford et al. 2019): logits far below unit variance at any width in use.
_TABLE_STD = "0.02"


def norm_gain(scope: Scope) -> tuple[Edit, ...]:
    """One for a gain, zero where the norm adds one itself; a bias that holds the gain's ones gets zeros (IL007)."""
    offset = scope.finding.fix is not None and "zeros_" in scope.finding.fix.snippet
    value = 0 if offset else 1
    edits = _constant(scope, scope.statement, value)
    for parameter in scope.parameters[1:]:
        stats, at = parameter.stats, parameter.created
        swapped = value == 1 and stats is not None and stats.minimum == stats.maximum == 1.0
        if not edits or not swapped or at is None or at.file != scope.source.file:
            continue
        statement = scope.source.statement(at.line)
        more = _constant(scope, statement, 0) if statement is not None and statement is not scope.statement else ()
        edits += tuple(edit for edit in more if edit not in edits)
    return edits


def _constant(scope: Scope, statement: ast.stmt, value: int) -> tuple[Edit, ...]:
    """The statement with what it writes replaced by zeros or ones."""
    calls = scope.source.init_calls(statement)
    if len(calls) == 1 and not scope.source.has_comment(calls[0].node):
        if calls[0].method:
            data = scope.source.text(calls[0].target)
            return _edit(scope, scope.source.put(calls[0].node, f"{data}.fill_({value}.0)"))
        return _edit(scope, scope.rewritten(calls[0], "ones_" if value else "zeros_", {}))
    factories = [
        node
        for node in ast.walk(statement)
        if isinstance(node, ast.Call) and scope.source.resolve(node.func) in ("torch.zeros", "torch.ones")
    ]
    if len(factories) != 1:
        return ()
    name = scope.source.spell("torch.ones" if value else "torch.zeros")
    return _edit(scope, scope.source.put(factories[0].func, name)) if name else ()


def exponent(scope: Scope) -> tuple[Edit, ...]:
    """The logarithm of the factor that is meant: CLIP's temperature for a scalar, a neutral 0 for a vector (IL312)."""
    if any(math_size(p) != 1 for p in scope.parameters):
        return _constant(scope, scope.statement, 0)
    log = scope.source.spell("math.log") or scope.source.spell("numpy.log")
    value = f"{log}(1 / 0.07)" if log else "2.6593"
    call, made = scope.call(), scope.factory(("ones", "tensor", "full"))
    if call is not None and not call.method:
        return _edit(scope, scope.rewritten(call, "constant_", {"val": value}))
    if made is None or not made.args:
        return ()
    if scope.source.resolve(made.func) == "torch.ones":
        return _edit(scope, scope.source.put(made, f"{scope.source.text(made)} * {value}"))
    return _edit(scope, scope.source.put(made.args[-1], value))


def math_size(parameter: ParameterFacts) -> int:
    """How many elements a parameter has."""
    size = 1
    for length in parameter.shape:
        size *= length
    return size


def padding_row(scope: Scope) -> tuple[Edit, ...]:
    """Zeros for the padding row again, after the write (IL304)."""
    call = scope.call()
    module = module_of(scope.source.text(call.target)) if call is not None else ""
    if not module or isinstance(scope.statement, (ast.For, ast.If, ast.With)):
        return ()
    lines = [f"{module}.weight.data[{module}.padding_idx].zero_()"]
    if "." not in module:  # a loop variable or an argument may also hold modules without padding
        lines = [f'if getattr({module}, "padding_idx", None) is not None:', scope.source.step() + lines[0]]
    end = scope.statement.end_lineno or scope.statement.lineno
    return (scope.source.insert_after(end, lines, scope.source.indent(scope.statement.lineno)),)


def layer_scale(scope: Scope) -> tuple[Edit, ...]:
    """The value that the module holds for its scale (IL307)."""
    call = scope.call()
    snippet = scope.finding.fix.snippet if scope.finding.fix else ""
    value = snippet.partition(", ")[2].removesuffix(")")
    if call is None or not value.startswith("self.") or not scope.source.text(call.target).startswith("self."):
        return ()
    if call.method:
        target = scope.source.text(call.target)
        return _edit(scope, scope.source.put(call.node, f"{target}.fill_({value})"))
    return _edit(scope, scope.rewritten(call, "constant_", {"val": value}))


def zero_layer(scope: Scope) -> tuple[Edit, ...]:
    """Zeros for a layer that its constructor left at the default (IL313)."""
    return _after_construction(scope, "zeros_", "")


def table_std(scope: Scope) -> tuple[Edit, ...]:
    """GPT-2's std for a table that is the output projection too, in its init call or after its construction (IL305)."""
    call = scope.call()
    if call is None:
        return _after_construction(scope, "normal_", f", std={_TABLE_STD}")
    if call.op not in ("normal_", "trunc_normal_"):
        return ()
    return _edit(scope, scope.with_argument(call, "std", _TABLE_STD))


def _after_construction(scope: Scope, op: str, arguments: str) -> tuple[Edit, ...]:
    """An init call for each parameter, below the line that constructs their module and leaves them at the default."""
    statement, function = scope.statement, scope.source.spell(f"torch.nn.init.{op}")
    if not function or not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
        return ()
    if any(p.last is None or p.last.origin != "torch" for p in scope.parameters):
        return ()
    target, value = statement.targets[0], statement.value
    if not isinstance(target, ast.Attribute) or not isinstance(value, ast.Call):
        return ()
    if {p.module.rpartition(".")[2] for p in scope.parameters} != {target.attr}:
        return ()
    owner = scope.source.text(target)
    lines = [f"{function}({owner}.{local}{arguments})" for local in dict.fromkeys(p.local for p in scope.parameters)]
    end = statement.end_lineno or statement.lineno
    return (scope.source.insert_after(end, lines, scope.source.indent(statement.lineno)),)


def init_loop(scope: Scope) -> tuple[Edit, ...]:
    """A loop over the model's modules at the end of its constructor, with the scheme that suits most (IL103)."""
    scheme = scope.scheme()
    modules = {module.name: module.cls for module in scope.facts.modules}
    classes = {modules.get(p.module, "") for p in scope.parameters}
    names = [scope.source.spell(f"torch.nn.{c.rpartition('.')[2]}") for c in sorted(classes)]
    owner = modules.get("", "").rpartition(".")[2]
    function = scope.source.function(owner, "__init__") if owner else None
    if scheme is None or function is None or not all(names) or not all(c.startswith("torch.nn.") for c in classes):
        return ()
    init, zeros = (scope.source.spell(f"torch.nn.init.{op}") for op in (f"{scheme[0]}_normal_", "zeros_"))
    if not init or not zeros:
        return ()
    arguments = "".join(f", {name}={text}" for name, text in scheme[1].items())
    step, kinds = scope.source.step(), names[0] if len(names) == 1 else f"({', '.join(names)})"
    lines = [
        "for module in self.modules():",
        f"{step}if isinstance(module, {kinds}):",
        f"{step * 2}{init}(module.weight{arguments})",
        f"{step * 2}if module.bias is not None:",
        f"{step * 3}{zeros}(module.bias)",
    ]
    last = function.body[-1]
    indent = scope.source.indent(function.body[0].lineno)
    return (scope.source.insert_after(last.end_lineno or last.lineno, lines, indent),)


def call_init(scope: Scope) -> tuple[Edit, ...]:
    """A call of the init method at the end of the constructor (IL401)."""
    words = scope.finding.message.split("`")
    owner, _, name = words[1].rpartition(".") if len(words) > 1 else ("", "", "")
    method, init = scope.source.function(owner, name), scope.source.function(owner, "__init__")
    if method is None or init is None or method is init or method.decorator_list:
        return ()
    taken = [*method.args.posonlyargs, *method.args.args]
    needed = len(taken) - len(method.args.defaults)
    if needed not in (1, 2) or any(default is None for default in method.args.kw_defaults):
        return ()
    call = f"self.{name}()"
    if needed == 2:  # a module is handed in: written for ``apply``
        targets = {
            s.target.partition(".")[0]
            for s in scope.facts.statements
            if s.site.function == f"{owner}.{name}" and s.target
        }
        if targets != {taken[1].arg}:
            return ()
        call = f"self.apply(self.{name})"
    last = init.body[-1]
    indent = scope.source.indent(init.body[0].lineno)
    return (scope.source.insert_after(last.end_lineno or last.lineno, [call], indent),)


def selected_class(scope: Scope) -> tuple[Edit, ...]:
    """The classes that the missed layers have, in the selection (IL402)."""
    if isinstance(scope.statement, ast.Pass):
        return _instead_of_pass(scope)
    owners = {p.module for p in scope.parameters}
    missed = {m.cls for m in scope.facts.modules if m.name in owners}
    present = {m.cls.rpartition(".")[2] for m in scope.facts.modules}
    place = next((s for s in reversed(scope.source.around(scope.site.line)) if isinstance(s, ast.If)), None)
    roots: list[ast.AST] = [scope.statement] if scope.statement is not place else []
    roots += [place.test] if place is not None else []
    for root in roots:
        found = [n for n in ast.walk(root) if isinstance(n, (ast.Attribute, ast.Name)) and _idle(scope, n, present)]
        names = [scope.source.spell(f"torch.nn.{c.rpartition('.')[2]}") for c in sorted(missed)]
        if len(found) == 1 and names and all(names) and all(c.startswith("torch.nn.") for c in missed):
            return _edit(scope, scope.source.put(found[0], names[0] if len(names) == 1 else f"({', '.join(names)})"))
    return ()


def _idle(scope: Scope, node: ast.expr, present: set[str]) -> bool:
    """Whether a name is that of a torch module class that the model has no module of."""
    parent, _, name = scope.source.resolve(node).rpartition(".")
    return parent == "torch.nn" and name[:1].isupper() and name not in present and name not in ("Module", "Parameter")


def _instead_of_pass(scope: Scope) -> tuple[Edit, ...]:
    """The scheme that suits, on the tensor that the other branches of the same function initialise."""
    scheme = scope.scheme()
    recorded = scope.init_statement()
    targets = Counter(
        s.target
        for s in scope.facts.statements
        if recorded is not None
        and s.site.file == recorded.site.file
        and s.site.function == recorded.site.function
        and s.op in ("kaiming_normal_", "kaiming_uniform_", "xavier_normal_", "xavier_uniform_", "normal_", "uniform_")
    )
    if scheme is None or not targets:
        return ()
    init = scope.source.spell(f"torch.nn.init.{scheme[0]}_normal_")
    arguments = "".join(f", {name}={text}" for name, text in scheme[1].items())
    text = f"{init}({targets.most_common(1)[0][0]}{arguments})"
    return _edit(scope, scope.source.put(scope.statement, text)) if init else ()


def the_argument(scope: Scope) -> tuple[Edit, ...]:
    """The module that was handed in, in the place of the fixed one, throughout the branch (IL403)."""
    recorded = scope.init_statement()
    fixed = module_of(recorded.target) if recorded is not None else ""
    if not fixed.startswith("self."):
        return ()
    for branch in reversed(scope.source.around(scope.site.line)):
        name = _subject(branch.test) if isinstance(branch, ast.If) else ""
        if name and isinstance(branch, ast.If):
            nodes = [n for s in branch.body for n in ast.walk(s) if isinstance(n, ast.Attribute)]
            found = [n for n in nodes if scope.source.text(n) == fixed]
            return _edit(scope, *(scope.source.put(n, name) for n in found)) if found else ()
    return ()


def _subject(test: ast.expr) -> str:
    """The variable whose class a condition asks for."""
    for node in ast.walk(test):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("isinstance", "type"):
            return node.args[0].id if node.args and isinstance(node.args[0], ast.Name) else ""
    return ""


def unused_comment(scope: Scope) -> tuple[Edit, ...]:
    """The suppression without the selector that silences nothing (IL901)."""
    words = scope.finding.message.split("`")
    line = scope.source.lines[scope.site.line - 1]
    begin = line.find("#", max((scope.site.column or 1) - 1, 0))
    match = _COMMENT.match(line, begin) if begin >= 0 else None
    if match is None or len(words) < 2:
        return ()
    kept = [code for part in match["codes"].split(",") if (code := part.strip()) and code != words[1]]
    row, (first, last) = scope.site.line, match.span("codes")
    if kept:
        return _edit(scope, Change((row, first), (row, last), ", ".join(kept)))
    start = len(line[: match.start()].rstrip())
    rest = line[match.end() :].strip()
    text = f"  {rest if rest.startswith('#') else f'# {rest}'}" if rest else ""
    if start or text:
        return _edit(scope, Change((row, start), (row, len(line)), text))
    if row == len(scope.source.lines):
        return ()
    following = scope.source.lines[row]  # the comment has the line for itself: the line goes
    return (Edit(scope.source.file, row, row + 1, following, f"{line}\n{following}"),)
