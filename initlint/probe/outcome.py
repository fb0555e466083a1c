"""Jobs for the worker, and what comes back from them: plain data and the bookkeeping of one target."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import Any

from initlint import codec
from initlint.facts import ModelFacts, NotAnalysed
from initlint.options import ProbeOptions
from initlint.probe.target import Target, relative
from initlint.records import dataclass

#: Lines of a target's output that are repeated when it failed.
SHOWN_OUTPUT = 3
#: Begins the line that says whose output follows.
OUTPUT_MARK = b"\x1einitlint "


@dataclass(frozen=True, slots=True)
class Event:
    """Progress, for people: a target has started or is done."""

    kind: str  # "start" | "done"
    target: str
    total: int = 0
    done: int = 0


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """All that is known about one target (a file, or one named model)."""

    target: Target
    models: tuple[ModelFacts, ...] = ()
    not_analysed: tuple[NotAnalysed, ...] = ()
    # (absolute path, sha256) of project files imported or read ("": absent) and of folders listed (ending in a slash)
    dependencies: tuple[tuple[str, str], ...] = ()
    packages: tuple[tuple[str, str], ...] = ()  # (name, version) of third-party packages imported, "": not found
    variables: tuple[str, ...] = ()  # names of environment variables that the project's code asked for
    seconds: float = 0.0
    output: str = ""  # the end of what user code printed
    peak_memory: int = 0  # bytes, largest seen while polling


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that a file seems to offer, from its syntax alone."""

    name: str
    kind: str  # "class" | "factory" | "instance"
    line: int
    inside: tuple[str, ...] = ()  # classes and factories of the same file that mention it in their code


@dataclass(frozen=True, slots=True)
class Job:
    """One target with what the syntax says about it."""

    target: Target
    candidates: tuple[Candidate, ...] = ()
    not_analysed: tuple[NotAnalysed, ...] = ()
    runs: bool = True  # False: nothing to build
    skip: tuple[str, ...] = ()  # candidates dealt with before a restart
    covered: tuple[str, ...] = ()  # classes seen inside models before a restart
    meta: tuple[str, ...] = ()  # candidates to build on meta: they did not fit in memory before a restart
    broken: tuple[tuple[str, str], ...] = ()  # how the traces of candidates ended before a restart
    previous: State | None = None

    def encode(self, options: ProbeOptions) -> bytes:
        """The line that tells the child what to do."""
        message = {
            "target": codec.to_plain(self.target),
            "candidates": [codec.to_plain(candidate) for candidate in self.candidates],
            "skip": list(self.skip),
            "covered": list(self.covered),
            "meta": list(self.meta),
            "broken": list(self.broken),
            "options": codec.to_plain(options),
            "directory": options.directory,
        }
        return json.dumps(message).encode() + b"\n"

    def state(self) -> State:
        """The bookkeeping to go on with."""
        return self.previous or State()


@dataclass(slots=True)
class State:
    """What a target has reported so far."""

    planned: list[dict[str, Any]] = field(default_factory=list)
    begun: dict[str, int | None] = field(default_factory=dict)  # candidate -> line
    current: str | None = None
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)  # candidate -> fields of ModelFacts
    traced: set[str] = field(default_factory=set)
    missing: list[NotAnalysed] = field(default_factory=list)
    covered: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    variables: set[str] = field(default_factory=set)
    oversized: dict[str, str] = field(default_factory=dict)  # candidate -> how its first build ended
    broken: dict[str, str] = field(default_factory=dict)  # candidate -> how its fork ended
    done: bool = False
    lines_printed: int = 0

    def take(self, message: Mapping[str, Any]) -> None:
        """Take in one message of the child."""
        event = message.get("event")
        if event == "plan":
            self.planned = list(message["candidates"])
        elif event == "begin":
            self.current = message["candidate"]
            self.begun[message["candidate"]] = message.get("line")
        elif event == "facts":
            self.facts.setdefault(message["candidate"], {}).update(message["facts"])
            if message.get("final"):
                self.traced.add(message["candidate"])
        elif event == "not_analysed":
            what = codec.from_plain(NotAnalysed, message["what"])
            if self.current in self.oversized:  # on meta it fails as well: the memory is what a reader must know
                what = replace(what, reason=f"building it {self.oversized[self.current]}")
            self.missing.append(what)
        elif event == "broken":
            self.broken[message["candidate"]] = message["how"]
        elif event == "later":  # it comes again
            self.current = None
            self.begun.pop(message["candidate"], None)
        elif event == "end":
            self.current = None
            self.covered += message.get("classes", [])
        elif event == "files":
            self.files.update(message["files"])
            self.packages.update(message["packages"])
            self.variables.update(message["variables"])
        elif event == "done":
            self.done = True

    def rest(self, job: Job, trouble: str, directory: str, *, memory: bool = False) -> Job | None:
        """The job that goes on after the candidate that was killed, or ``None`` when nothing is left.

        What was killed for its memory while it was built is tried once more on meta; what was killed while it was
        traced is traced once more, without running it.
        """
        if self.done or not trouble or self.current is None:
            return None
        name = self.current
        built = "name" in self.facts.get(name, {})
        if memory and not built and name not in job.meta:
            self.oversized[name] = trouble
            return replace(self._from(job, name), meta=(*job.meta, name))
        if built and name not in dict(job.broken):
            return replace(self._from(job, name), broken=(*job.broken, (name, trouble)))
        if all(entry["name"] in self.begun for entry in self.planned):
            return None
        self._close(job, name, trouble, directory)
        return self._from(job)

    def _from(self, job: Job, again: str = "") -> Job:
        """The job without what has begun, but for a candidate that begins ``again``."""
        self.current = None
        self.begun.pop(again, None)
        return replace(job, skip=tuple(self.begun), covered=tuple(self.covered), previous=self)

    def finish(self, job: Job, trouble: str, output: str, seconds: float, directory: str) -> ProbeResult:
        """Put together the result of a target that has ended."""
        printed, output = _split(output)
        for name, how in self.broken.items():
            self._close(job, name, how, directory, printed.get(name, ""))
        if self.current is not None:
            last = printed.get(self.current, "")
            self._close(job, self.current, trouble or "ended the process", directory, last)
        elif not self.done:
            reason = f"importing it {trouble or 'ended the process'}{_said(printed.get('', ''))}"
            self.missing.append(_missing(job, "", None, reason, directory))
        models = tuple(self._model(name) for name, fields in self.facts.items() if "name" in fields)
        # A loss that runs has been looked at, though there is nothing in it; one that does not run has not.
        blank = [m for m in models if job.target.named and not m.parameters and not m.trace.ran and m.reason]
        for facts in blank:
            reason = f"it has no parameters, and its forward was not run: {facts.reason}"
            self.missing.append(_missing(job, facts.name, facts.line, reason, directory))
        models = tuple(m for m in models if m not in blank)
        return ProbeResult(
            target=job.target,
            models=models,
            not_analysed=(*job.not_analysed, *self.missing),
            dependencies=tuple(sorted(self.files.items())),
            packages=tuple(sorted(self.packages.items())),
            variables=tuple(sorted(self.variables)),
            seconds=seconds,
            output=output,
        )

    def _close(self, job: Job, name: str, trouble: str, directory: str, output: str = "") -> None:
        """A candidate ended badly: it is partial when it had been built, else not analysed."""
        if "name" in self.facts.get(name, {}):
            self.facts[name]["reason"] = self.facts[name].get("reason") or f"the trace {trouble}"
            return
        reason = f"building it {self.oversized.get(name, trouble)}{_said(output)}"
        self.missing.append(_missing(job, name, self.begun.get(name), reason, directory))

    def _model(self, name: str) -> ModelFacts:
        facts = codec.from_plain(ModelFacts, self.facts[name])
        if name in self.traced:
            return facts
        return dataclasses.replace(facts, status="partial", reason=facts.reason or "it was not traced")


class Parts:
    """Which classes of the files of a run are parts of models that were analysed in it."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.files = {job.target.text for job in jobs}
        self.classes: set[str] = set()  # "layers.Block"

    def add(self, result: ProbeResult) -> None:
        """Take in a finished target."""
        for facts in result.models:
            self.classes |= {".".join(module.cls.split(".")[-2:]) for module in facts.modules}

    def settle(self, job: Job) -> Job:
        """The job without the coverage that did not come true: the larger model was not analysed, or lacks the part."""
        stem = os.path.splitext(os.path.basename(job.target.path))[0]
        true = tuple(
            (name, user)
            for name, user in job.target.covered
            if user.partition("::")[0] not in self.files or f"{stem}.{name}" in self.classes
        )
        return job if true == job.target.covered else replace(job, target=replace(job.target, covered=true))


def _split(output: str) -> tuple[dict[str, str], str]:
    """The output by candidate ("" for the import), and all of it without the marks."""
    first, *rest = output.split(OUTPUT_MARK.decode())
    parts = {"": first}
    for part in rest:
        name, _, text = part.partition("\n")
        parts[name] = text
    return parts, "".join(parts.values())


def _said(output: str) -> str:
    """The last lines that a failed target printed, for the end of a reason."""
    lines = [line.strip() for line in output.strip().splitlines() if line.strip()]
    return ": " + " | ".join(lines[-SHOWN_OUTPUT:])[-300:] if lines else ""


def _missing(job: Job, name: str, line: int | None, reason: str, directory: str) -> NotAnalysed:
    hint = ""
    if "did not finish" in reason:
        hint = "Give it more time with --timeout, or name a smaller configuration."
    elif "memory" in reason:
        hint = "Raise --memory-limit, name a smaller configuration, or use --device meta."
    elif "ended the process" in reason:
        hint = "The model's own code ends the process: mend it, or name another class or function of the file."
    elif "crashed the interpreter" in reason:
        hint = "It crashes plain Python, too: `python -X faulthandler` on a script that builds it shows the line."
    target = job.target
    return NotAnalysed(
        target=target.identity(directory, "" if target.named else name),
        reason=reason,
        hint=hint,
        file=relative(target.path, directory) if target.path else "",
        line=line or None,
        named=target.named,
    )
