import torch
from torch import nn
from torch.nn.utils import spectral_norm


class Model(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.critic = nn.Sequential(
            spectral_norm(nn.Linear(d, d)), nn.LeakyReLU(0.1), spectral_norm(nn.Linear(d, d)), nn.LeakyReLU(0.1)
        )
        self.out = nn.Linear(d, 1)
        for m in self.critic:
            if isinstance(m, nn.Linear):
                nn.init.orthogonal_(m.weight_orig, gain=1.4)

    def forward(self, x):
        return self.out(self.critic(x))


def example_inputs():
    return (torch.randn(8, 32),)
