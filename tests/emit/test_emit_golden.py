"""Every format on the sample run, compared with files that were read by a person."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
from collections.abc import Callable

import pytest
from emit_sample import healthy, sample, sources

from initlint.emit import FORMATS, Options, emit, render
from initlint.errors import UsageError
from initlint.facts import Chunk, ModelFacts, Node, ParameterFacts, TensorStats
from initlint.told import shed

SUFFIX = {"json": "json", "sarif": "sarif.json", "gitlab": "json", "junit": "xml", "markdown": "md", "html": "html"}


@pytest.mark.parametrize("format", list(FORMATS))
def test_each_format_writes_what_was_agreed(format: str, golden: Callable[[str, str], None]) -> None:
    text = render(format, sample(), Options(sources=sources))
    if format == "sarif":  # written compactly; a golden file is to be read
        text = json.dumps(json.loads(text), indent=1) + "\n"
    golden(f"{format}.{SUFFIX.get(format, 'txt')}", text)


def with_more(facts: ModelFacts) -> ModelFacts:
    """The facts with a node and statistics as rules read them."""
    part = Chunk(0.0, 1.0, -3.0, 3.0)
    stats = TensorStats(16, 0.0, 1.0, 1.0, 3.0, -3.0, 3.0, chunks={"2": (part, part)}, experts=(part,))
    weight = ParameterFacts("more.weight", "parameter", (4, 4), "float32", "more", "weight", stats=stats)
    node = Node(len(facts.nodes), "scale", attrs={"factor": 2.0})
    return dataclasses.replace(facts, parameters=(*facts.parameters, weight), nodes=(*facts.nodes, node))


@pytest.mark.parametrize("format", list(FORMATS))
def test_what_is_left_after_the_rules_is_all_that_is_told(format: str) -> None:
    run = sample()
    full = [dataclasses.replace(model, facts=with_more(model.facts)) for model in run.models]
    less = copy.deepcopy(full)
    for model in less:
        shed(model.facts)
    assert all(len(repr(short.facts)) < len(repr(long.facts)) for short, long in zip(less, full, strict=True))
    options = Options(sources=sources, verbose=1)
    texts = [render(format, dataclasses.replace(run, models=tuple(models)), options) for models in (less, full)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("text_verbose_130.txt", Options(width=130, verbose=1, statistics=True, sources=sources)),
        ("text_80.txt", Options(width=80, sources=sources)),
        ("text_quiet.txt", Options(verbose=-1, sources=sources)),
        ("text_color.txt", Options(color=True, sources=sources)),
    ],
)
def test_text_follows_its_options(name: str, options: Options, golden: Callable[[str, str], None]) -> None:
    golden(name, render("text", sample(), options))


def test_a_healthy_model_alone_gets_its_table(golden: Callable[[str, str], None]) -> None:
    golden("text_healthy.txt", render("text", healthy(), Options(sources=sources)))


@pytest.mark.parametrize("format", list(FORMATS))
def test_the_same_run_gives_the_same_bytes(format: str) -> None:
    assert render(format, sample(), Options(sources=sources)) == render(format, sample(), Options(sources=sources))


@pytest.mark.parametrize("format", list(FORMATS))
def test_emit_writes_what_render_returns(format: str) -> None:
    out = io.StringIO()
    emit(format, sample(), out, sources=sources, summary="")
    assert out.getvalue() == render(format, sample(), Options(sources=sources))


def test_an_unknown_format_is_a_usage_error_that_names_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        emit("yaml", sample(), io.StringIO())
    assert "text" in caught.value.hint
    assert "html" in caught.value.hint
