"""Which optional argument a failed forward could not do without: the ``None`` of what failed, walked back.

A variable that is None where the code uses it, or where it refuses to go on (``assert y is not None``), came from an
argument: through calls on the way (``mask=image_mask``), or from a branch that was not taken
(``if pixels is not None: features = self.tower(pixels)``).
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import linecache
import os
import textwrap
from collections.abc import Iterable, Iterator
from types import CodeType, FrameType

# Steps from a variable to the one whose absence left it None.
_STEPS = 4
_OWN = os.path.dirname(__file__)


def absent(error: BaseException, forward: CodeType) -> list[str]:
    """Names of local variables of ``forward``, None in its frame, whose absence explains the error."""
    frames: list[tuple[FrameType, int, int]] = []
    trace = error.__traceback__
    while trace is not None:
        if not trace.tb_frame.f_code.co_filename.startswith(_OWN):  # the recorder stands between the calls of modules
            frames.append((trace.tb_frame, trace.tb_lasti, trace.tb_lineno))
        trace = trace.tb_next
    starts = [i for i, (frame, *_) in enumerate(frames) if frame.f_code is forward]
    if not starts:
        return []
    names: list[str] = []
    taken: list[str] = []
    by_use = isinstance(error, (AttributeError, TypeError)) and "NoneType" in str(error)
    for index, (frame, at, line) in enumerate(reversed(frames[starts[0] :])):
        expression = _expression(frame.f_code, at)
        if index == 0:
            names = [n for n in _refused(frame.f_code, line) if _is_none(n, frame)]
            names = names or (list(_nones(expression, frame)) if by_use else [])
            taken = _positional(frame.f_code)
        elif isinstance(expression, ast.Call):
            values, kept = _passed(expression, names, taken)
            names = [*kept, *(n for value in values for n in _nones(value, frame))]
            if not _forwards(expression):
                taken = _positional(frame.f_code)
        names = list(dict.fromkeys(_causes(names, frame)))
    return names


def _expression(code: CodeType, at: int) -> ast.AST | None:
    """What the instruction at ``at`` evaluates."""
    start, end, left, right = next(itertools.islice(code.co_positions(), at // 2, None), (None,) * 4)
    if start is None or end is None or left is None or right is None:
        return None
    lines = [linecache.getline(code.co_filename, n).encode() for n in range(start, end + 1)]
    lines[-1] = lines[-1][:right]  # before the cut on the left: it may be the same line
    lines[0] = lines[0][left:]
    try:
        return ast.parse("(" + b"".join(lines).decode() + "\n)", mode="eval").body
    except (SyntaxError, ValueError):
        return None


def _refused(code: CodeType, line: int) -> Iterator[str]:
    """Variables that the statement at a line asks for: ``assert y is not None``, ``if y is None: raise ...``."""
    function = _function(code)
    at = line - code.co_firstlineno + 1
    for node in ast.walk(function) if function is not None else ():
        if isinstance(node, ast.Assert) and node.lineno <= at <= (node.end_lineno or 0):
            yield from _presences(node.test)
        elif isinstance(node, ast.If):
            for body, taken in ((node.body, True), (node.orelse, False)):
                if any(isinstance(n, ast.Raise) and n.lineno <= at <= (n.end_lineno or 0) for n in body):
                    yield from _absences(node.test) if taken else _presences(node.test)


def _absences(test: ast.expr) -> Iterator[str]:
    """Variables that a test finds missing: ``x is None``, ``not x``, and each of ``x is None or y is None``."""
    if isinstance(test, ast.BoolOp):
        for value in test.values:
            yield from _absences(value)
    elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not) and isinstance(test.operand, ast.Name):
        yield test.operand.id
    elif isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Is) and isinstance(test.left, ast.Name):
        yield test.left.id


def _nones(expression: ast.AST | None, frame: FrameType) -> Iterator[str]:
    """Variables of an expression that are None."""
    held = frame.f_locals
    for node in ast.walk(expression) if expression is not None else ():
        if isinstance(node, ast.Name) and node.id in held and held[node.id] is None:
            yield node.id


def _positional(code: CodeType) -> list[str]:
    names = list(code.co_varnames[: code.co_argcount])
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def _forwards(call: ast.Call) -> bool:
    """Whether a call hands on what it got: ``function(*args, **kwargs)``."""
    return any(isinstance(a, ast.Starred) for a in call.args)


def _passed(call: ast.Call, names: Iterable[str], taken: list[str]) -> tuple[list[ast.expr], list[str]]:
    """What a call gives for parameters ``names``, and those that it may hand on under their own names."""
    given = {k.arg: k.value for k in call.keywords if k.arg is not None}
    if not _forwards(call):
        given.update(zip(taken, call.args, strict=False))
    open_ended = _forwards(call) or any(k.arg is None for k in call.keywords)
    values = [given[n] for n in names if n in given]
    return values, [n for n in names if n not in given] if open_ended else []


def _causes(names: Iterable[str], frame: FrameType) -> Iterator[str]:
    """The variables whose absence left ``names`` None in a function; the names themselves where nothing tells."""
    function = _function(frame.f_code)
    for name in names:
        found = [name]
        for _ in range(_STEPS):
            further = [c for n in found for c in _sources(function, n) if c != n and _is_none(c, frame)]
            if not further:
                break
            found = list(dict.fromkeys(further))
        yield from found


def _is_none(name: str, frame: FrameType) -> bool:
    return name in frame.f_locals and frame.f_locals[name] is None


@functools.lru_cache(maxsize=256)  # every failed attempt at a forward asks
def _function(code: CodeType) -> ast.AST | None:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, TypeError, SyntaxError, ValueError):
        return None


def _sources(function: ast.AST | None, name: str) -> Iterator[str]:
    """Variables that must be there for ``name`` to get a value: of tests around its assignments, of their values."""
    for node in ast.walk(function) if function is not None else ():
        if isinstance(node, ast.If) and any(_assigns(inner, name) for body in node.body for inner in ast.walk(body)):
            yield from _presences(node.test)
        if isinstance(node, ast.Assign) and _assigns(node, name):
            if isinstance(node.value, ast.IfExp):
                yield from _presences(node.value.test)
            elif isinstance(node.value, ast.Name):
                yield node.value.id


def _assigns(node: ast.AST, name: str) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else ()
    return any(isinstance(t, ast.Name) and t.id == name for target in targets for t in ast.walk(target))


def _presences(test: ast.expr) -> Iterator[str]:
    """Variables whose presence a test asks for: ``x is not None``, ``x``, and both of ``x and y``."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        for value in test.values:
            yield from _presences(value)
    elif isinstance(test, ast.Name):
        yield test.id
    elif isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.IsNot) and isinstance(test.left, ast.Name):
        yield test.left.id
