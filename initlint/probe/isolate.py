"""Run a function in a fork of this process, with a deadline; what it does to the process stays there.

The caller must be single-threaded: a fork after a parallel region of OpenMP hangs in the child.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable

from initlint.probe.limits import die_with_parent
from initlint.records import dataclass

#: Exit status of a fork whose function raised; its traceback went to its stderr.
RAISED = 70


@dataclass(frozen=True, slots=True)
class Ending:
    """How a fork ended."""

    kind: str  # "ok" | "exit" | "signal" | "timeout"
    code: int = 0  # exit status or signal number

    @property
    def text(self) -> str:
        """A phrase for people: ``crashed with SIGSEGV``."""
        if self.kind == "signal":
            return f"crashed the interpreter with {signal_name(self.code)}"
        if self.kind == "timeout":
            return "did not finish in time"
        if self.kind == "exit":
            return f"ended the process with exit status {self.code}"
        return "finished"


def run(function: Callable[[], None], timeout: float = 0.0) -> Ending:
    """Call ``function`` in a fork and wait for it, at most ``timeout`` seconds (0: no limit)."""
    return start(function, timeout).wait()


@dataclass(frozen=True, slots=True)
class Fork:
    """A fork at work."""

    pid: int
    deadline: float  # of ``time.monotonic``; 0: none

    def wait(self) -> Ending:
        """Wait for its end; past its deadline it is killed."""
        return _wait(self.pid, max(0.001, self.deadline - time.monotonic()) if self.deadline else 0.0)


def start(function: Callable[[], None], timeout: float = 0.0) -> Fork:
    """Begin to call ``function`` in a fork, which has ``timeout`` seconds (0: no limit).

    The fork ends with ``os._exit``: no teardown, no ``atexit`` of user code. It leads its own process
    group, so that what it started can be killed with it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        status = RAISED
        try:
            os.setpgid(0, 0)
            die_with_parent()
            function()
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            _flush()
            os._exit(status)
    return Fork(pid, time.monotonic() + timeout if timeout > 0 else 0.0)


def signal_name(number: int) -> str:
    """``SIGSEGV`` for 11."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def ending(status: int) -> Ending:
    """The ending that a wait status describes."""
    if os.WIFSIGNALED(status):
        return Ending("signal", os.WTERMSIG(status))
    code = os.WEXITSTATUS(status)
    return Ending("exit", code) if code else Ending("ok")


def _wait(pid: int, timeout: float) -> Ending:
    if timeout > 0 and not _ends_within(pid, timeout):
        try:
            os.killpg(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return Ending("timeout")
    return ending(os.waitpid(pid, 0)[1])


def _ends_within(pid: int, timeout: float) -> bool:
    """Whether the child ends in time; it stays unreaped, so its id cannot be reused meanwhile."""
    if hasattr(os, "pidfd_open"):
        try:
            fd = os.pidfd_open(pid)
        except OSError:  # old kernel or sandbox
            fd = -1
        if fd >= 0:
            try:
                return bool(select.select([fd], [], [], timeout)[0])
            finally:
                os.close(fd)
    deadline = time.monotonic() + timeout
    pause = 0.001
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return True
        time.sleep(pause)
        pause = min(0.05, pause * 2)
    return False


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue
