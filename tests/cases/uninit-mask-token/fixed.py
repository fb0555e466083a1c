import torch
from torch import nn


class Model(nn.Module):
    """Masked auto-encoder's decoder input."""

    def __init__(self, patch=27, d=32):
        super().__init__()
        self.proj = nn.Linear(patch, d)
        self.mask_token = nn.Parameter(self.proj.weight.new_empty(1, 1, d))
        self.mix = nn.TransformerEncoderLayer(d, 4, 64, batch_first=True)
        self.back = nn.Linear(d, patch)
        nn.init.xavier_uniform_(self.proj.weight)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, x, mask):
        h = self.proj(x)
        h = torch.where(mask.unsqueeze(-1), self.mask_token.expand_as(h), h)
        return self.back(self.mix(h))


def example_inputs():
    return torch.randn(2, 9, 27), torch.rand(2, 9) < 0.5
