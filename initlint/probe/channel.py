"""Messages from a child to the parent process: JSON, one a line, over a socket that forks inherit."""

from __future__ import annotations

import fcntl
import json
import os
from typing import Any

from initlint.probe.scratch import scratch


class Channel:
    """A socket to the client, by descriptor, so that forks of forks can use it too.

    A fork and the process it came from may both write: a lock, which the kernel releases when its
    holder dies, keeps their messages apart. One that is killed in the middle of a line leaves an
    unreadable line behind: every message starts on a new line, and the client skips what it cannot read.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.locked = scratch()  # kept: closing the file would close its descriptor
        self.lock = self.locked.fileno()
        self.buffer = b""

    def send(self, message: dict[str, Any]) -> None:
        """Write one message, waiting as long as the client does not read."""
        data = memoryview(b"\n" + json.dumps(message, separators=(",", ":"), allow_nan=False).encode() + b"\n")
        fcntl.lockf(self.lock, fcntl.LOCK_EX)
        try:
            while data:
                data = data[os.write(self.fd, data) :]
        finally:
            fcntl.lockf(self.lock, fcntl.LOCK_UN)

    def receive(self) -> dict[str, Any] | None:
        """The next message from the client; ``None`` when it is gone."""
        while b"\n" not in self.buffer:
            data = os.read(self.fd, 65536)
            if not data:
                return None
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        message = json.loads(line)
        return message if isinstance(message, dict) else None
