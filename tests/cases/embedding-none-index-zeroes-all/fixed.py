import torch
from torch import nn


def embedding(n, d, padding_idx=None):
    table = nn.Embedding(n, d, padding_idx=padding_idx)
    nn.init.normal_(table.weight, std=d**-0.5)
    if padding_idx is not None:
        nn.init.constant_(table.weight[padding_idx], 0)
    return table


class Model(nn.Module):
    def __init__(self, vocab=100, d=24, classes=6):
        super().__init__()
        self.tok = embedding(vocab, d)
        self.rnn = nn.GRU(d, d, batch_first=True)
        self.out = nn.Linear(d, classes)

    def forward(self, ids):
        _, h = self.rnn(self.tok(ids))
        return self.out(h[-1])


def example_inputs():
    return (torch.randint(0, 100, (4, 12)),)
