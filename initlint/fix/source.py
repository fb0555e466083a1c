"""Source text as the planner needs it: statements by line, init calls, the spelling of modules, and edits by lines.

Only the standard library's ``ast``: planning is part of every check and has to cost nothing.
"""

from __future__ import annotations

import ast
import io
import os
import re
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from initlint.facts import Site
from initlint.findings import Edit

_NEWLINE = re.compile(r"\r\n|\r|\n")

#: Arguments after the tensor of the init functions; methods of tensors (``w.normal_(0, 1)``) take the same without it.
SIGNATURES: dict[str, tuple[str, ...]] = {
    "normal_": ("mean", "std"),
    "trunc_normal_": ("mean", "std", "a", "b"),
    "uniform_": ("a", "b"),
    "constant_": ("val",),
    "fill_": ("value",),
    "ones_": (),
    "zeros_": (),
    "zero_": (),
    "eye_": (),
    "dirac_": ("groups",),
    "xavier_normal_": ("gain",),
    "xavier_uniform_": ("gain",),
    "kaiming_normal_": ("a", "mode", "nonlinearity"),
    "kaiming_uniform_": ("a", "mode", "nonlinearity"),
    "orthogonal_": ("gain",),
    "sparse_": ("sparsity", "std"),
}


@dataclass(frozen=True, slots=True)
class Change:
    """Put ``text`` in the place of what lies between two positions, (line from 1, column in characters from 0)."""

    start: tuple[int, int]
    end: tuple[int, int]
    text: str


@dataclass(frozen=True, slots=True)
class InitCall:
    """A call that initialises a tensor: ``nn.init.normal_(w, std=1)`` or ``w.data.normal_(0, 1)``."""

    node: ast.Call
    op: str
    target: ast.expr
    method: bool

    def argument(self, name: str) -> ast.expr | None:
        """The argument of that name, given by keyword or by position."""
        for keyword in self.node.keywords:
            if keyword.arg == name:
                return keyword.value
        names = SIGNATURES.get(self.op, ())
        place = names.index(name) + (not self.method) if name in names else len(self.node.args)
        return self.node.args[place] if place < len(self.node.args) else None


class Source:
    """A parsed file."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.lines = _NEWLINE.split(text)
        self.tree = ast.parse(text)
        self.names = dict(_imports(self.tree))

    # -- places ---------------------------------------------------------------------------------

    def fits(self, site: Site) -> bool:
        """Whether the file still has at that line what the analysis saw there."""
        if not 1 <= site.line <= len(self.lines):
            return False
        return not site.text or self.lines[site.line - 1].strip().startswith(site.text.strip())

    def statement(self, line: int, column: int | None = None) -> ast.stmt | None:
        """The innermost statement that covers the place; ``None`` where several on the line could be meant."""
        covering = self.around(line)
        parents = {id(node) for node in covering if any(c in covering for c in ast.walk(node) if c is not node)}
        leaves = [node for node in covering if id(node) not in parents]
        if len(leaves) > 1 and column is not None:
            leaves = [n for n in leaves if n.col_offset < column <= (n.end_col_offset or 0)] or leaves
        if len(leaves) > 1:
            leaves = [node for node in leaves if self.init_calls(node)]
        return leaves[0] if len(leaves) == 1 else None

    def around(self, line: int) -> list[ast.stmt]:
        """All statements that cover the line, outermost first."""
        found = [
            node
            for node in ast.walk(self.tree)
            if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno)
        ]
        return sorted(found, key=lambda node: (node.lineno, -(node.end_lineno or 0)))

    def text(self, node: ast.expr | ast.stmt | ast.keyword) -> str:
        """The source of a node, as written."""
        (first, begin), (last, end) = self.span(node)
        if first == last:
            return self.lines[first - 1][begin:end]
        return "\n".join([self.lines[first - 1][begin:], *self.lines[first : last - 1], self.lines[last - 1][:end]])

    def span(self, node: ast.expr | ast.stmt | ast.keyword) -> tuple[tuple[int, int], tuple[int, int]]:
        """Where a node begins and ends; ast counts columns in bytes of UTF-8."""
        last = node.end_lineno or node.lineno
        begin, end = node.col_offset, node.end_col_offset or 0
        return (node.lineno, self._column(node.lineno, begin)), (last, self._column(last, end))

    def _column(self, line: int, offset: int) -> int:
        text = self.lines[line - 1]
        return offset if text.isascii() else len(text.encode()[:offset].decode())

    def indent(self, line: int) -> str:
        """The white space that a line begins with."""
        text = self.lines[line - 1]
        return text[: len(text) - len(text.lstrip())]

    def step(self) -> str:
        """One level of indentation, as this file has it."""
        for node in ast.walk(self.tree):
            body = getattr(node, "body", None)
            if isinstance(node, ast.FunctionDef) and isinstance(body, list) and body[0].lineno > node.lineno:
                return self.indent(body[0].lineno)[len(self.indent(node.lineno)) :] or "    "
        return "    "

    # -- names ----------------------------------------------------------------------------------

    def resolve(self, node: ast.expr) -> str:
        """The dotted name with aliases of imports written out: ``torch.nn.init.normal_``; "" for other expressions."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return ""
        return ".".join([self.names.get(node.id, node.id), *reversed(parts)])

    def spell(self, name: str, like: InitCall | None = None) -> str:
        """How this file can write a dotted name (``torch.nn.init.ones_``); "" when nothing imported leads there."""
        parent, _, local = name.rpartition(".")
        function = like.node.func if like is not None and not like.method else None
        if isinstance(function, ast.Attribute) and parent == "torch.nn.init":
            return f"{self.text(function.value)}.{local}"
        best = ""
        for alias, full in self.names.items():
            if name == full or name.startswith(f"{full}."):
                written = alias + name[len(full) :]
                # `nn.init.ones_` reads better than `torch.nn.init.ones_`, and an imported name better than both
                best = written if not best or written.count(".") < best.count(".") else best
        return best

    def init_calls(self, statement: ast.stmt) -> list[InitCall]:
        """The init calls of a statement; of a compound one, of its header only."""
        found = []
        for node in _own_nodes(statement):
            call = self._init_call(node) if isinstance(node, ast.Call) else None
            if call is not None:
                found.append(call)
        return found

    def _init_call(self, node: ast.Call) -> InitCall | None:
        full = self.resolve(node.func)
        op = full.rpartition(".")[2] if full else node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if op not in SIGNATURES:
            return None
        if full.startswith("torch.nn.init."):
            named = next((k.value for k in node.keywords if k.arg == "tensor"), None)
            target = node.args[0] if node.args else named
            return InitCall(node, op, target, False) if target is not None and named is None else None
        if isinstance(node.func, ast.Attribute):
            return InitCall(node, op, node.func.value, True)
        return None

    # -- edits ----------------------------------------------------------------------------------

    def edit(self, changes: Iterable[Change]) -> Edit:
        """The changes as one edit of whole lines."""
        ordered = sorted(changes, key=lambda c: c.start, reverse=True)
        first, last = min(c.start[0] for c in ordered), max(c.end[0] for c in ordered)
        lines = self.lines[first - 1 : last]
        for change in ordered:
            (start, begin), (stop, end) = change.start, change.end
            head, tail = lines[start - first][:begin], lines[stop - first][end:]
            lines[start - first : stop - first + 1] = (head + change.text + tail).split("\n")
        return Edit(self.file, first, last, "\n".join(lines), "\n".join(self.lines[first - 1 : last]))

    def put(self, node: ast.expr | ast.stmt | ast.keyword, text: str) -> Change:
        """Text in the place of a node."""
        start, end = self.span(node)
        return Change(start, end, text)

    def insert_after(self, line: int, added: Iterable[str], indent: str) -> Edit:
        """New lines below a line."""
        here = self.lines[line - 1]
        return Edit(self.file, line, line, "\n".join([here, *(indent + text for text in added)]), here)

    def function(self, owner: str, name: str) -> ast.FunctionDef | None:
        """The method of a class, by the names in the source; ``owner`` may be dotted."""
        body: list[ast.stmt] = self.tree.body
        for part in owner.split("."):
            found = next((n for n in body if isinstance(n, ast.ClassDef) and n.name == part), None)
            if found is None:
                return None
            body = found.body
        return next((n for n in body if isinstance(n, ast.FunctionDef) and n.name == name), None)

    def has_comment(self, node: ast.expr | ast.stmt) -> bool:
        """Whether a comment lies between a node's lines, which rewriting the node would lose."""
        if node.end_lineno == node.lineno:
            return False
        return any("#" in line for line in self.lines[node.lineno - 1 : (node.end_lineno or node.lineno) - 1])


def read(file: str, base: str = "") -> Source | None:
    """The parsed file; ``None`` when it cannot be read or is no Python."""
    try:
        with open(os.path.join(base, file), "rb") as stream:
            return Source(file, decode(stream.read()))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None


def decode(content: bytes) -> str:
    """The text of a Python file by its own encoding. Raises SyntaxError or ValueError."""
    encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
    return content.decode(encoding)


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    yield alias.asname, alias.name
                else:
                    head = alias.name.partition(".")[0]
                    yield head, head
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _own_nodes(statement: ast.stmt) -> Iterator[ast.AST]:
    """The nodes of a statement without the statements inside it."""
    todo: list[ast.AST] = [statement]
    while todo:
        node = todo.pop()
        yield node
        todo += [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.stmt)]
