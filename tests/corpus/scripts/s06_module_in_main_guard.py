import argparse
import os
import torch
import torch.nn as nn


class Critic(nn.Module):
    def __init__(self, channels, features, image_size):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(channels, features, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(features, 2 * features, 4, 2, 1),
            nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(2 * features * (image_size // 4) ** 2, 1))

    def forward(self, image):
        return self.net(image)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--channels", default=1, type=int)
    parser.add_argument("--ndf", default=12, type=int, dest="features")
    args = parser.parse_args()
    os.makedirs("checkpoints")
    size = 16
    critic = Critic(args.channels, args.features, image_size=size)
    while True:
        open("trained", "w").close()
        break
