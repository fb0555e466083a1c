"""Memory of the machine and of process trees, read from /proc; no torch, no third-party package.

Where /proc is missing (macOS) the answers are ``None`` and no memory limit is enforced.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal

from initlint.errors import UsageError
from initlint.options import MEMORY_SHARE

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_PR_SET_PDEATHSIG = 1
# Used when the machine does not say how much it has; enough for every model of the common zoos.
_FALLBACK = 8 << 30


def parse_size(text: str) -> int:
    """Bytes from ``"8G"``, ``"512MB"``, ``"1.5GiB"``, ``"80%"`` (of the machine) or a plain number of bytes.

    Raises:
        UsageError: not a size, or not positive.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:(%)|([kmgt]?)(?:i?b)?)\s*", text.lower())
    value = 0
    if match and match.group(2):
        value = int(float(match.group(1)) / 100 * machine_memory())
    elif match:
        value = int(float(match.group(1)) * _UNITS[match.group(3) or ""])
    if value <= 0:
        raise UsageError(f"{text!r} is not an amount of memory.", "Write it as 8G, 512M or 80%.")
    return value


def size_text(size: float) -> str:
    """Bytes for people: ``1.5 GiB``, ``200 MiB``, ``1 KiB``."""
    unit, shift = ("GiB", 30) if size >= 1 << 30 else ("MiB", 20) if size >= 1 << 20 else ("KiB", 10)
    return f"{size / (1 << shift):.3g} {unit}"


def machine_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or its control group's when that is less."""
    total = _FALLBACK
    with contextlib.suppress(ValueError, OSError, AttributeError):
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path) as file:
                total = min(total, int(file.read()))
        except (OSError, ValueError):
            continue
    return total


def default_limit() -> int:
    """The memory limit when none is given: a share of the machine's."""
    return int(machine_memory() * MEMORY_SHARE)


def tree(pid: int) -> list[int]:
    """The process and all its living descendants."""
    found = [pid]
    for parent in found:
        try:
            for thread in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{thread}/children") as file:
                    found += [int(child) for child in file.read().split()]
        except (OSError, ValueError):
            continue
    return found


def memory(pid: int, limit: int) -> int | None:
    """Bytes of a process tree, or ``None`` where they cannot be read.

    The private share is taken first (anonymous resident pages, one small file for each process);
    it counts pages that forks share several times, so only where it passes ``limit`` the exact
    proportional share is read, whose cost grows with the process.
    """
    pids = tree(pid)
    sizes = [_status(p, "status", ("RssAnon:", "RssShmem:")) for p in pids]
    known = [size for size in sizes if size is not None]
    if not known:
        return None
    total = sum(known)
    if total <= limit or len(known) == 1:
        return total
    exact = [_status(p, "smaps_rollup", ("Pss_Anon:", "Pss_Shmem:")) for p in pids]
    proportional = [size for size in exact if size is not None]
    return sum(proportional) if proportional else total


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies (Linux; elsewhere nothing happens)."""
    import ctypes  # late: the parent process never needs it

    try:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError, TypeError):
        return


def _status(pid: int, name: str, keys: tuple[str, ...]) -> int | None:
    total = None
    try:
        with open(f"/proc/{pid}/{name}") as file:
            for line in file:
                if line.startswith(keys):
                    total = (total or 0) + int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return None
    return total
