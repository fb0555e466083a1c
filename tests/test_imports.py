"""Imports point downwards only, and torch stays in the probe: read from the source, not from what happens to run."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "initlint"

#: Layers from the bottom to the top; a module may import from its own layer and from those below.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "records", "facts", "findings", "codec", "files", "options", "relocate", "resources", "told"}),
    frozenset({"theory"}),
    frozenset({"signal"}),
    frozenset(
        {
            "rule",
            "table",
            "asked",
            "alike",
            "carry",
            "codebooks",
            "generators",
            "depth_gains",
            "diagnosis",
            "reasons",
            "temperature",
            "upstream",
            "heads",
            "wiring",
            "odds",
            "duals",
            "runtime_scale",
            "policies",
            "expressions",
            "kernels",
            "coherence",
            "roles",
            *(path.stem for path in PACKAGE.glob("*_rule.py")),
        }
    ),
    frozenset({"packs", "pack_files", "catalogue", "selection"}),
    frozenset(
        {"config", "config_values", "inputs_table", "suppressions", "baseline", "cache", "verdicts", "merge", "absorb"}
    ),
    frozenset({"engine"}),
    frozenset({"emit", "fix"}),
    frozenset({"collect", "ahead"}),
    frozenset({"cli", "cli_check", "cli_rules", "cli_config", "cli_merge", "cli_output", "api", "pytest_plugin"}),
    frozenset({"__main__"}),
)
#: The probe stands beside the layers: it knows plain data and the theory, and is known to the front ends only.
PROBE_MAY_USE = frozenset({"errors", "records", "facts", "theory", "codec", "files", "options", "probe", "__init__"})
PROBE_MAY_BE_USED_BY = frozenset({"probe", "collect", "inputs_table", "cli_check", "cli_output", "api", "fix"})
RULES_MAY_USE = frozenset({"records", "facts", "findings", "signal", "theory"}) | LAYERS[3]
#: Third-party packages and where they may be imported.
FOREIGN = {
    "torch": ("probe",),
    "numpy": ("probe",),
    "safetensors": ("probe",),
    "jinja2": ("emit",),
    "markupsafe": ("emit",),
    "libcst": ("fix",),
    "click": ("cli", "cli_check", "cli_rules", "cli_config", "cli_merge", "cli_output", "emit"),
    "pytest": ("pytest_plugin",),
}


def part(path: Path) -> str:
    """The layer's member that a file belongs to: ``signal`` for ``initlint/signal/norm.py``."""
    inside = path.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Names of the modules that a file imports when it runs (not for typing only), with lines."""
    todo: list[ast.AST] = [ast.parse(path.read_text("utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            if node.module == "initlint":
                yield from ((f"initlint.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield node.module or "", node.lineno
        todo += ast.iter_child_nodes(node)


def own(name: str) -> str | None:
    """``signal`` for ``initlint.signal.norm``; ``None`` for what is not initlint's."""
    parts = name.split(".")
    if parts[0] != "initlint":
        return None
    known = len(parts) > 1 and ((PACKAGE / parts[1]).is_dir() or (PACKAGE / f"{parts[1]}.py").is_file())
    return parts[1] if known else "__init__"


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
LEVELS = {name: level for level, names in enumerate(LAYERS) for name in names}


def test_every_module_has_a_layer() -> None:
    assert {part(path) for path in MODULES} - {"probe"} <= LEVELS.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    me = part(path)
    for name, line in imports(path):
        other = own(name)
        where = f"{path.relative_to(ROOT)}:{line}: {name}"
        if other is None or other == "__init__":
            continue
        if me == "probe":
            assert other in PROBE_MAY_USE, where
        elif other == "probe":
            assert me in PROBE_MAY_BE_USED_BY, where
        else:
            assert LEVELS[other] <= LEVELS[me], where


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_third_party_packages_have_their_place(path: Path) -> None:
    for name, line in imports(path):
        top = name.split(".")[0]
        if top in FOREIGN:
            assert part(path) in FOREIGN[top], f"{path.relative_to(ROOT)}:{line}: {name}"
        else:
            assert top == "initlint" or top in sys.stdlib_module_names, f"{path.relative_to(ROOT)}:{line}: {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "rules").rglob("*.py")), ids=lambda path: path.stem)
def test_rules_use_the_surface_for_rules(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    # Functions of the module build example models, and so do the methods marked as examples: they may import torch.
    makers = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    makers += [node for node in ast.walk(tree) if _is_example(node)]
    inside = {id(node) for maker in makers for node in ast.walk(maker)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom) or id(node) in inside:
            continue
        for name in [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]:
            other = own(name)
            where = f"{path.relative_to(ROOT)}:{node.lineno}: {name}"
            assert other in RULES_MAY_USE if other else name.split(".")[0] in sys.stdlib_module_names, where


def _is_example(node: ast.AST) -> TypeGuard[ast.FunctionDef]:
    return isinstance(node, ast.FunctionDef) and any(
        isinstance(mark, ast.Name) and mark.id in ("bad", "good") for mark in node.decorator_list
    )


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["rules"], ["rule", "IL001"], ["config"], ["check", "--help"], ["completion", "zsh"]],
    ids=lambda arguments: " ".join(arguments),
)
def test_no_torch_where_none_is_needed(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from initlint.cli import run; code = run(sys.argv[1:]);"
        "print([m for m in ('torch', 'numpy', 'jinja2', 'libcst') if m in sys.modules], code, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stderr.strip().splitlines()[-1] == "[] 0"
    assert done.stdout.strip()


def test_importing_initlint_and_its_pytest_plugin_is_light() -> None:
    code = "import sys, initlint, initlint.pytest_plugin; print('torch' in sys.modules, 'initlint.api' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]
