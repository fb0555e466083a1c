"""The severity table (DESIGN, section 4) as pure functions of the effect and the signal."""

from __future__ import annotations

import math
from collections.abc import Mapping

from initlint.findings import Severity
from initlint.signal.effect import Effect
from initlint.signal.profile import Span
from initlint.signal.propagate import Signal

#: log10 of the profile's ratio of second moments at which SGD loses points (1e4), and stops (1e6): THEORY 6.1.
SGD = (4.0, 6.0)
#: The same for Adam, whose steps do not scale with the gradient: 1e6 costs points, 1e9 stops it (THEORY 6.1).
ADAM = (6.0, 9.0)
#: The least ratio that costs accuracy with either optimizer. Where a mistake that the record proves passes it, nobody
#: chose it, and the room that the thresholds above leave for designs is not needed. At 1e3 (ten layers, weights twice
#: too large) SGD loses 27 points and Adam 7, at 3e3 over twenty layers 18 and 10 (THEORY 6.1).
COSTS = 3.0
#: A ratio of 10 is harmless (THEORY 6.1): what the mistake itself adds has to be more.
HARMLESS = 1.0
#: A mistake counts from a factor 2 of the second moment, a scheme for another activation from 100 (DESIGN, section 4).
MISTAKE = math.log10(2.0)
MISMATCH = 2.0
#: Excess loss at the start, in units of ln C, from which it is an error (the initial phase is spent on unlearning it).
LOSS = 2.0
#: Outputs of this std, read as logits, cost several times ln C whatever C is (THEORY 6.2).
LOGITS = 10.0
#: One weight that acts at least this often along the trunk is unrolled time; twice is a shared (tied) layer.
UNROLLED = 3
#: Shares of saturated and of dead units: an error beyond (THEORY 6.2; Glorot & Bengio 2010, Lu et al. 2019).
SATURATED = 0.75
DEAD = 0.60


def thresholds(optimizer: str) -> tuple[float, float]:
    """Warning and error for the depth profile."""
    return SGD if optimizer == "sgd" else ADAM


def depth(spans: Mapping[str, Span], optimizer: str = "adam") -> Severity | None:
    """What the depth profile alone amounts to; None where it is healthy."""
    worst = max((span.value for span in spans.values()), default=0.0)
    warning, error = thresholds(optimizer)
    return Severity.ERROR if worst >= error else Severity.WARNING if worst >= warning else None


def capped(severity: Severity | None, signal: Signal) -> Severity | None:
    """Effects over unrolled time are a warning at most: T is the user's choice (DESIGN, section 4)."""
    if severity is Severity.ERROR and signal.steps >= UNROLLED:
        return Severity.WARNING
    return severity


def distance(effect: Effect, signal: Signal, optimizer: str = "adam", dtype: str = "float32") -> Severity | None:
    """A scheme that is not the textbook's, or PyTorch's default: judged by what the whole net's profile makes of it."""
    harm = harmed(effect, signal, optimizer)
    return capped(harm, signal) or Severity.NOTE


def costs(effect: Effect, signal: Signal) -> bool:
    """Whether these values bring about a profile that costs accuracy, which the expected ones would not have.

    The ratios as they are: the mistake is proven, so that chance need not be ruled out first.
    """
    before = effect.before or signal.spans
    if effect.hidden or any(span.raw >= COSTS for span in effect.after.values()):
        return False
    pairs = [(now, effect.after.get(key)) for key, now in before.items() if now.raw >= COSTS]
    return any(then is None or now.shrinks != then.shrinks or now.raw - then.raw > HARMLESS for now, then in pairs)


def harmed(effect: Effect, signal: Signal, optimizer: str) -> Severity | None:
    """The depth verdict, if these values are what brings it about: with the expected ones it would be milder."""
    now, then = depth(effect.before or signal.spans, optimizer), depth(effect.after, optimizer)
    if now is None or effect.hidden:
        return None
    return now if then is None or then < now else None


def mistake(effect: Effect, signal: Signal, optimizer: str = "adam", dtype: str = "float32") -> Severity | None:
    """A mistake with evidence: warning from a factor 2 unless hidden, error where training is harmed."""
    if effect.hidden:
        return Severity.NOTE
    if broken(effect, signal, optimizer) or costs(effect, signal):
        return capped(Severity.ERROR, signal)
    smaller = effect.log10 <= 0 and effect.local <= 0
    if smaller and (effect.head or effect.branch):
        return Severity.NOTE
    return Severity.WARNING if abs(effect.log10) >= MISTAKE or abs(effect.loss) >= 0.5 else Severity.NOTE


def mismatch(effect: Effect, signal: Signal, optimizer: str = "adam", dtype: str = "float32") -> Severity | None:
    """A scheme chosen for another activation: warning from a factor 100, error where training is harmed."""
    if effect.hidden:
        return Severity.NOTE
    if broken(effect, signal, optimizer):
        return capped(Severity.ERROR, signal)
    return Severity.WARNING if abs(effect.log10) >= MISMATCH and not _flatter(effect, signal) else Severity.NOTE


def _flatter(effect: Effect, signal: Signal) -> bool:
    """Whether the profile is flatter as it is than with the expected values (a smaller branch of a residual stream)."""
    now, then = (
        max((s.raw for s in spans.values()), default=0.0) for spans in (effect.before or signal.spans, effect.after)
    )
    return then - now >= MISTAKE


def broken(effect: Effect, signal: Signal, optimizer: str) -> bool:
    """Training is harmed by these values: profile, loss at the start, saturation or dead units.

    Where there is evidence of a mistake, the profile's first threshold suffices: what distance alone would make a
    warning is then known to be nobody's choice.
    """
    if harmed(effect, signal, optimizer) is not None:
        return True
    loss = signal.init_loss
    if loss is not None and effect.loss > LOSS * loss.expected:
        return True
    # halves of a signal that take turns (coupling layers) leave no node that all paths cross, and no profile
    profiled = any(span.last >= 0 for span in (effect.before or signal.spans).values())
    if not profiled and effect.log10 >= thresholds(optimizer)[1]:
        return True
    return effect.saturated > SATURATED or effect.dead > DEAD


def intent(
    effect: Effect, signal: Signal, optimizer: str = "adam", dtype: str = "float32", *, matters: bool = False
) -> Severity | None:
    """Intent and outcome differ. ``matters``: symmetry or priors are concerned, which the signal does not show."""
    if not effect.hidden and broken(effect, signal, optimizer):
        return capped(Severity.ERROR, signal)
    nothing = effect.hidden or (abs(effect.log10) < MISTAKE and abs(effect.loss) < 0.1)
    return Severity.NOTE if nothing and not matters else Severity.WARNING
