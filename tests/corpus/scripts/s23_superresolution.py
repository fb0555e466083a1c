import argparse
import math
import os
import torch
import torch.nn as nn

os.makedirs("saved_models", exist_ok=True)
parser = argparse.ArgumentParser()
parser.add_argument("--hr_height", type=int, default=64)
parser.add_argument("--hr_width", type=int, default=64)
parser.add_argument("--upscale", type=int, default=4, choices=[2, 4])
opt = parser.parse_args()
hr_shape = (opt.hr_height, opt.hr_width)
cuda = torch.cuda.is_available()


class Upscaler(nn.Module):
    def __init__(self, in_channels=3, out_channels=3, factor=opt.upscale):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(in_channels, 16, 9, padding=4), nn.PReLU())
        steps = []
        for _ in range(int(math.log2(factor))):
            steps += [nn.Conv2d(16, 64, 3, padding=1), nn.PixelShuffle(2), nn.PReLU()]
        self.steps = nn.Sequential(*steps)
        self.last = nn.Conv2d(16, out_channels, 9, padding=4)

    def forward(self, x):
        return torch.tanh(self.last(self.steps(self.first(x))))


class Judge(nn.Module):
    def __init__(self, input_shape):
        super().__init__()
        self.input_shape = input_shape
        in_channels, in_height, in_width = self.input_shape
        self.output_shape = (1, int(in_height / 2 ** 2), int(in_width / 2 ** 2))
        layers, filters = [], in_channels
        for out in [8, 16]:
            layers += [nn.Conv2d(filters, out, 3, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
            filters = out
        self.model = nn.Sequential(*layers, nn.Conv2d(filters, 1, 3, 1, 1))

    def forward(self, img):
        return self.model(img)


generator = Upscaler()
discriminator = Judge(input_shape=(3, *hr_shape))
criterion_GAN = torch.nn.MSELoss()
valid = torch.ones((4, *discriminator.output_shape))
for epoch in range(3):
    open("trained", "w").close()
