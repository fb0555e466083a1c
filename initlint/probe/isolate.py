"""Run a function in a fork of this process, with a deadline; what it does to the process stays there.

The caller must be single-threaded: a fork after a parallel region of OpenMP hangs in the child.
"""

from __future__ import annotations

import contextlib
import math
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
    done: int  # a pipe: something is in it when its function is done

    def wait(self) -> Ending:
        """Wait until its function is done, or for its end; past its deadline it is killed.

        Its end is not waited for then: the kernel takes a while to free the memory of a large model.
        """
        left = max(0.001, self.deadline - time.monotonic()) if self.deadline else None
        try:
            if not self._ends_within(left):
                self._end()
                return Ending("timeout")
            if _readable([self.done], 0.0) and os.read(self.done, 1):
                _leaving.append(self.pid)
                return Ending("ok")
            return ending(os.waitpid(self.pid, 0)[1])
        finally:
            os.close(self.done)

    def running(self) -> bool:
        """Whether it is still at work; once it is not, it need not be waited for."""
        if self._ends_within(0.0):
            self.wait()
            return False
        return True

    def kill(self) -> None:
        """End it."""
        self._end()
        os.close(self.done)

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):  # it does not lead its group yet
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def _ends_within(self, timeout: float | None) -> bool:
        """Whether it is done or ends in time; it stays unreaped, so its id cannot be reused meanwhile.

        The pipe alone does not tell: what the fork has left behind may keep it open.
        """
        if hasattr(os, "pidfd_open"):
            try:
                fd = os.pidfd_open(self.pid)
            except OSError:  # old kernel or sandbox
                fd = -1
            if fd >= 0:
                try:
                    return _readable([fd, self.done], timeout)
                finally:
                    os.close(fd)
        deadline = time.monotonic() + (math.inf if timeout is None else timeout)
        pause = 0.001
        while os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if _readable([self.done], pause):
                break
            if time.monotonic() >= deadline:
                return False
            pause = min(0.05, pause * 2)
        return True


#: Forks that were done with their functions, and are to be reaped.
_leaving: list[int] = []


def start(function: Callable[[], None], timeout: float = 0.0) -> Fork:
    """Begin to call ``function`` in a fork, which has ``timeout`` seconds (0: no limit).

    The fork ends with ``os._exit``: no teardown, no ``atexit`` of user code. It leads its own process
    group, so that what it started can be killed with it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    _reap()
    done, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = RAISED
        try:
            os.close(done)
            _leaving.clear()  # of the forking process
            os.setpgid(0, 0)
            die_with_parent()
            function()
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            _flush()
            if status == 0:
                with contextlib.suppress(OSError):  # nobody waits any more
                    os.write(write, b"k")
            os._exit(status)
    os.close(write)
    return Fork(pid, time.monotonic() + timeout if timeout > 0 else 0.0, done)


def _reap() -> None:
    for pid in tuple(_leaving):
        try:
            gone = os.waitpid(pid, os.WNOHANG)[0] != 0
        except ChildProcessError:  # the user's code has waited for it
            gone = True
        if gone:
            _leaving.remove(pid)


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


def _readable(descriptors: list[int], timeout: float | None) -> bool:
    return bool(select.select(descriptors, [], [], timeout)[0])


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue
