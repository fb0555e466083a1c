import torch
import torch.nn.functional as F
from torch import nn


class Mix(nn.Module):
    def __init__(self, a, b, bias_value=None):
        super().__init__()
        self.bias_value = bias_value
        self.weight = nn.Parameter(torch.empty(b, a))
        self.register_parameter("bias", nn.Parameter(torch.empty(b)))
        self.reset()

    def reset(self):
        nn.init.xavier_uniform_(self.weight)
        if self.bias_value:
            nn.init.constant_(self.bias, self.bias_value)

    def forward(self, x):
        return F.linear(x, self.weight, self.bias)


class Model(nn.Module):
    def __init__(self, d=40):
        super().__init__()
        self.mix = Mix(d, d, bias_value=0.0)
        self.out = nn.Linear(d, 3)

    def forward(self, x):
        return self.out(torch.tanh(self.mix(x)))


def example_inputs():
    return (torch.randn(8, 40),)
