"""Recurrent layers that one line makes are one finding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import initlint


class Block(nn.Module):
    def __init__(self, cell: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn = cell(16, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.rnn(x)[0]
        return x + out


def test_one_finding_for_each_line() -> None:
    def build() -> nn.Module:
        return nn.Sequential(*(Block(nn.LSTM) for _ in range(3)), nn.GRU(16, 16, batch_first=True))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = build()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.net(x)[0]
            return out

    run = initlint.check(Model, inputs=(torch.randn(4, 6, 16),))
    lstm, gru = sorted((f for f in run.findings if f.code == "IL301"), key=lambda f: f.site.line if f.site else 0)
    assert "`net.0.rnn` and 2 more (LSTM) keep PyTorch's default" in lstm.message
    assert len(lstm.parameters) == 3 * 3  # the hidden matrix and both biases of each
    assert "`net.3` (GRU) keeps PyTorch's default" in gru.message
    assert gru.parameters == ("net.3.weight_hh_l0",)
