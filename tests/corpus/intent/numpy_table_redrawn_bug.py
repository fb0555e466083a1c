import numpy as np
import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        t = np.array([[np.sin(i / 10000 ** (2 * (j // 2) / d)) for j in range(d)] for i in range(20)], dtype="float32")
        self.pos = nn.Embedding(20, d)
        self.pos.weight.data.copy_(torch.from_numpy(t))
        self.tok = nn.Embedding(50, d)
        self.fc = nn.Linear(d, 5)
        self.apply(self._init)

    def _init(self, m):
        if isinstance(m, nn.Embedding):
            m.weight.data.normal_(0, 0.02)
        if isinstance(m, nn.Linear):
            m.weight.data.normal_(0, 0.02)

    def forward(self, ids):
        h = self.tok(ids) + self.pos(torch.arange(ids.shape[1]))
        return self.fc(h.mean(1))


def example_inputs():
    return (torch.randint(0, 50, (4, 12)),)
