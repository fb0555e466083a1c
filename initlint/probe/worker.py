"""The warm worker: preloads torch, stays single-threaded, and forks one child for each target.

Started by ``client`` as ``python -m initlint.probe.worker FD`` with one end of a socket pair. The
client passes, for each target, a number and two descriptors: the job's own channel and the pipe that
takes what user code prints. The worker only forks, kills and reports endings; the child talks to
the client through its channel, so that nothing large passes through the worker.

Messages are JSON, one a line. From the client: ``{"run": n}`` with two descriptors, ``{"kill": n}``.
To the client: ``{"ready": {...}}``, ``{"started": n, "pid": p}``, ``{"ended": n, "status": s}``.
End of file means that the client is gone: everything is killed.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
from typing import Any

from initlint.records import compile_all


def main() -> None:
    """Serve jobs on the descriptor named by the last command-line argument until it is closed."""
    control = socket.socket(fileno=int(sys.argv[-1]))
    sys.argv[:] = ["initlint"]
    gc.disable()  # nothing that the imports create is garbage; collecting while they run costs time
    import torch

    torch.set_num_threads(1)
    _preload()
    # Moves everything imported so far out of the collector's reach, so that children do not copy these pages.
    gc.freeze()
    gc.enable()
    sys.dont_write_bytecode = True  # never leave files in the user's folders
    _send(control, {"ready": {"torch": str(torch.__version__), "python": sys.version.split()[0]}})
    Worker(control).serve()


#: Modules of the parent process.
_PARENT_ONLY = frozenset(("client", "running", "worker"))


class Worker:
    """The loop that forks, kills and reaps."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.children: dict[int, int] = {}  # pid -> number of the job
        self.buffer = b""
        self.forks = 0
        self.descriptors: list[int] = []
        self.wake, wake_write = os.pipe()
        for fd in (self.wake, wake_write):
            os.set_blocking(fd, False)
        self.wake_write = wake_write
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)

    def serve(self) -> None:
        """Run until the client closes its end."""
        while True:
            readable, _, _ = select.select([self.control.fileno(), self.wake], [], [])
            if self.wake in readable:
                _drain(self.wake)
                self.reap()
            if self.control.fileno() in readable and not self.receive():
                break
        for pid in self.children:
            _kill(pid)
        os._exit(0)

    def receive(self) -> bool:
        """Read what the client sent and act on it; False at the end of file."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self.control, 65536, 16)
        except OSError:
            return False
        self.descriptors += descriptors
        if not data:
            return False
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "run" in message:
                channel, output = self.descriptors.pop(0), self.descriptors.pop(0)
                self.start(message["run"], channel, output)
            elif "kill" in message:
                for pid in [pid for pid, number in self.children.items() if number == message["kill"]]:
                    _kill(pid)
        return True

    def start(self, number: int, channel: int, output: int) -> None:
        """Fork the child for one job."""
        self.forks += 1
        if self.forks == 2:  # there are several jobs: what each would compile for itself is compiled here
            compile_all()
        pid = os.fork()
        if pid == 0:
            self.become_child(channel, output)
        os.close(channel)
        os.close(output)
        self.children[pid] = number
        _send(self.control, {"started": number, "pid": pid})

    def become_child(self, channel: int, output: int) -> None:
        """Drop what belongs to the worker, redirect the standard streams, run the job, end."""
        status = 1
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            from initlint.probe.limits import die_with_parent

            die_with_parent()
            for fd in (self.control.fileno(), self.wake, self.wake_write, *self.descriptors):
                os.close(fd)
            _redirect(output)
            from initlint.probe.job import run_job

            run_job(channel)
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except (OSError, ValueError):
                    continue
            os._exit(status)

    def reap(self) -> None:
        """Report the children that have ended."""
        while self.children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            number = self.children.pop(pid, None)
            if number is not None:
                _kill(pid, leftovers=True)
                _send(self.control, {"ended": number, "status": status})


def _preload() -> None:
    """Import the whole probe and compile its encoders once, before the first fork, instead of in every child."""
    import importlib
    import pkgutil

    from initlint import codec, facts, probe

    for module in pkgutil.iter_modules(probe.__path__):
        if module.name not in _PARENT_ONLY:
            importlib.import_module(f"initlint.probe.{module.name}")
    from initlint.probe.pipeline import GraphFacts
    from initlint.probe.provenance_state import GlobalState

    GlobalState()  # imports numpy.random where NumPy is
    for example in (facts.ModelFacts("", "", ""), GraphFacts(), facts.NotAnalysed("", "")):
        codec.to_plain(example, compact=True)


def _redirect(output: int) -> None:
    """Make descriptors 1 and 2 (and so everything user code prints) go to ``output``; 0 reads nothing."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(null)
    os.close(output)


def _kill(pid: int, *, leftovers: bool = False) -> None:
    """Kill a child with its process group; ``leftovers``: the child is reaped, only its group may live on."""
    for kill in (os.killpg,) if leftovers else (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        return


def _send(control: socket.socket, message: dict[str, Any]) -> None:
    try:
        control.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        os._exit(0)  # the client is gone


if __name__ == "__main__":
    main()
