"""Planned edits, golden before and after, from literal facts: no torch, no analysis."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from initlint.facts import (
    Guard,
    InitStatement,
    Layer,
    ModelFacts,
    ModuleFacts,
    ParameterFacts,
    Site,
    TensorStats,
    Write,
)
from initlint.findings import Finding, Fix, ModelReport, Run, Severity
from initlint.fix import plan_fixes
from initlint.fix.source import Source, read

HEAD = "import math\nimport torch\nfrom torch import nn\n"
RELU: dict[str, Any] = {"activation": "relu"}


def plan(
    body: str,
    code: str,
    mark: str,
    *,
    shape: tuple[int, ...] = (8, 8),
    layer: dict[str, Any] | None = None,
    op: str = "normal_",
    head: str = HEAD,
    snippet: str = "",
    numbers: tuple[float, float] = (1.0, 1.0),
    **extra: Any,
) -> tuple[Fix, str]:
    """The fix for a finding at the line that contains ``mark``, and the source with its edits made."""
    text = head + textwrap.dedent(body)
    lines = text.split("\n")
    number = next(i for i, line in enumerate(lines, 1) if mark in line)
    site = Site("m.py", number, text=lines[number - 1].strip())
    weight = ParameterFacts(
        "fc.weight", "parameter", shape, "float32", "fc", "weight", writes=(Write(op, 0, site=site),), created=site
    )
    wanted: dict[str, Any] = {"kind": "linear", **(layer if layer is not None else RELU)}
    facts = ModelFacts(
        "Net",
        "m.py::Net",
        "m.py",
        parameters=(extra.pop("parameter", weight),),
        layers=(Layer("fc", wanted.pop("kind"), (0,), "fc.weight", **wanted),),
        modules=extra.pop("modules", (ModuleFacts("", "m.Net"), ModuleFacts("fc", "torch.nn.modules.linear.Linear"))),
        statements=extra.pop("statements", ()),
    )
    finding = Finding(
        code,
        "name",
        Severity.WARNING,
        extra.pop("message", "message"),
        "m.py::Net",
        site=extra.pop("site", site),
        parameters=("fc.weight",),
        expected={"variance": numbers[1]},
        actual={"variance": numbers[0]},
        fix=Fix("write it", snippet=snippet),
    )
    assert not extra
    run = plan_fixes(Run(models=(ModelReport(facts),), findings=(finding,)), lambda file: Source(file, text))
    fix = run.findings[0].fix
    assert fix is not None
    for edit in sorted(fix.edits, key=lambda e: -e.start):
        assert edit.before == "\n".join(lines[edit.start - 1 : edit.end])
        lines[edit.start - 1 : edit.end] = edit.text.split("\n")
    return fix, "\n".join(lines)


GOLDEN: list[tuple[str, str, str, dict[str, Any]]] = [
    # code, statement before, after, facts
    ("IL104", "nn.init.xavier_normal_(m.weight)", 'nn.init.kaiming_normal_(m.weight, nonlinearity="relu")', {}),
    (
        "IL104",
        "torch.nn.init.xavier_uniform_(m.weight, generator=g)",
        'torch.nn.init.kaiming_uniform_(m.weight, nonlinearity="relu", generator=g)',
        {},
    ),
    ("IL104", "nn.init.kaiming_normal_(w)", "nn.init.xavier_normal_(w)", {"layer": {"activation": "tanh"}}),
    (
        "IL101",
        "m.weight.data.normal_(0, 1)",
        "nn.init.kaiming_normal_(m.weight.data, a=0.1)",
        {"layer": {"activation": "leaky_relu", "activation_args": {"negative_slope": 0.1}}},
    ),
    (
        "IL104",
        "nn.init.xavier_normal_(m.weight)",
        'nn.init.kaiming_normal_(m.weight, nonlinearity="linear")',
        {"layer": {"activation": "selu"}},
    ),
    (
        "IL105",
        'nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")',
        'nn.init.kaiming_normal_(m.weight, nonlinearity="relu")',
        {"layer": {"kind": "conv", "groups": 8}},
    ),
    (
        "IL105",
        "n = m.kernel_size[0] ** 2 * m.out_channels",
        "n = m.kernel_size[0] ** 2 * (m.out_channels // m.groups)",
        {"layer": {"kind": "conv", "groups": 8}},
    ),
    (
        "IL106",
        "nn.init.xavier_uniform_(self.weight, gain=g)",
        "for matrix in self.weight:\n    nn.init.xavier_uniform_(matrix, gain=g)",
        {"shape": (4, 8, 8), "layer": {"kind": "matmul", "layout": "stacked_in_out", "stack": 4}},
    ),
    (
        "IL106",
        "nn.init.kaiming_uniform_(w)",
        'nn.init.kaiming_uniform_(w, mode="fan_out")',
        {"layer": {"kind": "matmul", "layout": "in_out"}},
    ),
    (
        "IL106",
        "nn.init.normal_(table, std=entries**-0.5)",
        "nn.init.normal_(table, std=table.shape[-1]**-0.5)",
        {"layer": {"kind": "embedding", "layout": "table"}},
    ),
    (
        "IL107",
        "nn.init.xavier_uniform_(self.qkv)",
        "nn.init.xavier_uniform_(self.qkv, gain=math.sqrt(2))",
        {"numbers": (0.5, 1.0)},
    ),
    (
        "IL107",
        "nn.init.xavier_uniform_(self.kv, 0.5 + s)  # two",
        "nn.init.xavier_uniform_(self.kv, (0.5 + s) * math.sqrt(3 / 2))  # two",
        {"numbers": (2.0, 3.0)},
    ),
    ("IL108", "spread = 2.0 / (n + k)", "spread = math.sqrt(2.0 / (n + k))", {}),
    ("IL108", "nn.init.normal_(w, 0.0, 1 / n)", "nn.init.normal_(w, 0.0, math.sqrt(1 / n))", {}),
    ("IL108", "w.data.normal_(std=1 / n)", "w.data.normal_(std=math.sqrt(1 / n))", {}),
    ("IL109", "nn.init.uniform_(w, 0, a + b)", "nn.init.uniform_(w, -(a + b), a + b)", {"op": "uniform_"}),
    ("IL109", "nn.init.normal_(w, 1.0, 0.02)", "nn.init.normal_(w, 0.0, 0.02)", {}),
    ("IL109", "w = nn.Parameter(torch.rand(3, 3) * s)", "w = nn.Parameter((2 * torch.rand(3, 3) - 1) * s)", {}),
    (
        "IL110",
        'nn.init.kaiming_normal_(w, a=gain, mode="fan_out")',
        'nn.init.kaiming_normal_(w, a=0.2, mode="fan_out")',
        {"layer": {"activation": "leaky_relu", "activation_args": {"negative_slope": 0.2}}},
    ),
    (
        "IL110",
        "nn.init.kaiming_normal_(w, gain)",
        'nn.init.kaiming_normal_(w, nonlinearity="relu")',
        {},
    ),
    ("IL111", "nn.init.normal_(m.bias, -b, b)", "nn.init.uniform_(m.bias, -b, b)", {}),
    ("IL111", "m.bias.data.normal_(-b, b)", "m.bias.data.uniform_(-b, b)", {}),
    (
        "IL302",
        "nn.init.orthogonal_(p, 1.0)",
        "for part in p.data.chunk(4):\n    nn.init.orthogonal_(part, 1.0)",
        {"op": "orthogonal_", "snippet": "for part in weight.chunk(4): nn.init.orthogonal_(part)"},
    ),
    (
        "IL304",
        "nn.init.normal_(self.tok.weight)",
        "nn.init.normal_(self.tok.weight)\nself.tok.weight.data[self.tok.padding_idx].zero_()",
        {},
    ),
    (
        "IL304",
        "m.weight.data.normal_()",
        (
            'm.weight.data.normal_()\nif getattr(m, "padding_idx", None) is not None:\n'
            "    m.weight.data[m.padding_idx].zero_()"
        ),
        {},
    ),
    ("IL305", "nn.init.normal_(wte.weight)", "nn.init.normal_(wte.weight, std=0.02)", {}),
    ("IL305", "wte.weight.data.normal_()", "wte.weight.data.normal_(std=0.02)", {}),
    (
        "IL005",
        "nn.init.dirac_(self.mix.weight)",
        "nn.init.dirac_(self.mix.weight, groups=self.mix.groups)",
        {"op": "dirac_", "layer": {"kind": "conv", "groups": 8}},
    ),
    ("IL007", "nn.init.normal_(m.weight, 0.0, 0.02)", "nn.init.ones_(m.weight)", {"layer": {"kind": "norm"}}),
    (
        "IL007",
        "m.weight.data.fill_(1.0)",
        "m.weight.data.fill_(0.0)",
        {"layer": {"kind": "norm"}, "snippet": "nn.init.zeros_(norm.weight)"},
    ),
    ("IL007", "self.g = nn.Parameter(torch.zeros(n))", "self.g = nn.Parameter(torch.ones(n))", {}),
    (
        "IL307",
        "nn.init.ones_(self.gamma)",
        "nn.init.constant_(self.gamma, self.init_values)",
        {"op": "ones_", "snippet": "nn.init.constant_(self.gamma, self.init_values)"},
    ),
    (
        "IL312",
        "self.s = nn.Parameter(torch.ones([]))",
        "self.s = nn.Parameter(torch.ones([]) * math.log(1 / 0.07))",
        {"shape": ()},
    ),
    (
        "IL312",
        "self.s = nn.Parameter(torch.tensor(1.0))",
        "self.s = nn.Parameter(torch.tensor(math.log(1 / 0.07)))",
        {"shape": ()},
    ),
    ("IL312", "self.s = nn.Parameter(torch.ones(8))", "self.s = nn.Parameter(torch.zeros(8))", {"shape": (8,)}),
    ("IL004", "nn.init.constant_(w, 0.1)", 'nn.init.kaiming_normal_(w, nonlinearity="relu")', {"op": "constant_"}),
]


@pytest.mark.parametrize(("code", "before", "after", "facts"), GOLDEN, ids=lambda v: v if isinstance(v, str) else "")
def test_golden(code: str, before: str, after: str, facts: dict[str, Any]) -> None:
    fix, text = plan(before, code, before, **facts)
    assert text == HEAD + after
    assert fix.applicability == "unsafe", "whatever changes the values changes training"
    assert not fix.verified
    assert fix.title.startswith("write: ")


@pytest.mark.parametrize(
    ("code", "statement", "facts"),
    [
        ("IL104", "nn.init.xavier_normal_(m.weight, gain=beta)", {}),  # a scale that somebody meant
        ("IL104", "init_all(m)", {}),  # the call is not here
        ("IL104", "nn.init.xavier_normal_(a); nn.init.xavier_normal_(b)", {}),  # which of the two?
        ("IL104", "nn.init.xavier_normal_(m.weight)", {"layer": {"activation": None}}),  # no formula is known
        ("IL107", "nn.init.xavier_uniform_(self.qkv)", {"numbers": (0.5003, 1.0)}),  # no simple ratio
        ("IL106", "x = nn.init.xavier_uniform_(w)", {"shape": (4, 8, 8), "layer": {"layout": "stacked_in_out"}}),
        ("IL304", "nn.init.normal_(table)", {}),  # a bare tensor knows no padding_idx
        ("IL999", "nn.init.normal_(table)", {}),
    ],
)
def test_no_plan(code: str, statement: str, facts: dict[str, Any]) -> None:
    fix, _ = plan(statement, code, statement.split(";")[0], snippet="by hand", **facts)
    assert fix == Fix("write it", snippet="by hand")


def test_comments_inside_a_call_are_not_lost() -> None:
    fix, _ = plan("nn.init.xavier_normal_(\n    w,  # why\n)\n", "IL104", "nn.init")
    assert not fix.edits


def test_names_are_spelled_as_the_file_imports_them() -> None:
    head = "from torch.nn.init import xavier_normal_, kaiming_normal_\n"
    _, text = plan("xavier_normal_(w)", "IL104", "xavier_normal_(w)", head=head)
    assert text == head + 'kaiming_normal_(w, nonlinearity="relu")'
    fix, _ = plan("xavier_normal_(w)", "IL104", "xavier_normal_(w)", head="from torch.nn.init import xavier_normal_\n")
    assert not fix.edits, "nothing here leads to kaiming_normal_"
    head = "import torch.nn.init as I\n"
    _, text = plan("w.data.normal_()", "IL101", "w.data", head=head)
    assert text == head + 'I.kaiming_normal_(w.data, nonlinearity="relu")'
    _, text = plan("s = 1 / n", "IL108", "s = 1", head="import torch\n")
    assert text == "import torch\ns = (1 / n) ** 0.5", "math is not imported"


def test_columns_are_characters() -> None:
    _, text = plan('x = "größe 漢"; nn.init.normal_(w, -b, b)', "IL111", "nn.init")
    assert text == HEAD + 'x = "größe 漢"; nn.init.uniform_(w, -b, b)'


def test_a_file_that_changed_is_left_alone() -> None:
    fix, _ = plan("nn.init.xavier_normal_(w)", "IL104", "nn.init", site=Site("m.py", 4, text="nn.init.zeros_(w)"))
    assert not fix.edits


def test_init_loop_and_missing_call_go_to_the_end_of_the_constructor() -> None:
    body = """
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 8)

        def init_weights(self, std=0.1):
            nn.init.normal_(self.fc.weight, std=std)
    """
    _, text = plan(body, "IL103", "self.fc = ")
    assert (
        """self.fc = nn.Linear(8, 8)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def init_weights"""
        in text
    )
    _, text = plan(body, "IL401", "self.fc = ", message="`Net.init_weights` initialises `x`, but nothing calls it")
    assert "self.fc = nn.Linear(8, 8)\n        self.init_weights()\n\n" in text
    fix, _ = plan(
        body.replace("std=0.1", "std"), "IL401", "self.fc = ", message="`Net.init_weights` initialises `x`, but"
    )
    assert not fix.edits, "it needs an argument that nobody knows"
    body = body.replace("self, std=0.1", "self, m").replace("self.fc.weight, std=std", "m.weight")
    message = "`Net.init_weights` initialises `m.weight`, but nothing calls it"
    wrote = InitStatement(Site("m.py", 9, function="Net.init_weights"), "normal_", "m.weight", 0, False)
    _, text = plan(body, "IL401", "self.fc = ", message=message, statements=(wrote,))
    assert "self.fc = nn.Linear(8, 8)\n        self.apply(self.init_weights)\n\n" in text


def test_selection_gets_the_class_that_the_model_has() -> None:
    modules = (ModuleFacts("", "m.Net"), ModuleFacts("fc", "torch.nn.modules.conv.Conv3d"))
    body = "if isinstance(m, nn.Conv2d):\n    nn.init.xavier_normal_(m.weight)\n"
    _, text = plan(body, "IL402", "nn.init", modules=modules)
    assert text == HEAD + body.replace("Conv2d", "Conv3d")
    _, text = plan("self.apply(f(module=nn.Conv2d))", "IL402", "self.apply", modules=modules)
    assert text == HEAD + "self.apply(f(module=nn.Conv3d))"


def test_branch_that_does_nothing_gets_the_scheme() -> None:
    here = Site("m.py", 7, function="init")
    statements = (
        InitStatement(here, "pass", "", 1, True, guards=(Guard("value", "x"),)),
        InitStatement(Site("m.py", 5, function="init"), "xavier_normal_", "m.weight", 0, True),
    )
    body = "if kind == 1:\n    nn.init.xavier_normal_(m.weight)\nelse:\n    pass\n"
    _, text = plan(body, "IL402", "    pass", statements=statements, layer={"activation": "selu"})
    assert text == HEAD + body.replace("pass", 'nn.init.kaiming_normal_(m.weight, nonlinearity="linear")')


def test_the_argument_replaces_the_fixed_module_in_the_whole_branch() -> None:
    body = """
    def _init(self, mod):
        if isinstance(mod, nn.Linear):
            nn.init.normal_(self.proj.weight, std=0.02)
            if self.proj.bias is not None:
                nn.init.zeros_(self.proj.bias)
        self.proj.done = True
    """
    statements = (InitStatement(Site("m.py", 7), "normal_", "self.proj.weight", 2, True),)
    _, text = plan(body, "IL403", "nn.init.normal_", statements=statements)
    done = "self.proj.done"
    assert text == HEAD + textwrap.dedent(body).replace("self.proj", "mod").replace("mod.done", done)


def test_zero_layer_only_where_the_constructor_left_the_default() -> None:
    line = "self.fc = nn.Linear(8, 8)"
    default = ParameterFacts(
        "fc.weight",
        "parameter",
        (8, 8),
        "float32",
        "fc",
        "weight",
        writes=(Write("kaiming_uniform_", 0, origin="torch"),),
    )
    _, text = plan(line, "IL313", line, parameter=default)
    assert text == f"{HEAD}{line}\nnn.init.zeros_(self.fc.weight)"
    assert not plan(line, "IL313", line)[0].edits
    _, text = plan(line, "IL305", line, parameter=default)
    assert text == f"{HEAD}{line}\nnn.init.normal_(self.fc.weight, std=0.02)"


def test_swapped_gain_and_bias() -> None:
    text = HEAD + "g = nn.Parameter(torch.zeros(4))\nb = nn.Parameter(torch.ones(4))\n"
    ones = TensorStats(4, 1.0, 1.0, 0.0, None, 1.0, 1.0)
    made = [
        ParameterFacts(name, "parameter", (4,), "float32", "", name, created=Site("m.py", line), stats=stats)
        for name, line, stats in (("g", 4, None), ("b", 5, ones))
    ]
    facts = ModelFacts("Net", "m.py::Net", "m.py", parameters=tuple(made))
    finding = Finding("IL007", "n", Severity.ERROR, "m", "m.py::Net", site=Site("m.py", 4), parameters=("g", "b"))
    run = plan_fixes(Run(models=(ModelReport(facts),), findings=(finding,)), lambda file: Source(file, text))
    fix = run.findings[0].fix
    assert fix is not None
    assert [edit.text for edit in fix.edits] == ["g = nn.Parameter(torch.ones(4))", "b = nn.Parameter(torch.zeros(4))"]


@pytest.mark.parametrize(
    ("line", "selector", "after"),
    [
        ("x = 1  # initlint: ignore[IL101]", "IL101", "x = 1"),
        ("x = 1  # initlint: ignore[IL101, IL104]", "IL104", "x = 1  # initlint: ignore[IL101]"),
        ("x = 1  # initlint: ignore[IL101]  # keep", "IL101", "x = 1  # keep"),
        ("# initlint: ignore-file[IL101]\nx = 1", "IL101", "x = 1"),
    ],
)
def test_unused_suppressions_are_the_safe_fix(line: str, selector: str, after: str) -> None:
    site = Site("m.py", 4, line.index("#") + 1)  # HEAD has three lines
    fix, text = plan(line, "IL901", "#", message=f"`{selector}` silences nothing here", site=site)
    assert text == HEAD + after
    assert fix.applicability == "safe"


def test_unreadable_files_have_no_plan(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def :")
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe\x00")
    assert read("absent.py", str(tmp_path)) is None
    assert read("bad.py", str(tmp_path)) is None
    assert read("binary.py", str(tmp_path)) is None
