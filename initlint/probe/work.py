"""One candidate of a job: it is built, described and traced, and its facts are sent."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from initlint import codec
from initlint.errors import InitlintError, ProbeError
from initlint.facts import ModelFacts, TensorStats
from initlint.probe import beside, build, limits, pipeline, script
from initlint.probe.arguments import required
from initlint.probe.hints import call, for_empty, hint_for
from initlint.probe.lazily import is_lazy, materialise
from initlint.probe.makers import Maker, makers_of
from initlint.probe.names import used
from initlint.probe.outcome import Candidate
from initlint.probe.parameterless import has_tensors, hollow, makes_parameters
from initlint.probe.rebuilds import rebuild
from initlint.probe.target import Call, relative
from initlint.probe.traces import Trace
from initlint.probe.unrun import unrun
from initlint.probe.weights import load_into

if TYPE_CHECKING:
    from initlint.probe.job import Session

#: From so many elements on weights are read beside the trace, which runs in a fork. A fork costs 50 ms of processor
#: time, for every page of the built model and of torch that either process touches is copied; this many elements, in
#: layers of usual sizes, take 15 ms to read.
_BESIDE = 1 << 23


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
        broken: str = "",
    ) -> None:
        self.session = session
        self.loaded = loaded
        self.candidate = candidate
        self.call = call
        self.recorder = recorder
        self.guess = guess  # whether conventions may fill what evidence does not
        self.broken = broken  # how an earlier trace ended badly: the model is not run again
        self.built: Callable[[], None] = lambda: None  # called when the model is described, before it is traced
        self.classes: set[str] = set()
        self.later = False  # not built for want of arguments that could be guessed
        self.target = ""  # of the function that made the model in the stead of its class

    def run_and_note(self, shared: Any) -> None:
        """Run in a fork; the classes seen inside the model, and whether to try again, go to the forking process."""
        self.built = lambda: self._note(shared)
        self.run()
        self.session.channel.send({"event": "files", **self.session.files.found()})
        self._note(shared)

    def _note(self, shared: Any) -> None:
        shared.seek(0)
        shared.write(json.dumps([sorted(self.classes), self.later]).encode())
        shared.flush()

    def run(self) -> None:
        """Build the model and send what is found; a failure is sent as a reason."""
        start = time.perf_counter()
        session, options = self.session, self.session.options
        try:
            built = self._build_there()
        except InitlintError as error:
            named = session.target.named
            self.later = not self.guess and self._has_unknown()
            if self.later:
                return
            session.not_analysed(
                self.candidate.name if not named else "",
                self._hinted(error),
                self.candidate.line or None,
                named=named,
                harmless=self._seen_otherwise(),
            )
            return
        model = session.kept = built.model
        loaded: dict[str, TensorStats] = {}
        if options.weights:
            try:
                built.notes += load_into(model, options.weights, session.directory, loaded)
            except InitlintError as error:
                session.not_analysed(self.candidate.name, error, built.line, named=session.target.named)
                return
        if not self._worth_it(built):
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
            session.not_analysed(
                self.candidate.name if not session.target.named else "", ours, built.line, named=session.target.named
            )
            return
        facts = self._with_unrun(model, facts)
        self.classes = {type(m).__name__ for m in model.modules() if type(m).__module__ == self.loaded.name}
        elements = sum(math.prod(parameter.shape) for parameter in facts.parameters)
        apart = elements > _BESIDE or options.thorough
        trace = Trace(session, self.candidate.name, self.loaded.namespace, model, record, facts, start)
        # In a fork it goes on while the weights are read here.
        attempt = trace.begin() if apart and not self.broken else None
        facts = replace(facts, parameters=tuple(pipeline.measured(model, record)), loaded=bool(options.weights))
        if options.thorough and built.again is not None:
            facts = replace(facts, rebuilds=rebuild(model, built.again, facts.parameters))
        self._send(facts)
        self.built()
        if self.broken:
            trace.again(self.broken)
        elif attempt is not None:
            trace.wait(attempt)
        else:
            trace.here()

    def _build_there(self) -> build.Built:
        """Build, once more from the folder of the model's file where something that lies there was not found."""
        mark = self.recorder.mark()
        try:
            return self._build()
        except InitlintError as error:
            found = beside.folder_of(error, self.loaded.path)
            if found is None:
                raise
        folder, name = found
        self.recorder.rollback(mark)
        with contextlib.chdir(folder):
            built = self._build()
        if (again := built.again) is not None:

            def there(*arguments: Any) -> nn.Module:
                with contextlib.chdir(folder):
                    return again(*arguments)

            built.again = there
        place = relative(folder, self.session.directory)
        built.notes.append(f"built with {place} as the working directory: {name} lies there, beside the model's file")
        return built

    def _build(self) -> build.Built:
        """The model: of its class, or of a function of the file that alone can build it, or that draws it anew."""
        makers = self._makers()
        drawn = [call.line for call in unrun(self.candidate.name, self.loaded.path, "")] if makers else []
        for maker in makers:
            if any(line in maker.lines for line in drawn) and (built := self._made_by(maker)) is not None:
                return built
        try:
            return self._constructed(self.candidate.name)
        except InitlintError as error:
            for maker in makers:
                if (built := self._made_by(maker)) is not None:
                    built.notes.append(f"{self.candidate.name} by itself: {error.message}")
                    return built
            raise

    def _makers(self) -> list[Maker]:
        """Functions that may be called in the stead of a class that the user has neither named nor configured."""
        if self.candidate.kind != "class" or self.loaded.scan is None or self._given(self.candidate.name):
            return []
        return list(makers_of(self.loaded.scan, self.candidate.name))

    def _made_by(self, maker: Maker) -> build.Built | None:
        """What a function makes, if that is a model of the class."""
        mark = self.recorder.mark()
        with contextlib.suppress(InitlintError):
            built = self._constructed(maker.name, maker.options)
            if any(type(module).__name__ == self.candidate.name for module in built.model.modules()):
                self.target = self.session.target.identity(self.session.directory, _target(maker, built))
                return built
        self.recorder.rollback(mark)
        return None

    def _given(self, name: str) -> Mapping[str, Any]:
        """Arguments of the configuration."""
        options, session = self.session.options, self.session
        identity = session.target.identity(session.directory, name)
        return options.arguments.get(name) or options.arguments.get(identity) or {}

    def _constructed(self, name: str, chosen: Mapping[str, Any] | None = None) -> build.Built:
        """Construct a model.

        Args:
            chosen: arguments that the code asks for.
        """
        session, options = self.session, self.session.options
        built = build.construct(
            self.loaded,
            name,
            self.call,
            seed=options.seed,
            given={**(chosen or {}), **self._given(name)},
            directory=session.directory,
            guess=self.guess,
            meta=options.device == "meta" or self.candidate.name in session.meta,
            limit=options.memory_limit or limits.default_limit(),
            recorder=self.recorder,
        )
        if chosen:
            used = "use in the function"
            given = (replace(a, origin=used) if a.name in chosen else a for a in built.arguments)
            built.arguments = tuple(given)
        if self.candidate.name in session.meta:
            built.notes.append("built on the meta device, statistics are those of the recorded init: it is too large")
        return built

    def _with_unrun(self, model: nn.Module, facts: ModelFacts) -> ModelFacts:
        """The facts with what the code does to such a model after its construction, where that left defaults."""
        cls, session = type(model).__name__, self.session
        left = any(p.last is not None and p.last.origin == "torch" and len(p.shape) > 1 for p in facts.parameters)
        if not left or self.target or cls != self.candidate.name or facts.file == "" or not session.target.path:
            return facts
        try:
            found = unrun(cls, session.target.path, session.directory)
        except Exception:  # a search through other files is no reason to fail
            return facts
        ran = {w.site.function.split(".")[0] for p in facts.parameters for w in p.writes if w.site is not None}
        found = tuple(call for call in found if call.function.rpartition(".")[2] not in ran)
        target = relative(session.target.path, session.directory)
        return replace(
            facts,
            unrun=tuple(f"{call.file}:{call.line}" for call in found),
            notes=(*(note for call in found[:1] for note in call.notes(cls, target)), *facts.notes),
        )

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
        with contextlib.suppress(ProbeError):
            for maker in self._makers():
                identity = replace(session.target, call="").identity(session.directory, maker.name)
                return ProbeError(error.message, call(identity, required(build.find(self.loaded, maker.name))))
            subject = build.find(self.loaded, self.candidate.name)
            return ProbeError(error.message, hint_for(error, subject, self._plain_identity(), called=self._called()))
        return error

    def _called(self) -> bool:
        """Whether the user gave arguments on the command line."""
        return self.call is not None and self.call.called

    def _plain_identity(self) -> str:
        """The candidate as a target without arguments."""
        session = self.session
        return replace(session.target, call="").identity(session.directory, self.candidate.name)

    def _seen_otherwise(self) -> bool:
        """Whether this is a module-level instance that cannot be made here, of a class that was analysed."""
        found = self.loaded.scan
        if self.candidate.kind != "instance" or found is None:
            return False
        names = {self.candidate.name}
        for name in reversed(found.instances):  # a wrapper is made from an instance above it
            names |= used(found.instances[name]) if name in names else set()
        return bool(names & set(self.session.covered))

    def _worth_it(self, built: build.Built) -> bool:
        """Whether there is anything to judge; a loss function without parameters is not."""
        session, named = self.session, self.session.target.named
        zeros = hollow(built.model)
        if zeros and len(zeros) == len(list(built.model.parameters())):
            given = ", ".join(f"{a.name}={a.value}" for a in built.arguments) or "its defaults"
            name, shape = zeros[0]
            error = ProbeError(f"built with {given} its parameters have no elements: {name} is {list(shape)}")
            session.not_analysed("" if named else self.candidate.name, error, self.candidate.line or None, named=named)
            return False
        if has_tensors(built.model):
            return True
        subject = build.find(self.loaded, self.candidate.name)
        if isinstance(subject, type) and makes_parameters(subject):
            chosen = ", ".join(name for name, _ in self.call.texts) if self.call is not None else ""
            hint = for_empty(subject, self._plain_identity()) if not chosen else ""
            error = ProbeError(f"built with {chosen or 'its defaults'} it has no parameters", hint)
            name = "" if named else self.candidate.name
            session.not_analysed(name, error, self.candidate.line or None, named=named)
            return False
        if named:
            return True
        session.harmless(self.candidate, "it has no parameters", look=False)
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
            target=self.target or session.target.identity(session.directory, built.name),
            file=relative(path, session.directory) if os.path.isabs(path) else path,
            line=built.line,
            arguments=built.arguments,
            notes=(*self.loaded.notes, *built.notes, *session.redirect.notes),
        )

    def _send(self, facts: ModelFacts) -> None:
        """Send the facts; what the trace says of them stands, whichever comes first."""
        fields = codec.to_plain(facts, compact=True)
        for name in ("status", "notes", "seconds"):
            fields.pop(name, None)
        self.session.send_fields(self.candidate.name, fields)


def _target(maker: Maker, built: build.Built) -> str:
    """The function, with its arguments where it must be told which class to make."""
    if not maker.options:
        return maker.name
    return f"{maker.name}({', '.join(f'{a.name}={a.value}' for a in built.arguments)})"
