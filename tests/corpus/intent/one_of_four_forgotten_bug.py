import torch
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1, self.c2, self.c3, self.c4 = (nn.Linear(32, 32) for _ in range(4))
        self.head = nn.Linear(32, 4)
        nn.init.kaiming_normal_(self.c1.weight, nonlinearity="relu")
        nn.init.kaiming_normal_(self.c2.weight, nonlinearity="relu")
        nn.init.kaiming_normal_(self.c4.weight, nonlinearity="relu")

    def forward(self, x):
        for f in (self.c1, self.c2, self.c3, self.c4):
            x = torch.relu(f(x))
        return self.head(x)


def example_inputs():
    return (torch.randn(16, 32),)
