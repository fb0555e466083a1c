"""IL106: the fan is taken from the wrong axis of the weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from initlint.findings import Severity
from initlint.rule import bad, good
from initlint.suspect_rule import SuspectRule


class WrongFanAxis(SuspectRule):
    """The fan is taken from the wrong axis of the weight.

    ## What it does
    Finds weights whose std comes from the wrong dimension: transposed convolutions (stored in, out), matrices used
    as `x @ W` (in, out), stacked weights of experts or relations, which nn.init takes for one convolution, rows of a
    matrix that hold whole kernels, kernels of which an axis is left out, PyTorch's 1 / sqrt(fan_in) over the outputs,
    and code tables scaled by the number of entries.

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
