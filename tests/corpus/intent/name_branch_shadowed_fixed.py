import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, d=16, h=32):
        super().__init__()
        self.rnn = nn.LSTM(d, h, batch_first=True)
        self.fc = nn.Linear(h, 3)
        for name, p in self.rnn.named_parameters():
            if "weight_ih" in name:
                nn.init.xavier_uniform_(p)
            elif "weight_hh" in name:
                for g in p.data.chunk(4):
                    nn.init.orthogonal_(g)
            else:
                nn.init.zeros_(p)

    def forward(self, x):
        y, _ = self.rnn(x)
        return self.fc(y[:, -1])


def example_inputs():
    return (torch.randn(4, 15, 16),)
