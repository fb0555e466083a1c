import torch
from torch import nn


class Model(nn.Module):
    """Windowed attention with a relative bias; three extra rows serve the class token."""

    def __init__(self, d=32, heads=4, length=8):
        super().__init__()
        span = 2 * length - 1
        self.heads, self.length = heads, length
        self.bias_table = nn.Parameter(torch.empty(span + 3, heads))
        with torch.no_grad():
            self.bias_table.normal_(std=0.02)
        index = torch.arange(length).view(-1, 1) - torch.arange(length).view(1, -1) + length - 1
        index = nn.functional.pad(index, (1, 0, 1, 0), value=span)
        index[0, :] = span + 1
        index[0, 0] = span + 2
        self.register_buffer("index", index)
        self.qkv = nn.Linear(d, 3 * d)
        self.out = nn.Linear(d, d)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        logits = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        logits = logits + self.bias_table[self.index].permute(2, 0, 1)
        return self.out((logits.softmax(-1) @ v).transpose(1, 2).reshape(b, t, d))


def example_inputs():
    return (torch.randn(2, 9, 32),)
