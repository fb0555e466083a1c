"""Names, messages and source lines come from models: nothing in them may act in a terminal, a page or a CI log."""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest
from emit_poison import POISON, poison_run
from emit_sample import sample

from initlint.emit import FORMATS, Options, emit, render
from initlint.findings import Run


@pytest.fixture(scope="module")
def hostile() -> Run:
    return poison_run(sample())


def _render(format: str, run: Run) -> str:
    return render(format, run, Options(sources=lambda file: [f"x = 1  # {POISON}"] * 60, verbose=1))


@pytest.mark.parametrize("format", list(FORMATS))
def test_no_control_character_gets_out(format: str, hostile: Run) -> None:
    text = _render(format, hostile)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)


@pytest.mark.parametrize("format", list(FORMATS))
def test_what_is_written_can_be_encoded(format: str, hostile: Run) -> None:
    assert _render(format, hostile).encode("utf-8")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_narrow_encodings_get_a_spelling_they_can_take(encoding: str) -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding)
    emit("text", sample(), out)
    out.flush()
    assert b"layers" in raw.getvalue()
    assert (b"0.71x" in raw.getvalue()) == (encoding != "utf-8")  # cp1252 lacks the arrow of the table


class _Tags(HTMLParser):
    """Collects elements and checks that they nest."""

    VOID = frozenset({"meta", "input", "br", "path", "circle"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def _tags(text: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = _Tags()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser.seen


def test_no_element_is_injected_into_the_page(hostile: Run) -> None:
    tags = _tags(_render("html", hostile))
    assert [tag for tag, _ in tags].count("script") == 1
    assert not any(tag in ("img", "iframe", "link", "object", "embed") for tag, _ in tags)
    assert not any(name.startswith("on") for _, attributes in tags for name in attributes)
    addresses = [attributes["href"] or "" for tag, attributes in tags if tag == "a" and "href" in attributes]
    assert addresses
    assert all(address.startswith(("#", "https://", "http://")) for address in addresses)


def test_no_template_of_a_model_is_evaluated(hostile: Run) -> None:
    assert "{{ 7*7 }}" in _render("html", hostile)


def test_the_page_is_well_formed_and_its_ids_are_unique() -> None:
    tags = _tags(render("html", sample(), Options()))
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {
        (attributes["href"] or "")[1:] for tag, attributes in tags if (attributes.get("href") or "").startswith("#")
    }
    assert targets <= set(ids)


def test_workflow_commands_cannot_be_injected(hostile: Run) -> None:
    lines = _render("github", hostile).splitlines()
    commands = [line for line in lines if line.startswith("::")]
    assert len(commands) == 5
    assert len(lines) == 6
    for line in commands:
        head = re.match(r"::(error|warning|notice) ([^:]*)::", line)
        assert head, line
        assert all(part.count("=") >= 1 for part in head.group(2).split(","))


def test_xml_stays_well_formed(hostile: Run) -> None:
    root = ET.fromstring(_render("junit", hostile))
    assert root.get("failures") == "3"


def test_json_formats_stay_json(hostile: Run) -> None:
    for format in ("json", "sarif", "gitlab"):
        json.loads(_render(format, hostile))


def test_the_json_document_keeps_the_text_itself(hostile: Run) -> None:
    message = json.loads(_render("json", hostile))["findings"][0]["message"]
    assert "\x1b[31m" in message  # escaped in the document, unharmed for the program that reads it


def test_markdown_shows_markup_and_mentions_nobody(hostile: Run) -> None:
    text = _render("markdown", hostile)
    outside = re.sub(r"(?s)(`{3,}).*?\n\1", "", text)
    outside = re.sub(r"(?s)(?<![`\\])(`+)(?!`).*?(?<!`)\1(?!`)", "", outside)
    assert "<script" not in outside
    assert "<img" not in outside
    assert not re.search(r"@\w", outside)
    # a line that starts with <summary> is raw HTML (GFM, section 4.6, kind 6): brackets mean nothing there
    markup = re.sub(r"(?m)^<summary>.*$", "", outside)
    assert not re.search(r"(?<!\\)\[link\]\(", markup)
