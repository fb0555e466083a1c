"""One target being analysed, as the parent process sees it: its channel, its output, its deadline."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import time
from typing import Any

from initlint.options import ProbeOptions
from initlint.probe import limits
from initlint.probe.isolate import Ending
from initlint.probe.outcome import Job, ProbeResult

#: Seconds beyond a candidate's own deadline (kept in the child) before the parent kills the whole target.
GRACE = 5.0
#: Bytes kept of what a target printed (its end: that is where errors are).
OUTPUT_KEPT = 8192


class Running:
    """A target being analysed: its channel, what it has said so far, how it ended."""

    def __init__(
        self, number: int, index: int, job: Job, options: ProbeOptions, channel: socket.socket, output: int
    ) -> None:
        self.number = number
        self.index = index
        self.job = job
        self.options = options
        self.channel = channel
        self.output = output
        self.selector: selectors.BaseSelector | None = None
        self.pid: int | None = None
        self.ended: Ending | None = None
        self.killed = ""  # "" | "timeout" | "memory"
        self.deadline = 0.0
        self.peak = 0
        self.began = time.monotonic()
        self.pending = job.encode(options)
        self.received = bytearray()
        self.scanned = 0
        self.printed = b""
        self.state = job.state()

    def touch(self) -> None:
        """Start the clock anew: the target got on to its next step."""
        if self.options.timeout > 0:
            self.deadline = time.monotonic() + self.options.timeout + GRACE

    def on_channel(self, events: int) -> None:
        """Send what is left of the job, read what has come."""
        if events & selectors.EVENT_WRITE and self.pending:
            try:
                self.pending = self.pending[self.channel.send(self.pending) :]
            except BlockingIOError:
                pass
            except OSError:
                self.pending = b""
        if not self.pending and self.selector is not None:
            self.selector.modify(self.channel, selectors.EVENT_READ, self.on_channel)
        if events & selectors.EVENT_READ:
            self.read_channel()

    def read_channel(self) -> bool:
        """Read what is there; False when nothing (more) will come."""
        try:
            data = self.channel.recv(1 << 20)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            if self.selector is not None:
                with contextlib.suppress(KeyError, ValueError):
                    self.selector.unregister(self.channel)
            return False
        self.received += data
        while (end := self.received.find(b"\n", self.scanned)) >= 0:
            line = bytes(self.received[:end])
            del self.received[: end + 1]
            self.scanned = 0
            self.handle(line)
        self.scanned = len(self.received)
        return True

    def on_output(self, _: int = 0) -> bool:
        """Keep the end of what the target prints."""
        try:
            data = os.read(self.output, 1 << 16)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            if self.selector is not None:
                with contextlib.suppress(KeyError, ValueError):
                    self.selector.unregister(self.output)
            return False
        self.state.lines_printed += data.count(b"\n")
        self.printed = (self.printed + data)[-OUTPUT_KEPT:]
        return True

    def handle(self, line: bytes) -> None:
        """Take one message; unreadable lines come from a process killed while writing."""
        if not line.strip():
            return
        try:
            message: Any = json.loads(line)
        except ValueError:
            return
        if not isinstance(message, dict):
            return
        self.touch()
        self.state.take(message)

    def drain(self) -> None:
        """Read what the ended target left in the pipes."""
        while self.read_channel():
            pass
        for _ in range(64):  # at most the pipe's size; a stray grandchild may print for ever
            if not self.on_output():
                break

    def close(self, selector: selectors.BaseSelector) -> None:
        """Forget the descriptors."""
        for item in (self.channel, self.output):
            with contextlib.suppress(KeyError, ValueError):
                selector.unregister(item)
        self.channel.close()
        with contextlib.suppress(OSError):
            os.close(self.output)

    def retry(self) -> Job | None:
        """The rest of the job, when the target was killed with candidates left; ``None`` when there is none."""
        assert self.ended is not None
        killed = self.ended.kind == "signal" and self.ended.code == signal.SIGKILL and self.killed != "timeout"
        return self.state.rest(self.job, self._trouble(), self.options.directory, memory=killed)

    def result(self) -> ProbeResult:
        """The result of an ended job."""
        seconds = time.monotonic() - self.began
        output = self.printed.decode(errors="replace")
        return self.state.finish(self.job, self._trouble(), output, seconds, self.options.directory)

    def _trouble(self) -> str:
        """Why the child ended before it was done, as the end of a sentence; "" when it was done."""
        if self.killed == "timeout":
            return f"did not finish within {self.options.timeout:g} s"
        if self.killed == "memory":
            limit = self.options.memory_limit or limits.default_limit()
            return f"used more memory than the limit of {limits.size_text(limit)}"
        assert self.ended is not None
        if self.ended.kind == "signal" and self.ended.code == signal.SIGKILL:
            return "was killed (out of memory, most likely)"
        return "" if self.ended.kind == "ok" else self.ended.text
