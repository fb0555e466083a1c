import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.tok = nn.Embedding(50, d)
        with torch.no_grad():
            self.tok.weight[0] = 0
        self.fc1, self.fc2 = nn.Linear(d, d), nn.Linear(d, 5)
        self.apply(self.init)

    def init(self, m):
        if isinstance(m, (nn.Linear, nn.Embedding)):
            nn.init.normal_(m.weight, std=0.05)

    def forward(self, ids):
        return self.fc2(torch.relu(self.fc1(self.tok(ids).mean(1))))


def example_inputs():
    return (torch.randint(0, 50, (4, 12)),)
