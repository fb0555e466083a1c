import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv1 = nn.Conv2d(c, c, 3, padding=1, bias=False)
        self.n1 = nn.GroupNorm(4, c)
        self.conv2 = nn.Conv2d(c, c, 3, padding=1, bias=False)
        self.n2 = nn.GroupNorm(4, c)

    def forward(self, x):
        return torch.relu(x + self.n2(self.conv2(torch.relu(self.n1(self.conv1(x))))))


class Model(nn.Module):
    def __init__(self, c=16):
        super().__init__()
        self.stem = nn.Conv2d(3, c, 3, padding=1, bias=False)
        self.stem_norm = nn.GroupNorm(4, c)
        self.blocks = nn.Sequential(Block(c), Block(c))
        self.fc = nn.Linear(c, 10)
        for block in self.blocks:
            nn.init.zeros_(block.n2.weight)

    def forward(self, x):
        x = torch.relu(self.stem_norm(self.stem(x)))
        return self.fc(self.blocks(x).mean((2, 3)))


def example_inputs():
    return (torch.randn(4, 3, 12, 12),)
