"""What a rule says: findings with their evidence, and outcomes that stayed undetermined."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import field

from initlint.facts import ModelFacts, NotAnalysed, Scalar, Site
from initlint.records import dataclass


class Severity(enum.IntEnum):
    """How bad a finding is; ordered, so that ``max`` and ``min`` work."""

    NOTE = 1
    WARNING = 2
    ERROR = 3

    @property
    def label(self) -> str:
        """The lower-case word used in all outputs."""
        return self.name.lower()

    @classmethod
    def parse(cls, text: str) -> Severity:
        """The severity of that name. Raises ``KeyError`` for an unknown one."""
        return cls[text.upper()]


@dataclass(frozen=True, slots=True)
class Related:
    """A further place that belongs to a finding."""

    file: str
    line: int
    role: str  # "created here", "overwritten here", "selector that matched nothing" ...


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace the lines ``start`` to ``end`` (1-based, inclusive) of ``file`` by ``text``."""

    file: str
    start: int
    end: int
    text: str
    before: str = ""  # what these lines held when the edit was planned


@dataclass(frozen=True, slots=True)
class Fix:
    """A proposed edit. ``snippet`` is the line to write, also where no edit could be planned."""

    title: str
    applicability: str = "manual"  # "safe" | "unsafe" | "manual"
    edits: tuple[Edit, ...] = ()
    verified: bool = False
    snippet: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause, in one model.

    ``topic`` says what kind of thing is wrong; where two rules report the same topic for the same
    parameters the more specific one stands (see engine): ``scale`` (a variance is off, or signals
    vanish or explode), ``memory``, ``value`` (zeros, non-finite, outliers), ``symmetry``,
    ``duplicate``, ``reach`` (init that did not arrive), ``norm``, ``bias``, ``padding``, ``head``,
    ``gate``, ``convention``, ``range``, ``tool``.
    """

    code: str
    name: str
    severity: Severity
    message: str  # what is there and what was expected, one sentence, no remedy
    model: str  # target id, "path.py::Name"
    site: Site | None = None  # where the fault is to be mended
    parameters: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    related: tuple[Related, ...] = ()
    expected: Mapping[str, Scalar] = field(default_factory=dict)
    actual: Mapping[str, Scalar] = field(default_factory=dict)
    effect: str = ""  # a sentence
    effect_log10: float | None = None
    sources: tuple[str, ...] = ()
    fix: Fix | None = None
    topic: str = "scale"
    why: str = ""  # the reason in one or two sentences, for the report
    fingerprint: str = ""  # filled by the engine
    suppressed: str = ""  # "" | "comment" | "baseline"; set by the engine


@dataclass(frozen=True, slots=True)
class Undetermined:
    """A check that could not be decided; counted and shown, never taken for fine."""

    code: str
    reason: str
    model: str = ""
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LayerSignal:
    """Predicted (and measured) scales at a layer's output, standard deviations."""

    forward_std: float | None = None
    gradient_std: float | None = None
    measured_forward_std: float | None = None
    measured_gradient_std: float | None = None
    forward_band: float | None = None  # one standard deviation of log10(forward_std) by chance
    gradient_band: float | None = None
    dependent: float | None = None  # input-dependent share q(1-c)/q


@dataclass(frozen=True, slots=True)
class LayerRow:
    """A line of the layer table: what a layer has and what was expected of it."""

    name: str
    kind: str
    parameters: tuple[str, ...]
    site: Site | None
    fan_in: float | None
    fan_out: float | None
    activation: str | None
    path: tuple[str, ...]
    scheme: str | None  # "kaiming_uniform_(a=2.236), PyTorch's default"
    init: Mapping[str, Scalar] | None  # {"function","file","line"}
    std: float | None
    expected_std: float | None
    ratio: float | None  # std / expected_std
    undetermined: str | None = None
    signal: LayerSignal = field(default_factory=LayerSignal)
    consumer: str | None = None


@dataclass(frozen=True, slots=True)
class ModelReport:
    """One model of a run: its facts, its layer table and what could not be decided."""

    facts: ModelFacts
    rows: tuple[LayerRow, ...] = ()
    undetermined: tuple[Undetermined, ...] = ()
    init_loss: Mapping[str, Scalar] | None = None  # {"predicted","expected","classes","logit_std"}
    profile: tuple[Mapping[str, Scalar], ...] = ()  # trunk: {"label","forward_std","gradient_std","dependent",...}
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """The result of one run of initlint; emitters are functions of it."""

    models: tuple[ModelReport, ...] = ()
    findings: tuple[Finding, ...] = ()  # sorted, without the suppressed ones
    suppressed: tuple[Finding, ...] = ()
    not_analysed: tuple[NotAnalysed, ...] = ()
    seed: int = 0
    seconds: float = 0.0
    fail_on: Severity | None = Severity.WARNING
    version: str = ""
    torch: str = ""
    python: str = ""
    command: str = ""
    notes: tuple[str, ...] = ()  # e.g. "no files with nn.Module"
    baseline_stale: int = 0  # baseline entries that no longer occur
    severities: Mapping[str, int] = field(default_factory=dict)
    unanalysed: tuple[str, ...] = ()  # targets of the command line that make the exit code 2
