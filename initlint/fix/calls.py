"""Planners that change an init call, or the number it is given, where it stands."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fractions import Fraction

from initlint.findings import Edit
from initlint.fix.scope import Scope, grouped, module_of
from initlint.fix.source import Change, InitCall
from initlint.kernels import of_kernels

#: Ratios of variances whose root is written as a formula: those of packed projections are (E + kE) / 2E.
_DENOMINATOR, _EXACT = 12, 1e-6


def _edit(scope: Scope, *changes: Change | None) -> tuple[Edit, ...]:
    made = [change for change in changes if change is not None]
    return (scope.source.edit(made),) if made and len(made) == len(changes) else ()


def other_scheme(scope: Scope) -> tuple[Edit, ...]:
    """The scheme of the activation that follows, uniform where the old one was (IL101, IL104, IL004)."""
    call, scheme = scope.call(), scope.scheme()
    if call is None or scheme is None or any(len(p.shape) < 2 for p in scope.parameters):
        return ()
    if not _plain(scope, call.argument("gain")):
        return ()
    op = f"{scheme[0]}_{'uniform_' if 'uniform' in call.op else 'normal_'}"
    return _edit(scope, scope.rewritten(call, op, scheme[1]))


def _plain(scope: Scope, gain: ast.expr | None) -> bool:
    """Whether a gain is none, a number or ``calculate_gain``: a variable holds a scale that somebody meant (depth)."""
    if gain is None or isinstance(gain, ast.Constant):
        return True
    if isinstance(gain, ast.Call):
        return scope.source.resolve(gain.func) == "torch.nn.init.calculate_gain" or all(
            isinstance(argument, ast.Constant) for argument in gain.args
        )
    return False


def grouped_fan(scope: Scope) -> tuple[Edit, ...]:
    """fan_in of a grouped convolution, which PyTorch counts right; or ``groups`` in a formula by hand (IL105)."""
    call = scope.call()
    if call is not None and call.op.startswith("kaiming"):
        kept = {n: scope.source.text(v) for n in ("a", "nonlinearity") if (v := call.argument(n)) is not None}
        return _edit(scope, scope.rewritten(call, call.op, kept))
    if call is not None and call.op.startswith("xavier"):
        return other_scheme(scope)
    channels = [
        node for node in ast.walk(scope.statement) if isinstance(node, ast.Attribute) and node.attr == "out_channels"
    ]
    if len(channels) != 1:
        return ()
    module = scope.source.text(channels[0].value)
    return _edit(scope, scope.source.put(channels[0], f"({module}.out_channels // {module}.groups)"))


def fan_axis(scope: Scope) -> tuple[Edit, ...]:
    """The fan from the right axis: each matrix of a stack alone, the other mode, a stride counted (IL106)."""
    call = scope.call()
    if call is None or not scope.layers:
        return ()
    layouts = {of_kernels(scope.facts, layer).layout for layer in scope.layers}
    named = call.op.startswith(("kaiming", "xavier"))
    if named and all(layout.startswith("stacked") for layout in layouts):
        return each_part(scope, call, scope.source.text(call.target), "matrix")
    if named and all(layer.kind == "conv_transpose" for layer in scope.layers):
        return _transposed(scope, call)
    if layouts == {"in_out"} and call.op.startswith("kaiming"):
        mode = call.argument("mode")
        back = mode is not None and isinstance(mode, ast.Constant) and mode.value == "fan_out"
        return _edit(scope, scope.with_argument(call, "mode", '"fan_in"' if back else '"fan_out"'))
    if not named:
        return _last_axis(scope, call)
    return ()


def each_part(scope: Scope, call: InitCall, parts: str, name: str) -> tuple[Edit, ...]:
    """The same call in a loop over parts of the tensor."""
    if not isinstance(scope.statement, ast.Expr) or scope.statement.value is not call.node:
        return ()
    source = scope.source
    taken = {node.id for node in ast.walk(scope.source.tree) if isinstance(node, ast.Name)}
    name = name if name not in taken else f"{name}_part"
    inner = _with_target(scope, call, name)
    if inner is None or source.text(scope.statement).count("\n"):
        return ()
    indent = source.indent(scope.statement.lineno)
    return _edit(scope, source.put(scope.statement, f"for {name} in {parts}:\n{indent}{source.step()}{inner}"))


def _with_target(scope: Scope, call: InitCall, name: str) -> str | None:
    if call.method:
        return None
    text, target = scope.source.text(call.node), scope.source.text(call.target)
    begin = text.find(target, len(scope.source.text(call.node.func)))
    return None if begin < 0 else text[:begin] + name + text[begin + len(target) :]


def _transposed(scope: Scope, call: InitCall) -> tuple[Edit, ...]:
    """Each output of a transposed convolution sums in_channels * kernel / stride products; the gain stays as it is.

    Other layers have no stride: where the line writes those as well, transposed ones get a branch of their own.
    """
    target = scope.source.text(call.target)
    module = module_of(target)
    gain = _squared_gain(scope, call)
    if not module or not gain or call.op != "kaiming_normal_" or any(layer.groups > 1 for layer in scope.layers):
        return ()
    rank = {len(p.shape) - 2 for p in scope.parameters}
    if len(rank) != 1:
        return ()
    axes = range(count := rank.pop())
    strides = " * ".join(f"{module}.stride[{axis}]" for axis in axes)
    kernel = " * ".join(f"{module}.kernel_size[{axis}]" for axis in axes)
    std = scope.root(f"{gain} * {strides} / ({module}.in_channels * {kernel})")
    change = scope.rewritten(call, "normal_", {"std": std})
    kinds = {layer.kind for layer in scope.written_here()}
    if change is None or kinds == {"conv_transpose"}:
        return _edit(scope, change)
    alone = isinstance(scope.statement, ast.Expr) and scope.statement.value is call.node
    if not alone or count not in (1, 2, 3):
        return ()
    return _branched(scope, f"isinstance({module}, {{}})", f"torch.nn.ConvTranspose{count}d", change.text)


def _branched(scope: Scope, condition: str, cls: str, text: str) -> tuple[Edit, ...]:
    """The statement for all but the modules of a class, which get another one."""
    source, name = scope.source, scope.source.spell(cls)
    old = source.text(scope.statement)
    if not name or "\n" in old:
        return ()
    indent, step = source.indent(scope.statement.lineno), source.step()
    lines = [f"if {condition.format(name)}:", f"{indent}{step}{text}", f"{indent}else:", f"{indent}{step}{old}"]
    return _edit(scope, source.put(scope.statement, "\n".join(lines)))


def _squared_gain(scope: Scope, call: InitCall) -> str:
    """The square of the gain of a ``kaiming_`` call, as an expression; "" where its arguments are not plain."""
    slope, named = call.argument("a"), call.argument("nonlinearity")
    if named is not None and not isinstance(named, ast.Constant):
        return ""
    kind = named.value if isinstance(named, ast.Constant) else "leaky_relu"
    if kind == "relu" or (kind == "leaky_relu" and slope is None):
        return "2"
    if kind == "leaky_relu" and slope is not None:
        return (
            "2" if scope.source.text(slope) in ("0", "0.0") else f"2 / (1 + {grouped(scope.source.text(slope))} ** 2)"
        )
    return "1" if kind == "linear" else ""


def _last_axis(scope: Scope, call: InitCall) -> tuple[Edit, ...]:
    """A table scaled with its dimension instead of its number of entries: the size in the formula is replaced."""
    if not any(layer.layout == "table" or layer.kind == "embedding" for layer in scope.layers):
        return ()
    given = [value for name in ("std", "a", "b") if (value := call.argument(name)) is not None]
    sizes = [node for value in given for node in _atoms(scope, value)]
    if not sizes or len({scope.source.text(node) for node in sizes}) != 1:
        return ()
    size = f"{scope.source.text(call.target)}.shape[-1]"
    return _edit(scope, *(scope.source.put(node, size) for node in sizes))


def _atoms(scope: Scope, node: ast.expr) -> Iterator[ast.expr]:
    """The variables of a formula: names and dotted names, functions left out."""
    if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)):
        yield node
    elif isinstance(node, ast.Call):
        for argument in node.args:
            yield from _atoms(scope, argument)
    else:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                yield from _atoms(scope, child)


def packed_gain(scope: Scope) -> tuple[Edit, ...]:
    """The gain that makes up for counting packed projections as one (IL107)."""
    call = scope.call()
    expected, actual = scope.finding.expected.get("variance"), scope.finding.actual.get("variance")
    if call is None or not call.op.startswith("xavier"):
        return ()
    if not isinstance(expected, (int, float)) or not isinstance(actual, (int, float)) or actual <= 0:
        return ()
    ratio = Fraction(expected / actual).limit_denominator(_DENOMINATOR)
    if not ratio or abs(float(ratio) * actual / expected - 1) > _EXACT:
        return ()
    root = scope.root(str(ratio.numerator) if ratio.denominator == 1 else f"{ratio.numerator} / {ratio.denominator}")
    given = call.argument("gain")
    gain = root if given is None else f"{grouped(scope.source.text(given))} * {root}"
    return _edit(scope, scope.with_argument(call, "gain", gain))


def root_of_variance(scope: Scope) -> tuple[Edit, ...]:
    """The root of what is a variance: in the assignment that computes it, else in the call (IL108)."""
    value: ast.expr | None = None
    if isinstance(scope.statement, (ast.Assign, ast.AnnAssign)):
        value = scope.statement.value
    else:
        call = scope.call()
        value = call.argument("std") if call is not None else None
    if value is None or scope.source.has_comment(value) or isinstance(value, ast.Tuple):
        return ()
    return _edit(scope, scope.source.put(value, scope.root(scope.source.text(value))))


def centred(scope: Scope) -> tuple[Edit, ...]:
    """The same draw around zero (IL109)."""
    source, call = scope.source, scope.call()
    if call is not None and call.op == "uniform_":
        low, high = call.argument("a"), call.argument("b")
        text = f"-{grouped(source.text(high))}" if high is not None else "-1.0"
        if low is None:
            return () if high is not None else _edit(scope, scope.rewritten(call, "uniform_", {"a": "-1.0"}))
        return _edit(scope, source.put(low, text))
    mean = call.argument("mean") if call is not None and call.op in ("normal_", "trunc_normal_") else None
    if mean is not None:
        return _edit(scope, source.put(mean, "0.0"))
    drawn = scope.factory(("rand",))
    return _edit(scope, source.put(drawn, f"(2 * {source.text(drawn)} - 1)")) if drawn is not None else ()


def slope(scope: Scope) -> tuple[Edit, ...]:
    """The activation's own slope as ``a`` (IL110)."""
    call = scope.call()
    slopes = {
        layer.activation_args.get("negative_slope", 0.01) if layer.activation == "leaky_relu" else None
        for layer in scope.layers
    }
    if call is None or not call.op.startswith("kaiming") or len(slopes) != 1:
        return ()
    known = slopes.pop()
    mode = call.argument("mode")
    arguments = {} if mode is None else {"mode": scope.source.text(mode)}
    if isinstance(known, (int, float)):
        return _edit(scope, scope.rewritten(call, call.op, {"a": f"{known:g}", **arguments}))
    scheme = scope.scheme()
    chosen = scheme[1] if scheme is not None and scheme[0] == "kaiming" else {"nonlinearity": '"linear"'}
    return _edit(scope, scope.rewritten(call, call.op, {**arguments, **chosen}))


def uniform(scope: Scope) -> tuple[Edit, ...]:
    """``uniform_`` with the bounds that were given to ``normal_`` (IL111)."""
    call = scope.call()
    if call is None or call.op != "normal_" or any(k.arg in ("mean", "std") for k in call.node.keywords):
        return ()
    return _edit(scope, scope.renamed(call, "uniform_"))


def each_gate(scope: Scope) -> tuple[Edit, ...]:
    """Each stacked part orthogonal on its own (IL302)."""
    call = scope.call()
    snippet = scope.finding.fix.snippet if scope.finding.fix else ""
    count = snippet.partition(".chunk(")[2].partition(")")[0]
    if call is None or call.op != "orthogonal_" or not count.isdecimal():
        return ()
    target = scope.source.text(call.target)
    data = target if target.endswith(".data") else f"{target}.data"
    return each_part(scope, call, f"{data}.chunk({count})", "part")


def dirac_groups(scope: Scope) -> tuple[Edit, ...]:
    """The groups of the convolution for ``dirac_`` (IL005)."""
    call = scope.call()
    groups = {layer.groups for layer in scope.layers}
    if call is None or call.op != "dirac_" or len(groups) != 1:
        return ()
    module = module_of(scope.source.text(call.target))
    return _edit(scope, scope.with_argument(call, "groups", f"{module}.groups" if module else str(groups.pop())))
