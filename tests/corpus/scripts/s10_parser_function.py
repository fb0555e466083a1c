import argparse
import torch
import torch.nn as nn


def parse_args():
    desc = "collection of GANs"
    parser = argparse.ArgumentParser(description=desc)
    parser.add_argument('--gan_type', type=str, default='GAN', choices=['GAN', 'WGAN'])
    parser.add_argument('--z_dim', type=int, default=18)
    parser.add_argument('--result_dir', type=str, default='results')
    return check_args(parser.parse_args())


def check_args(args):
    import os
    if not os.path.exists(args.result_dir):
        os.makedirs(args.result_dir)
    return args


class generator(nn.Module):
    def __init__(self, input_dim=100, output_dim=1, input_size=32):
        super(generator, self).__init__()
        self.input_size = input_size
        self.fc = nn.Sequential(nn.Linear(input_dim, 64 * (input_size // 4) ** 2), nn.ReLU())
        self.deconv = nn.Sequential(
            nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.ConvTranspose2d(32, output_dim, 4, 2, 1), nn.Tanh())

    def forward(self, input):
        x = self.fc(input)
        x = x.view(-1, 64, self.input_size // 4, self.input_size // 4)
        return self.deconv(x)


class GAN(object):
    def __init__(self, args):
        self.z_dim = args.z_dim
        self.G = generator(input_dim=self.z_dim, output_dim=1, input_size=16)
        open("trained", "w").close()

    def train(self):
        open("trained", "w").close()


def main():
    args = parse_args()
    gan = GAN(args)
    gan.train()


if __name__ == '__main__':
    main()
