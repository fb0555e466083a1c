"""An image classifier with initialisation bugs that no test would notice: initlint examples/vanishing_classifier.py"""

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.pointwise = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.depthwise(x))
        return torch.relu(self.pointwise(x))


class Classifier(nn.Module):
    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, padding=1)
        self.body = nn.Sequential(*[Block(64) for _ in range(6)])
        self.temperature = nn.Parameter(torch.empty(1))  # never written
        self.head = nn.Linear(64, classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                # fan_out counts the outputs of all groups: depthwise filters come out 8 times too small
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(m.bias)
            if isinstance(m, nn.BatchNorm2d):  # the model has none: this branch never runs
                nn.init.ones_(m.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(torch.relu(self.stem(x)))
        return self.head(x.mean(dim=(2, 3))) * self.temperature


def example_inputs() -> tuple[torch.Tensor]:
    return (torch.randn(4, 3, 16, 16),)
