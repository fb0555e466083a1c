"""Edited copies that can be analysed in the place of the originals, and that are gone afterwards.

Where the models are in the edited file, the copy lies beside it under another name, so that relative imports work.
Where they only import it, the folders on its way from the working directory are laid out anew in a temporary folder,
with links to everything else: there the file keeps its name, and the models find the edited one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from initlint.facts import ModelFacts
from initlint.findings import Edit, Run
from initlint.fix.edit import EditError, edited


@dataclass(slots=True)
class Trial:
    """A file with some edits made, and the models to analyse with it."""

    file: str
    edits: tuple[Edit, ...]
    models: dict[str, str] = field(default_factory=dict)  # target in the copy -> target in the original
    problem: str = ""
    _left: list[Path] = field(default_factory=list)

    def clean(self) -> None:
        """Delete what was made for the trial."""
        for path in self._left:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
                continue
            path.unlink(missing_ok=True)
            for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
                with suppress(OSError):
                    compiled.unlink()


@contextmanager
def copies(run: Run, trials: Sequence[Trial], contents: dict[str, bytes]) -> Iterator[None]:
    """Make the copies of all trials; what goes wrong is noted in the trial."""
    try:
        for number, trial in enumerate(trials):
            try:
                new = edited(contents[trial.file], trial.edits)
                _make(trial, new, [r.facts for r in run.models if _concerned(r.facts, run, trial.file)], number)
            except EditError as error:
                trial.problem = error.message
            except OSError as error:
                trial.problem = f"no copy could be made ({error.strerror or error})"
        yield
    finally:
        for trial in trials:
            trial.clean()


def parts(target: str) -> tuple[str, str]:
    """Place and attribute of a target id: ``path.py::Net(depth=4)``, ``package.module:factory``."""
    head = target.partition("(")[0]
    separator = "::" if "::" in head else ":"
    place = head.partition(separator)[0]
    return place, target[len(place) + len(separator) :]


def _make(trial: Trial, content: bytes, models: Sequence[ModelFacts], number: int) -> None:
    if all(facts.file == trial.file for facts in models):
        original = Path(trial.file)
        path = original.with_name(f"{original.stem}_initlint_{os.getpid()}_{number}.py")
        with path.open("xb") as stream:
            trial._left.append(path)
            stream.write(content)
        names = {facts.target: path.as_posix() for facts in models}
    else:
        files = {trial.file, *(facts.file for facts in models)}
        if any(os.path.isabs(file) or ".." in PurePosixPath(file).parts for file in files):
            trial.problem = "a file outside the working directory is concerned"
            return
        folder = Path(tempfile.mkdtemp(prefix=".initlint-", dir="."))
        trial._left.append(folder)
        _lay_out(folder, PurePosixPath(trial.file), content)
        names = {facts.target: (folder / facts.file).as_posix() for facts in models}
    trial.models = {f"{names[facts.target]}::{parts(facts.target)[1]}": facts.target for facts in models}


def _lay_out(folder: Path, file: PurePosixPath, content: bytes) -> None:
    """The working directory anew in ``folder``, with another content for one file."""
    here, there = Path("."), folder
    for name in file.parts:
        for entry in os.scandir(here):
            if entry.name in (name, folder.name, "__pycache__"):
                continue
            if entry.name.endswith(".py") and entry.is_file():
                shutil.copyfile(entry.path, there / entry.name)
            else:
                os.symlink(os.path.abspath(entry.path), there / entry.name)
        here, there = here / name, there / name
        if name != file.parts[-1]:
            there.mkdir()
    there.write_bytes(content)


def _concerned(facts: ModelFacts, run: Run, file: str) -> bool:
    """Whether a change of the file can change the model: it is defined there, or a line there wrote into it."""
    if facts.file == file:
        return True
    written = any(w.site is not None and w.site.file == file for p in facts.parameters for w in p.writes)
    return written or any(f.model == facts.target and f.site is not None and f.site.file == file for f in run.findings)
