import torch
from torch import nn


class Base(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(d, d), nn.Linear(d, 5)
        nn.init.constant_(self.fc2.bias, -2.0)


class Model(Base):
    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.fc2.bias)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


def example_inputs():
    return (torch.randn(4, 32),)
