"""IL105: the fan of a grouped or depthwise convolution is counted over all groups."""

from __future__ import annotations

from typing import Any

from initlint.findings import Severity
from initlint.rule import bad, good
from initlint.suspect_rule import SuspectRule


class GroupedFan(SuspectRule):
    """The fan of a grouped or depthwise convolution is counted over all groups.

    ## What it does
    Finds grouped convolutions whose std comes from a fan that ignores `groups`: `mode="fan_out"`, Xavier, or the
    same formula by hand. PyTorch's own fan function sees only the tensor and cannot know the groups.

    ## Why is this bad?
    An input of a depthwise convolution reaches k*k outputs, not C*k*k. The filters come out sqrt(C) too small;
    without a norm behind each of them the signal vanishes within a few layers.

    ## Example
    ```python
    nn.init.kaiming_normal_(conv.weight, mode="fan_out")  # conv has groups=C
    ```

    ## Use instead
    ```python
    nn.init.normal_(conv.weight, std=math.sqrt(2 / (k * k * conv.out_channels / conv.groups)))
    ```

    ## Known problems
    Where a norm follows, the scale is hidden and the finding is a note.

    ## References
    - https://github.com/pytorch/pytorch/issues/23854
    - https://github.com/huggingface/pytorch-image-models/issues/84
    """

    code = "IL105"
    name = "grouped-fan"
    family = "variance"
    severity = Severity.ERROR
    sources = (
        "https://github.com/pytorch/pytorch/issues/23854",
        "https://github.com/huggingface/pytorch-image-models/issues/84",
    )
    reason = "grouped_fan"
    kind = "mistake"

    @bad
    def depthwise_fan_out() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(4):
            conv = nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            layers += [conv, nn.ReLU()]
        return nn.Sequential(*layers)

    @good
    def depthwise_fan_in() -> Any:
        from torch import nn

        layers: list[nn.Module] = []
        for _ in range(4):
            conv = nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False)
            nn.init.kaiming_normal_(conv.weight, mode="fan_in", nonlinearity="relu")
            layers += [conv, nn.ReLU()]
        return nn.Sequential(*layers)
