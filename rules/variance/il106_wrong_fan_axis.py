"""IL106: the fan is taken from the wrong axis of the weight."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from initlint.facts import Layer, ParameterFacts, Write
from initlint.findings import Severity
from initlint.rule import Context, Outcome, bad, by_cause, good, site_of
from initlint.signal import Nominal
from initlint.signal.verdict import mistake
from initlint.suspect_rule import SuspectRule
from initlint.theory.miscounts import EXACT, SMALL

# Functions that draw anew in each forward.
_DRAWS = re.compile(r"\b(rand\w*|normal\w*|gumbel\w*)\(")


class WrongFanAxis(SuspectRule):
    """The fan is taken from the wrong axis of the weight.

    ## What it does
    Finds weights whose std comes from the wrong dimension: transposed convolutions (stored in, out), matrices used
    as `x @ W` (in, out), stacked weights of experts or relations, which nn.init takes for one convolution, rows of a
    matrix that hold whole kernels, kernels of which an axis is left out or added where it multiplies, PyTorch's
    1 / sqrt(fan_in) over the outputs, and code tables scaled by the number of entries.

    ## Why is this bad?
    nn.init assumes (out, in, kernel...). In any other layout fan_in and fan_out change places or multiply with the
    stack, and the variance is off by the ratio of the two.

    ## Example
    ```python
    nn.init.xavier_uniform_(self.weight)  # (relations, in, out)
    ```

    ## Use instead
    ```python
    for w in self.weight:
        nn.init.xavier_uniform_(w)
    ```

    ## Known problems
    Near-square weights differ too little to be judged.

    ## References
    - https://github.com/pytorch/pytorch/issues/129834
    - https://github.com/dmlc/dgl/issues/6051
    - https://github.com/apple/axlearn/pull/907
    - https://github.com/kenshohara/3D-ResNets-PyTorch/issues/23 (two of three axes of a kernel)
    - https://github.com/udacity/deep-reinforcement-learning/issues/14 (outputs for inputs)
    - https://github.com/LeelaChessZero/lczero-training/pull/43 (the axes of a kernel added)
    - Fortunato et al. 2018, Noisy Networks for Exploration, section 3.2, arXiv:1706.10295
    """

    code = "IL106"
    name = "wrong-fan-axis"
    family = "variance"
    severity = Severity.ERROR
    sources = (
        "https://github.com/pytorch/pytorch/issues/129834",
        "https://github.com/dmlc/dgl/issues/6051",
    )
    reason = "fan_axis"
    kind = "mistake"

    def check(self, context: Context) -> Iterator[Outcome]:
        yield from super().check(context)
        noisy = {
            sigma.name: (sigma, layer)
            for layer in context.facts.layers
            if (sigma := context.parameter(layer.weight)) is not None and _strength(context, layer, sigma)
        }
        for group in by_cause(sigma for sigma, _ in noisy.values()).values():
            members = [noisy[sigma.name] for sigma in group]
            found = members if _follows_outputs(members) else [m for m in members if _by_outputs(m[1], m[0])]
            if found:
                yield self._noise(context, found)

    def _noise(self, context: Context, group: list[tuple[ParameterFacts, Layer]]) -> Outcome:
        sigma, layer = group[0]
        held, inputs, outputs = (sigma.stats.mean if sigma.stats else 0.0), layer.fan_in or 1.0, layer.fan_out or 1.0
        right = held * math.sqrt(outputs / inputs)
        effect = context.effect({p.name: Nominal(right, 0.0) for p, _ in group})
        return self.finding(
            context,
            f"`{sigma.name}`"
            + (f" and {len(group) - 1} more" if len(group) > 1 else "")
            + f" scales noise by {held:.4g}, which is {held * math.sqrt(outputs):.2g} over the root of the {outputs:g}"
            f" outputs: the root of the {inputs:g} inputs keeps the noise of the outputs the same for every width",
            parameters=[p.name for p, _ in group],
            severity=mistake(effect, context.signal, context.settings.optimizer, context.facts.dtype),
            site=context.computed_at(site_of(sigma)),
            expected={"sigma": right},
            actual={"sigma": held, "ratio": held / right},
            effect=effect,
            fix=f"nn.init.constant_(sigma, {held * math.sqrt(outputs):.2g} / math.sqrt(in_features))",
            topic="scale",
        )

    @bad
    def noise_by_outputs() -> Any:
        return _noisy(by_inputs=False)

    @bad
    def taps_left_out_of_filters_kept_channels_last() -> Any:
        return _channels_last(taps=False)

    @good
    def filters_kept_channels_last() -> Any:
        return _channels_last(taps=True)

    @good
    def noise_by_inputs() -> Any:
        return _noisy(by_inputs=True)

    @bad
    def noise_by_outputs_of_two_heads() -> Any:
        return _dueling(by_inputs=False)

    @good
    def noise_by_inputs_of_two_heads() -> Any:
        return _dueling(by_inputs=True)

    @bad
    def stacked_relations() -> Any:
        import torch
        from torch import nn

        class Relations(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.empty(4, 64, 64))
                nn.init.xavier_uniform_(self.weight)
                self.head = nn.Linear(64, 4)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.head(torch.relu(torch.einsum("ni,rio->no", x, self.weight)))

        return Relations()

    @bad
    def outputs_for_inputs() -> Any:
        from torch import nn

        model = nn.Sequential(nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 192), nn.ReLU(), nn.Linear(192, 4))
        for layer in (model[0], model[2]):
            weight = layer.get_parameter("weight")
            nn.init.uniform_(weight, -(weight.size(0) ** -0.5), weight.size(0) ** -0.5)
        return model

    @good
    def inputs_in_the_bound() -> Any:
        from torch import nn

        model = nn.Sequential(nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 192), nn.ReLU(), nn.Linear(192, 4))
        for layer in (model[0], model[2]):
            weight = layer.get_parameter("weight")
            nn.init.uniform_(weight, -(weight.size(1) ** -0.5), weight.size(1) ** -0.5)
        return model

    @bad
    def all_axes_added() -> Any:
        return _tower(sum)

    @good
    def axes_of_the_kernel_multiplied() -> Any:
        return _tower(lambda shape: math.prod(shape[2:]) * (shape[0] + shape[1]))

    @good
    def each_relation() -> Any:
        import torch
        from torch import nn

        class Relations(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.empty(4, 64, 64))
                for matrix in self.weight:
                    nn.init.xavier_uniform_(matrix)
                self.head = nn.Linear(64, 4)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.head(torch.relu(torch.einsum("ni,rio->no", x, self.weight)))

        return Relations()

    @bad
    def kernels_of_experts_in_rows() -> Any:
        from torch import nn

        return _mixed_kernels(lambda bank, shape: nn.init.kaiming_normal_(bank))

    @good
    def each_kernel_by_its_own_shape() -> Any:
        from torch import nn

        def init(bank: Any, shape: tuple[int, ...]) -> None:
            for kernel in bank:
                nn.init.kaiming_normal_(kernel.view(shape))

        return _mixed_kernels(init)


def _mixed_kernels(init: Callable[[Any, tuple[int, ...]], object]) -> Any:
    """Convolutions whose kernel each sample mixes from four, kept as the rows of a matrix."""
    import torch
    from torch import nn

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shape = (8, 8, 3, 3)
            self.route, self.bank = nn.Linear(8, 4), nn.Parameter(torch.empty(4, 576))
            with torch.no_grad():
                init(self.bank, self.shape)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            shares = torch.softmax(self.route(x.mean((2, 3))), 1) * 2
            kernels = (shares @ self.bank).view(-1, *self.shape[1:])
            y = nn.functional.conv2d(x.reshape(1, -1, *x.shape[2:]), kernels, padding=1, groups=x.shape[0])
            return torch.relu(y.view_as(x))

    return nn.Sequential(*(Mixed() for _ in range(4))), (torch.randn(2, 8, 12, 12),)


def _tower(count: Callable[[tuple[int, ...]], int]) -> Any:
    """Convolutions drawn by Glorot's formula, with this count for fan_in + fan_out."""
    import torch
    from torch import nn

    layers: list[nn.Module] = []
    for inputs, outputs in ((12, 32), (32, 40), (40, 32)):
        conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        nn.init.normal_(conv.weight, std=math.sqrt(2 / count(tuple(conv.weight.shape))))
        layers += [conv, nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 64, 8)), (torch.randn(2, 12, 8, 8),)


def _strength(context: Context, layer: Layer, sigma: ParameterFacts) -> bool:
    """Whether a trainable constant multiplies noise that is drawn for a linear layer."""
    stats = sigma.stats
    constant = stats is not None and stats.distinct == 1 and stats.mean > 0 and sigma.requires_grad
    if layer.kind != "linear" or not constant or not layer.fan_in or not layer.fan_out:
        return False
    made = [str(context.facts.nodes[index].attrs.get("expr", "")) for index in layer.nodes]
    return any(_DRAWS.search(text) or _drawn(context, sigma, text) for text in made)


def _follows_outputs(members: list[tuple[ParameterFacts, Layer]]) -> bool:
    """Whether the values that one line gives to several layers follow the root of their outputs, and nothing else.

    One value of a small layer (0.5 for one output, 0.25 for four) may be anything. Two that differ by the root of the
    ratio of the outputs to rounding, while the inputs do not, are no chance.
    """
    held = [
        (p.stats.mean, layer.fan_in, layer.fan_out)
        for p, layer in members
        if p.stats and layer.fan_in and layer.fan_out
    ]
    by_inputs = [value * math.sqrt(inputs) for value, inputs, _ in held]
    by_outputs = [value * math.sqrt(outputs) for value, _, outputs in held]
    return _same(by_outputs) and not _same(by_inputs) and not _same([value for value, *_ in held])


def _same(values: list[float]) -> bool:
    return all(math.isclose(value, values[0], rel_tol=EXACT) for value in values)


def _by_outputs(layer: Layer, sigma: ParameterFacts) -> bool:
    """Whether a constant is a round number over the root of the outputs, not of the inputs."""
    inputs, outputs = layer.fan_in or 0.0, layer.fan_out or 0.0
    if min(inputs, outputs) <= SMALL or inputs == outputs:
        return False
    held = sigma.stats.mean if sigma.stats is not None else 0.0
    return not (_round(held) or _round(held * math.sqrt(inputs))) and _round(held * math.sqrt(outputs))


def _drawn(context: Context, sigma: ParameterFacts, made: str) -> bool:
    """Whether a buffer that was drawn at random is part of a weight: noise that a method draws anew.

    What is made of buffers alone (the product of a row and a column of noise) is a constant of the trace: it is told
    by the buffers of the module, vectors of the weight's two sizes.
    """
    drawn = [p for p in context.facts.parameters if p.kind == "buffer" and p.last is not None and _random(p.last)]
    if any(p.name in made for p in drawn):
        return True
    own = {p.shape for p in drawn if p.module == sigma.module}
    return "constant" in made and all((size,) in own for size in sigma.shape)


def _random(write: Write) -> bool:
    return write.random or any(_DRAWS.match(f"{function}(") for function in _chain(write))


def _chain(write: Write) -> list[str]:
    """The functions that made the values which a write copied."""
    chain = write.args.get("chain")
    return [str(function) for function in chain] if isinstance(chain, list | tuple) else []


def _round(value: float) -> bool:
    return math.isclose(float(f"{value:.2g}"), value, rel_tol=EXACT)


def _noisy(*, by_inputs: bool) -> Any:
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Noisy(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.mean = nn.Linear(inputs, outputs)
            self.sigma = nn.Parameter(torch.full((outputs, inputs), 0.5 / (inputs if by_inputs else outputs) ** 0.5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            noise = torch.outer(torch.randn(self.sigma.shape[0]), torch.randn(self.sigma.shape[1]))
            return F.linear(x, self.mean.weight + self.sigma * noise, self.mean.bias)

    return nn.Sequential(nn.Linear(16, 128), nn.ReLU(), Noisy(128, 6)), (torch.randn(8, 16),)


def _dueling(*, by_inputs: bool) -> Any:
    """Two small heads with factorised noise that a method draws (Fortunato et al. 2018, eq. 10)."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Noisy(nn.Module):
        row: torch.Tensor
        column: torch.Tensor

        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.mean = nn.Linear(inputs, outputs)
            self.sigma = nn.Parameter(torch.full((outputs, inputs), 0.4 / (inputs if by_inputs else outputs) ** 0.5))
            self.register_buffer("row", torch.zeros(inputs))
            self.register_buffer("column", torch.zeros(outputs))
            self.draw()

        def draw(self) -> None:
            for noise in (self.row, self.column):
                drawn = torch.randn(noise.shape)
                noise.copy_(drawn.sign() * drawn.abs().sqrt())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            noise = torch.outer(self.column, self.row)
            return F.linear(x, self.mean.weight + self.sigma * noise, self.mean.bias)

    class Dueling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.value, self.advantage = nn.Linear(16, 128), Noisy(128, 1), Noisy(128, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = torch.relu(self.body(x))
            advantage = self.advantage(h)
            return self.value(h) + advantage - advantage.mean(-1, keepdim=True)

    return Dueling(), (torch.randn(8, 16),)


def _channels_last(*, taps: bool) -> Any:
    import math

    import torch
    from torch import nn

    class Conv(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            fan = inputs * (9 if taps else 1)
            self.filter = nn.Parameter(torch.randn(3, 3, inputs, outputs) * math.sqrt(2.0 / fan))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(nn.functional.conv2d(x, self.filter.permute(3, 2, 0, 1), padding=1))

    body = nn.Sequential(Conv(12, 40), Conv(40, 48), Conv(48, 56), Conv(56, 24))
    return nn.Sequential(body, nn.Flatten(), nn.Linear(24 * 64, 4)), (torch.randn(4, 12, 8, 8),)
