"""Get the facts of all targets: from the cache where nothing changed, else from the probe, in the same order."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from initlint import cache as caching
from initlint.engine import Analysis
from initlint.errors import UsageError
from initlint.facts import ModelFacts, NotAnalysed
from initlint.options import ProbeOptions
from initlint.records import dataclass
from initlint.relocate import relocate, shown

if TYPE_CHECKING:
    from initlint.probe.client import Pool
    from initlint.probe.outcome import Event, Job, ProbeResult
    from initlint.probe.target import Target

#: Options that say how to run and not what to find out; they are no part of a cache key.
_NOT_IN_KEY = ("timeout", "jobs", "cwd", "verbose", "weights")


@dataclass(frozen=True, slots=True)
class Shard:
    """Part ``index`` (from 1) of ``count`` of the work."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``2/8``. Raises ``UsageError``."""
        head, _, tail = text.partition("/")
        if head.isdecimal() and tail.isdecimal() and 1 <= int(head) <= int(tail):
            return cls(int(head), int(tail))
        raise UsageError(f"--shard {text}: not a part of a whole", "Write --shard 2/8 for the second of eight parts.")

    def pick(self, jobs: Sequence[Job]) -> list[Job]:
        """This part of the jobs. Every machine that sees the same jobs in the same order picks another part."""
        return [job for number, job in enumerate(jobs) if number % self.count == self.index - 1]


def collect(
    targets: Sequence[Target],
    options: ProbeOptions,
    *,
    cache: caching.Cache | None = None,
    shard: Shard | None = None,
    on_event: Callable[[Event], None] | None = None,
    meanwhile: Callable[[bool], object] = lambda _: None,
    on_analysis: Callable[[Analysis], object] = lambda _: None,
    pool: Pool | None = None,
) -> list[Analysis]:
    """Analyse the targets.

    Args:
        targets: parsed; folders are expanded here.
        options: for the probe.
        cache: where to look first and to store what is new; ``None`` for no cache.
        shard: the part of the work to do here.
        on_event: told about progress.
        meanwhile: run once while the worker imports torch (or at once when no worker is needed); told whether
            anything is analysed anew.
        on_analysis: told about each new analysis that others are still to follow.
        pool: a worker to use and leave running, for callers that analyse several times.

    Raises:
        ProbeError: the worker cannot start.
    """
    from initlint.probe import discovery
    from initlint.probe.client import Pool as NewPool

    with NewPool(options) if pool is None else contextlib.nullcontext(pool) as pool:
        # A worker that imports torch costs seconds of processor time: start it early only when it is needed.
        if cache is None or not cache.versioned.is_dir():
            pool.start()
        jobs = list(discovery.discover(targets, options))
        jobs = shard.pick(jobs) if shard else jobs
        keys = [caching.key_of(_known(job, options, cache)) if cache else "" for job in jobs]
        hits = {number: entry for number, key in enumerate(keys) if cache and (entry := cache.get(key))}
        missing = [number for number in range(len(jobs)) if number not in hits]
        if any(jobs[number].runs for number in missing):
            pool.start()
        meanwhile(bool(missing))
        fresh = _run(pool, [jobs[number] for number in missing], on_event)
        analyses: dict[int, Analysis] = {}
        for number, result in zip(missing, fresh, strict=True):
            models = tuple(relocate(facts, options.directory) for facts in result.models)
            not_analysed = tuple(
                replace(entry, file=shown(entry.file, options.directory)) for entry in result.not_analysed
            )
            if cache is not None and jobs[number].runs:
                entry = caching.Entry(models, not_analysed)
                packages = (name for name, _ in result.packages)
                cache.put(keys[number], entry, result.dependencies, packages, result.variables)
            digest = cache.digests.get(keys[number], "") if cache else ""
            analyses[number] = _analysis(jobs[number], models, not_analysed, targets, digest=digest)
            if number != missing[-1]:
                on_analysis(analyses[number])
        for number, entry in hits.items():
            digest = cache.digests.get(keys[number], "") if cache else ""
            analyses[number] = _analysis(
                jobs[number], entry.models, entry.not_analysed, targets, cached=True, digest=digest
            )
    return [analyses[number] for number in sorted(analyses)]


def _run(pool: Any, jobs: Sequence[Job], on_event: Callable[[Event], None] | None) -> Iterable[ProbeResult]:
    results: Iterator[ProbeResult] = pool.run(jobs, on_event)
    return results


def _analysis(
    job: Job,
    models: tuple[ModelFacts, ...],
    not_analysed: tuple[NotAnalysed, ...],
    targets: Sequence[Target],
    *,
    cached: bool = False,
    digest: str = "",
) -> Analysis:
    return Analysis(
        target=_typed(job.target, targets),
        models=models,
        not_analysed=not_analysed,
        whole_file=not job.target.named,
        cached=cached,
        digest=digest,
    )


def _typed(target: Target, targets: Sequence[Target]) -> str:
    """What the user typed that led to this target: itself, or the folder that it was found in."""
    if target.found:
        for folder in targets:
            if folder.kind == "folder" and target.path.startswith(os.path.join(folder.path, "")):
                return folder.text
    return target.text


def _known(job: Job, options: ProbeOptions, cache: caching.Cache | None) -> dict[str, Any]:
    """What is known about a job before it runs, for its cache key. Paths are relative: a cache can be moved."""
    target = job.target
    assert cache is not None
    try:
        path = Path(target.path).relative_to(options.directory).as_posix() if target.path else ""
    except ValueError:
        path = target.path
    return {
        "target": [target.kind, path, target.module, target.call, target.text, target.covered],
        "content": cache.digest(target.path) if target.path else "",
        "options": {f.name: getattr(options, f.name) for f in fields(options) if f.name not in _NOT_IN_KEY},
        "weights": caching.stamp(options.weights),
        "directory": "" if target.path else options.directory,
    }
