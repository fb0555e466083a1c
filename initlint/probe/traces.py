"""The trace of a built model: in this process, or in a fork beside it; once more when it ended badly."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from initlint import codec
from initlint.facts import ModelFacts
from initlint.probe import isolate, pipeline
from initlint.records import dataclass

if TYPE_CHECKING:
    from initlint.probe.job import Session

#: A trace in a fork may take this share of a candidate's time, so that what was built is still reported.
_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Trace:
    """A model to be traced; what is found is sent to the client as fields of the candidate's facts."""

    session: Session
    candidate: str
    namespace: Mapping[str, Any]
    model: nn.Module
    record: Any
    facts: ModelFacts
    start: float  # when work on the candidate began, of ``time.perf_counter``

    def here(self) -> None:
        """Trace in this process, which is of no use afterwards. When that kills it, its parent starts another one."""
        try:
            self._run()
        except (Exception, SystemExit):  # of the user's code, or ours: the model is traced without running it
            traceback.print_exc()
            self.again(isolate.Ending("exit", isolate.RAISED).text)

    def begin(self) -> isolate.Fork:
        """Start to trace in a fork."""
        return isolate.start(self._run, self.session.options.timeout * _SHARE)

    def wait(self, attempt: isolate.Fork) -> None:
        """Wait for the fork; when it died, try once more without running the model."""
        how = attempt.wait()
        if how.kind != "ok":
            self.again(self.session.phrase(how, _SHARE))

    def again(self, how: str) -> None:
        """Trace in a fork without running the model. ``how``: the first trace ended, as the end of a sentence."""
        reason = f"the trace {how}"
        attempt = isolate.start(lambda: self._run(reason), self.session.options.timeout * _SHARE)
        if attempt.wait().kind != "ok":
            self._send({"status": "partial", "reason": reason, "notes": self._notes()})

    def _run(self, reason: str = "") -> None:
        # Collections need not look at what came from before, and a trace makes much and drops little.
        gc.freeze()
        gc.set_threshold(50_000)
        found = pipeline.graph(
            self.model, self.record, self.facts, self.namespace, self.session.options, with_inputs=not reason
        )
        if reason:
            trace = replace(found.trace, notes=(reason, *found.trace.notes))
            found = replace(found, trace=trace, status="partial", reason=reason)
        fields = codec.to_plain(found, compact=True)
        self._send(fields | {"notes": self._notes(), "status": found.status})

    def _send(self, fields: dict[str, Any]) -> None:
        seconds = {"seconds": time.perf_counter() - self.start}
        self.session.send_fields(self.candidate, fields | seconds, final=True)

    def _notes(self) -> list[str]:
        return list(dict.fromkeys((*self.facts.notes, *self.session.redirect.notes)))
