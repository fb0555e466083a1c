import torch
from torch import nn


class Model(nn.Module):
    """A small vocoder: mel frames to samples by strided transposed convolutions."""

    def __init__(self, mels=80, width=128):
        super().__init__()
        self.pre = nn.Conv1d(mels, width, 7, padding=3)
        stages, c = [], width
        for _ in range(3):
            stages += [nn.ConvTranspose1d(c, c // 2, 8, stride=4, padding=2), nn.LeakyReLU(0.2)]
            c //= 2
        self.ups = nn.Sequential(*stages)
        self.post = nn.Conv1d(c, 1, 7, padding=3)
        for m in self.ups:
            if isinstance(m, nn.ConvTranspose1d):
                fan = m.in_channels * m.kernel_size[0] / m.stride[0]
                nn.init.normal_(m.weight, std=(2 / (1.04 * fan)) ** 0.5)
                nn.init.zeros_(m.bias)

    def forward(self, mel):
        return torch.tanh(self.post(self.ups(self.pre(mel))))


def example_inputs():
    return (torch.randn(4, 80, 20),)
