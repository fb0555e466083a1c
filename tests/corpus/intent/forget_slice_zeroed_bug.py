import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, d=16, h=24):
        super().__init__()
        self.h = h
        self.lstm = nn.LSTM(d, h, batch_first=True)
        self.fc = nn.Linear(h, 2)
        n = self.lstm.bias_hh_l0.size(0)
        self.lstm.bias_hh_l0.data[n // 4 : n // 2].fill_(1.0)
        self.apply(self.init)

    def init(self, m):
        if isinstance(m, (nn.LSTM, nn.Linear)):
            for n, p in m.named_parameters():
                if "bias" in n:
                    nn.init.zeros_(p)
                else:
                    nn.init.xavier_uniform_(p)

    def forward(self, x):
        y, _ = self.lstm(x)
        return self.fc(y[:, -1])


def example_inputs():
    return (torch.randn(4, 20, 16),)
