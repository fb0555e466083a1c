"""What is known of a signal on one edge of the graph, forward and backward.

Notation of the mean-field literature (Poole et al. 2016, Schoenholz et al. 2017). A signal x[sample, position,
channel] is described by its second moment ``q`` and by how much of it *differs* in three comparisons, each
half the mean squared difference of the same channel:

* ``d`` between two samples at one position: q(1-c), the input-dependent part that training can use;
* ``e`` between two positions of one sample: q(1-c_s);
* ``u`` when both differ; what batch normalisation sees.

Differences rather than correlations, because at depth the interesting part is 1e-16 of the whole and would be lost
in rounding. Biases, and anything else shared between samples, leave ``d``, ``e`` and ``u`` alone.
"""

from __future__ import annotations

from typing import NamedTuple

from initlint.records import dataclass

#: So many earlier signals are remembered beside the last one.
NEAREST = 3
#: Second moments are kept within these: far outside float32 (1e-90 to 1e77), and products stay within float64.
SMALLEST = 1e-150
LARGEST = 1e150


#: Weight, mean and variance of each Gaussian of a mixture.
Mixture = tuple[tuple[float, float, float], ...]


@dataclass(frozen=True, slots=True, order=True)
class Nominal:
    """Moments to put in place of a parameter's actual values (the counterfactual)."""

    mean: float
    var: float
    orthogonal: bool = False

    @property
    def second(self) -> float:
        """E[w^2]."""
        return self.mean * self.mean + self.var


@dataclass(frozen=True, slots=True)
class Moments:
    """Predicted moments of a node's output.

    ``kappa`` is the covariance q*c between samples, ``s`` the cosine between positions of one sample, ``p`` the
    second moment of the gradient per element for a unit-variance gradient at the model's outputs. ``noise_*`` are
    standard deviations of the natural logarithm, by the chance of finite width. ``dependent`` is q(1-c), kept apart
    from ``kappa`` because the difference is lost in rounding when c is near 1.
    """

    q: float
    m: float = 0.0
    kappa: float = 0.0
    s: float = 0.0
    p: float = 0.0
    noise_q: float = 0.0
    noise_p: float = 0.0
    numeric: bool = False  # rests on a measurement, not on a closed form
    undetermined: str | None = None  # why the numbers mean nothing
    dependent: float = 0.0

    @property
    def correlation(self) -> float:
        """c, the cosine between samples; 1 for a signal that is zero."""
        return self.kappa / self.q if self.q > 0 else 1.0


@dataclass(frozen=True, slots=True)
class State:
    """The propagated state of one edge; see the module's docstring for q, d, e and u."""

    q: float
    m: float = 0.0  # mean over everything
    d: float = 0.0
    e: float = 0.0
    u: float = 0.0
    kind: str = "gaussian"  # gaussian | post (after a function) | index | constant | logits | weights (softmax)
    own: float = 0.0  # variance of ln q from this edge's own units: replaced, not summed, by an activation
    noise: float = 0.0  # variance of ln q carried from upstream
    harmonic: float = 1.0  # E[1/v] E[v] over channels, whose second moments v differ by the weights that wrote them
    spread: float = 0.0  # relative variance, between samples and positions, of the energy of one channel vector
    ties: tuple[Tie, ...] = ()  # earlier signals that this one still contains, nearest first
    share: float = 1.0  # kind "logits": unmasked share of the keys; "weights": sum of squares of a row
    tilt: float = 0.0  # kind "weights" of products with keys: logit variance that leans the mean of values, see Attend
    centred: bool = False  # weights whose rows sum to zero (weight standardisation)
    parts: tuple[tuple[float, State], ...] = ()  # segments along positions (share of positions, state), see parts.py
    positive: bool = False  # has no negative values
    open: float = 0.0  # of a rectified signal: the share above zero, where it is known
    negative: bool = False  # has no positive values
    mix: Mixture = ()  # a sum with a rectified signal, as a mixture of Gaussians (see rectified.py)
    lifted: Lifted | None = None  # a signal that was rectified again and again (see rectified.py)
    moved: Moved | None = None  # its sum with another one
    levels: Levels | None = None  # what a rectified mixture is like (see rectified.py)
    turns: tuple[str, int] = ("", 0)  # a kernel W, and how often 1 + W was applied (see operands.again)
    isometric: bool = False  # came through an orthogonal matrix: norms do not fluctuate
    numeric: bool = False
    overruled: bool = False  # the op's rule was contradicted by the measurement, which stands in for it
    undetermined: str | None = None

    @property
    def v(self) -> float:
        """Variance over everything."""
        return max(self.q - self.m * self.m, 0.0)


class Lifted(NamedTuple):
    """A rectified signal: some units are N(mean, sigma^2) above zero, the others what ``steps`` changes made of zero.

    Each change was rectified in turn; ``variance`` is that of their sum. It holds for a signal of these moments alone.
    """

    m: float
    q: float
    share: float  # of the units above zero at first
    mean: float
    sigma: float
    above: float = 1.0  # how many of these are above zero still
    steps: int = 0
    variance: float = 0.0


class Moved(NamedTuple):
    """A sum of these moments: ``base`` plus N(mean, variance)."""

    m: float
    q: float
    base: Lifted
    mean: float
    variance: float


class Levels(NamedTuple):
    """How a rectified signal of these moments is spread: shares that are near a value, the variance within each.

    What is left of the shares is zero.
    """

    m: float
    q: float
    values: tuple[tuple[float, float, float], ...]


class Tie(NamedTuple):
    """This signal is ``factor`` times the signal of node ``root`` (state ``base``), plus something independent.

    ``together``: the same for what the positions of a sample share, which an average over positions leaves as it is.
    """

    root: int
    factor: float
    base: State
    together: float


class Shares(NamedTuple):
    """This gradient is ``factor`` times the one on node ``root``, whose second moment is ``base``, plus the rest.

    ``together``: the same for what positions share, ``shared`` of the base, which an average leaves as it is.
    """

    root: int
    factor: float
    base: float
    together: float
    shared: float

    def times(self, factor: float, together: float | None = None) -> Shares:
        """Of so many times the gradient."""
        whole = factor if together is None else together
        return self._replace(factor=self.factor * factor, together=self.together * whole)

    def in_common(self, other: Shares) -> float:
        """The energy that two gradients have in common."""
        apart = self.factor * other.factor * (self.base - self.shared)
        return apart + self.together * other.together * self.shared


class Grad(NamedTuple):
    """The gradient on an edge: second moment per element, covariance between positions, variance of ln p.

    ``through``: the second moment as the rows of the layer that wrote the edge see it, each weighted with its energy
    (negative: the same as ``p``); it differs for packed projections whose parts have different scales.
    """

    p: float
    t: float = 0.0
    noise: float = 0.0
    through: float = -1.0
    parts: tuple[tuple[float, Grad], ...] = ()  # as State.parts
    along: float = 0.0  # energy, by sample and channel, of the gradient's projection on the signal itself
    lean: float = 0.0  # on attention logits: (1 - S)^2 over what passes softmax by chance (see attention.Attend.lean)
    won: float = 0.0  # the part of p that falls on the greatest of ``window`` positions; of all: on active ones
    window: float = 1.0
    active: float = 0.0  # on a sum that is rectified: the share of p on units whose rectified operand is above zero
    first: float = 0.0  # energy on those of these that were above zero at first; on the operand: beyond chance
    across: float = 0.0  # covariance between samples: batch norm's backward leaves none of a gradient's batch mean
    turns: tuple[str, int] = ("", 0)  # as State.turns
    near: tuple[float, ...] = ()  # correlation between neighbours, beyond what all positions share (see near.py)
    ties: tuple[Shares, ...] = ()  # gradients of sums further on that this one still contains, nearest first
    falls: tuple[float, ...] = ()  # relative energy on units of each part of a mixture, or at each level and at zero


NO_GRADIENT = Grad(0.0, 0.0, 0.0)


def kept_ties(g: Grad, factor: float, together: float | None = None) -> tuple[Shares, ...]:
    """The ties of ``factor`` times this gradient, and of what positions share ``together`` times."""
    return tuple(tie.times(factor, together) for tie in g.ties)


class NoRuleError(Exception):
    """Raised by a rule that lacks what it needs; the sweep falls back on measurements or gives up, with the reason."""


def bounded(value: float) -> float:
    """Clamp a second moment to what the propagation carries; exact zero stays zero, NaN counts as overflow."""
    if value == 0.0:
        return 0.0
    if not value < LARGEST:
        return LARGEST
    return max(value, SMALLEST)


def part(value: float, whole: float) -> float:
    """A difference d, e or u in its range: 0 to 2q (c from 1 to -1)."""
    if not value > 0.0:
        return 0.0
    return min(max(value, SMALLEST), 2.0 * whole)


def state(
    q: float,
    m: float = 0.0,
    d: float = 0.0,
    e: float = 0.0,
    u: float | None = None,
    *,
    kind: str = "gaussian",
    own: float = 0.0,
    noise: float = 0.0,
    spread: float | None = None,
    like: tuple[State, ...] = (),
) -> State:
    """A state with its numbers brought into range; ``like``: inputs whose doubts it inherits."""
    q = bounded(q)
    root = q**0.5
    d, e = part(d, q), part(e, q)
    u = part(max(d, e, d if u is None else u), q)
    doubt = next((x.undetermined for x in like if x.undetermined), None)
    return State(
        q,
        min(max(m, -root), root) if m == m else 0.0,
        d,
        e,
        u,
        kind,
        own,
        noise,
        spread=max((x.spread for x in like), default=0.0) if spread is None else spread,
        numeric=any(x.numeric for x in like),
        undetermined=doubt,
    )


def carried(inputs: tuple[State, ...], weights: tuple[float, ...]) -> float:
    """Variance of ln q of a sum of independent parts with these second moments."""
    total = sum(weights)
    if total <= 0:
        return 0.0
    return sum((w / total) ** 2 * (x.noise + x.own) for x, w in zip(inputs, weights, strict=True))


def tied(x: State, source: int, factor: float = 1.0, together: float | None = None) -> tuple[Tie, ...]:
    """The ties of ``factor`` times node ``source``, whose state is ``x``: the nearest and the oldest are kept, and a
    constant (places to which a flow is added again and again)."""
    whole = factor if together is None else together
    earlier = x.ties
    if len(x.ties) > NEAREST:
        fixed = next((tie for tie in x.ties[NEAREST - 1 : -1] if tie.base.kind == "constant"), None)
        earlier = (*x.ties[: NEAREST - 1], *(() if fixed is None else (fixed,)), x.ties[-1])
    scaled = (tie._replace(factor=tie.factor * factor, together=tie.together * whole) for tie in earlier)
    return (Tie(source, factor, x, whole), *scaled)


def common(a: State, b: State, sources: tuple[int, int]) -> tuple[Tie, Tie] | None:
    """The nearest signal that both contain, as a tie of either."""
    left = (Tie(sources[0], 1.0, a, 1.0), *a.ties)
    right = {tie.root: tie for tie in (*reversed(b.ties), Tie(sources[1], 1.0, b, 1.0))}
    for tie in left:
        other = right.get(tie.root)
        if other is not None:
            return tie, other
    return None
