import copy
import torch
from torch import nn, optim
from absl import flags, app

FLAGS = flags.FLAGS
flags.DEFINE_integer("ch", 128, help="base channels")


class Denoiser(nn.Module):
    def __init__(self, ch=12):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(1, ch), nn.SiLU(), nn.Linear(ch, ch))
        self.head = nn.Conv2d(3, ch, 3, padding=1)
        self.norm = nn.GroupNorm(4, ch)
        self.tail = nn.Conv2d(ch, 3, 3, padding=1)
        nn.init.xavier_uniform_(self.tail.weight, gain=1e-5)
        nn.init.zeros_(self.tail.bias)

    def forward(self, x, t):
        h = self.head(x) + self.time(t.float().view(-1, 1))[:, :, None, None]
        return self.tail(torch.nn.functional.silu(self.norm(h)))


net = Denoiser()
ema = copy.deepcopy(net)
for parameter in ema.parameters():
    parameter.requires_grad_(False)


def train():
    open("trained", "w").close()


def main(argv):
    train()


if __name__ == "__main__":
    app.run(main)
