"""A plain net to try schemes on: initlint 'examples/choose_init.py::Net(scheme="xavier")'"""

import torch
from torch import nn

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "selu": nn.SELU}
SCHEMES = {
    "kaiming": lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"),
    "xavier": lambda w: nn.init.xavier_normal_(w),
    "lecun": lambda w: nn.init.kaiming_normal_(w, nonlinearity="linear"),
    "orthogonal": lambda w: nn.init.orthogonal_(w),
    "constant": lambda w: nn.init.constant_(w, 0.01),
    "wide": lambda w: nn.init.normal_(w),
}


class Net(nn.Module):
    """Layers of one width without norms or shortcuts, where every scheme shows its true face."""

    def __init__(self, scheme: str = "kaiming", activation: str = "relu", depth: int = 20, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [nn.Linear(128, 128), ACTIVATIONS[activation]()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(128, classes)
        if scheme in SCHEMES:  # any other name leaves PyTorch's default
            for layer in self.body[::2]:
                SCHEMES[scheme](layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def example_inputs() -> tuple[torch.Tensor]:
    return (torch.randn(64, 128),)
