"""Judge targets while others are still being built and traced: the rules run in this process, and it only waits."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from initlint.told import shed

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

    def submit(self, analysis: Analysis) -> None:
        """Begin with a target. What its facts hold for the rules alone goes when these are done."""
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor  # a cached check does without

            # Who talks to the worker must not wait 5 ms for each message while rules run: targets would idle.
            sys.setswitchinterval(SWITCH)
            self._pool = ThreadPoolExecutor(1, "initlint-rules")
        self._started[id(analysis)] = self._pool.submit(self._judged, analysis)

    def _judged(self, analysis: Analysis) -> Sequence[Judged]:
        judged = self._judge(analysis)
        for facts in analysis.models:
            shed(facts)
        return judged

    def __call__(self, analysis: Analysis) -> Sequence[Judged]:
        """The result, which is waited for or made now."""
        started = self._started.pop(id(analysis), None)
        return self._judge(analysis) if started is None else started.result()
