"""The HTML report: self-contained, small, readable; and its charts as pure functions."""

from __future__ import annotations

import dataclasses
import math
import re
import subprocess
import sys

import pytest
from emit_sample import healthy, histogram, sample, sources

from initlint import resources
from initlint.emit import Options, html_view, render, svg
from initlint.findings import Run


def html(run: Run) -> str:
    return render("html", run, Options(sources=sources))


def test_nothing_is_fetched() -> None:
    text = html(sample())
    assert not re.search(r"""(src|srcset|data|poster)\s*=\s*["']""", text)
    assert "@import" not in text
    assert "url(" not in text
    assert "<link" not in text
    assert "default-src 'none'" in text


def test_the_page_stays_small_for_large_models() -> None:
    run = sample()
    report = run.models[1]
    rows = tuple(dataclasses.replace(report.rows[i % 20], name=f"net{i}.x", std=0.1 + 0.001 * i) for i in range(400))
    large = dataclasses.replace(run, models=(dataclasses.replace(report, rows=rows),), findings=())
    assert len(html(sample()).encode()) < 150_000
    assert len(html(large).encode()) < 300_000


def test_the_controls_need_the_script_and_the_rest_does_not() -> None:
    text = html(sample())
    assert '<form class="tools" id="tools" hidden>' in text
    for word in ("DeepMLP", "kaiming_normal_(layer.weight, nonlinearity=&#34;relu&#34;)", "1024 times smaller"):
        assert word in text


def test_findings_are_found_under_their_fingerprints() -> None:
    text = html(sample())
    for finding in sample().findings:
        assert f'id="{finding.fingerprint}"' in text


def test_models_without_findings_are_folded_unless_alone() -> None:
    assert '<details class="passed"' in html(sample())
    assert '<details class="passed"' not in html(healthy())
    assert "stage0.0." in html(healthy())


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """WCAG 2.1's contrast ratio."""
    bright, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_has_the_contrast_that_wcag_aa_asks(theme: int) -> None:
    css = (resources.assets_dir() / "report.css").read_text(encoding="utf-8")
    block = re.findall(r":root \{(.*?)\}", css, re.S)[theme]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    for ink in ("ink", "soft", "link"):
        for ground in ("page", "paper", "sunk"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for level in ("error", "warning", "note", "ok", "undetermined"):
        assert contrast(colours[level], colours[f"{level}-tint"]) >= 4.5, level
        assert contrast(colours[level], colours["paper"]) >= 4.5, level
    for ground in ("error-tint", "warning-tint", "note-tint", "add", "del"):
        assert contrast(colours["ink"], colours[ground]) >= 4.5, ground
        assert contrast(colours["soft"], colours[ground]) >= 4.5, ground
    for series in ("forward", "gradient", "dependent"):
        assert contrast(colours[series], colours["paper"]) >= 3, series


# -- charts --------------------------------------------------------------------------------------


def numbers(markup: str) -> list[float]:
    return [
        float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", " ".join(re.findall(r' (?:d|x|y|cx|cy)="([^"]*)"', markup)))
    ]


@pytest.mark.parametrize(
    "values",
    [
        [1.0, 0.5, 0.25],
        [1e-300, 1.0, 1e300],
        [0.0, 1.0, 2.0],
        [1.0, math.nan, math.inf, None, 2.0],
        [3.0] * 2000,
    ],
)
def test_a_curve_stays_in_its_frame(values: list[float | None]) -> None:
    labels = [f"layer{i}" for i in range(len(values))]
    picture = svg.curve(svg.Curve(labels, values, [0.3] * len(values), values), "forward", "t")
    assert picture.startswith("<svg")
    assert all(-10 <= n <= 560 for n in numbers(picture))
    assert "nan" not in picture
    assert "inf" not in picture
    assert len(picture) < 30_000


@pytest.mark.parametrize("values", [[], [1.0], [None, None], [math.nan, 1.0], [0.0, 0.0]])
def test_there_is_no_curve_through_fewer_than_two_points(values: list[float | None]) -> None:
    assert svg.curve(svg.Curve(["a"] * len(values), values), "forward", "t") == ""


def test_a_curve_goes_down_when_the_signal_does() -> None:
    picture = svg.curve(svg.Curve(["a", "b"], [1.0, 0.01]), "forward", "t")
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', picture)]
    assert heights[0] < heights[1]


def test_names_in_charts_are_escaped() -> None:
    picture = svg.curve(svg.Curve(["<b>", '"&'], [1.0, 2.0]), "forward", "<i>")
    assert "<b>" not in picture
    assert "<i>" not in picture


def test_the_expected_density_covers_the_histogram_that_matches_it() -> None:
    drawn = histogram(0.02)
    picture = svg.histogram(drawn.edges, drawn.counts, 0.02)
    line = re.search(r'class="want" d="M([^"]*)"', picture)
    assert line
    top = min(float(point.split()[1]) for point in line.group(1).split("L"))
    bars = min(float(v) for v in re.findall(r"V([\d.]+)H", picture))
    assert abs(top - bars) < 1.5  # of 40 units


@pytest.mark.parametrize("expected", [None, 1e-6, 1e6, 0.02])
@pytest.mark.parametrize("uniform", [False, True])
def test_a_histogram_stays_in_its_frame(expected: float | None, uniform: bool) -> None:
    drawn = histogram(0.02, uniform=uniform, bins=128)
    picture = svg.histogram(drawn.edges, drawn.counts, expected, uniform=uniform)
    assert all(-1 <= n <= 133 for n in numbers(picture))
    assert len(picture) < 2000


@pytest.mark.parametrize(
    ("edges", "counts"), [((), ()), ((0.0, 0.0), (5,)), ((0.0, 1.0), (0,)), ((0.0, math.inf), (1,))]
)
def test_there_is_no_histogram_of_nothing(edges: tuple[float, ...], counts: tuple[int, ...]) -> None:
    assert svg.histogram(edges, counts, 1.0) == ""


@pytest.mark.parametrize(
    ("ratio", "side"), [(0.5, -1), (1.0, 0), (2.0, 1), (1e9, 1), (1e-9, -1), (0.0, -1), (None, None), (math.nan, None)]
)
def test_a_ratio_bar_points_to_the_side_of_the_deviation(ratio: float | None, side: int | None) -> None:
    picture = svg.ratio_bar(ratio)
    if side is None:
        assert picture == ""
        return
    end = re.search(r'class="bar" d="M60 8H([\d.]+)"', picture)
    assert end
    assert (float(end.group(1)) > 60) - (float(end.group(1)) < 60) == side
    assert 6 <= float(end.group(1)) <= 114


def test_jinja_is_imported_for_html_only() -> None:
    code = (
        "import sys; from initlint.emit import render; from initlint.findings import Run\n"
        "for f in ('text', 'concise', 'json', 'sarif', 'github', 'gitlab', 'junit', 'markdown'): render(f, Run())\n"
        "assert 'jinja2' not in sys.modules and 'torch' not in sys.modules and 'click' not in sys.modules\n"
        "render('html', Run()); assert 'jinja2' in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.0, 1.2, 0.9], "standard deviation stays near 0.95 from the first layer to the last"),
        ([1.0, 0.16, 1.1], "standard deviation 0.16 to 1.1, at both ends near 1"),
        ([1.0, 9.0, 1.0], "standard deviation 1 to 9, at both ends near 1"),
        ([1.0, 30.0, 100.0], "standard deviation 1 to 100 from the first layer to the last, 100×"),
        ([1.0, 0.0], "standard deviation 1 to 0 from the first layer to the last"),
    ],
)
def test_a_curve_that_dips_is_not_said_to_stay(values: list[float], said: str) -> None:
    assert html_view._said(values, "forward") == said


def test_lines_that_an_edit_leaves_are_not_shown_as_removed() -> None:
    run = sample()
    line = sources("models/mlp.py")[14]
    finding = next(f for f in run.findings if f.fix and f.fix.edits)
    assert finding.fix is not None
    edit = dataclasses.replace(finding.fix.edits[0], start=15, end=15, text=f"{line}\nadded")
    changed = dataclasses.replace(finding, fix=dataclasses.replace(finding.fix, edits=(edit,)))
    text = html(dataclasses.replace(run, findings=(changed,)))
    block = re.search(r'<pre class="diff">.*?</pre>', text, re.S)
    assert block is not None
    assert re.findall(r'class="l (\w+)"', block[0]) == ["at", "same", "add"]
