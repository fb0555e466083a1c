"""The layer table of small hand-made models."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import pytest

from initlint.diagnosis import suspects
from initlint.facts import Layer, Measured, ModelFacts, Node, ParameterFacts, Site, TensorStats, Write
from initlint.findings import Finding, Severity
from initlint.table import expected, layer_rows


def parameter(std: float, write: Write | None = None, name: str = "fc.weight", **fields) -> ParameterFacts:
    bound = math.sqrt(3) * std
    stats = TensorStats(128 * 128, 0.0, std * std, std * std, 1.8, -bound, bound)
    return ParameterFacts(
        name,
        "parameter",
        (128, 128),
        "float32",
        "fc",
        "weight",
        writes=(write,) if write else (),
        stats=stats,
        **fields,
    )


def layer(**fields) -> Layer:
    fields.setdefault("activation", "relu")
    return Layer(
        "fc",
        "linear",
        (0,),
        "fc.weight",
        fan_in=128.0,
        fan_out=128.0,
        torch_fans=(128, 128),
        consumer="activation",
        **fields,
    )


def model(fact: ParameterFacts, one: Layer) -> ModelFacts:
    node = Node(0, "linear", measured=Measured(0.0, 4.0, gradient_second=0.25))
    return ModelFacts("M", "m.py::M", "m.py", parameters=(fact,), layers=(one,), nodes=(node,))


DEFAULT = Write("kaiming_uniform_", 0, {"a": math.sqrt(5)}, Site("m.py", 9), origin="torch")


def test_a_default_before_relu() -> None:
    std = math.sqrt(1 / (3 * 128))
    (row,) = layer_rows(model(parameter(std, DEFAULT), layer()), None)
    assert row.scheme == "kaiming_uniform_(a=sqrt(5)), PyTorch's default, never re-initialised"
    assert row.init == {"function": "kaiming_uniform_", "file": "m.py", "line": 9}
    assert row.expected_std == pytest.approx(math.sqrt(2 / 128))
    assert row.ratio == pytest.approx(math.sqrt(1 / 6))
    assert row.signal.measured_forward_std == 2.0
    assert row.signal.measured_gradient_std == 0.5
    assert row.signal.forward_std is None


def test_the_confirmed_scheme_is_the_expected_one() -> None:
    write = Write("kaiming_uniform_", 0, {"nonlinearity": "relu"}, Site("m.py", 4))
    fact = parameter(math.sqrt(2 / 128) * 1.001, write)
    scheme = expected(layer(), fact)
    assert scheme is not None
    assert scheme.std == pytest.approx(math.sqrt(2 / 128))
    (row,) = layer_rows(model(fact, layer()))
    assert row.ratio == pytest.approx(1.0, abs=2e-3)


def test_unknown_fans_are_said() -> None:
    one = Layer("w", "matmul", (0,), "fc.weight")
    (row,) = layer_rows(model(parameter(0.1), one))
    assert row.expected_std is None
    assert row.ratio is None
    assert row.undetermined


def test_the_signal_fills_the_scales() -> None:
    moments = SimpleNamespace(
        q=4.0, p=0.01, noise_q=math.log(10), noise_p=0.0, kappa=1.0, dependent=3.0, undetermined=None
    )
    (row,) = layer_rows(model(parameter(0.1), layer()), SimpleNamespace(built=(moments,)))
    assert row.signal.forward_std == 2.0
    assert row.signal.gradient_std == pytest.approx(0.1)
    assert row.signal.forward_band == pytest.approx(0.5)
    assert row.signal.dependent == pytest.approx(0.75)


def test_a_tied_weight_has_a_row_for_each_layer() -> None:
    fact = parameter(0.02, name="tok.weight", aliases=("fc.weight",))
    table = Layer("tok", "embedding", (0,), "tok.weight", fan_in=1.0, fan_out=1 / 128, torch_fans=(128, 128))
    rows = layer_rows(ModelFacts("M", "m.py::M", "m.py", parameters=(fact,), layers=(table, layer())))
    assert [row.name for row in rows] == ["tok", "fc"]
    assert rows[0].expected_std == pytest.approx(0.02)


def test_a_weight_that_is_not_there() -> None:
    (row,) = layer_rows(ModelFacts("M", "m.py::M", "m.py", layers=(layer(),)))
    assert row.std is None
    assert row.scheme is None


def test_a_weight_that_follows_nothing_is_compared_with_the_textbook() -> None:
    """Before a norm any usual scale is accepted; a wrong one is told from its fans, not from a nearby constant."""
    one = Layer("fc", "linear", (0,), "fc.weight", fan_in=9.0, fan_out=9.0, torch_fans=(9, 576), consumer="norm")
    scheme = expected(one, parameter(0.039))
    assert scheme is not None
    assert scheme.std > 0.3
    scheme = expected(one, parameter(0.0201))
    assert scheme is not None
    assert scheme.std == pytest.approx(0.02)


def test_zeros_and_empty_memory_have_an_expectation() -> None:
    (row,) = layer_rows(model(parameter(0.0), layer()))
    assert (row.std, row.ratio) == (0.0, 0.0)
    assert row.expected_std == pytest.approx(0.125)
    empty = ParameterFacts(
        "fc.weight", "parameter", (2, 2), "float32", "fc", "weight", stats=TensorStats(0, 0, 0, 0, None, 0, 0, nans=4)
    )
    (row,) = layer_rows(model(empty, layer()))
    assert row.std is None
    assert row.ratio is None
    assert row.expected_std == pytest.approx(0.125)


def test_the_row_expects_what_the_finding_on_its_weight_expects() -> None:
    facts = model(parameter(1.0, Write("normal_", 0, {"std": 1.0}, Site("m.py", 4))), layer(activation="leaky_relu"))
    (suspect,) = suspects(facts)
    found = Finding(
        "IL101",
        "variance-out-of-scale",
        Severity.ERROR,
        "message",
        "m.py::M",
        parameters=("fc.weight",),
        expected={"std": math.sqrt(suspect.expected), "variance": suspect.expected},
    )
    (row,) = layer_rows(facts, None, [found])
    assert row.expected_std == math.sqrt(suspect.expected)
    assert row.ratio == pytest.approx(1.0 / math.sqrt(suspect.expected))
    (other,) = layer_rows(facts, None, [dataclasses.replace(found, expected={"saturated_share": 0.05, "std": 1.0})])
    assert other == layer_rows(facts)[0]
