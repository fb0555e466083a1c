"""One job in a child of the worker: import the target, build its models, send their facts.

The child is forked anew for every target. A target with several candidates forks once more for each
of them after importing the file. What ends badly while a model is traced is begun once more, without
running the model (``traces``).
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from initlint import codec
from initlint.errors import InitlintError
from initlint.facts import NotAnalysed
from initlint.options import ProbeOptions
from initlint.probe import build, isolate, script
from initlint.probe.arguments import required
from initlint.probe.channel import Channel
from initlint.probe.dependencies import Files
from initlint.probe.outcome import OUTPUT_MARK, Candidate
from initlint.probe.scan import Scan, scan
from initlint.probe.scratch import scratch
from initlint.probe.target import Call, Target, parse_call, relative
from initlint.probe.work import Work


def run_job(fd: int) -> None:
    """Do the job that the client sends over the descriptor."""
    channel = Channel(fd)
    message = channel.receive()
    if message is not None:
        Session(channel, message).run()


class Session:
    """The work on one target."""

    def __init__(self, channel: Channel, message: Mapping[str, Any]) -> None:
        self.channel = channel
        self.target: Target = codec.from_plain(Target, message["target"])
        self.options: ProbeOptions = codec.from_plain(ProbeOptions, message["options"])
        self.static = [codec.from_plain(Candidate, entry) for entry in message["candidates"]]
        self.skip = set(message["skip"])
        self.meta = set(message.get("meta", ()))  # candidates that did not fit in memory before a restart
        self.broken: dict[str, str] = dict(message.get("broken", ()))  # how their traces ended before a restart
        self.covered: dict[str, str] = dict(self.target.covered) | dict.fromkeys(message["covered"], "")
        self.directory: str = message["directory"]
        self.files = Files()
        self.redirect: Any = None
        self.recording = contextlib.ExitStack()  # closing it ends the record
        self.fork = True
        self.kept: nn.Module | None = None  # a model that is left to the end of the process, which frees it faster

    # -- the whole target ----------------------------------------------------------------------

    def run(self) -> None:
        """Import, plan, build each candidate, and say which files it all depended on."""
        from initlint.probe.provenance import Recorder

        self.files.watch()
        os.chdir(self.directory)
        with contextlib.ExitStack() as stack:
            recorder = Recorder(self._roots(), restore=False, frozen=True)  # the worker has frozen them
            self.recording = stack.enter_context(contextlib.ExitStack())
            self.recording.enter_context(recorder)
            self._redirect()
            build.seed_everything(self.options.seed)
            try:
                loaded = self._load()
            except InitlintError as error:
                self.not_analysed(self.target.call, error, None, named=self.target.named)
            else:
                self._candidates(loaded, recorder)
        self._finish()

    def _roots(self) -> list[str]:
        """A module that the user names counts as the user's code, also where it is installed."""
        if self.target.kind != "module":
            return []
        import importlib.util

        try:
            spec = importlib.util.find_spec(self.target.module.split(".")[0])
        except (ImportError, ValueError):
            return []
        if spec is None:
            return []
        return list(spec.submodule_search_locations or ([os.path.dirname(spec.origin)] if spec.origin else []))

    def _redirect(self) -> None:
        """Keep accelerators out; entered after the recorder, so that the recorder sees what really happens."""
        from initlint.probe.redirect import Redirect

        self.redirect = self.recording.enter_context(Redirect(self.directory))

    def stop_recording(self) -> None:
        """End the record; accelerators stay redirected while the model is traced."""
        self.recording.close()
        self.recording.enter_context(self.redirect)

    def _load(self) -> script.Script:
        if self.target.kind == "module":
            loaded = script.load_module(self.target.module, self.directory)
            loaded.scan = scan(loaded.path)
            if not self.target.named and loaded.scan is not None:
                from initlint.probe.discovery import candidates_of

                self.static = candidates_of(loaded.scan, replace(self.target, path=loaded.path), self.options)[0]
            return loaded
        full = self.options.import_mode == "full"
        return script.load(self.target.path, self._wanted, self.directory, full=full)

    def _wanted(self, _: Scan) -> list[str]:
        if self.target.named:
            return [self.target.name.split(".")[0]]
        return [candidate.name for candidate in self.static]

    def _candidates(self, loaded: script.Script, recorder: Any) -> None:
        if self.target.named:
            call = parse_call(self.target.call)
            plan = [Candidate(call.name, "named", 0)]
        else:
            call = None
            plan = [c for c in build.candidates(loaded, self.static) if c.name not in self.skip]
        self.channel.send({"event": "plan", "candidates": [codec.to_plain(candidate) for candidate in plan]})
        self.fork = len(plan) > 1
        later = [c for c in plan if self._one(loaded, c, call, recorder, guess=not c.inside or self.target.named)]
        for candidate in wholes_first(later):  # what seemed to be a part of something that cannot be analysed
            self._one(loaded, candidate, call, recorder, guess=True)

    def _one(
        self, loaded: script.Script, candidate: Candidate, call: Call | None, recorder: Any, *, guess: bool
    ) -> bool:
        """Deal with one candidate; true where it is to be tried again with guessed arguments."""
        part = self._part_of(loaded, candidate)
        if part:
            self.harmless(candidate, part)
            return False
        self.channel.send({"event": "begin", "candidate": candidate.name, "line": candidate.line})
        mark_output(candidate.name)
        work = Work(self, loaded, candidate, call, recorder, guess=guess, broken=self.broken.get(candidate.name, ""))
        if not self.fork:
            work.run()
            classes, later = work.classes, work.later
        else:
            how, noted = self._forked(work)
            if noted and how.kind != "ok":  # it was built
                work.broken = self.phrase(how)
                how, noted = self._forked(work)
            if how.kind != "ok":
                self.channel.send({"event": "broken", "candidate": candidate.name, "how": self.phrase(how)})
            classes, later = noted or (set(), False)
        if later:
            self.channel.send({"event": "later", "candidate": candidate.name})
            return True
        for name in classes:
            self.covered.setdefault(name, candidate.name)
        self.channel.send({"event": "end", "candidate": candidate.name, "classes": sorted(classes)})
        return False

    def _forked(self, work: Work) -> tuple[isolate.Ending, tuple[set[str], bool] | None]:
        """Work on a candidate in a fork: how that ended, and what it noted as soon as the model was described."""
        with scratch() as shared:
            how = isolate.run(lambda: work.run_and_note(shared), self.options.timeout)
            return how, _read(shared)

    def send_fields(self, candidate: str, fields: dict[str, Any], *, final: bool = False) -> None:
        """Send fields of a candidate's facts; ``final``: with those that the trace found."""
        message = {"event": "facts", "candidate": candidate, "facts": fields}
        self.channel.send(message | ({"final": True} if final else {}))

    def phrase(self, how: isolate.Ending, share: float = 1.0) -> str:
        """How a fork ended, as the end of a sentence."""
        return f"did not finish within {self.options.timeout * share:g} s" if how.kind == "timeout" else how.text

    def _part_of(self, loaded: script.Script, candidate: Candidate) -> str:
        """Why a class is not analysed by itself, or ``""``."""
        if candidate.kind != "class":
            return ""
        if candidate.name in self.covered:
            whole = self.covered[candidate.name]
            return f"a part of {whole}, which is analysed" if whole else "a part of a model that is analysed"
        if candidate.name.startswith("_"):
            return "a private class"
        subject = loaded.namespace.get(candidate.name)
        whole = next((user for user in candidate.inside if user in self.covered), "")
        if whole and required(subject):
            return f"a part of {whole}, which is analysed"
        bare = isinstance(subject, type) and subject.forward is nn.Module.forward  # type: ignore[attr-defined]
        if bare and any(
            isinstance(other, type) and other is not subject and issubclass(other, subject)  # type: ignore[arg-type]
            for other in loaded.namespace.values()
        ):
            return "a base class without a forward"
        return ""

    def harmless(self, candidate: Candidate, reason: str, *, look: bool = True) -> None:
        """Send that a candidate is not analysed, for a reason that is no fault; ``look``: naming it would help."""
        what = NotAnalysed(
            target=self.target.identity(self.directory, candidate.name),
            reason=reason,
            hint=f"initlint '{self.target.identity(self.directory, candidate.name)}'" if look else "",
            file=relative(self.target.path, self.directory) if self.target.path else "",
            line=candidate.line or None,
            harmless=True,
        )
        self.channel.send({"event": "not_analysed", "what": codec.to_plain(what, compact=True)})

    def not_analysed(
        self, name: str, error: InitlintError, line: int | None, *, named: bool = False, harmless: bool = False
    ) -> None:
        """Send why a candidate, or the target, could not be analysed."""
        identity = self.target.identity(self.directory, name)
        what = NotAnalysed(
            target=identity,
            reason=error.message,
            hint=error.hint,
            file=relative(self.target.path, self.directory) if self.target.path else "",
            line=line,
            named=named,
            harmless=harmless,
        )
        self.channel.send({"event": "not_analysed", "what": codec.to_plain(what, compact=True)})

    def _finish(self) -> None:
        self.channel.send({"event": "files", **self.files.found()})
        self.channel.send({"event": "done"})


def mark_output(name: str) -> None:
    """Note in what is printed that a candidate's own output begins here."""
    sys.stdout.flush()
    os.write(1, OUTPUT_MARK + name.encode() + b"\n")


def wholes_first(candidates: Sequence[Candidate]) -> Iterator[Candidate]:
    """Candidates in an order in which each follows those that may contain it."""
    waiting = list(candidates)
    while waiting:
        names = {candidate.name for candidate in waiting}
        free = next((c for c in waiting if not names & set(c.inside) - {c.name}), waiting[0])
        waiting.remove(free)
        yield free


def _read(shared: Any) -> tuple[set[str], bool] | None:
    """What a candidate's fork has noted: the classes inside the model, and whether to try again."""
    shared.seek(0)
    data = shared.read()
    if not data:
        return None
    classes, later = json.loads(data)
    return set(classes), bool(later)
