"""A literal run with something of everything, and the sources it speaks of: input of the golden tests."""

from __future__ import annotations

import itertools
import math

from initlint.facts import (
    Argument,
    Histogram,
    InputFacts,
    Layer,
    Measured,
    ModelFacts,
    Node,
    NotAnalysed,
    ParameterFacts,
    Site,
    TensorStats,
    TraceFacts,
)
from initlint.findings import (
    Edit,
    Finding,
    Fix,
    LayerRow,
    LayerSignal,
    ModelReport,
    Related,
    Run,
    Severity,
    Undetermined,
)

MLP = '''\
"""A deep classifier."""

import torch.nn as nn


class DeepMLP(nn.Module):
    def __init__(self, width=256, depth=20):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.head = nn.Linear(width, 10)
        self.reset()

    def reset(self):
        for layer in self.layers:
            nn.init.xavier_normal_(layer.weight)  # meant for tanh
            nn.init.zeros_(layer.bias)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x).relu()
        return self.head(x)
'''

GPT = """\
class GPT(nn.Module):
    def __init__(self, vocab=50257, d=768, layers=12):
        super().__init__()
        self.wte = nn.Embedding(vocab, d)
        self.h = nn.ModuleList(Block(d) for _ in range(layers))
        self.ln_f = nn.LayerNorm(d)
        self.lm_head = nn.Linear(d, vocab, bias=False)
        self.lm_head.weight = self.wte.weight
        self.temperature = nn.Parameter(
            torch.empty(1, d),
            requires_grad=True,
        )
"""

SOURCES = {"models/mlp.py": MLP.splitlines(), "models/gpt.py": GPT.splitlines()}


def sources(file: str) -> list[str]:
    """The lines of a sample file; none for any other."""
    return SOURCES.get(file, [])


def histogram(std: float, *, uniform: bool = False, bins: int = 24, count: int = 65536) -> Histogram:
    """What a tensor of that standard deviation would show, without chance."""
    reach = std * (math.sqrt(3) if uniform else 3.5)
    edges = tuple(reach * (2 * i / bins - 1) for i in range(bins + 1))

    def share(a: float, b: float) -> float:
        if uniform:
            return (b - a) / (2 * reach)
        return (math.erf(b / std / math.sqrt(2)) - math.erf(a / std / math.sqrt(2))) / 2

    return Histogram(edges, tuple(round(count * share(a, b)) for a, b in itertools.pairwise(edges)))


def parameter(
    name: str, shape: tuple[int, ...], std: float, *, uniform: bool = False, **more: object
) -> ParameterFacts:
    """A parameter with the statistics of a draw of that standard deviation."""
    module, _, local = name.rpartition(".")
    stats = TensorStats(
        count=math.prod(shape),
        mean=0.0,
        second=std**2,
        var=std**2,
        kurtosis=None if std == 0 else 1.8 if uniform else 3.0,
        minimum=-3.5 * std,
        maximum=3.5 * std,
        histogram=histogram(std, uniform=uniform) if std else None,
    )
    return ParameterFacts(name, "parameter", shape, "float32", module, local, stats=stats, **more)  # type: ignore[arg-type]


def _mlp() -> ModelReport:
    parameters, layers, nodes, rows, profile = [], [], [], [], []
    forward = [0.7071**i for i in range(1, 21)]
    gradient = [0.22 * 0.7071 ** (20 - i) for i in range(20)]
    for i in range(20):
        name = f"layers.{i}"
        parameters += [parameter(f"{name}.weight", (256, 256), 0.0625), parameter(f"{name}.bias", (256,), 0.0)]
        layers.append(Layer(name, "linear", (2 * i + 1,), f"{name}.weight", activation="relu"))
        signal = LayerSignal(forward[i], gradient[i], forward[i] * 1.02, gradient[i] * 0.97, 0.012 * (i + 1), 0.2, 0.4)
        rows.append(
            LayerRow(
                name,
                "linear",
                (f"{name}.weight", f"{name}.bias"),
                Site("models/mlp.py", 9),
                256.0,
                256.0,
                "relu",
                (),
                "xavier_normal_",
                {"function": "xavier_normal_", "file": "models/mlp.py", "line": 15},
                0.0625 * (1 + 0.002 * math.sin(i)),
                0.0883883,
                0.707107 * (1 + 0.002 * math.sin(i)),
                signal=signal,
                consumer="activation",
            )
        )
        measured = Measured(
            0.0, (forward[i] * (1 + 0.1 * math.sin(3 * i))) ** 2, gradient_second=(gradient[i] * 0.97) ** 2
        )
        nodes.append(Node(2 * i + 1, "linear", parameters={"weight": f"{name}.weight"}, label=name, measured=measured))
        profile.append(
            {
                "label": name,
                "forward_std": forward[i],
                "gradient_std": gradient[i],
                "node": 2 * i + 1,
                "share": max(0.02, 0.97 - 0.05 * i),
                "noise_q": 0.024 * (i + 1),
                "noise_p": 0.024 * (21 - i),
            }
        )
    parameters += [parameter("head.weight", (10, 256), 0.0361, uniform=True), parameter("head.bias", (10,), 0.036)]
    layers.append(Layer("head", "linear", (41,), "head.weight", head=True))
    rows.append(
        LayerRow(
            "head",
            "linear",
            ("head.weight", "head.bias"),
            Site("models/mlp.py", 10),
            256.0,
            10.0,
            None,
            (),
            "kaiming_uniform_(a=2.236), PyTorch's default",
            None,
            0.0361,
            0.0361,
            1.0,
            signal=LayerSignal(0.0363, 1.0, 0.0371, 1.0),
            consumer="output",
        )
    )
    profile.append({"label": "head", "forward_std": 0.0363, "gradient_std": 1.0, "share": 0.02})
    facts = ModelFacts(
        "DeepMLP",
        "models/mlp.py::DeepMLP",
        "models/mlp.py",
        6,
        parameters=tuple(parameters),
        layers=tuple(layers),
        nodes=tuple(nodes),
        trace=TraceFacts("symbolic", 1.0, ran=True),
        inputs=(InputFacts("x", "float32", (4, 256), "inferred"),),
        measured_loss=2.304,
    )
    loss = {"predicted": 2.303, "expected": 2.30259, "classes": 10, "logit_std": 0.0363}
    return ModelReport(facts, tuple(rows), (), loss, tuple(profile))


def _gpt_row(
    name: str, kind: str, fan: int, activation: str | None, path: tuple[str, ...], std: float, signal: float
) -> LayerRow:
    return LayerRow(
        name,
        kind,
        (f"{name}.weight", f"{name}.bias"),
        Site("models/gpt.py", 5),
        float(fan),
        float(fan),
        activation,
        path,
        "normal_(0, 0.02)",
        {"function": "normal_", "file": "models/gpt.py", "line": 30},
        std,
        std,
        1.0,
        signal=LayerSignal(signal, signal * 0.7, dependent=0.9),
        consumer=None if activation else "residual",
    )


def _gpt() -> ModelReport:
    rows = [
        LayerRow(
            "wte",
            "embedding",
            ("wte.weight",),
            Site("models/gpt.py", 4),
            768.0,
            50257.0,
            None,
            (),
            "normal_(0, 1), PyTorch's default",
            None,
            1.0002,
            0.02,
            50.01,
            signal=LayerSignal(1.0, 0.31),
            consumer="residual",
        )
    ]
    parameters = [parameter("wte.weight", (50257, 768), 1.0, aliases=("lm_head.weight",), storage=1)]
    for i in range(12):
        grown = math.sqrt(1 + 0.3 * i)
        rows += [
            _gpt_row(f"h.{i}.attn.c_attn", "linear", 768, None, ("split", "attention"), 0.02, 0.55),
            _gpt_row(f"h.{i}.attn.c_proj", "linear", 768, None, ("dropout", "add"), 0.00408, 0.11 * grown),
            _gpt_row(f"h.{i}.mlp.c_fc", "linear", 768, "gelu", (), 0.02, 0.554),
            _gpt_row(f"h.{i}.mlp.c_proj", "linear", 3072, None, ("dropout", "add"), 0.00408, 0.08 * grown),
        ]
        for part, shape in (("attn.c_attn", (2304, 768)), ("mlp.c_fc", (3072, 768))):
            parameters.append(parameter(f"h.{i}.{part}.weight", shape, 0.02))
        for part, shape in (("attn.c_proj", (768, 768)), ("mlp.c_proj", (768, 3072))):
            parameters.append(parameter(f"h.{i}.{part}.weight", shape, 0.00408))
    rows.append(
        LayerRow(
            "temperature", "scale", ("temperature",), Site("models/gpt.py", 9), None, None, None, (), None, None, None,
            None, None, undetermined="its memory was never written",
        )
    )  # fmt: skip
    parameters.append(
        ParameterFacts("temperature", "parameter", (1, 768), "float32", "", "temperature", uninitialised=1.0)
    )
    facts = ModelFacts(
        "GPT",
        "models/gpt.py::GPT",
        "models/gpt.py",
        1,
        status="partial",
        reason="the forward stopped in `rotary`: index out of range",
        arguments=(Argument("layers", "12", "default"),),
        parameters=tuple(parameters),
        trace=TraceFacts(
            "mixed", 0.96, ("grid_sample (2)", "fancy_op (1)"), notes=("symbolic: control flow on a tensor",)
        ),
        inputs=(InputFacts("idx", "int64", (4, 64), "example_inputs", high=50257),),
        notes=("models/gpt.py:41: .cuda() was redirected to the CPU",),
    )
    undetermined = (
        Undetermined("IL201", "`grid_sample` is not modelled", facts.target),
        Undetermined("IL202", "`grid_sample` is not modelled", facts.target),
        Undetermined("IL105", "what consumes `temperature` is not known", facts.target, ("temperature",)),
    )
    loss = {"predicted": 391.0, "expected": 10.8249, "classes": 50257, "logit_std": 27.9}
    return ModelReport(facts, tuple(rows), undetermined, loss)


def _healthy(name: str, layers: int) -> ModelReport:
    target = f"models/{name.lower()}.py::{name}"
    rows = tuple(
        LayerRow(
            f"stage{i // 4}.{i % 4}.conv",
            "conv",
            (f"stage{i // 4}.{i % 4}.conv.weight",),
            Site(f"models/{name.lower()}.py", 12),
            float(64 * 9 * 2 ** (i // 4)),
            float(64 * 9 * 2 ** (i // 4)),
            "relu",
            ("batch_norm",),
            "kaiming_normal_(fan_out, relu)",
            {"function": "kaiming_normal_", "file": f"models/{name.lower()}.py", "line": 20},
            math.sqrt(2 / (64 * 9 * 2 ** (i // 4))),
            math.sqrt(2 / (64 * 9 * 2 ** (i // 4))),
            1.0,
            signal=LayerSignal(1.4, 0.9),
            consumer="norm",
        )
        for i in range(layers)
    )
    parameters = tuple(parameter(row.parameters[0], (64, 64, 3, 3), row.std or 0.0) for row in rows)
    profile = tuple(
        {"label": row.name, "forward_std": 1.4 + 0.01 * i, "gradient_std": 0.9} for i, row in enumerate(rows)
    )
    facts = ModelFacts(
        name,
        target,
        f"models/{name.lower()}.py",
        3,
        parameters=parameters,
        trace=TraceFacts("recorded", 1.0, ran=True),
        inputs=(InputFacts("x", "float32", (2, 3, 32, 32), "--input"),),
    )
    return ModelReport(facts, rows, profile=profile)


XAVIER = Finding(
    code="IL105",
    name="scheme-for-another-activation",
    severity=Severity.WARNING,
    message="20 layers have xavier_normal_ (std 0.0625) before relu, which halves the signal's variance; "
    "kaiming_normal_ would have std 0.0884",
    model="models/mlp.py::DeepMLP",
    site=Site("models/mlp.py", 15, 13, "DeepMLP.reset", "nn.init.xavier_normal_(layer.weight)  # meant for tanh"),
    parameters=tuple(f"layers.{i}.weight" for i in range(20)),
    layers=tuple(f"layers.{i}" for i in range(20)),
    related=(Related("models/mlp.py", 9, "created here"), Related("models/mlp.py", 20, "relu is applied here")),
    expected={"std": 0.0883883, "scheme": "kaiming_normal_(fan_in, relu)"},
    actual={"std": 0.0625, "scheme": "xavier_normal_"},
    effect="activations at the last layer are 1024 times smaller than with the expected weights, gradients likewise",
    effect_log10=-6.02,
    sources=("He et al. 2015, eq. 10", "https://arxiv.org/abs/1502.01852"),
    fix=Fix(
        "use kaiming_normal_ for relu",
        "unsafe",
        (Edit("models/mlp.py", 15, 15, '            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")'),),
        True,
        'nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")',
    ),
    why="ReLU passes half of its input's second moment; the weights must make up for it with a gain of sqrt(2).",
    fingerprint="c0ffee0123456789",
)

TIED = Finding(
    code="IL321",
    name="over-large-tied-table",
    severity=Severity.ERROR,
    message="wte.weight is N(0, 1) and is also the output projection: logits have std 27.9, the loss starts at 391",
    model="models/gpt.py::GPT",
    site=Site("models/gpt.py", 4, 20, "GPT.__init__", "self.wte = nn.Embedding(vocab, d)"),
    parameters=("wte.weight",),
    layers=("wte",),
    related=(Related("models/gpt.py", 8, "tied here"),),
    expected={"std": 0.02, "loss": 10.8249},
    actual={"std": 1.0002, "loss": 391.0},
    effect="the loss at initialisation is 391, ln 50257 = 10.8",
    effect_log10=1.56,
    sources=("Radford et al. 2019, section 2.3",),
    fix=Fix("write: nn.init.normal_(self.wte.weight, std=0.02)", snippet="nn.init.normal_(self.wte.weight, std=0.02)"),
    topic="head",
    why="PyTorch's default for an embedding suits a table that is only read; as an output projection it sums d terms.",
    fingerprint="abad1deaabad1dea",
)

MEMORY = Finding(
    code="IL001",
    name="uninitialised-memory",
    severity=Severity.ERROR,
    message="temperature holds uninitialised memory: nothing wrote it after torch.empty",
    model="models/gpt.py::GPT",
    site=Site("models/gpt.py", 9, 9, "GPT.__init__", "self.temperature = nn.Parameter(", 12),
    parameters=("temperature",),
    layers=("temperature",),
    actual={"uninitialised": 1.0},
    expected={"uninitialised": 0.0},
    sources=("https://pytorch.org/docs/stable/generated/torch.empty.html",),
    fix=Fix("write: nn.init.ones_(self.temperature)", snippet="nn.init.ones_(self.temperature)"),
    topic="memory",
    why="Its values are whatever lay in memory: they change from run to run and may be NaN.",
    fingerprint="deadbeefdeadbeef",
)

NOTE = Finding(
    code="IL902",
    name="unused-suppression",
    severity=Severity.NOTE,
    message="`ignore[IL101]` suppresses nothing",
    model="",
    site=Site("models/resnet.py", 7, 1, "", "x = 1  # initlint: ignore[IL101]"),
    sources=("https://docs.astral.sh/ruff/rules/unused-noqa/",),
    topic="tool",
    fingerprint="0000111122223333",
)


def sample() -> Run:
    """The run."""
    return Run(
        models=(_gpt(), _mlp(), _healthy("ResNet", 12), _healthy("Tiny", 2)),
        findings=(MEMORY, TIED, XAVIER, NOTE),
        suppressed=(),
        not_analysed=(
            NotAnalysed(
                "models/vit.py::ViT",
                "`config` has no default",
                "name it with arguments: initlint 'models/vit.py::ViT(config=...)'",
                "models/vit.py",
                22,
                named=True,
            ),
            NotAnalysed("models/gpt.py::Block", "part of GPT", file="models/gpt.py", line=30, harmless=True),
        ),
        seed=0,
        seconds=3.21,
        version="0.1.0",
        torch="2.13.0",
        python="3.11.9",
        command="initlint models --output html=report.html",
        notes=("models/data.py: no nn.Module in it",),
    )


def healthy() -> Run:
    """A run of one model without findings."""
    return Run(models=(_healthy("ResNet", 12),), seconds=0.9, version="0.1.0", torch="2.13.0", python="3.11.9")
