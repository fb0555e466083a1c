"""Init statements of a source file against what ran, and the conditions around them."""

from __future__ import annotations

import fnmatch
import importlib.util
import re
import textwrap
from pathlib import Path

import pytest

from initlint.facts import InitStatement
from initlint.probe.provenance import Recorder
from initlint.probe.record import Record

HEAD = """
import copy
import math
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import weight_norm
"""


def record_of(folder: Path, body: str, name: str = "Model") -> Record:
    path = folder / "model.py"
    path.write_text(HEAD + textwrap.dedent(body))
    spec = importlib.util.spec_from_file_location("statement_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with Recorder() as recorder:
        spec.loader.exec_module(module)
        model = getattr(module, name)()
    return recorder.record(model)


def find(record: Record, text: str) -> InitStatement:
    """The statement whose source line contains a text (an entry of one call site is not meant)."""
    found = [s for s in record.statements if text in s.site.text and s.selector is None]
    assert found, [(s.site.line, s.site.text, s.op) for s in record.statements]
    return found[0]


def test_statements_that_ran(tmp_path: Path) -> None:
    record = record_of(
        tmp_path,
        """
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(4, 4)
                self.p = nn.Parameter(torch.empty(4))
                nn.init.normal_(
                    self.fc.weight,
                    std=0.02,
                )
                self.fc.bias.data.fill_(0.1).mul_(2.0)
                self.p.data = torch.ones(4)
                self.p.data[1:] = 0.5
                with torch.no_grad():
                    self.p *= 2
                    self.p[0] = 1
        """,
    )
    assert [(s.op, s.target, s.runs, s.parameters) for s in record.statements] == [
        ("normal_", "self.fc.weight", 1, ("fc.weight",)),
        ("fill_", "self.fc.bias.data", 1, ("fc.bias",)),
        ("mul_", "self.fc.bias.data.fill_(0.1)", 1, ("fc.bias",)),
        ("copy_", "self.p", 1, ("p",)),
        ("setitem", "self.p.data", 1, ("p",)),
        ("setitem", "self.p", 1, ("p",)),
    ]
    first = record.statements[0]
    assert first.site.end_line == first.site.line + 3
    assert first.args == {"std": 0.02}
    assert first.site.function == "Model.__init__"
    assert all(s.reached and not s.lost for s in record.statements)


def test_an_isinstance_branch_for_a_class_that_the_model_lacks(tmp_path: Path) -> None:
    record = record_of(
        tmp_path,
        """
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU(), nn.Conv3d(4, 4, 3))
                self.fc = nn.Linear(4, 2)
                for m in self.modules():
                    if isinstance(m, nn.Conv2d):
                        nn.init.kaiming_normal_(m.weight)
                    elif isinstance(m, (nn.Linear, nn.Bilinear)):
                        nn.init.xavier_normal_(m.weight)
                        m.bias.data.zero_()
        """,
    )
    conv = find(record, "kaiming_normal_")
    assert (conv.runs, conv.reached) == (0, True)
    assert [(g.kind, g.values, g.matched) for g in conv.guards] == [("isinstance", ("Conv2d",), 0)]
    assert conv.affected == ("body.0.weight", "body.2.weight")
    linear = find(record, "xavier_normal_")
    assert linear.runs == 1
    assert [(g.kind, g.values, g.matched) for g in linear.guards] == [("isinstance", ("Linear", "Bilinear"), 1)]
    assert linear.affected == ()


def test_a_constant_that_is_there_already_is_not_missed(tmp_path: Path) -> None:
    record = record_of(
        tmp_path,
        """
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.bn = nn.BatchNorm1d(4)
                for m in self.modules():
                    if isinstance(m, nn.BatchNorm2d):
                        nn.init.constant_(m.weight, 1)
        """,
    )
    statement = find(record, "constant_")
    assert statement.guards[0].matched == 0
    assert statement.affected == ()


@pytest.mark.parametrize(
    ("condition", "kind", "values", "matched"),
    [
        ("type(m) is nn.Linear", "type", ("Linear",), 2),
        ("type(m) == nn.Conv1d", "type", ("Conv1d",), 0),
        ("type(m) in {nn.Linear, nn.LayerNorm}", "type", ("LayerNorm", "Linear"), 3),
        ("m.__class__ is nn.Linear", "type", ("Linear",), 2),
        ('m.__class__.__name__.find("Lin") != -1', "class_name", ("Lin",), 2),
        ('"Conv" in type(m).__name__', "class_name", ("Conv",), 0),
        ('type(m).__name__ == "LayerNorm"', "class_name", ("LayerNorm",), 1),
        ('m.__class__.__name__.lower().startswith("lin")', "class_name", ("lin",), 2),
        ('hasattr(m, "weight")', "hasattr", ("weight",), 3),
        (
            "isinstance(m, (nn.Linear, nn.LayerNorm)) and hasattr(m, 'bias')",
            "isinstance",
            ("Linear", "LayerNorm", "bias"),
            3,
        ),
        ("not isinstance(m, nn.LayerNorm) and hasattr(m, 'weight')", "isinstance", ("LayerNorm", "weight"), 2),
        ("isinstance(m, nn.Linear | nn.LayerNorm)", "isinstance", ("Linear", "LayerNorm"), 3),
        ("isinstance(m, LAYERS)", "isinstance", ("Linear", "Conv1d"), 2),
    ],
)
def test_conditions_on_modules(
    tmp_path: Path, condition: str, kind: str, values: tuple[str, ...], matched: int
) -> None:
    record = record_of(
        tmp_path,
        f"""
        LAYERS = (nn.Linear, nn.Conv1d)

        def init(m):
            if {condition}:
                nn.init.normal_(m.weight, std=0.02)

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
                self.norm = nn.LayerNorm(4)
                self.apply(init)
        """,
    )
    (guard,) = find(record, "normal_").guards
    assert (guard.kind, sorted(guard.values), guard.matched) == (kind, sorted(values), matched)
    assert guard.text == condition.replace('"', '"')


@pytest.mark.parametrize(
    ("condition", "values", "matched"),
    [
        ('"w3" in name', ("w3",), 0),
        ('name.endswith("w2.weight")', ("w2.weight",), 2),
        ('name.endswith(("w1.weight", "w2.weight"))', ("w1.weight", "w2.weight"), 4),
        ('"w1" in name or "w2" in name', ("w1", "w2"), 4),
        ('name == "layers.0.w1.weight"', ("layers.0.w1.weight",), 1),
        ('name.startswith("layers.1")', ("layers.1",), 2),
        ('name.split(".")[-1] == "weight"', None, None),
        ('any(key in name for key in ("w1", "w7"))', ("w1", "w7"), 2),
        ('name in ["layers.0.w1.weight"]', ("layers.0.w1.weight",), 1),
        ('name.find("w2") >= 0', ("w2",), 2),
        ('"w1" not in name', ("w1",), 2),
        ("p.dim() > 1", (), 4),
    ],
)
def test_conditions_on_names(
    tmp_path: Path, condition: str, values: tuple[str, ...] | None, matched: int | None
) -> None:
    record = record_of(
        tmp_path,
        f"""
        class Block(nn.Module):
            def __init__(self):
                super().__init__()
                self.w1 = nn.Linear(4, 4, bias=False)
                self.w2 = nn.Linear(4, 4, bias=False)

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers = nn.ModuleList([Block(), Block()])
                for name, p in self.named_parameters():
                    if {condition}:
                        nn.init.normal_(p, std=0.02)
        """,
    )
    statement = next(s for s in record.statements if "nn.init.normal_" in s.site.text)
    (guard,) = statement.guards
    assert guard.matched == matched
    if values is not None:
        assert guard.values == values
        assert guard.kind == ("other" if not values else "name")
    if matched is not None:
        assert statement.runs == matched


@pytest.mark.parametrize(("loop", "given"), [("child", "children()"), ("_, child", "named_children()")])
@pytest.mark.parametrize(("test", "matched"), [('name == "w.weight"', 0), ('name.endswith("w.weight")', 2)])
def test_a_function_that_descends_by_itself_sees_every_module(
    tmp_path: Path, loop: str, given: str, test: str, matched: int
) -> None:
    record = record_of(
        tmp_path,
        f"""
        class Base(nn.Module):
            def descend(self, module):
                for {loop} in module.{given}:
                    self.descend(child)
                self._init(module)

        class Block(nn.Module):
            def __init__(self):
                super().__init__()
                self.w = nn.Linear(4, 4, bias=False)

        class Model(Base):
            def __init__(self):
                super().__init__()
                self.layers = nn.ModuleList([Block(), Block()])
                self.descend(self)

            def _init(self, module):
                if isinstance(module, Base):
                    for name, p in module.named_parameters():
                        if {test}:
                            nn.init.normal_(p, std=0.02)
        """,
    )
    statement = next(s for s in record.statements if "nn.init.normal_" in s.site.text)
    assert statement.runs == matched
    assert [g.matched for g in statement.guards if g.kind == "name"] == [matched]


def test_one_of_two_names_matches_nothing(tmp_path: Path) -> None:
    record = record_of(
        tmp_path,
        """
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.in_proj = nn.Linear(4, 4)
                self.ffn = nn.Linear(4, 4)
                for name, p in self.named_parameters():
                    scaled = "ffn" in name or "v_proj" in name
                    nn.init.normal_(p, std=0.01 if scaled else 0.02)
        """,
    )
    idle = [s for s in record.statements if s.runs == 0]
    assert [(s.site.text, s.guards[0].values, s.guards[0].matched) for s in idle] == [
        ('scaled = "ffn" in name or "v_proj" in name', ("v_proj",), 0)
    ]


def test_each_call_of_a_factory_of_init_functions_counts_for_itself(tmp_path: Path) -> None:
    record = record_of(
        tmp_path,
        """
        def weight_init(module, initf):
            def foo(m):
                if isinstance(m, module):
                    initf(m.weight)
            return foo

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv3d(1, 4, 3)
                self.fc = nn.Linear(4, 4)
                self.apply(weight_init(module=nn.Conv2d, initf=nn.init.xavier_normal_))
                self.apply(weight_init(module=nn.Linear, initf=nn.init.xavier_normal_))
        """,
    )
    (idle,) = [s for s in record.statements if s.selector is not None]
    assert "nn.Conv2d" in idle.selector.text
    assert (idle.runs, idle.op, idle.target) == (0, "xavier_normal_", "m.weight")
    assert [(g.values, g.matched) for g in idle.guards] == [(("Conv2d",), 0)]
    assert idle.affected == ("conv.weight",)
    ran = find(record, "initf(m.weight)")
    assert (ran.runs, ran.parameters) == (1, ("fc.weight",))


def test_self_in_place_of_the_argument(tmp_path: Path) -> None:
    record = record_of(
        tmp_path,
        """
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.proj = nn.Linear(4, 4)
                self.gate = nn.Linear(4, 4)
                self.apply(self._init)

            def _init(self, module):
                if isinstance(module, nn.Linear):
                    nn.init.normal_(self.proj.weight, std=0.02)
        """,
    )
    statement = find(record, "normal_")
    assert statement.runs == 2
    assert statement.parameters == ("proj.weight",)
    assert statement.affected == ("gate.weight",)
    assert statement.calls == 3
    assert statement.guards[0].matched == 2


def test_a_branch_that_does_nothing(tmp_path: Path) -> None:
    record = record_of(
        tmp_path,
        """
        def initialise(module, scheme):
            if type(module) is nn.Linear:
                if scheme == "he":
                    nn.init.kaiming_normal_(module.weight)
                elif scheme == "lecun":
                    pass
                else:
                    raise ValueError(scheme)

        class Model(nn.Module):
            def __init__(self, scheme="lecun"):
                super().__init__()
                self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
                for m in self.modules():
                    initialise(m, scheme)
        """,
    )
    nothing = find(record, "pass")
    assert (nothing.op, nothing.runs, nothing.reached) == ("pass", 2, True)
    assert [(g.kind, g.values, g.matched) for g in nothing.guards] == [
        ("value", ("lecun",), 1),
        ("type", ("Linear",), 2),
    ]
    assert nothing.affected == ("a.weight", "b.weight")
    other = find(record, "kaiming_normal_")
    assert (other.runs, other.guards[0].matched, other.affected) == (0, 0, ())


def test_a_function_that_is_never_called(tmp_path: Path) -> None:
    record = record_of(
        tmp_path,
        """
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(1, 4, 3)
                self.head = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))

            def setup_weights(self):
                for m in self.modules():
                    if isinstance(m, nn.Conv2d):
                        nn.init.normal_(m.weight, std=0.01)
                nn.init.constant_(self.head[-1].bias, -math.log((1 - 0.01) / 0.01))

            def forward(self, x):
                x = self.conv(x)
                x.mul_(2.0)
                x.data.zero_()
                return x
        """,
    )
    assert [s.op for s in record.statements] == ["normal_", "constant_"]
    loop, prior = record.statements
    assert (loop.reached, loop.referenced, loop.runs, loop.affected) == (False, False, 0, ("conv.weight",))
    assert prior.affected == ("head.1.bias",)
    assert prior.args["val"] == pytest.approx(-4.595, abs=1e-3)
    assert prior.calls is None


def test_a_function_that_an_option_turns_off_is_referenced(tmp_path: Path) -> None:
    record = record_of(
        tmp_path,
        """
        class Model(nn.Module):
            def __init__(self, special=False):
                super().__init__()
                self.fc = nn.Linear(4, 4)
                if special:
                    self.special_weights()

            def special_weights(self):
                nn.init.zeros_(self.fc.weight)
        """,
    )
    statement = find(record, "zeros_")
    assert (statement.reached, statement.referenced, statement.runs) == (False, True, 0)


def test_a_function_called_without_effect_is_reached(tmp_path: Path) -> None:
    record = record_of(
        tmp_path,
        """
        def init_all(model):
            for m in model.modules():
                if isinstance(m, nn.Conv1d):
                    nn.init.zeros_(m.weight)

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(4, 4)
                init_all(self)
        """,
    )
    statement = find(record, "zeros_")
    assert (statement.reached, statement.runs, statement.guards[0].matched) == (True, 0, 0)


def test_other_models_of_the_file_are_left_out(tmp_path: Path) -> None:
    record = record_of(
        tmp_path,
        """
        class Other(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(4, 4)
                nn.init.zeros_(self.fc.weight)

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(4, 4)

        if __name__ == "__main__":
            nn.init.zeros_(Model().fc.weight)
        """,
    )
    assert record.statements == ()


# -- writes without effect --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("norm", "sources", "origin"),
    [
        ("weight_norm(nn.Conv1d(4, 4, 3))", ("c.weight_g", "c.weight_v"), "weight_norm"),
        (
            "nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 4, 3))",
            ("c.parametrizations.weight.original0", "c.parametrizations.weight.original1"),
            "weight_norm",
        ),
        (
            "nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))",
            ("c.parametrizations.weight.original",),
            "spectral_norm",
        ),
        (
            "nn.utils.parametrizations.orthogonal(nn.Linear(4, 4))",
            ("c.parametrizations.weight.original",),
            "orthogonal",
        ),
    ],
)
def test_writes_into_generated_weights_are_lost(
    tmp_path: Path, norm: str, sources: tuple[str, ...], origin: str
) -> None:
    record = record_of(
        tmp_path,
        f"""
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.c = {norm}
                self.c.weight.data.normal_(0, 0.01)
                nn.init.zeros_(self.c.bias)
        """,
    )
    statement = find(record, "normal_")
    assert (statement.runs, statement.lost, statement.lost_reason) == (1, 1, "generated")
    assert set(statement.affected) == set(sources)
    assert statement.parameters == ()
    assert find(record, "zeros_").lost == 0
    (made,) = [p for p in record.parameters if p.generated]
    assert (made.name, made.origin, set(made.sources)) == ("c.weight", origin, set(sources))
    assert [w.op for w in made.writes] == ["normal_"]
    assert made.writes[0].unused


def test_the_older_spectral_norm_shares_memory_with_its_source(tmp_path: Path) -> None:
    record = record_of(
        tmp_path,
        """
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.c = nn.utils.spectral_norm(nn.Linear(4, 4))
                self.c.weight.data.normal_(0, 0.01)
        """,
    )
    statement = find(record, "normal_")
    assert (statement.lost, statement.parameters) == (0, ("c.weight_orig",))
    (made,) = [p for p in record.parameters if p.generated]
    assert (made.name, made.origin, made.sources, made.writes) == ("c.weight", "spectral_norm", ("c.weight_orig",), ())


def test_init_before_weight_norm_is_kept(tmp_path: Path) -> None:
    record = record_of(
        tmp_path,
        """
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                layer = nn.Conv1d(4, 4, 3)
                layer.weight.data.normal_(0, 0.01)
                self.c = weight_norm(layer)
        """,
    )
    statement = find(record, "normal_")
    assert statement.lost == 0
    assert "c.weight_v" in statement.parameters


@pytest.mark.parametrize(
    ("line", "affected"),
    [
        ("nn.init.normal_(torch.zeros_like(self.fc.weight))", ("fc.weight",)),
        ("nn.init.normal_(self.fc.weight.clone())", ("fc.weight",)),
        ("self.fc.weight.clamp(-1, 1)", ("fc.weight",)),
        ("self.fc.weight.data.mul(0.1)", ("fc.weight",)),
        ("nn.init.normal_(self.fc.weight.data.double())", ("fc.weight",)),
    ],
)
def test_temporaries(tmp_path: Path, line: str, affected: tuple[str, ...]) -> None:
    record = record_of(
        tmp_path,
        f"""
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(4, 4)
                {line}
        """,
    )
    (statement,) = record.statements
    assert (statement.runs, statement.lost, statement.lost_reason) == (1, 1, "temporary")
    assert statement.affected == affected


def test_parameters_replaced_later(tmp_path: Path) -> None:
    record = record_of(
        tmp_path,
        """
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(4, 4)
                nn.init.orthogonal_(self.fc.weight)
                self.fc.weight = nn.Parameter(torch.randn(4, 4))
        """,
    )
    statement = find(record, "orthogonal_")
    assert (statement.lost, statement.lost_reason, statement.affected) == (1, "replaced", ("fc.weight",))


def test_values_that_are_used_are_not_lost(tmp_path: Path) -> None:
    record = record_of(
        tmp_path,
        """
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                noise = torch.empty(4)
                nn.init.normal_(noise)
                self.scale = nn.Parameter(noise.abs())
                kept = torch.empty(4)
                kept.data.fill_(2.0)
                self.plain = kept
                first = nn.Linear(4, 4)
                nn.init.zeros_(first.weight)
                self.layers = nn.ModuleList([copy.deepcopy(first) for _ in range(2)])
        """,
    )
    assert all(s.lost == 0 for s in record.statements)
    assert find(record, "zeros_").parameters == ("layers.0.weight", "layers.1.weight")


SHADOWED = """
class Zero(nn.Linear):
    pass

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = {first}(4, 4)
        self.b = Zero(4, 4)
        for m in self.modules():
            self.init(m)

    @staticmethod
    def init(m):
        if {earlier}:
            nn.init.xavier_uniform_(m.weight)
            {leave}
        {word} {later}:
            nn.init.normal_(m.weight, std=0.5)
"""


@pytest.mark.parametrize(("word", "leave"), [("elif", "pass"), ("if", "return")])
@pytest.mark.parametrize(
    "later",
    [
        "isinstance(m, Zero)",
        "type(m) is Zero",
        "m.__class__.__name__ == 'Zero'",
        "isinstance(m, Zero) and m.bias is not None",
        "isinstance(m, (Zero, nn.Embedding))",
    ],
)
def test_a_branch_below_that_of_the_base_class_is_shadowed(tmp_path: Path, later: str, word: str, leave: str) -> None:
    body = SHADOWED.format(first="nn.Linear", earlier="isinstance(m, nn.Linear)", later=later, word=word, leave=leave)
    statement = find(record_of(tmp_path, body), "std=0.5")
    assert (statement.missed, statement.missed_why) == (("b.weight",), "shadowed")
    assert statement.missed_at is not None
    assert later in statement.missed_at.text


@pytest.mark.parametrize(
    ("first", "earlier", "later"),
    [
        ("nn.Linear", "isinstance(m, Zero)", "isinstance(m, nn.Linear)"),  # the special case first
        ("Zero", "isinstance(m, Zero)", "isinstance(m, nn.Linear)"),  # of which the model has nothing else
        ("nn.Linear", "isinstance(m, nn.Linear)", "isinstance(m, nn.LayerNorm)"),  # the model has none
        ("nn.Linear", "isinstance(m, nn.Linear) and m.bias is not None", "isinstance(m, nn.Linear)"),
        ("nn.Linear", "isinstance(m, (nn.Linear, nn.Conv2d))", "isinstance(m, (nn.Linear, nn.Embedding))"),
    ],
)
@pytest.mark.parametrize(("word", "leave"), [("elif", "pass"), ("if", "return")])
def test_a_branch_for_the_rest_is_not_shadowed(
    tmp_path: Path, first: str, earlier: str, later: str, word: str, leave: str
) -> None:
    body = SHADOWED.format(first=first, earlier=earlier, later=later, word=word, leave=leave)
    assert not any(s.missed for s in record_of(tmp_path, body).statements)


PATTERNS = """
        import re
        import json
        from fnmatch import fnmatchcase

        class Wrapper(nn.Module):
            def __init__(self, module):
                super().__init__()
                self.inner = module

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.embed = nn.Linear(4, 4)
                self.blocks = nn.ModuleList([Wrapper(nn.Linear(4, 4)) for _ in range(2)])
                json.loads('{"embed.weight": 1}')
                for pattern, std in {"embed.weight": 0.1, r"blocks\\.\\d\\.weight": 0.2, "conv.weight": 0.3}.items():
                    for name, p in self.named_parameters():
                        if not re.fullmatch(pattern, name):
                            continue
                        nn.init.normal_(p, std=std)
        """


def test_patterns_that_match_nothing(tmp_path: Path) -> None:
    record = record_of(tmp_path, PATTERNS)
    ran, idle = [s for s in record.statements if s.op == "normal_"]
    assert (ran.runs, ran.parameters) == (1, ("embed.weight",))
    assert (idle.runs, idle.affected, idle.args) == (
        0,
        ("blocks.0.inner.weight", "blocks.1.inner.weight"),
        {"std": 0.2},
    )
    assert [(g.kind, g.values, g.matched) for g in idle.guards] == [("name", (r"blocks\.\d\.weight",), 0)]


def test_matching_functions_are_put_back() -> None:
    before = re.fullmatch, fnmatch.fnmatch
    with Recorder() as recorder:
        assert re.fullmatch is not before[0]
        assert re.fullmatch("a+", "aa")
        assert fnmatch.fnmatch("a.weight", "*.weight")
        assert textwrap.dedent("  a") == "a"  # uses re itself
    assert (re.fullmatch, fnmatch.fnmatch) == before
    patterns = [list(m.patterns) for m in recorder.patches.matchings.found.values()]
    assert patterns == [[("a+", 0)], [("*.weight", 0)]]
