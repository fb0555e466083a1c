import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, d=16, h=24):
        super().__init__()
        self.h = h
        self.lstm = nn.LSTM(d, h, batch_first=True)
        self.fc = nn.Linear(h, 2)
        for name, p in self.named_parameters():
            if "bias" in name:
                p.data.zero_()
            elif "weight_hh" in name:
                for gate in p.data.chunk(4):
                    nn.init.orthogonal_(gate)
        self.open_forget_gate()

    def open_forget_gate(self):
        with torch.no_grad():
            self.lstm.bias_ih_l0[self.h : 2 * self.h] = 1.0

    def forward(self, x):
        y, _ = self.lstm(x)
        return self.fc(y[:, -1])


def example_inputs():
    return (torch.randn(4, 20, 16),)
