import torch
from torch import nn


class Model(nn.Module):
    """Attention with one stacked projection for each head."""

    def __init__(self, dim=64, heads=8):
        super().__init__()
        self.w_q = nn.Parameter(torch.empty(heads, dim, dim // heads))
        self.w_k = nn.Parameter(torch.empty(heads, dim, dim // heads))
        self.w_v = nn.Parameter(torch.empty(heads, dim, dim // heads))
        self.w_o = nn.Parameter(torch.empty(heads, dim // heads, dim))
        for w in (self.w_q, self.w_k, self.w_v, self.w_o):
            nn.init.xavier_normal_(w)
        self.head = nn.Linear(dim, 12)

    def forward(self, x):
        q = torch.einsum("btd,hdk->bhtk", x, self.w_q)
        k = torch.einsum("btd,hdk->bhtk", x, self.w_k)
        v = torch.einsum("btd,hdk->bhtk", x, self.w_v)
        a = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
        return self.head(torch.einsum("bhtk,hkd->btd", a @ v, self.w_o))


def example_inputs():
    return (torch.randn(4, 9, 64),)
