"""What the probe found out about a model: frozen plain data that round-trips through JSON.

Everything after the probe (propagation, rules, reports) is a function of these values, so nothing
here imports torch. Conventions: ``second`` is a second moment E[x^2], ``var`` a variance; shapes
are tuples of ints; names are fully-qualified parameter or module names as PyTorch gives them;
lines and columns count from 1; unknown is ``None``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import ClassVar

from initlint.records import dataclass

#: How a note says that the build went on without a module: "line 3: cv2 ...: No module named 'cv2'".
STAND_IN = "could not be imported and was replaced by a stand-in"

#: A plain value that JSON can hold; lists and mappings appear in ``attrs`` only.
Scalar = bool | int | float | str | None
Plain = Scalar | list["Plain"] | dict[str, "Plain"]


@dataclass(frozen=True, slots=True)
class Site:
    """A place in source code."""

    SHARED: ClassVar[bool] = True  # of equal ones the codec keeps one

    file: str
    line: int
    column: int | None = None
    function: str = ""  # qualified name of the enclosing function, "<module>" at top level
    text: str = ""  # the source line, stripped; empty when the file could not be read
    end_line: int | None = None  # the last line of the statement when it spans several


@dataclass(frozen=True, slots=True)
class Write:
    """One recorded operation that wrote (part of) a tensor.

    ``op`` is the public name of what wrote: an ``nn.init`` function (``kaiming_uniform_``), an
    in-place method (``normal_``, ``mul_``, ``fill_``), ``copy_`` (also ``.data = t``), ``create``
    (a factory: ``args["function"]`` is ``randn``, ``ones``, ...; ``derived`` for an expression),
    ``load`` (a state dict). Writes made inside one call of an ``nn.init`` function are that one
    Write. Writes of a home-made helper keep their own entries with the same ``group``.
    """

    op: str
    order: int  # position among all writes of the build
    args: Mapping[str, Plain] = field(default_factory=dict)  # resolved: mean, std, a, b, mode, gain, val ...
    site: Site | None = None  # innermost frame of user code
    stack: tuple[Site, ...] = ()  # all user frames, innermost first (``site`` is ``stack[0]``)
    origin: str = "user"  # "user", "torch" (reset_parameters of a torch layer), "library" (site-packages)
    group: int | None = None  # writes of one call of a helper function share it
    helper: str = ""  # name of that helper function
    share: float = 1.0  # elements touched / numel
    region: str = ""  # "" for the whole tensor, else how it was indexed, e.g. "[0]", "[64:128]"
    start: int | None = None  # for a contiguous leading-axis region: first and one-past-last index of axis 0
    stop: int | None = None
    random: bool = False  # drew from a random number generator
    generator: str = ""  # fingerprint of the generator's state before the draw, "" when not random
    unused: bool = False  # the value was overwritten later before anything read it


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of a tensor's finite values; ``len(edges) == len(counts) + 1``."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Units:
    """How the slices of a tensor along one axis compare (rows are units of a layer's output).

    For a weight viewed as a matrix (axis x everything else). ``energy`` is the sum of squares of a
    slice, ``total`` its plain sum.
    """

    count: int
    duplicates: int  # slices equal, bit for bit, to an earlier one
    zeros: int  # slices that are exactly zero
    energy_mean: float
    energy_min: float
    energy_max: float
    energy_var: float  # variance of the energies between slices
    total_mean: float  # mean over slices of the slice sum
    total_second: float  # mean over slices of the squared slice sum


@dataclass(frozen=True, slots=True)
class Chunk:
    """Statistics of one of n equal parts of axis 0 (a gate, q/k/v, an expert)."""

    mean: float
    second: float
    minimum: float
    maximum: float
    gram_residual: float | None = None  # as TensorStats.gram_residual, for this part alone


@dataclass(frozen=True, slots=True)
class TensorStats:
    """Statistics of the actual values, in float64, from one pass. Non-finite values are left out.

    ``kurtosis`` is E[(x-mean)^4] / var^2 (3 normal, 1.8 uniform), ``None`` when var is 0.
    ``gram_residual``: the matrix (axis 0 x rest, or its transpose when taller than wide) has
    ``|W W^T / g^2 - I|_max``, with g^2 the mean row energy; at most 1e-5 for an orthogonal float32
    matrix; ``None`` where not computed (1-D, too large).
    ``digest`` is a hash of shape, dtype and content: equal digests are equal tensors.
    """

    count: int
    mean: float
    second: float
    var: float
    kurtosis: float | None
    minimum: float
    maximum: float
    zeros: int = 0
    nans: int = 0
    infs: int = 0
    subnormals: int = 0
    distinct: int | None = None  # number of distinct values, up to 3 (1: constant); None: unknown, more
    rows: Units | None = None  # axis 0
    columns: Units | None = None  # axis 1 (all other axes folded into the slice)
    last: Units | None = None  # the last axis, for tensors of three or more axes
    chunks: Mapping[str, tuple[Chunk, ...]] = field(default_factory=dict)  # "2", "3", "4" or the group count
    experts: tuple[Chunk, ...] = ()  # for 3-D tensors with a leading axis of at most 64: each slice
    gram_residual: float | None = None
    diagonal: float | None = None  # mean of the diagonal, for square 2-D (identity has 1 and second 1/n)
    spectral_norm: float | None = None  # largest singular value: of small matrices, and where rows have much in common
    singular_min: float | None = None
    zero_slices: tuple[int, ...] = ()  # first indices (at most 8) of exactly zero slices along axis 0
    histogram: Histogram | None = None
    digest: str = ""
    sampled: bool = False  # from a sample or a replay, not from every element


#: Writes that carry the values over to another type or device.
CONVERSIONS = frozenset({"to", "half", "float", "double", "bfloat16", "type", "cpu", "cuda"})


@dataclass(frozen=True, slots=True)
class Computed:
    """Where the numbers that a parameter's last write was given are computed, as the source tells."""

    formula: Site | None = None  # the first expression, from the write on, with a root, a power or a quotient
    count: Site | None = None  # the expression that counts inputs or outputs
    text: str = ""  # the lines that the numbers pass, up to the formula


@dataclass(frozen=True, slots=True)
class ParameterFacts:
    """A parameter or buffer of the built model, how it was written and what it holds."""

    name: str
    kind: str  # "parameter" | "buffer"
    shape: tuple[int, ...]
    dtype: str  # "float32", "bfloat16", "int64" ...
    module: str  # qualified name of the module that owns it, "" for the root
    local: str  # its name in that module ("weight")
    requires_grad: bool = True
    aliases: tuple[str, ...] = ()  # further names of the same tensor (tied)
    storage: int = 0  # tensors with the same number share memory
    created: Site | None = None  # user line that created it (the line that constructs the module for nn layers)
    writes: tuple[Write, ...] = ()  # in order; all of them, also those overwritten later
    provenance: str = "recorded"  # "recorded" | "unknown" (contents changed without a record) | "loaded"
    uninitialised: float = 0.0  # share of elements whose memory nobody ever wrote
    stats: TensorStats | None = None
    persistent: bool = True
    generated: bool = False  # effective weight computed from others (weight_norm, parametrize): see ``sources``
    sources: tuple[str, ...] = ()  # for a generated weight: the parameters it is computed from
    replica: str = ""  # in several processes: "identical_shards" | "differing_replicas" | "" (as they should be)
    origin: str = ""  # how a generated weight is made: "weight_norm" | "spectral_norm" | "orthogonal" | class name
    computed: Computed | None = None  # for weights that user code wrote

    @property
    def last(self) -> Write | None:
        """The last write to any part of the tensor, or ``None``. A change of type or device writes no new values."""
        kept = (write for write in reversed(self.writes) if write.op not in CONVERSIONS)
        return next(kept, self.writes[-1] if self.writes else None)


@dataclass(frozen=True, slots=True)
class ModuleFacts:
    """A module of the built model."""

    name: str  # "" for the root
    cls: str  # "torch.nn.modules.linear.Linear", "model.Block"
    bases: tuple[str, ...] = ()  # qualified names of the classes in its MRO, itself first
    created: Site | None = None  # user line that constructed it
    parameters: tuple[str, ...] = ()  # names of parameters directly in it
    library: str = "user"  # "user" | "torch" | name of the third-party package
    attrs: Mapping[str, Plain] = field(default_factory=dict)  # plain public attributes: padding_idx, eps, groups ...
    shared_with: tuple[str, ...] = ()  # further names of the same module object
    repeated: Site | None = None  # the list that holds it several times: ``[layer] * n``


@dataclass(frozen=True, slots=True)
class Guard:
    """A condition around an init statement, evaluated against the model where possible."""

    kind: str  # "isinstance" | "type" | "name" | "class_name" | "hasattr" | "together" | "mark" | "value" | "other"
    # ("value": an option of the code; ``matched`` is then 1 for true and 0 for false; "together": a class and an
    # attribute, which different modules have)
    text: str  # source of the condition
    values: tuple[str, ...] = ()  # class names or strings it selects
    matched: int | None = None  # how many modules or parameters of the model satisfy it; None: not evaluated
    line: int | None = None  # where the condition stands


@dataclass(frozen=True, slots=True)
class InitStatement:
    """A statement in the user's source that initialises something, and whether it ran in the build."""

    site: Site
    op: str  # "xavier_normal_", "zero_", "constant_" ... ; "pass" for a branch that does nothing
    target: str  # source of what it initialises: "m.weight"
    runs: int  # how often it was recorded during the build
    reached: bool  # whether its enclosing function was seen running during the build
    guards: tuple[Guard, ...] = ()  # innermost first
    parameters: tuple[str, ...] = ()  # what it wrote
    lost: int = 0  # runs that wrote a tensor which is no parameter of the model in the end
    lost_reason: str = ""  # "generated" (weight_norm, parametrize) | "temporary" | "replaced" | "returned" | "unkept"
    affected: tuple[str, ...] = ()  # parameters it was meant for and did not write, where it can be told
    args: Mapping[str, Plain] = field(default_factory=dict)  # what evaluates safely: literals, defaults, math
    selector: Site | None = None  # the call that hands over what it selects (``apply(weight_init(nn.Conv2d))``);
    # the guards' counts and ``runs`` are then for that call alone
    value_site: Site | None = None  # the assignment in the same function that computes its std, bound or value
    caller: Site | None = None  # who called its function, when it ran
    calls: int | None = None  # how often its enclosing function was called, where that is known
    referenced: bool = True  # whether the user's source mentions its function outside the function itself
    settled: bool = True  # whether all its arguments could be evaluated: the others are not in ``args``
    index: str = ""  # source of the index of the part that it writes: "padding_idx" of ``w[padding_idx].zero_()``
    parts: bool = False  # its target is one of the parts of a parameter: ``for gate in p.chunk(4)``
    named: Site | None = None  # where its function is named and not called: ``self.reset``, ``apply(factory)``
    missed: tuple[str, ...] = ()  # parameters that its loop or ``apply`` should have reached and did not
    missed_why: str = ""  # "early": they did not exist yet | "lazy": they had no shape yet | "cut": the loop was
    # left at once | "left": on a condition that held before anything was initialised | "children": it visits
    # direct children only, these lie deeper | "type": subclasses are not of that very type | "or": ``isinstance(m, A or
    # B)`` tests A alone | "shadowed": an earlier branch takes them | "idle": named, but never called or consumed
    missed_at: Site | None = None  # the call of apply, the loop, or what leaves it


@dataclass(frozen=True, slots=True)
class Tag:
    """A number that a module is marked with for the init function, which reads such marks from layers inside alone."""

    site: Site  # the assignment
    name: str  # "stddev" of ``self.conv1.stddev = 0.01``
    value: float
    module: str
    parameters: tuple[str, ...]  # of the layers inside that were initialised without it
    reader: Site  # the init statement


@dataclass(frozen=True, slots=True)
class Unregistered:
    """What a model holds as a plain attribute, so that neither init functions nor optimisers see it."""

    name: str  # "gate.weight": the module's name and the attribute
    kind: str  # "tensor": one that wants a gradient | "modules": a container of layers
    count: int  # of the layers
    shape: tuple[int, ...]
    site: Site | None  # where the attribute is given its value


@dataclass(frozen=True, slots=True)
class Due:
    """An init statement and the parameters that it would get if a condition were what it means."""

    site: Site
    parameters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Misread:
    """A condition that tests something else than it plainly means: ``"a" or "b" in name`` is always true."""

    site: Site  # of the condition
    text: str  # its source
    meant: str  # how it is meant
    first: int  # lines of the branch that it opens
    last: int
    otherwise: bool  # whether there is another branch
    beyond: tuple[str, ...] = ()  # parameters that it lets through and that it was meant to keep out
    lacking: tuple[str, ...] = ()  # and the reverse
    due: tuple[Due, ...] = ()  # what these would get as it is meant, where known


@dataclass(frozen=True, slots=True)
class Operator:
    """A linear map with fixed weights, as moments need it (THEORY section 1, last paragraph).

    For y = W x + b, with x of mean m, variance v and independent channels:
    ``q_y = gain*v + m^2*total_second + 2*m*total_bias + bias_second`` and
    ``mean_y = m*total_mean + bias_mean``; backward ``p_x = back*p_y``.
    ``gain`` is the mean over outputs of the sum of squared weights that reach it, padding and
    stride counted by pairs; ``back`` likewise over inputs.
    """

    fan_in: float  # F: effective number of inputs for each output (pairs counted)
    fan_out: float  # B: effective number of outputs for each input
    gain: float  # F * E[w^2]
    back: float  # B * E[w^2]
    total_mean: float = 0.0
    total_second: float = 0.0
    total_bias: float = 0.0  # mean over outputs of S_i * b_i
    bias_mean: float = 0.0
    bias_second: float = 0.0
    width_in: int = 0  # channels of x
    width_out: int = 0  # channels of y
    positions: float = 1.0  # taps: how many positions each output sums over (kernel size), for position correlation
    energy_spread: float = 0.0  # variance of the row energies / mean^2 (unequal units)
    orthogonal: bool = False
    columns: tuple[float, ...] = ()  # energy of each input channel's weights over their mean, where there are few
    again: tuple[float, ...] = ()  # of a depthwise kernel W that is applied more than once: E |(1 + W)^k x|^2 / E |x|^2
    total_uneven: float = 0.0  # share of total_second by which positions differ: near a border fewer taps are inside
    uneven: float = 0.0  # the same share of gain, of inputs that each channel has alike at all positions


@dataclass(frozen=True, slots=True)
class Response:
    """What an op did to sampled signals, measured on the live op where no closed form is known.

    ``scales`` are factors of the input's standard deviation around the operating point; ``second``,
    ``mean`` the output's moments at each; ``back`` for each signal input the ratio
    p_input / p_output at each scale. ``dependent`` is q(1-c) of the output over q(1-c) of the input.
    """

    scales: tuple[float, ...]
    second: tuple[float, ...]
    mean: tuple[float, ...]
    correlation: tuple[float, ...]  # c, cosine between samples, of the output at each scale
    back: tuple[tuple[float, ...], ...] = ()
    q_in: tuple[float, ...] = ()  # operating point of each signal input
    c_in: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Measured:
    """Moments of a node's real output (and of its gradient, when a backward ran)."""

    mean: float
    second: float
    correlation: float | None = None  # c: cosine between different samples
    positions: float | None = None  # c_s: cosine between positions of one sample
    gradient_second: float | None = None  # relative to a unit-variance gradient at the model's outputs
    finite: bool = True


@dataclass(frozen=True, slots=True)
class Node:
    """One operation of the traced forward, in execution order. The vocabulary of ``op`` is in docs/ops.md."""

    index: int
    op: str
    inputs: tuple[int, ...] = ()  # indices of the nodes it reads signals from, in argument order
    shape: tuple[int, ...] | None = None
    dtype: str = "float32"
    attrs: Mapping[str, Plain] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)  # role ("weight", "bias") -> parameter name
    operator: Operator | None = None
    module: str = ""  # qualified name of the innermost module that runs it
    label: str = ""  # what a reader should see: "conv1", "relu", "add"
    site: Site | None = None  # user line in forward
    response: Response | None = None
    table: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # elementwise callable: "x", "y", "dy" samples
    measured: Measured | None = None
    channel: int | None = None  # axis of the channels in ``shape``
    batch: int | None = 0  # axis of the samples, None when it has none


@dataclass(frozen=True, slots=True)
class Block:
    """Part of a packed weight: q, k, v or a gate, by its outputs [start, stop): rows, or columns of (in, out)."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer with weights, paired with what consumes its output."""

    name: str  # module path; for a bare parameter its name
    kind: str  # linear conv conv_transpose embedding bilinear matmul recurrent attention norm scale
    nodes: tuple[int, ...]  # every call, in order (several when the module is shared)
    weight: str  # name of the (effective) weight parameter
    bias: str | None = None
    parameters: tuple[str, ...] = ()
    site: Site | None = None  # where it was constructed
    fan_in: float | None = None  # F, effective
    fan_out: float | None = None  # B, effective
    torch_fans: tuple[int, int] | None = None  # what nn.init computes for this tensor: (fan_in, fan_out)
    layout: str = "out_in"  # "out_in" | "in_out" | "stacked_in_out" | "stacked_out_in" | "table" | "other"
    stack: int = 1  # leading axis of a stacked weight (experts, relations, heads)
    groups: int = 1
    activation: str | None = None  # canonical name of the elementwise function that consumes it; None unknown or none
    activation_args: Mapping[str, Plain] = field(default_factory=dict)
    consumer: str | None = None  # activation norm residual gate softmax attention linear output loss; None unknown
    consumer_node: int | None = None
    path: tuple[str, ...] = ()  # labels from the layer to the consumer
    before: str | None = None  # activation (or "norm", "input", ...) that produced its input
    branch: bool = False  # writes into a residual sum as the branch, not as the trunk
    head: bool = False  # its output is the model's output (through transparent ops)
    blocks: tuple[Block, ...] = ()
    pre_scale: float = 1.0  # constant factor between the layer and the activation (SIREN's omega_0)
    role: str = ""  # "query" "key" "value" of an attention, "gate" "value" of a gated unit, "input" "hidden" of a cell
    undetermined: str | None = None  # why the pairing is not known


@dataclass(frozen=True, slots=True)
class InputFacts:
    """An input that the model was run with."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    origin: str  # "example_inputs" | "--input" | "configuration" | "call site FILE:LINE" | "inferred" | "library"
    high: int | None = None  # for index tensors: exclusive upper bound used


@dataclass(frozen=True, slots=True)
class EqualSlices:
    """Slices of a parameter that are equal, and get equal gradients, so that they stay equal."""

    name: str
    axis: int
    share: float  # of the slices along the axis that repeat another: 1.0 when all are one


@dataclass(frozen=True, slots=True)
class TraceFacts:
    """How the graph was obtained and how much of the model it covers."""

    method: str = "none"  # "symbolic" | "recorded" | "mixed" | "none"
    coverage: float = 0.0  # share of parameterised leaf modules and bare parameters seen in the graph
    unsupported: tuple[str, ...] = ()  # ops that are not modelled, with counts: "grid_sample (2)"
    not_reached: tuple[str, ...] = ()  # parameters that the forward did not read
    notes: tuple[str, ...] = ()  # what was tried and why it failed
    training: bool = True
    ran: bool = False  # a real forward completed
    equal: tuple[EqualSlices, ...] = ()  # what a real backward, run where slices are equal, shows to stay equal
    parts: tuple[str, ...] = ()  # children called one by one, where the model itself could not be called


@dataclass(frozen=True, slots=True)
class Argument:
    """A constructor argument that initlint chose."""

    name: str
    value: str  # source text
    origin: str  # "call site train.py:12" | "annotation" | "convention" | "command line" | "default"


@dataclass(frozen=True, slots=True)
class Reseed:
    """A call that reset the global random number generator during construction."""

    site: Site | None
    seed: int | None
    times: int = 1
    forked: bool = False  # inside torch.random.fork_rng: undone afterwards
    stream: bool = False  # a stream of its own (NumPy, ``random``) in code that may run again and again; not counted


@dataclass(frozen=True, slots=True)
class FocalLoss:
    """A focal loss with a sigmoid in the source of a model: a call of it, or the function where nothing calls it."""

    site: Site
    summed: bool = False  # the losses of all positions are added up (and divided by the number of positives)
    owner: str = ""  # class whose method calls it, "" for a function
    callee: str | None = None  # what made its prediction, as a path in the owner; "" the owner itself, None unknown
    output: int | None = None  # which of the outputs of that


@dataclass(frozen=True, slots=True)
class Rebuild:
    """What a further build found (``--thorough``)."""

    kind: str  # "same_seed" | "meta"
    differing: tuple[str, ...] = ()  # parameters that differ between two builds under one seed
    lost: tuple[str, ...] = ()  # parameters never written after to_empty and the model's own reset functions
    changed: tuple[str, ...] = ()  # written, but with statistics unlike the eager build's
    reason: str = ""  # why it could not be done
    own: bool = True  # the model, or a module that is not torch's, has a reset function


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Everything the probe knows about one model."""

    name: str  # class or factory name
    target: str  # "path.py::Name"
    file: str
    line: int | None = None
    status: str = "analysed"  # "analysed" | "partial" | "failed"
    reason: str = ""
    arguments: tuple[Argument, ...] = ()
    parameters: tuple[ParameterFacts, ...] = ()
    modules: tuple[ModuleFacts, ...] = ()
    nodes: tuple[Node, ...] = ()
    outputs: tuple[int, ...] = ()  # nodes that the forward returns
    layers: tuple[Layer, ...] = ()
    statements: tuple[InitStatement, ...] = ()
    trace: TraceFacts = field(default_factory=TraceFacts)
    inputs: tuple[InputFacts, ...] = ()
    reseeds: tuple[Reseed, ...] = ()
    focal: tuple[FocalLoss, ...] = ()
    misread: tuple[Misread, ...] = ()
    tags: tuple[Tag, ...] = ()
    rebuilds: tuple[Rebuild, ...] = ()
    unregistered: tuple[Unregistered, ...] = ()
    dtype: str = "float32"
    device: str = "cpu"  # "cpu" | "meta"
    loaded: bool = False  # weights come from a checkpoint: init-variance rules do not apply
    seed: int = 0
    unrun: tuple[str, ...] = ()  # calls that initialise the model after its construction: no build runs them
    notes: tuple[str, ...] = ()  # e.g. "model.py:12: .cuda() was redirected to the CPU"
    measured_loss: float | None = None
    torch: str = ""
    python: str = ""
    seconds: float = 0.0

    def parameter(self, name: str) -> ParameterFacts | None:
        """The parameter or buffer of this name (or alias), or ``None``."""
        for fact in self.parameters:
            if fact.name == name or name in fact.aliases:
                return fact
        return None


@dataclass(frozen=True, slots=True)
class NotAnalysed:
    """A target or candidate that could not be analysed, with the way to make it possible."""

    target: str
    reason: str
    hint: str = ""
    file: str = ""
    line: int | None = None
    named: bool = False  # the user named exactly this target: exit code 2
    harmless: bool = False  # a mere part of an analysed model, or an abstract class: said only with -v
