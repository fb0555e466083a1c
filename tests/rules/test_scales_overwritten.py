"""A scale that was chosen for one weight is lost to a sweep that comes after it, and not to one that came before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import initlint
from initlint.findings import Severity

WIDTH = 64


def layer(inputs: int, outputs: int, gain: float = 2**0.5) -> nn.Linear:
    made = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(made.weight, gain)
    nn.init.zeros_(made.bias)
    return made


class Policy(nn.Module):
    """All of its layers come from one helper, with a gain of its own for the head."""

    def __init__(self, gain: float = 0.01) -> None:
        super().__init__()
        self.body = nn.Sequential(layer(16, WIDTH), nn.Tanh(), layer(WIDTH, WIDTH), nn.Tanh())
        self.head = layer(WIDTH, 5, gain)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Recurrent(nn.Module):
    """A policy and a recurrent net beside it."""

    def __init__(self, policy: Policy, swept: str) -> None:
        super().__init__()
        self.policy, self.rnn = policy, nn.GRU(WIDTH, WIDTH)
        modules: dict[str, nn.Module] = {"all": self, "own": self.rnn}
        for name, p in modules[swept].named_parameters():
            if p.ndim > 1:
                for part in p.data.chunk(3 if "rnn" in name or swept == "own" else 1):
                    nn.init.orthogonal_(part, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.policy.head(self.rnn(self.policy.body(x))[0])


def redraw(m: nn.Module) -> None:
    if isinstance(m, nn.Linear):
        nn.init.xavier_uniform_(m.weight)


def helper(gain: float = 0.01) -> nn.Module:
    return Policy(gain).apply(redraw)


def scaled_by_hand() -> nn.Module:
    model = Policy(1.0)
    model.head.weight.data.mul_(0.01)
    return model.apply(redraw)


def bounds() -> nn.Module:
    model = Policy(1.0)
    nn.init.uniform_(model.head.weight, -1e-3, 1e-3)
    return model.apply(redraw)


def special_last() -> nn.Module:
    model = Policy(1.0).apply(redraw)
    nn.init.orthogonal_(model.head.weight, 0.01)
    return model


def scaled_last() -> nn.Module:
    model = Policy(1.0).apply(redraw)
    with torch.no_grad():
        model.head.weight.mul_(0.01)
    return model


def loaded() -> nn.Module:
    model = helper()
    model.load_state_dict(Policy(1.0).state_dict())
    return model


class Resets(nn.Linear):
    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=1e-3)
        nn.init.zeros_(self.bias)


def reset_again() -> nn.Module:
    model = nn.Sequential(Resets(16, WIDTH), nn.Tanh(), Resets(WIDTH, 5))
    for m in model.modules():
        if isinstance(m, Resets):
            m.reset_parameters()
    return model


def placeholder() -> nn.Module:
    model = Policy(1.0)
    model.head.weight = nn.Parameter(torch.randn(5, WIDTH) * 1e-3)
    return model.apply(redraw)


LOST: dict[str, Callable[[], nn.Module]] = {
    "helper": helper,
    "scaled by hand": scaled_by_hand,
    "bounds": bounds,
    "wrapper": lambda: Recurrent(Policy(), "all"),
}
RIGHT: dict[str, Callable[[], nn.Module]] = {
    "special last": special_last,
    "scaled last": scaled_last,
    "a checkpoint over it": loaded,
    "the same function again": reset_again,
    "schemes of a like scale": lambda: helper(0.5),
    "a placeholder": placeholder,
    "only the wrapper's own": lambda: Recurrent(Policy(), "own"),
}


def found(make: Callable[[], nn.Module]) -> list[tuple[Severity, list[str]]]:
    run = initlint.check(make, inputs=(torch.randn(6, 3, 16),), select=["IL404"])
    assert not run.not_analysed
    return [(f.severity, list(f.parameters)) for f in run.findings]


@pytest.mark.parametrize("name", LOST)
def test_the_scale_is_lost(name: str) -> None:
    ((severity, names),) = found(LOST[name])
    assert severity is Severity.WARNING
    assert [n.removeprefix("policy.") for n in names] == ["head.weight"]


@pytest.mark.parametrize("name", RIGHT)
def test_the_scale_is_there(name: str) -> None:
    assert not found(RIGHT[name])


def draw(module: nn.Conv2d, std: float, bias: float = 0.0) -> None:
    nn.init.normal_(module.weight, std=std)
    if module.bias is not None:
        nn.init.constant_(module.bias, bias)


class Detector(nn.Module):
    """One helper writes the head's prior and, in a loop, all other layers."""

    def __init__(self, *, prior_last: bool) -> None:
        super().__init__()
        self.stem, self.scores = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 80, 1)
        if not prior_last:
            draw(self.scores, 0.01, -4.6)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                draw(m, 0.01)
        if prior_last:
            draw(self.scores, 0.01, -4.6)

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(torch.relu(self.stem(x))).sigmoid()


@pytest.mark.parametrize("prior_last", [False, True])
def test_one_helper_can_make_both_writes(prior_last: bool) -> None:
    run = initlint.check(lambda: Detector(prior_last=prior_last), inputs=(torch.randn(2, 3, 16, 16),), select=["IL404"])
    found = [finding for finding in run.findings if "scores.bias" in finding.parameters]
    assert bool(found) is not prior_last
    for finding in found:
        assert finding.site is not None
        assert finding.site.text == "draw(m, 0.01)"
        assert finding.related[0].line < finding.site.line


class Residual(nn.Module):
    """Writers into the residual stream get 1 / sqrt(2 n) of the std of all other layers."""

    def __init__(self, *, scaled_last: bool, depth: int = 4) -> None:
        super().__init__()
        self.up = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(depth)])
        self.down = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(depth)])
        if scaled_last:
            self.apply(self._init_weights)
        for layer in self.down:
            nn.init.normal_(layer.weight, std=0.1 / (2 * depth) ** 0.5)
        if not scaled_last:
            self.apply(self._init_weights)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        for up, down in zip(self.up, self.down, strict=True):
            x = x + down(torch.relu(up(x)))
        return x


@pytest.mark.parametrize("scaled_last", [False, True])
def test_the_scale_of_residual_writers_is_lost_to_the_same_class_s_sweep(scaled_last: bool) -> None:
    run = initlint.check(lambda: Residual(scaled_last=scaled_last), inputs=(torch.randn(2, WIDTH),), select=["IL404"])
    names = {name for finding in run.findings for name in finding.parameters}
    assert names == (set() if scaled_last else {f"down.{i}.weight" for i in range(4)})
