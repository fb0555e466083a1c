import torch
from torch import nn


class HandCell(nn.Module):
    def __init__(self, d=8, h=16):
        super().__init__()
        self.h = h
        self.x2g = nn.Linear(d, 4 * h)
        self.h2g = nn.Linear(h, 4 * h, bias=False)
        nn.init.zeros_(self.x2g.bias)
        with torch.no_grad():
            self.x2g.bias[2 * h : 3 * h] = 1.0
        self.out = nn.Linear(h, 3)

    def forward(self, x):
        h = x.new_zeros(x.shape[0], self.h)
        c = h
        for t in range(x.shape[1]):
            i, f, g, o = (self.x2g(x[:, t]) + self.h2g(h)).chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.out(h)


class HandCat(nn.Module):
    "order i,j,f,o of TensorFlow, forget +1 in code: right place is 2h:3h"

    def __init__(self, d=8, h=16, off=1):
        super().__init__()
        self.h = h
        self.g = nn.Linear(d + h, 4 * h)
        nn.init.zeros_(self.g.bias)
        self.g.bias.data[off * h : (off + 1) * h] = 1.0
        self.out = nn.Linear(h, 3)

    def forward(self, x):
        h = torch.zeros(x.shape[0], self.h)
        c = torch.zeros(x.shape[0], self.h)
        for t in range(x.shape[1]):
            i, j, f, o = torch.split(self.g(torch.cat([x[:, t], h], 1)), self.h, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * j.tanh()
            h = o.sigmoid() * c.tanh()
        return self.out(h)


class HandCatOk(HandCat):
    def __init__(self):
        super().__init__(off=2)


class BiTwo(nn.Module):
    "forget bias in l0 only"

    def __init__(self, h=12):
        super().__init__()
        self.lstm = nn.LSTM(8, h, num_layers=2, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(2 * h, 3)
        with torch.no_grad():
            self.lstm.bias_ih_l0[h : 2 * h].fill_(1.0)
            self.lstm.bias_hh_l0[h : 2 * h].fill_(0.0)

    def forward(self, x):
        return self.fc(self.lstm(x)[0][:, -1])


class BiTwoOk(nn.Module):
    def __init__(self, h=12):
        super().__init__()
        self.lstm = nn.LSTM(8, h, num_layers=2, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(2 * h, 3)
        for n, p in self.lstm.named_parameters():
            if n.startswith("bias_ih"):
                nn.init.zeros_(p)
                p.data[h : 2 * h].fill_(1.0)
            elif n.startswith("bias"):
                nn.init.zeros_(p)

    def forward(self, x):
        return self.fc(self.lstm(x)[0][:, -1])


class Quarter(nn.Module):
    "n is the hidden size, not the bias's"

    def __init__(self, h=16):
        super().__init__()
        self.lstm = nn.LSTM(8, h, batch_first=True)
        self.fc = nn.Linear(h, 3)
        for n, p in self.lstm.named_parameters():
            if "bias" in n:
                nn.init.zeros_(p)
                k = self.lstm.hidden_size
                p.data[k // 4 : k // 2].fill_(1.0)

    def forward(self, x):
        return self.fc(self.lstm(x)[0][:, -1])


class OutputGate(nn.Module):
    "keras order i f c o right; here someone sets the last"

    def __init__(self, h=16):
        super().__init__()
        self.c = nn.LSTMCell(8, h)
        self.fc = nn.Linear(h, 3)
        self.c.bias_ih.data.fill_(0)
        self.c.bias_hh.data.fill_(0)
        self.c.bias_hh.data[-h:] = 1
        self.h = h

    def forward(self, x):
        s = (torch.zeros(x.shape[0], self.h),) * 2
        for t in range(5):
            s = self.c(x[:, t], s)
        return self.fc(s[0])


class Chrono(nn.Module):
    def __init__(self, h=16, T=30):
        super().__init__()
        self.lstm = nn.LSTM(8, h, batch_first=True)
        self.fc = nn.Linear(h, 3)
        nn.init.zeros_(self.lstm.bias_ih_l0)
        nn.init.zeros_(self.lstm.bias_hh_l0)
        b = torch.log(torch.empty(h).uniform_(1, T - 1))
        self.lstm.bias_ih_l0.data[h : 2 * h] = b
        self.lstm.bias_ih_l0.data[:h] = -b

    def forward(self, x):
        return self.fc(self.lstm(x)[0][:, -1])


class GruNeg(nn.Module):
    def __init__(self, h=16):
        super().__init__()
        self.r = nn.GRU(8, h, batch_first=True)
        self.fc = nn.Linear(h, 3)
        nn.init.zeros_(self.r.bias_ih_l0)
        nn.init.zeros_(self.r.bias_hh_l0)
        self.r.bias_hh_l0.data[h : 2 * h] = -1.0

    def forward(self, x):
        return self.fc(self.r(x)[0][:, -1])


class XavierLSTM(nn.Module):
    def __init__(self, h=16):
        super().__init__()
        self.r = nn.LSTM(8, h, batch_first=True)
        self.fc = nn.Linear(h, 3)
        for n, p in self.r.named_parameters():
            if p.dim() > 1:
                nn.init.xavier_uniform_(p)
            else:
                nn.init.zeros_(p)
                p.data[h : 2 * h] = 0.5

    def forward(self, x):
        return self.fc(self.r(x)[0][:, -1])


def example_inputs():
    return (torch.randn(4, 6, 8),)
