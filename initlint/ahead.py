"""Judge targets while others are still being built and traced: the rules run in this process, and it only waits."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from initlint.told import told

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from initlint.engine import Analysis, Judged

#: Seconds after which a thread that runs rules lets the other one go on.
SWITCH = 0.0005


class Ahead:
    """What the rules say about a target: started early for those that were submitted. A context manager.

    One thread beside the one that talks to the worker is enough: judging takes a tenth of the time of building.

    Args:
        judge: runs the rules; whatever it raises is raised where its result is asked for.
    """

    def __init__(self, judge: Callable[[Analysis], Sequence[Judged]]) -> None:
        self._judge = judge
        self._pool: ThreadPoolExecutor | None = None
        self._switch = sys.getswitchinterval()
        self._started: dict[int, Future[Sequence[Judged]]] = {}  # by the identity of the analysis

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            sys.setswitchinterval(self._switch)

    def submit(self, analysis: Analysis) -> Analysis:
        """Begin with a target. The caller keeps what is returned, which has what reports tell of the models, and asks
        for the result with it; the facts that only the rules read go when these are done."""
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor  # a cached check does without

            # Who talks to the worker must not wait 5 ms for each message while rules run: targets would idle.
            sys.setswitchinterval(SWITCH)
            self._pool = ThreadPoolExecutor(1, "initlint-rules")
        kept = replace(analysis, models=tuple(map(told, analysis.models)))
        self._started[id(kept)] = self._pool.submit(self._judged, analysis, kept)
        return kept

    def _judged(self, analysis: Analysis, kept: Analysis) -> Sequence[Judged]:
        pairs = zip(self._judge(analysis), kept.models, strict=False)  # one for each model, in their order
        return [replace(model, report=replace(model.report, facts=facts)) for model, facts in pairs]

    def __call__(self, analysis: Analysis) -> Sequence[Judged]:
        """The result, which is waited for or made now."""
        started = self._started.pop(id(analysis), None)
        return self._judge(analysis) if started is None else started.result()
