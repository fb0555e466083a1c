"""What the probe is asked to do, as plain data: parsed from the command line, sent to the worker."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field

from initlint.facts import Plain
from initlint.records import dataclass

#: Seconds that one candidate may take; a build of the largest public models on two cores stays below half of it.
TIMEOUT = 120.0
#: Share of the machine's memory that all targets together may use.
MEMORY_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """Options of the probe; every field has a default, so tests and the API name only what they change."""

    seed: int = 0
    inputs: tuple[str, ...] = ()  # texts of --input: "x: float32[1,3,32,32]"
    inputs_for: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # the same by class or target id
    timeout: float = TIMEOUT  # seconds for each candidate; 0: no limit
    memory_limit: int = 0  # bytes for one target and for all together; 0: MEMORY_SHARE of the machine
    jobs: int = 0  # targets at a time; 0: one for each two cores
    measure: bool = False  # also a real forward and backward (--measure)
    thorough: bool = False  # further builds (--thorough)
    device: str = "cpu"  # "cpu" | "meta"
    weights: tuple[str, ...] = ()  # checkpoint files to take the weights from
    import_mode: str = "models"  # "models": execute only what models need | "full": as Python would
    arguments: Mapping[str, Mapping[str, Plain]] = field(default_factory=dict)  # class or target id -> name -> value
    cwd: str = ""  # directory that paths in the output are relative to; "": the current one
    verbose: int = 0

    @property
    def directory(self) -> str:
        """The absolute directory that reported paths are relative to."""
        return os.path.abspath(self.cwd or os.getcwd())

    @property
    def parallel(self) -> int:
        """How many targets run at a time: as asked, else one for each two cores."""
        # Half the cores: each child is single-threaded, but the parent (rules, reports) and the worker run beside it.
        return self.jobs if self.jobs > 0 else max(1, (os.cpu_count() or 2) // 2)
