"""The text report: widths, folding of alike layers, numbers, code frames."""

from __future__ import annotations

import dataclasses

import pytest
from emit_sample import NOTE, TIED, XAVIER, healthy, sample, sources
from hypothesis import given
from hypothesis import strategies as st

from initlint.emit import Options, render
from initlint.emit.common import cells, clean, number, place, relative, shorten, times, truncate
from initlint.emit.frame import code_frame
from initlint.emit.view import brief_notes, folds, listing, places, span_of, verdict_of
from initlint.facts import STAND_IN, Node, ParameterFacts, Site, TraceFacts
from initlint.findings import ModelReport, Related, Run


def text(run: Run, **options: object) -> str:
    return render("text", run, Options(sources=sources, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [72, 80, 100, 120, 160])
def test_tables_and_prose_keep_to_the_width(width: int) -> None:
    for line in text(sample(), width=width).splitlines():
        # code, addresses and hints cannot be broken; everything else is
        if "|" in line or "http" in line or "= write" in line or "= expected" in line or "hint:" in line:
            continue
        assert cells(line) <= width or line.startswith(("models/", "not analysed", "85 layers")), line


def test_the_last_line_is_the_summary() -> None:
    last = text(sample()).splitlines()[-1]
    counts = "2 errors, 1 warning, 1 note; 4 models, 1 of them in part, 1 not analysed, 3.21 s"
    assert last == f"85 layers: 63 ok, 4 findings, 3 checks undetermined ({counts})"
    without = dataclasses.replace(
        sample(), models=tuple(dataclasses.replace(report, undetermined=()) for report in sample().models)
    )
    assert ", 0 undetermined (" in text(without).splitlines()[-1]


def test_an_empty_run_says_so() -> None:
    empty = Run(notes=("no files with nn.Module",))
    assert text(empty).splitlines()[0] == "no files with nn.Module"
    assert text(empty).splitlines()[-1].startswith("0 layers: 0 ok, 0 findings")


def test_quiet_shows_findings_only() -> None:
    quiet = text(sample(), verbose=-1)
    assert quiet.startswith("models/gpt.py:9:9: error IL001")
    assert " analysed" not in quiet
    assert " ok, " not in quiet
    assert text(healthy(), verbose=-1) == ""


def test_a_model_without_findings_takes_one_line_among_others() -> None:
    assert "models/resnet.py::ResNet  ok  12 layers\nmodels/tiny.py::Tiny  ok  2 layers\n" in text(sample())
    assert "stage0" not in text(sample())
    assert "stage0" in text(sample(), verbose=1)


def test_suppressed_findings_are_counted_by_cause() -> None:
    hidden = (
        dataclasses.replace(TIED, suppressed="baseline"),
        dataclasses.replace(NOTE, suppressed="comment"),
        dataclasses.replace(XAVIER, suppressed="comment"),
    )
    run = dataclasses.replace(sample(), suppressed=hidden, baseline_stale=1)
    assert "3 findings suppressed (1 by baseline, 2 by comment)" in text(run)
    assert "1 baseline entry no longer found" in text(run)


def test_colour_is_only_there_when_asked_for() -> None:
    assert "\x1b[" not in text(sample())
    assert "\x1b[" in text(sample(), color=True)


def test_statistics_count_by_code() -> None:
    assert "     1  IL105  scheme-for-another-activation" in text(sample(), statistics=True)
    run = dataclasses.replace(sample(), findings=(XAVIER, TIED, XAVIER))
    counted = render("concise", run, Options(statistics=True))
    assert counted.splitlines()[0] == "     2  IL105  scheme-for-another-activation"


def test_alike_layers_fold_by_pattern_not_by_neighbourhood() -> None:
    gpt = sample().models[0]
    labels = [fold.label for fold in folds(gpt, ())]
    assert labels == [
        "wte",
        "h.{0…11}.attn.c_attn",
        "h.{0…11}.attn.c_proj",
        "h.{0…11}.mlp.c_fc",
        "h.{0…11}.mlp.c_proj",
        "temperature",
    ]


def test_what_lies_between_may_differ_in_its_index() -> None:
    mlp = sample().models[1]
    rows = tuple(dataclasses.replace(row, path=(f"layers.{2 * i + 1}", "relu")) for i, row in enumerate(mlp.rows))
    assert [len(fold.rows) for fold in folds(dataclasses.replace(mlp, rows=rows), ())] == [20, 1]


def test_names_that_differ_at_their_ends_are_told_apart_when_cut() -> None:
    mlp = sample().models[1]
    ends = ("weight_ih_l0", "weight_hh_l0", "weight_ih_l0_reverse", "weight_hh_l0_reverse")
    rows = tuple(
        dataclasses.replace(mlp.rows[0], name=f"encoder.0.layers.0.1.lstm.{end}", std=0.1 + i)
        for i, end in enumerate(ends)
    )
    run = dataclasses.replace(sample(), models=(dataclasses.replace(mlp, rows=rows),), findings=())
    shown = render("text", run, Options(sources=sources, width=80))
    names = [line.split()[0] for line in shown.splitlines() if "…" in line and "weight" not in line.split()[-1]]
    assert len(names) == len(set(names)) == len(ends), shown


def test_places_on_one_line_are_told_once() -> None:
    related = tuple(Related("models/mlp.py", line, f"made {i}") for i, line in enumerate((9, 9, 20, 9)))
    finding = dataclasses.replace(XAVIER, related=related)
    assert [(entry.line, entry.role) for entry in places(finding)] == [(9, "made 0"), (20, "made 2")]
    assert "made 3" not in text(dataclasses.replace(sample(), findings=(finding,)))


def test_a_layer_that_differs_is_not_folded_away() -> None:
    mlp = sample().models[1]
    odd = dataclasses.replace(mlp.rows[7], ratio=1.0)
    changed = dataclasses.replace(mlp, rows=(*mlp.rows[:7], odd, *mlp.rows[8:]))
    sizes = [len(fold.rows) for fold in folds(changed, ())]
    assert sizes == [19, 1, 1]


def test_a_layer_in_a_finding_is_not_folded_with_those_that_are_fine() -> None:
    mlp = sample().models[1]
    finding = dataclasses.replace(XAVIER, layers=("layers.3",), parameters=("layers.3.weight",))
    assert sorted(len(fold.rows) for fold in folds(mlp, [finding])) == [1, 1, 19]


@pytest.mark.parametrize(
    ("names", "label"),
    [
        (["fc"], "fc"),
        (["layers.0", "layers.1", "layers.2"], "layers.{0…2}"),
        (["h.0.mlp.fc", "h.1.mlp.fc"], "h.{0…1}.mlp.fc"),
        (["a.0.b.0", "a.1.b.1"], "a.0.b.0 … a.1.b.1"),
        (["fc1", "fc2"], "fc1 … fc2"),
    ],
)
def test_spans_are_named_shortly(names: list[str], label: str) -> None:
    assert span_of(names) == label


def test_long_lists_of_names_are_cut() -> None:
    assert listing([f"layers.{i}.weight" for i in range(20)]) == "layers.{0…19}.weight (20)"
    assert listing(["a", "b"]) == "a, b"
    assert listing([f"n{c}" for c in "abcdef"]) == "na, nb, nc, nd and 2 more"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.08838, "0.0884"),
        (1.0, "1"),
        (12345.6, "12346"),
        (1.2e-7, "1.2e-7"),
        (1e20, "1e20"),
        (50257, "50257"),
        (True, "True"),
        (None, "-"),
        (float("nan"), "nan"),
        (0.0, "0"),
        ("text\x1b", "text\ufffd"),
    ],
)
def test_numbers_are_written_for_people(value: object, said: str) -> None:
    assert number(value) == said


@pytest.mark.parametrize(
    ("ratio", "said"), [(0.7071, "0.71×"), (8.0, "8×"), (123.4, "123×"), (None, "-"), (float("inf"), "-")]
)
def test_ratios_are_written_for_people(ratio: float | None, said: str) -> None:
    assert times(ratio) == said


@given(st.text(), st.integers(1, 30))
def test_cutting_never_exceeds_the_width(given_text: str, width: int) -> None:
    safe = clean(given_text)
    assert cells(truncate(safe, width)) <= width
    assert cells(shorten(safe, width)) <= width


@given(st.text(st.characters(codec=None), max_size=40))
def test_clean_text_is_one_printable_line(given_text: str) -> None:
    safe = clean(given_text)
    assert len(safe.splitlines()) <= 1
    assert safe.encode("utf-8").decode() == safe
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in safe)


def test_a_code_frame_shows_the_record_where_the_file_has_changed() -> None:
    site = Site("models/mlp.py", 15, 13, "", "nn.init.ones_(something.else_)")
    frame = code_frame(site, Options(sources=sources))
    assert frame is not None
    assert frame.lines == ((15, "nn.init.ones_(something.else_)"),)


def test_a_code_frame_of_a_long_statement_is_cut() -> None:
    lines = [f"    line{i}" for i in range(40)]
    frame = code_frame(Site("x.py", 5, end_line=40), Options(sources=lambda file: lines))
    assert frame is not None
    assert [n for n, _ in frame.lines] == [3, 4, 5, 6, 7, 8, 9, 10]
    assert frame.lines[0][1] == "line2"


def test_there_is_no_frame_without_source() -> None:
    assert code_frame(None, Options()) is None
    assert code_frame(Site("gone.py", 5), Options(sources=lambda file: ())) is None
    assert code_frame(Site("short.py", 5), Options(sources=lambda file: ["x"])) is None


@pytest.mark.parametrize(
    ("code", "column", "underlined"),
    [
        ("    self.a = nn.Linear(3, 4)  # why", 14, "nn.Linear(3, 4)"),
        ("    self.a = nn.Linear(3, 4)  # why", None, "self.a = nn.Linear(3, 4)"),
        ("\tself.a = nn.Linear(3, 4)", 11, "nn.Linear(3, 4)"),
        ("x = [nn.Linear(3, f(4)) for _ in y]", 6, "nn.Linear(3, f(4))"),
        ("x = nn.Sequential(nn.Linear(3, 4), nn.ReLU())", 19, "nn.Linear(3, 4)"),
        ("w = torch.randn(3, 4) * 0.02", 5, "torch.randn(3, 4) * 0.02"),
        ("x = f(a[')'], b)", 5, "f(a[')'], b)"),
        ("x = nn.Linear(", 5, "nn.Linear("),
        ("x = 1", 99, "x = 1"),
    ],
)
def test_the_expression_at_fault_is_underlined(code: str, column: int | None, underlined: str) -> None:
    frame = code_frame(Site("x.py", 1, column), Options(sources=lambda file: [code]))
    assert frame is not None
    assert frame.lines[0][1][frame.start : frame.end] == underlined


def test_a_finding_without_a_place_names_its_model() -> None:
    assert place(dataclasses.replace(XAVIER, site=None)) == "models/mlp.py::DeepMLP"


def test_relative_paths_are_posix() -> None:
    assert relative("./a/../b.py") == "b.py"
    assert relative("") == ""


REASON = "no inputs found for which the forward passes (RuntimeError: mat1 and mat2 shapes cannot be multiplied)"


def joined(said: str) -> str:
    """A text without its line ends and indentation."""
    return " ".join(said.split())


def test_reasons_are_wrapped_and_never_cut() -> None:
    run = sample()
    partial = dataclasses.replace(run.models[0].facts, reason=REASON, notes=(f"line 3: {REASON}",))
    models = (dataclasses.replace(run.models[0], facts=partial), *run.models[1:])
    alone = text(dataclasses.replace(run, models=models[:1]), width=80)
    assert f"because {REASON} trace" in joined(alone)
    assert f"note line 3: {REASON} layer" in joined(alone)
    brief = text(dataclasses.replace(run, models=models, findings=()), width=80)
    assert f"models/gpt.py::GPT partial 50 layers, forward not run, 3 checks undetermined because {REASON} " in joined(
        brief
    )
    assert "…" not in brief


def test_parameters_that_no_trace_saw_are_told_in_the_summary() -> None:
    facts = dataclasses.replace(
        healthy().models[0].facts,
        parameters=(
            ParameterFacts("seen.weight", "parameter", (4, 4), "float32", "seen", "weight"),
            ParameterFacts("nets.0.weight", "parameter", (100, 50), "float32", "nets.0", "weight"),
            ParameterFacts("nets.1.weight", "parameter", (100, 50), "float32", "nets.1", "weight"),
            ParameterFacts("mean", "buffer", (9,), "float32", "", "mean"),
        ),
        trace=TraceFacts(method="symbolic", coverage=0.3, not_reached=("nets.0.weight", "nets.1.weight"), ran=True),
    )
    run = Run(models=(ModelReport(facts),))
    assert "undetermined, 2 tensors (10,000 values) not looked into (" in text(run).splitlines()[-1]
    assert verdict_of(run) == "no findings, 2 tensors (10,000 values) not looked into"
    assert not render("markdown", run, Options()).startswith("## 🟢")
    two = text(Run(models=(ModelReport(facts), *healthy().models)))
    assert f"{facts.target}  analysed  0 layers, 2 tensors (10,000 values) not looked into" in two
    none = dataclasses.replace(facts, status="partial", trace=TraceFacts())
    assert "3 tensors (10,016 values) not looked into" in text(Run(models=(ModelReport(none),))).splitlines()[-1]
    whole = dataclasses.replace(facts, trace=TraceFacts(method="symbolic", coverage=1.0, ran=True))
    assert "not looked into" not in text(Run(models=(ModelReport(whole),)))
    node = Node(1, "opaque", parameters={"weight": "nets.1.weight"})
    hidden = dataclasses.replace(whole, nodes=(node,))
    assert "1 tensor (5,000 values) not looked into" in text(Run(models=(ModelReport(hidden),)))


def test_stand_ins_take_one_line_that_names_the_packages() -> None:
    names = (("cv2", "cv2"), ("lightning.fabric.Fabric", "lightning"), ("lightning.Trainer", "lightning"))
    stand_ins = [f"utils.py, line {i}: {n} {STAND_IN}: No module named '{p}'" for i, (n, p) in enumerate(names)]
    own = f"line 9: utils.draw {STAND_IN}: cannot import name 'draw' from 'utils'"
    before, after = "the file was cut", "line 7: Net is defined without @register"
    notes = (before, *stand_ins, after, own)
    one = "stand-ins for cv2, lightning, utils, which could not be imported; -v lists them"
    assert brief_notes(notes) == [before, one, after]
    assert brief_notes((before, own)) == [before, own]
    many = [f"line {i}: {n} {STAND_IN}: No module named '{n}'" for i, n in enumerate(f"m{k}" for k in range(20))]
    assert "m15 and 4 more, which" in brief_notes(many)[0]
    run = healthy()
    facts = dataclasses.replace(run.models[0].facts, notes=notes)
    run = dataclasses.replace(run, models=(dataclasses.replace(run.models[0], facts=facts),))
    assert f"  note        {one}\n" in text(run)
    assert f"note {stand_ins[0]} note {stand_ins[1]} note" in joined(text(run, verbose=1))


def test_labels_of_alike_layers_are_in_numeric_order() -> None:
    by_text = sorted(f"network.{index}.weight" for index in (2, 4, 6, 8, 10))
    assert by_text[0] == "network.10.weight"
    assert listing(by_text) == "network.{2…10}.weight (5)"
    both = ["h.10.attn.1.w", "h.10.attn.9.w", "h.9.attn.10.w", "h.9.attn.2.w"]
    assert span_of(both) == "h.9.attn.2.w … h.10.attn.9.w"
