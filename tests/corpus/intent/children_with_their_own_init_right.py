import torch
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(32, 32)
        nn.init.orthogonal_(self.fc.weight, gain=2**0.5)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x):
        return torch.relu(self.fc(x))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(32, 32)
        self.b1, self.b2 = Block(), Block()
        self.head = nn.Linear(32, 4)
        for m in self.children():
            if isinstance(m, nn.Linear):
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
                nn.init.zeros_(m.bias)

    def forward(self, x):
        return self.head(self.b2(self.b1(torch.relu(self.stem(x)))))


def example_inputs():
    return (torch.randn(16, 32),)
