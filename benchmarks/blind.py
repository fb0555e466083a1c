"""Rename all classes, attributes, functions and variables of a case mechanically.

A rule that decides by a name finds nothing, or something else, on the result. What belongs to a library keeps its name:
anything that torch's modules, tensors or init functions call so, and the interface of a case (``Model``, ``forward``,
``example_inputs``). Names inside strings (filters on parameter names) are renamed with the attributes they mean.

    python benchmarks/blind.py ../shared/bugs/045-residual-scaling-w3-for-w2 /tmp/out
"""

from __future__ import annotations

import ast
import builtins
import keyword
import re
import sys
from pathlib import Path

import torch
from torch import nn

KEEP = {"Model", "forward", "example_inputs", "self", "super", "__init__", "main", "cls", "args", "kwargs"}
# keyword arguments and modes of torch functions, which a case may also use as variables
KEEP |= {
    "gain",
    "a",
    "b",
    "mode",
    "fan_in",
    "fan_out",
    "generator",
    "nonlinearity",
    "mean",
    "std",
    "val",
    "groups",
    "dim",
}


def library_names() -> set[str]:
    """Names that torch or Python give a meaning."""
    known = (
        set(dir(nn.Module))
        | set(dir(torch.Tensor))
        | set(dir(nn.init))
        | set(dir(torch))
        | set(dir(nn))
        | set(dir(nn.functional))
    )
    for layer in (
        nn.Linear(2, 2),
        nn.Conv2d(2, 2, 1),
        nn.LayerNorm(2),
        nn.Embedding(2, 2),
        nn.LSTM(2, 2),
        nn.BatchNorm2d(2),
    ):
        known |= set(vars(layer)) | set(layer._parameters) | set(layer._buffers) | set(dir(layer))
    return known | set(dir(builtins)) | set(keyword.kwlist) | KEEP


class Collector(ast.NodeVisitor):
    """Names that the file itself defines."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.imported: set[str] = set()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.names.append(node.name)
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.names.append(node.name)
        self.names += [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self.names.append(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.ctx, ast.Store):
            self.names.append(node.attr)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute) and node.func.attr in (
            "register_buffer",
            "register_parameter",
            "add_module",
        ):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                self.names.append(first.value)
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.imported |= {a.asname or a.name.split(".")[0] for a in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.imported |= {a.asname or a.name for a in node.names}


def renames(source: str) -> dict[str, str]:
    """New names for what a file defines."""
    collector = Collector()
    collector.visit(ast.parse(source))
    known = library_names() | collector.imported
    fresh = [n for n in dict.fromkeys(collector.names) if n not in known and not n.startswith("__")]
    # a filter such as `"Norm" in type(m).__name__` must select the same things afterwards: the part of a name that
    # a string of the file picks out gets a token of its own, in the name and in the string
    strings = {n.value for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    parts = sorted({s for s in strings if len(s) > 2 and s not in fresh and any(s in name for name in fresh)}, key=len)
    tokens = {part: f"q{i}q" for i, part in enumerate(parts)}
    table = {}
    for i, name in enumerate(fresh):
        inside = "".join(f"_{token}" for part, token in tokens.items() if part in name)
        table[name] = f"z{i}{inside}{'Z' if name[:1].isupper() else ''}"
    return table | tokens


def apply(source: str, table: dict[str, str]) -> str:
    """The source with every whole word of the table replaced, in strings too (filters on names)."""
    if not table:
        return source
    pattern = re.compile(
        r"(?<![A-Za-z0-9_])(" + "|".join(sorted(map(re.escape, table), key=len, reverse=True)) + r")(?![A-Za-z0-9_])"
    )
    return pattern.sub(lambda match: table[match.group(1)], source)


def blind_case(folder: Path, target: Path) -> dict[str, str]:
    """Write both twins renamed and the meta file unchanged; returns old parameter name -> new one."""
    target.mkdir(parents=True, exist_ok=True)
    sources = {twin: (folder / f"{twin}.py").read_text() for twin in ("buggy", "fixed")}
    table = renames("\n".join(sources.values()))  # one table, so that both twins stay comparable
    for twin, source in sources.items():
        (target / f"{twin}.py").write_text(apply(source, table))
    meta = (folder / "meta.toml").read_text()
    (target / "meta.toml").write_text(meta)
    listed = re.search(r"parameters = \[(.*)\]", meta)
    names = re.findall(r'"([^"]+)"', listed.group(1)) if listed else []
    return {name: ".".join(table.get(part, part) for part in name.split(".")) for name in names}


if __name__ == "__main__":
    print(blind_case(Path(sys.argv[1]), Path(sys.argv[2])))
