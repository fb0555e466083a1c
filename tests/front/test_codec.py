"""The codec round-trips every class of facts and findings, through JSON."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import types
import typing
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from initlint import facts, findings
from initlint.codec import from_plain, to_plain
from initlint.facts import Measured, ModelFacts, Node, Operator, Site, TensorStats, Write
from initlint.findings import Finding, ModelReport, Severity

CLASSES = [
    value
    for module in (facts, findings)
    for value in vars(module).values()
    if dataclasses.is_dataclass(value) and value.__module__ == module.__name__
]
_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)


def _values(kind: Any, depth: int) -> st.SearchStrategy[Any]:
    """Values of an annotated type, written without the codec's own reading of annotations."""
    simple = {int: st.integers(-5, 9), str: st.text(max_size=4), bool: st.booleans(), float: st.floats(-9, 9)}
    if kind in simple:
        return simple[kind]
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return st.sampled_from(list(kind))
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _instances(kind, depth - 1)
    if origin in (typing.Union, types.UnionType):
        members = [a for a in arguments if a is not type(None)]
        return (st.none() | _values(members[0], depth)) if len(members) == 1 else _scalars(arguments)
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(_values(arguments[0], depth), max_size=0 if depth < 0 else 2).map(tuple)
    if origin is tuple:
        return st.tuples(*(_values(a, depth) for a in arguments))
    return st.dictionaries(st.text(max_size=3), _values(arguments[1], depth), max_size=0 if depth < 0 else 2)


def _scalars(arguments: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    nested = any(typing.get_origin(a) in (list, dict) for a in arguments)
    return _PLAIN if nested else st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-5, 5) | st.text(max_size=3)


def _instances(cls: Any, depth: int = 2) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(cls)
    required = {f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING}
    names = [f.name for f in dataclasses.fields(cls) if depth >= 0 or f.name in required]
    return st.builds(cls, **{name: _values(hints[name], depth) for name in names})


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("compact", [False, True])
def test_every_class_survives_json(cls: Any, compact: bool) -> None:
    @settings(max_examples=15, deadline=None)
    @given(_instances(cls, 1))
    def check(value: Any) -> None:
        text = json.dumps(to_plain(value, compact=compact), allow_nan=False)
        assert from_plain(cls, json.loads(text)) == value

    check()


def test_compact_leaves_out_defaults_only() -> None:
    node = Node(0, "linear", (1,), shape=(2, 3), attrs={"a": 1})
    assert to_plain(node, compact=True) == {
        "index": 0,
        "op": "linear",
        "inputs": [1],
        "shape": [2, 3],
        "attrs": {"a": 1},
    }
    assert set(to_plain(node)) == {field.name for field in dataclasses.fields(Node)}


def test_default_none_and_axis_zero_are_told_apart() -> None:
    # ``Node.batch`` is 0 by default and None for "no batch axis": a falsy value is not the default.
    assert from_plain(Node, to_plain(Node(0, "relu", batch=None), compact=True)).batch is None
    assert from_plain(Node, to_plain(Node(0, "relu", batch=0), compact=True)).batch == 0


def test_nan_and_infinity_become_null() -> None:
    stats = TensorStats(4, math.nan, math.inf, 0.0, math.nan, -math.inf, 1.0)
    plain = to_plain(stats)
    assert (plain["mean"], plain["second"], plain["kurtosis"], plain["minimum"]) == (None, None, None, None)
    back = from_plain(TensorStats, plain)
    assert math.isnan(back.mean), "a float that must be there comes back as NaN"
    assert math.isnan(back.second)
    assert back.kurtosis is None, "one that may be absent comes back as absent"
    assert json.dumps(to_plain(Write("clamp_", 0, {"max": math.inf, "l": [math.nan, 1.0]})), allow_nan=False)


def test_severity_goes_by_name() -> None:
    finding = Finding("IL101", "x", Severity.ERROR, "m", "a.py::A")
    assert to_plain(finding)["severity"] == "ERROR"
    assert from_plain(Finding, to_plain(finding)).severity is Severity.ERROR


def test_decoded_instances_are_whole() -> None:
    # Decoding fills slots without calling __init__: defaults must be there, and mutable ones must not be shared.
    first, second = (from_plain(Node, {"index": i, "op": "relu"}) for i in range(2))
    assert first == Node(0, "relu")
    assert first.attrs is not second.attrs
    assert hash(from_plain(Site, {"file": "a.py", "line": 1})) == hash(Site("a.py", 1))


@pytest.mark.parametrize(
    "data",
    [None, 3, [], "text", {"line": 1}, {"file": "a.py", "line": 1, "colour": "red"}],
    ids=["null", "number", "list", "text", "field missing", "field unknown"],
)
def test_other_shapes_are_rejected(data: Any) -> None:
    with pytest.raises(ValueError, match="Site"):
        from_plain(Site, data)


def test_collections_and_nested_reports() -> None:
    report = ModelReport(ModelFacts("A", "a.py::A", "a.py"), profile=({"label": "x", "q": 1.0},))
    assert from_plain(ModelReport, json.loads(json.dumps(to_plain(report)))) == report
    assert to_plain((Site("a.py", 1), {"k": Site("b.py", 2)}), compact=True) == [
        {"file": "a.py", "line": 1},
        {"k": {"file": "b.py", "line": 2}},
    ]


def test_nodes_cost_a_small_part_of_what_asdict_takes(lines_run: Callable[[Callable[[], object]], int]) -> None:
    site = Site("model.py", 3, 1, "forward", "x = self.fc(x)")
    operator = Operator(64.0, 64.0, 1.0, 1.0)
    nodes = tuple(
        Node(i, "linear", (i - 1,), (2, 64), operator=operator, site=site, measured=Measured(0.0, 1.0))
        for i in range(1_000)
    )
    model = ModelFacts("A", "a.py::A", "a.py", nodes=nodes)
    plain: list[object] = []
    back: list[ModelFacts] = []
    there = lines_run(lambda: plain.append(to_plain(model, compact=True)))
    here = lines_run(lambda: back.append(from_plain(ModelFacts, json.loads(json.dumps(plain[0])))))
    # A graph of ten thousand nodes takes 0.6 s there and back on one slow core; asdict would take over 4 s one way.
    assert there + here < lines_run(lambda: dataclasses.asdict(model)) / 3
    assert back == [model]


def test_places_that_are_equal_are_one_object() -> None:
    """A model's writes name the same few lines thousands of times."""
    write = to_plain(Write("normal_", 1, site=Site("m.py", 3, 5, "Net.__init__", "nn.init.normal_(w)")))
    first, second = (from_plain(Write, json.loads(json.dumps(write))) for _ in range(2))
    assert first is not second
    assert first == second
    assert first.site is second.site


def test_equal_strings_are_decoded_to_one_object() -> None:
    models = [from_plain(ModelFacts, json.loads('{"name": "Net of many", "target": "t", "file": "f"}')) for _ in "ab"]
    assert models[0].name is models[1].name
