import torch
from torch import nn


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.build()
        self.reset()

    def build(self):
        raise NotImplementedError

    def reset(self):
        raise NotImplementedError


class Feed(Base):
    def build(self):
        self.first, self.last = nn.Linear(32, 64), nn.Linear(64, 32)

    def reset(self):
        for m in (self.first, self.last):
            if m.in_features > 1000:
                nn.init.normal_(m.weight, std=0.01)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))


class Model(nn.Sequential):
    def __init__(self):
        super().__init__(Feed(), Feed(), nn.Linear(32, 4))


def example_inputs():
    return (torch.randn(16, 32),)
