"""The parent's side of the probe: starts the worker, hands out targets, streams results.

Stdlib only; torch is imported in the worker's process alone. User code runs in children of the
worker, so nothing it does reaches this process but bytes.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from initlint.errors import ProbeError
from initlint.options import ProbeOptions
from initlint.probe import limits
from initlint.probe.isolate import Ending, ending
from initlint.probe.outcome import Event, Job, Parts, ProbeResult
from initlint.probe.running import Running
from initlint.probe.scratch import scratch
from initlint.probe.target import Target

#: Seconds between two looks at memory and deadlines: a process writes a few hundred MB in it.
POLL = 0.05
#: Seconds the worker may take to import torch (cold disk, slow network file system).
START_LIMIT = 300.0

_BOOT = (
    "import sys; root = sys.argv[1]\n"
    "try: import initlint.probe.worker as w\n"
    "except ImportError: sys.path.append(root); import initlint.probe.worker as w\n"
    "w.main()"
)
# CUDA is hidden, so that builds are the same on every machine and children never initialise a device. A model is
# called a few times on small tensors: compiling it, which takes a minute, would show the same values and no graph.
_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "TORCHDYNAMO_DISABLE": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "Agg",
}
# Defaults that keep libraries from downloading and reporting home; what the user has set wins.
_DEFAULTS = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "WANDB_MODE": "disabled"}


def probe(
    targets: Sequence[Target],
    options: ProbeOptions,
    on_event: Callable[[Event], None] | None = None,
) -> Iterator[ProbeResult]:
    """Build, trace and measure the models of ``targets``; results come in the order of the targets.

    Folders are expanded first. The worker starts importing torch before anything else is done.
    Closing the iterator, Ctrl-C and the end of this process kill everything that was started.

    Raises:
        ProbeError: the worker cannot start (no torch in this environment).
    """
    from initlint.probe import discovery

    with Pool(options) as pool:
        if any(target.kind != "folder" for target in targets):
            pool.start()
        scanned = discovery.discover(targets, options)
        yield from pool.run(scanned, on_event)


class Pool:
    """A worker and the jobs on it; a context manager that leaves no process behind."""

    def __init__(self, options: ProbeOptions) -> None:
        self.options = options
        self.limit = options.memory_limit or limits.default_limit()
        self.worker: subprocess.Popen[bytes] | None = None
        self.control: socket.socket | None = None
        self.selector = selectors.DefaultSelector()
        self.buffer = b""
        self.running: dict[int, Running] = {}
        self.starting: int | None = None
        self.versions: dict[str, str] | None = None
        self.counter = 0
        self.started_at = 0.0
        self.looked_at = 0.0  # when limits were last compared with what is used
        self.errors = scratch()  # what the worker itself writes to stderr: a file, since nobody reads meanwhile

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the worker, which imports torch while the caller goes on; does nothing the second time."""
        if self.worker is not None:
            return
        _ending[:] = [worker for worker in _ending if worker.poll() is None]  # a process that goes on keeps no zombies
        ours, theirs = socket.socketpair()
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        environment = {**_DEFAULTS, **os.environ, **_ENVIRONMENT}
        with theirs:
            self.worker = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOT, root, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self.errors,
                env=environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is ours to handle
            )
        self.control = ours
        self.started_at = time.monotonic()
        self.selector.register(ours, selectors.EVENT_READ, self._on_control)

    def run(self, jobs: Sequence[Job], on_event: Callable[[Event], None] | None = None) -> Iterator[ProbeResult]:
        """Run the jobs, a few at a time, and yield their results in order."""
        # Files whose classes seem to be parts of other files' models come last: by then it is known.
        waiting = sorted(enumerate(jobs), key=lambda entry: bool(entry[1].target.covered))[::-1]
        parts = Parts(jobs)
        finished: dict[int, ProbeResult] = {}
        position = counted = 0
        unread: list[Running] = []  # ended, their results not put together yet
        report = on_event or (lambda _: None)
        while position < len(jobs):
            # First of all the next one is started: reading what the last one found takes a while.
            while waiting and len(self.running) < self.options.parallel and self.starting is None:
                index, job = waiting[-1]
                whole = any(not other.job.target.covered for other in self.running.values())
                if job.target.covered and (whole or unread):
                    break
                waiting.pop()
                job = parts.settle(job)
                if not job.runs:
                    finished[index] = ProbeResult(job.target, not_analysed=job.not_analysed)
                    counted += 1
                    continue
                self.start()
                self._submit(index, job, report)
            for done in unread:
                finished[done.index] = done.result()
                parts.add(finished[done.index])
            while position in finished:
                yield finished.pop(position)
                position += 1
            unread = []
            for done in self._step() if self.running else ():
                again = done.retry()
                if again is not None:
                    waiting.append((done.index, again))
                    continue
                unread.append(done)
                counted += 1
                report(Event("done", done.job.target.text, len(jobs), counted))

    def close(self) -> None:
        """Kill what runs and end the worker."""
        for running in list(self.running.values()):
            self._kill(running)
            running.close(self.selector)
        self.running.clear()
        if self.control is not None:
            with contextlib.suppress(KeyError, ValueError):
                self.selector.unregister(self.control)
            self.control.close()  # the worker kills its children and ends
            self.control = None
        if self.worker is not None:
            self._end_worker(self.worker)
            self.worker = None
        self.selector.close()
        self.errors.close()

    def _end_worker(self, worker: subprocess.Popen[bytes]) -> None:
        """Let a ready worker clean up while this process goes on; one that still imports torch has nothing to clean."""
        if self.versions is None:
            worker.kill()
            worker.wait()
        else:  # the kernel takes 20 ms to free what torch has in memory
            _ending.append(worker)

    def _submit(self, index: int, job: Job, report: Callable[[Event], None]) -> None:
        number = self.counter
        self.counter += 1
        ours, theirs = socket.socketpair()
        output, output_write = os.pipe()
        assert self.control is not None
        with theirs:
            try:
                socket.send_fds(
                    self.control, [json.dumps({"run": number}).encode() + b"\n"], [theirs.fileno(), output_write]
                )
            except OSError:
                raise self._broken() from None
            finally:
                os.close(output_write)
        running = Running(number, index, job, self.options, ours, output)
        ours.setblocking(False)
        os.set_blocking(output, False)
        self.selector.register(ours, selectors.EVENT_READ | selectors.EVENT_WRITE, running.on_channel)
        self.selector.register(output, selectors.EVENT_READ, running.on_output)
        running.selector = self.selector
        self.running[number] = running
        self.starting = number
        report(Event("start", job.target.text, 0, 0))

    def _step(self) -> list[Running]:
        """Handle what has arrived, enforce limits, and return the jobs that have ended."""
        for key, events in self.selector.select(POLL):
            key.data(events)
        now = time.monotonic()
        if self.versions is None and now - self.started_at > START_LIMIT:
            raise self._broken()
        if now - self.looked_at > POLL:
            self.looked_at = now
            self._enforce(now)
        # One that has said all is not waited for: the kernel takes a while to free the memory of a large model.
        ended = [running for running in self.running.values() if running.ended is not None or running.state.done]
        for running in ended:
            running.ended = running.ended or Ending("ok")
            running.drain()
            running.close(self.selector)
            del self.running[running.number]
        return ended

    def _enforce(self, now: float) -> None:
        """Kill targets beyond their deadline, and the largest one when all together use too much memory."""
        sizes: list[tuple[int, Running]] = []
        for running in self.running.values():
            if running.pid is None or running.ended is not None:
                continue
            if running.deadline and now > running.deadline and not running.killed:
                running.killed = "timeout"
                self._kill(running)
            used = limits.memory(running.pid, self.limit)
            if used is not None:
                running.peak = max(running.peak, used)
                sizes.append((used, running))
        if sum(used for used, _ in sizes) > self.limit:
            _, largest = max(sizes, key=lambda pair: pair[0])
            if not largest.killed:
                largest.killed = "memory"
                self._kill(largest)

    def _kill(self, running: Running) -> None:
        if self.control is None:
            return
        with contextlib.suppress(OSError):
            self.control.sendall(json.dumps({"kill": running.number}).encode() + b"\n")

    def _on_control(self, _: int) -> None:
        assert self.control is not None
        data = b""
        with contextlib.suppress(OSError):
            data = self.control.recv(65536)
        if not data:
            raise self._broken()
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "ready" in message:
                self.versions = message["ready"]
                for running in self.running.values():
                    running.touch()
                continue
            number = message.get("started", message.get("ended"))
            known = self.running.get(number)
            if "started" in message:
                self.starting = None
                if known is not None:
                    known.pid = message["pid"]
                    known.touch()
            elif known is not None:
                known.ended = ending(message["status"])

    def _broken(self) -> ProbeError:
        """What to say when the worker has ended by itself."""
        text = ""
        if self.worker is not None:
            if self.versions is not None or time.monotonic() - self.started_at > START_LIMIT:
                self.worker.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.worker.wait(5)
            self.errors.seek(0)
            text = self.errors.read().decode(errors="replace").strip()
        last = text.splitlines()[-1] if text else "no reason was given"
        if "No module named 'torch'" in text:
            return ProbeError(
                f"torch is not installed for {sys.executable}.",
                "Install initlint into the environment of your models, or install torch here: pip install torch",
            )
        return ProbeError(
            f"The worker that imports torch has ended: {last}", f"Does `{sys.executable} -c 'import torch'` work?"
        )


#: Workers that are about to end.
_ending: list[subprocess.Popen[bytes]] = []


@atexit.register
def _wait_for_workers() -> None:
    for worker in _ending:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(0.5)
        if worker.poll() is None:
            worker.kill()
        worker.wait()


__all__ = ["Event", "Pool", "ProbeResult", "probe"]
