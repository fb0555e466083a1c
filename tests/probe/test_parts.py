"""Models that cannot be called as a whole are called part by part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import initlint
from initlint.options import ProbeOptions
from initlint.probe.pipeline import analyse
from initlint.signal import propagate


def encoder() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)
    )


class Container(nn.Module):
    """Holds what others call: no forward, no training step, no method."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = encoder()
        self.decoders = nn.ModuleList([nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 4)) for _ in range(2)])


class Session(nn.Module):
    """Wants an object that nobody can make up, in a way that no tracer follows."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = encoder()
        self.head = nn.Linear(10, 4)

    def forward(self, session: Any) -> torch.Tensor:
        if not session.open:
            raise RuntimeError("the session is closed")
        return self.head(self.encoder(session.frames[int(session.current)]))


def test_a_container_consists_of_its_parts() -> None:
    facts = analyse(Container)
    assert facts.status == "analysed"
    assert facts.trace.ran
    assert facts.trace.parts == ("encoder", "decoders.0", "decoders.1")
    assert [entry.shape for entry in facts.inputs] == [(4, 3, 32, 32), (4, 20), (4, 20)]
    assert {layer.name: layer.consumer for layer in facts.layers} == {
        "encoder.0": "activation",
        "encoder.4": "output",
        "decoders.0.0": "activation",
        "decoders.0.2": "output",
        "decoders.1.0": "activation",
        "decoders.1.2": "output",
    }
    assert "forward" not in vars(Container())


def test_what_a_part_returns_is_not_read_as_logits() -> None:
    assert propagate(analyse(encoder)).init_loss is not None
    assert propagate(analyse(Container)).init_loss is None


def test_parts_of_a_model_with_a_forward_are_a_part_of_it() -> None:
    facts = analyse(Session)
    assert facts.status == "partial"
    assert "session" in facts.reason
    assert facts.trace.parts == ("encoder", "head")
    assert {layer.name for layer in facts.layers} == {"encoder.0", "encoder.4", "head"}


def test_inputs_that_somebody_gave_are_not_replaced_by_parts() -> None:
    facts = analyse(Session, options=ProbeOptions(inputs=("session: float32[4,10]",)))
    assert facts.status == "partial"
    assert facts.trace.parts == ()


def test_a_part_that_fails_is_taken_apart() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Session()
            self.table = nn.ParameterDict({"a": torch.zeros(3)})

    facts = analyse(Outer)
    assert facts.trace.parts == ("inner.encoder", "inner.head")
    assert facts.trace.not_reached == ("table.a",)
    assert facts.trace.coverage == pytest.approx(3 / 4)


def test_the_model_is_as_before() -> None:
    model = Container()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.eval()
    analyse(model)
    assert not model.training
    assert vars(model).keys() == vars(Container()).keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_the_depth_of_every_part_is_judged() -> None:
    def chain(layers: int, activation: type[nn.Module], init: Callable[[torch.Tensor], object]) -> nn.Module:
        found: list[nn.Module] = []
        for _ in range(layers):
            linear = nn.Linear(64, 64)
            init(linear.weight)
            nn.init.zeros_(linear.bias)
            found += [linear, activation()]
        return nn.Sequential(*found, nn.Linear(64, 10))

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.longer = chain(20, nn.Identity, nn.init.orthogonal_)
            self.shorter = chain(12, nn.Sigmoid, nn.init.xavier_uniform_)

    run = initlint.check(Pair)
    assert run.models[0].facts.trace.parts == ("longer", "shorter")
    (found,) = (finding for finding in run.findings if finding.code == "IL203")
    assert all(name.startswith("shorter.") for name in found.parameters)


class Agent(nn.Module):
    """An actor with twin critics, as reinforcement learning keeps them: no forward, and a method for playing."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 4))
        self.values = nn.ModuleList([nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1)) for _ in range(2)])

    def play(self, state: torch.Tensor) -> Any:
        with torch.no_grad():
            return torch.tanh(self.policy(state)).numpy()


class Student(nn.Module):
    """Has a method that trains most of it, and a head that another loss calls."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(12, 32)
        self.head = nn.Linear(32, 5)
        self.auxiliary = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 3))

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.body(features)))


def test_a_method_that_only_plays_is_not_the_model() -> None:
    facts = analyse(Agent)
    assert facts.status == "analysed"
    assert facts.trace.parts == ("policy", "values.0", "values.1")
    assert facts.trace.coverage == 1
    weights = [node for node in facts.nodes if node.parameters]
    assert len(weights) == 6
    assert not any(node.attrs.get("untrained") for node in weights)


def test_critics_beside_the_method_are_judged() -> None:
    class Wild(Agent):
        def __init__(self) -> None:
            super().__init__()
            nn.init.normal_(self.values[1][0].weight, std=30.0)  # type: ignore[index,arg-type]

    found = initlint.check(Wild).findings
    assert [finding.parameters for finding in found if finding.code == "IL101"] == [("values.1.0.weight",)]


def test_what_the_method_leaves_out_is_called_beside_it() -> None:
    facts = analyse(Student)
    assert facts.status == "analysed"
    assert facts.trace.parts == ("logits", "auxiliary")
    assert facts.trace.coverage == 1
    assert {layer.name: layer.consumer for layer in facts.layers} == {
        "body": "activation",
        "head": "output",
        "auxiliary.0": "activation",
        "auxiliary.2": "output",
    }


def test_what_a_forward_leaves_out_stays_out() -> None:
    class Whole(Student):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.logits(x)

    facts = analyse(Whole)
    assert facts.trace.parts == ()
    assert facts.trace.not_reached == tuple(f"auxiliary.{i}.{n}" for i in (0, 2) for n in ("weight", "bias"))


class Nets(nn.Module):
    """Two nets that train in turn, kept together by a module whose forward hands its input on."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 12))
        self.critic = nn.Sequential(nn.Linear(12, 30), nn.ReLU(), nn.Linear(30, 1))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=5.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Encoding(nn.Module):
    """Its forward is the lesser part of it."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(20, 8)
        self.decoder = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 20))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(x)


class Routed(nn.Module):
    """Chooses one of many like parts."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(20, 8) for _ in range(8)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.experts[0](x)


def test_a_forward_that_reads_no_parameter_does_not_stand_for_its_model() -> None:
    facts = analyse(Nets)
    assert (facts.status, facts.reason) == ("partial", "its forward reads none of its parameters")
    assert facts.trace.parts == ("generator", "critic")
    assert len(facts.layers) == 4
    report = initlint.check(Nets)
    assert {layer for f in report.findings for layer in f.layers} >= {"generator.0", "critic.0"}


def test_what_a_forward_leaves_out_is_called_beside_it_where_it_is_the_most() -> None:
    facts = analyse(Encoding)
    assert facts.status == "partial"
    assert facts.reason == "its forward reaches only 25 % of its layers"
    assert facts.trace.parts == ("forward", "decoder")
    assert [layer.name for layer in facts.layers] == ["encoder", "decoder.0", "decoder.2", "decoder.4"]


def test_parts_that_were_not_chosen_among_like_ones_are_not_left_out() -> None:
    facts = analyse(Routed)
    assert (facts.status, facts.trace.parts) == ("analysed", ())
    assert len(facts.trace.not_reached) == 14
