import torch
from torch import nn


def put(name, p):
    name = name.lower()
    if "bias" in name:
        nn.init.zeros_(p)
    elif "weight" in name:
        nn.init.normal_(p, std=0.1)


def sized(model, names=None):
    names = names or other(names)
    for n, p in model.named_parameters():
        if names:
            put(n, p)
        if n in names and names:
            put(n, p)


def other(names):
    return names or []


class Net(nn.Module):
    def __init__(self, widths=None):
        super().__init__()
        widths = widths or [8, 16]
        a = b = widths
        a = b or a
        self.l = nn.Linear(*widths)
        sized(self)
        for n, p in self.named_parameters():
            put(n, p)

    def forward(self, x):
        return self.l(x)
