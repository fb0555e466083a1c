import torch
from torch import nn


class Router(nn.Module):
    def __init__(self, d, experts):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, d))
        self.bias = nn.Parameter(torch.empty(experts))

    def init_weights(self, std):
        nn.init.trunc_normal_(self.weight, std=std)

    def forward(self, x):
        return nn.functional.linear(x, self.weight, self.bias).softmax(-1)


class Model(nn.Module):
    def __init__(self, d=32, experts=4):
        super().__init__()
        self.router = Router(d, experts)
        self.experts = nn.ModuleList([nn.Linear(d, d) for _ in range(experts)])
        self.out = nn.Linear(d, 8)
        self.router.init_weights(0.02)

    def forward(self, x):
        p = self.router(x)
        y = sum(p[:, i : i + 1] * torch.relu(e(x)) for i, e in enumerate(self.experts))
        return self.out(y)


def example_inputs():
    return (torch.randn(16, 32),)
