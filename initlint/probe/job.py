"""One job in a child of the worker: import the target, build its models, send their facts.

The child is forked anew for every target. A target with several candidates forks once more for each
of them after importing the file, and every trace runs in a fork of the built model, since tracing may
leave proxies behind or crash.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from initlint import codec
from initlint.errors import InitlintError, ProbeError
from initlint.facts import ModelFacts, NotAnalysed, TensorStats
from initlint.options import ProbeOptions
from initlint.probe import build, isolate, limits, pipeline, script
from initlint.probe.arguments import parameters_of, required
from initlint.probe.channel import Channel
from initlint.probe.dependencies import Files
from initlint.probe.lazily import is_lazy, materialise
from initlint.probe.names import used
from initlint.probe.outcome import OUTPUT_MARK, Candidate
from initlint.probe.rebuilds import rebuild
from initlint.probe.scan import Scan, scan
from initlint.probe.scratch import scratch
from initlint.probe.target import Call, Target, parse_call, relative
from initlint.probe.weights import load_into

#: A candidate's trace may take this share of its time, so that what was built is still reported.
_TRACE_SHARE = 0.8


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
        self.covered: dict[str, str] = dict(self.target.covered) | dict.fromkeys(message["covered"], "")
        self.directory: str = message["directory"]
        self.files = Files()
        self.redirect: Any = None
        self.recording = contextlib.ExitStack()  # closing it ends the record
        self.fork = True

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
                self._not_analysed(self.target.call, error, None, named=self.target.named)
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
            self._harmless(candidate, part)
            return False
        self.channel.send({"event": "begin", "candidate": candidate.name, "line": candidate.line})
        mark_output(candidate.name)
        work = Work(self, loaded, candidate, call, recorder, guess=guess)
        if not self.fork:
            work.run()
            classes, later = work.classes, work.later
        else:
            with scratch() as shared:
                how = isolate.run(lambda: work.run_and_note(shared), self.options.timeout)
                classes, later = _read(shared)
            if how.kind != "ok":
                self.channel.send({"event": "broken", "candidate": candidate.name, "how": self.phrase(how)})
        if later:
            self.channel.send({"event": "later", "candidate": candidate.name})
            return True
        for name in classes:
            self.covered.setdefault(name, candidate.name)
        self.channel.send({"event": "end", "candidate": candidate.name, "classes": sorted(classes)})
        return False

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

    def _harmless(self, candidate: Candidate, reason: str) -> None:
        what = NotAnalysed(
            target=self.target.identity(self.directory, candidate.name),
            reason=reason,
            hint=f"initlint '{self.target.identity(self.directory, candidate.name)}'",
            file=relative(self.target.path, self.directory) if self.target.path else "",
            line=candidate.line or None,
            harmless=True,
        )
        self.channel.send({"event": "not_analysed", "what": codec.to_plain(what, compact=True)})

    def _not_analysed(
        self, name: str, error: InitlintError, line: int | None, *, named: bool = False, harmless: bool = False
    ) -> None:
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


class Work:
    """One candidate: build, describe, trace."""

    def __init__(
        self,
        session: Session,
        loaded: script.Script,
        candidate: Candidate,
        call: Call | None,
        recorder: Any,
        *,
        guess: bool = True,
    ) -> None:
        self.session = session
        self.loaded = loaded
        self.candidate = candidate
        self.call = call
        self.recorder = recorder
        self.guess = guess  # whether conventions may fill what evidence does not
        self.classes: set[str] = set()
        self.later = False  # not built for want of arguments that could be guessed

    def run_and_note(self, shared: Any) -> None:
        """Run in a fork; the classes seen inside the model, and whether to try again, go to the forking process."""
        self.run()
        self.session.channel.send({"event": "files", **self.session.files.found()})
        shared.write(json.dumps([sorted(self.classes), self.later]).encode())
        shared.flush()

    def run(self) -> None:
        """Build the model and send what is found; a failure is sent as a reason."""
        start = time.perf_counter()
        session, options = self.session, self.session.options
        try:
            built = self._build()
        except InitlintError as error:
            named = session.target.named
            self.later = not self.guess and self._has_unknown()
            if self.later:
                return
            session._not_analysed(
                self.candidate.name if not named else "",
                self._hinted(error),
                self.candidate.line or None,
                named=named,
                harmless=self._seen_otherwise(),
            )
            return
        model = built.model
        loaded: dict[str, TensorStats] = {}
        if options.weights:
            try:
                built.notes += load_into(model, options.weights, session.directory, loaded)
            except InitlintError as error:
                session._not_analysed(self.candidate.name, error, built.line, named=session.target.named)
                return
        if not self._worth_it(model):
            return
        if is_lazy(model):
            built.notes.append(materialise(model, self.loaded.namespace, self._inputs(built.name), options.seed))
        session.stop_recording()
        try:
            record = self.recorder.record(model)
            if pipeline.on_meta(model):
                record = pipeline.without_values(model, record, options.seed, loaded)
            facts = pipeline.describe(model, record, self._identity(built), options, statistics=False)
        except Exception as error:  # ours, not the user's: one clear line all the same
            traceback.print_exc()
            ours = ProbeError(
                f"initlint failed while describing it: {type(error).__name__}: {error}",
                "This is a bug in initlint; please report it.",
            )
            session._not_analysed(
                self.candidate.name if not session.target.named else "", ours, built.line, named=session.target.named
            )
            return
        self.classes = {type(m).__name__ for m in model.modules() if type(m).__module__ == self.loaded.name}
        # Tracing goes on in a fork, on the other core, while the weights are read here.
        attempt = self._start_trace(model, record, facts, start, with_inputs=True)
        facts = replace(facts, parameters=tuple(pipeline.measured(model, record)), loaded=bool(options.weights))
        if options.thorough and built.again is not None:
            facts = replace(facts, rebuilds=rebuild(model, built.again, facts.parameters))
        self._send(facts)
        self._finish_trace(attempt, model, record, facts, start)

    def _build(self) -> build.Built:
        session, options = self.session, self.session.options
        name = self.candidate.name
        given = (
            options.arguments.get(name) or options.arguments.get(session.target.identity(session.directory, name)) or {}
        )
        built = build.construct(
            self.loaded,
            name,
            self.call,
            seed=options.seed,
            given=given,
            directory=session.directory,
            guess=self.guess,
            meta=options.device == "meta" or name in session.meta,
            limit=options.memory_limit or limits.default_limit(),
        )
        if name in session.meta:
            built.notes.append("built on the meta device, statistics are those of the recorded init: it is too large")
        return built

    def _has_unknown(self) -> bool:
        """Whether there are arguments to guess."""
        try:
            return bool(required(build.find(self.loaded, self.candidate.name)))
        except ProbeError:
            return False

    def _hinted(self, error: InitlintError) -> InitlintError:
        if error.hint:
            return error
        session = self.session
        identity = session.target.identity(session.directory, self.candidate.name)
        with contextlib.suppress(ProbeError):
            subject = build.find(self.loaded, self.candidate.name)
            if required(subject):
                return ProbeError(error.message, f"initlint '{build.example_call(subject, identity)}'")
            if options := parameters_of(subject):
                hint = f"initlint '{identity}({options[0].name}=...)' builds it with other arguments."
                return ProbeError(error.message, hint)
            if isinstance(subject, type):
                return ProbeError(error.message, "Its constructor fails in plain Python, too: mend it there.")
        return error

    def _seen_otherwise(self) -> bool:
        """Whether this is a module-level instance that cannot be made here, of a class that was analysed."""
        found = self.loaded.scan
        if self.candidate.kind != "instance" or found is None:
            return False
        names = {self.candidate.name}
        for name in reversed(found.instances):  # a wrapper is made from an instance above it
            names |= used(found.instances[name]) if name in names else set()
        return bool(names & set(self.session.covered))

    def _worth_it(self, model: nn.Module) -> bool:
        """Whether there is anything to judge; a loss function without parameters is not."""
        if self.session.target.named or any(True for _ in model.parameters()) or any(True for _ in model.buffers()):
            return True
        self.session._harmless(self.candidate, "it has no parameters")
        return False

    def _inputs(self, name: str) -> Sequence[str]:
        """Inputs that the user has specified for a model."""
        options, session = self.session.options, self.session
        identity = session.target.identity(session.directory, name)
        return options.inputs or options.inputs_for.get(identity) or options.inputs_for.get(name) or ()

    def _identity(self, built: build.Built) -> pipeline.Identity:
        session = self.session
        path = self.loaded.path
        return pipeline.Identity(
            name=built.name,
            target=session.target.identity(session.directory, built.name),
            file=relative(path, session.directory) if os.path.isabs(path) else path,
            line=built.line,
            arguments=built.arguments,
            notes=(*self.loaded.notes, *built.notes, *session.redirect.notes),
        )

    def _start_trace(
        self, model: nn.Module, record: Any, facts: ModelFacts, start: float, *, with_inputs: bool, reason: str = ""
    ) -> isolate.Fork:
        """Trace in a fork, which sends what it finds."""

        def attempt() -> None:
            # Collections need not look at what came from before the fork, and a trace makes much and drops little.
            gc.freeze()
            gc.set_threshold(50_000)
            session = self.session
            namespace = self.loaded.namespace
            found = pipeline.graph(model, record, facts, namespace, session.options, with_inputs=with_inputs)
            if reason:
                trace = replace(found.trace, notes=(reason, *found.trace.notes))
                found = replace(found, trace=trace, status="partial", reason=reason)
            fields = codec.to_plain(found, compact=True)
            fields["notes"] = list(dict.fromkeys((*facts.notes, *session.redirect.notes)))
            fields |= {"status": found.status, "seconds": time.perf_counter() - start}
            self._send_fields(fields, final=True)

        return isolate.start(attempt, self.session.options.timeout * _TRACE_SHARE)

    def _finish_trace(
        self, attempt: isolate.Fork, model: nn.Module, record: Any, facts: ModelFacts, start: float
    ) -> None:
        """Wait for the trace; when it died, try once more without running the model."""
        how = attempt.wait()
        if how.kind == "ok":
            return
        reason = f"the trace {self.session.phrase(how, _TRACE_SHARE)}"
        again = self._start_trace(model, record, facts, start, with_inputs=False, reason=reason)
        if again.wait().kind != "ok":
            notes = list(dict.fromkeys((*facts.notes, *self.session.redirect.notes)))
            self._send_fields({"status": "partial", "reason": reason, "notes": notes}, final=True)

    def _send(self, facts: ModelFacts) -> None:
        """Send the facts; what the trace says of them stands, whichever comes first."""
        fields = codec.to_plain(facts, compact=True)
        for name in ("status", "notes", "seconds"):
            fields.pop(name, None)
        self._send_fields(fields)

    def _send_fields(self, fields: dict[str, Any], *, final: bool = False) -> None:
        message = {"event": "facts", "candidate": self.candidate.name, "facts": fields}
        self.session.channel.send(message | ({"final": True} if final else {}))


def wholes_first(candidates: Sequence[Candidate]) -> Iterator[Candidate]:
    """Candidates in an order in which each follows those that may contain it."""
    waiting = list(candidates)
    while waiting:
        names = {candidate.name for candidate in waiting}
        free = next((c for c in waiting if not names & set(c.inside) - {c.name}), waiting[0])
        waiting.remove(free)
        yield free


def _read(shared: Any) -> tuple[set[str], bool]:
    """What a candidate's fork has noted: the classes inside the model, and whether to try again."""
    shared.seek(0)
    data = shared.read()
    if not data:
        return set(), False
    classes, later = json.loads(data)
    return set(classes), bool(later)
