"""From targets to jobs, in the parent process: walk folders, read syntax trees, import nothing.

Files whose syntax tree has no torch in it are left out, so a folder without models costs no torch
import at all.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from initlint.facts import NotAnalysed
from initlint.options import ProbeOptions
from initlint.probe import scan as scanning
from initlint.probe.names import used
from initlint.probe.outcome import Candidate, Job
from initlint.probe.scan import Scan
from initlint.probe.slicing import is_light
from initlint.probe.target import Target, relative

#: Folders that hold no source of the project; environments are also known by their pyvenv.cfg.
_SKIPPED = frozenset(
    ["__pycache__", "build", "dist", "site-packages", "node_modules", "venv", "env", "virtualenv", "eggs", "wheels"]
)

#: File names that pytest collects.
_TESTS = re.compile(r"test_.*\.py|.*_test\.py|conftest\.py")


def discover(targets: Sequence[Target], options: ProbeOptions) -> list[Job]:
    """One job for each file or named model, folders expanded, in a stable order; each file once."""
    jobs: list[Job] = []
    seen: set[tuple[str, str, str]] = set()
    for target in expand(targets, options):
        key = (target.path, target.module, target.call)
        if key not in seen:
            seen.add(key)
            jobs.append(examine(target, options))
    scanning.forget()
    return [job for job in jobs if job.runs or job.not_analysed or not job.target.found]


def expand(targets: Sequence[Target], options: ProbeOptions) -> Iterator[Target]:
    """The targets with every folder replaced by its files that import torch."""
    for target in targets:
        if target.kind != "folder":
            yield target
            continue
        files = [path for path in walk(target.path) if _mentions_torch(path)]
        contained = _contained(files, options.directory)
        for path in files:
            yield Target(
                text=relative(path, options.directory),
                kind="file",
                path=path,
                found=True,
                covered=tuple(sorted(contained.get(path, {}).items())),
            )


def walk(folder: str) -> Iterator[str]:
    """Python files below a folder, sorted; hidden, environment, build and cache folders are left out."""
    for current, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_skipped(current, name))
        for name in sorted(files):
            if name.endswith(".py") and not name.startswith("."):
                yield os.path.join(current, name)


def examine(target: Target, options: ProbeOptions) -> Job:
    """What a file's syntax says about its models; nothing is looked at for a named model or a module."""
    if target.kind != "file" or target.named:
        return Job(target)
    result = scanning.scan(target.path)
    if result is None:
        return Job(target)  # the child says what is wrong with the syntax
    if not result.torch:
        return Job(target, runs=False)
    candidates, missing = candidates_of(result, target, options)
    runs = bool(candidates)
    return Job(target, tuple(candidates), tuple(missing), runs)


def candidates_of(result: Scan, target: Target, options: ProbeOptions) -> tuple[list[Candidate], list[NotAnalysed]]:
    """Instances, factories and classes, in the order in which they are best built (wholes before parts)."""
    inside = _mentioned_by(result)
    found: list[Candidate] = []
    missing: list[NotAnalysed] = []
    base = relative(target.path, options.directory)
    for name, node in result.instances.items():
        if name.startswith("_"):
            continue
        if is_light(result, name):
            found.append(Candidate(name, "instance", node.lineno))
            continue
        missing.append(
            NotAnalysed(
                target=f"{base}::{name}",
                reason="making it loads data or calls other packages, which is not executed",
                hint=f"initlint '{base}::{name}' executes what it needs; --import full runs the whole file.",
                file=target.path,
                line=node.lineno,
                harmless=True,
            )
        )
    for name, factory in result.factories.items():
        if not scanning.trains(factory) and not scanning.loads(factory):
            found.append(Candidate(name, "factory", factory.lineno, inside.get(name, ())))
    classes = sorted(result.classes.items(), key=lambda item: (len(inside.get(item[0], ())) > 0, item[1].lineno))
    for name, node in classes:
        found.append(Candidate(name, "class", node.lineno, inside.get(name, ())))
    missing += _out_of_reach(result, target, base)
    return found, missing


def _out_of_reach(result: Scan, target: Target, base: str) -> Iterator[NotAnalysed]:
    """Module classes inside functions, which exist only while these run.

    What a function returns is reached through it; those of tests (pytest's names) are not the project's models.
    """
    for name, (function, node) in result.inner.items():
        if result.factories.get(function.name) is function:
            continue
        test = function.name.startswith("test") or _TESTS.fullmatch(os.path.basename(target.path)) is not None
        how = scanning.returns(function, node.name)
        file, around = os.path.basename(target.path), f"{function.name}()"
        if how == "instance" and result.definitions.get(function.name) is function:
            hint = f"initlint '{base}::{function.name}(...)' analyses what {around} returns."
        elif how:
            hint = f"Let a function of {file} without required arguments return an instance of it."
        else:
            hint = f"Move the class out of {around} to the top level of {file}."
        yield NotAnalysed(
            target=f"{base}::{name}",
            reason=f"it is defined inside {around} (line {node.lineno}), which is not executed",
            hint=hint,
            file=base,
            line=node.lineno,
            harmless=test or bool(how),
        )


def _mentioned_by(result: Scan) -> dict[str, tuple[str, ...]]:
    """For each class and factory, the other model classes whose code mentions it (it may be a part of them)."""
    users: dict[str, set[str]] = {}
    for name, node in result.classes.items():
        bases = {scanning.last_name(base) for base in node.bases}
        for mentioned in used(*node.body) & (set(result.classes) | set(result.makers)) - {name} - bases:
            users.setdefault(mentioned, set()).add(name)
            if mentioned in result.makers:
                for part in used(result.makers[mentioned]) & set(result.classes) - {name}:
                    users.setdefault(part, set()).add(name)
    for part, whole in _handed_over(result):
        users.setdefault(part, set()).add(whole)
    return {name: tuple(sorted(found)) for name, found in users.items()}


def _handed_over(result: Scan) -> Iterator[tuple[str, str]]:
    """(class, class that it is handed to), where a function makes a model: ``Net(Block, [2, 2])``."""
    for maker in result.makers.values():
        for call in scanning.calls(maker):
            whole = scanning.last_name(call.func)
            if whole in result.classes:
                values = (*call.args, *(keyword.value for keyword in call.keywords))
                names = {value.id for value in values if isinstance(value, ast.Name)}
                yield from ((name, whole) for name in names & set(result.classes) - {whole})


def _contained(files: Sequence[str], directory: str) -> dict[str, dict[str, str]]:
    """Classes that model classes of *other* files of the walk use: file -> class -> who uses it."""
    contained: dict[str, dict[str, str]] = {}
    for path in files:
        result = scanning.scan(path)
        if result is None or not result.torch:
            continue
        for user, node in result.classes.items():
            for name in used(*node.body):
                origin = result.imports.get(name)
                place = scanning.file_of(origin, path) if origin and "." in origin else None
                if place is not None and place[1] and place[0] != path:
                    contained.setdefault(place[0], {}).setdefault(place[1], f"{relative(path, directory)}::{user}")
    return contained


def _mentions_torch(path: str) -> bool:
    result = scanning.scan(path)
    if result is not None:
        return result.torch
    try:  # a syntax error is worth saying only where the file is about torch
        with open(path, "rb") as file:
            return b"import torch" in file.read()
    except OSError:
        return False


def _is_skipped(parent: str, name: str) -> bool:
    if name.startswith(".") or name in _SKIPPED or name.endswith((".egg-info", ".egg")):
        return True
    return os.path.isfile(os.path.join(parent, name, "pyvenv.cfg"))


def named(job: Job, call: str) -> Job:
    """The same file with one model named."""
    return replace(job, target=replace(job.target, call=call), candidates=(), not_analysed=())
