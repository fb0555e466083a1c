"""Attention over tokens that share most of what they are: what softmax cancels, and what a dropout lets through."""

from __future__ import annotations

import pytest
from test_layers_measured import compared, off

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional
pytestmark = pytest.mark.usefixtures("one_thread")


class Attention(nn.Module):
    """Softmax attention by hand or fused; nine tenths of each token's energy are common to all of them."""

    def __init__(self, fused: bool, rate: float, width: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.fused, self.rate, self.heads = fused, rate, heads
        self.query, self.key, self.value, self.head = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.common = nn.Parameter(3.0 * torch.randn(1, 1, width))

    def forward(self, x):
        x = x + self.common
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.rate)
        else:
            y = F.dropout((q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1), self.rate, self.training) @ v
        return self.head(y.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("fused", [False, True])
def test_what_keys_and_values_share_reaches_queries_through_a_dropout_alone(fused: bool, rate: float):
    torch.manual_seed(0)
    found = compared(Attention(fused, rate), torch.randn(8, 64, 64))
    assert off(found, 0, "query", "key", "value", "head") < 0.05
    # without a dropout the shared part would be 3 times the rest in std, were it not to cancel
    assert off(found, 1, "query", "key", "value", "head") < 0.12
