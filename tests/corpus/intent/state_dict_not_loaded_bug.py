import torch
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        layers = []
        for _ in range(5):
            layers += [nn.Linear(32, 32), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(32, 4)
        sd = self.state_dict()
        for k in sd:
            if k.endswith("weight"):
                sd[k] = torch.randn_like(sd[k]) * 0.25

    def forward(self, x):
        return self.head(self.body(x))


def example_inputs():
    return (torch.randn(16, 32),)
