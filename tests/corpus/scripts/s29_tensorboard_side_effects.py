import datetime
import pathlib
import shutil
import subprocess
import torch
import torch.nn as nn
from torch.utils.tensorboard import SummaryWriter

stamp = datetime.datetime.now().strftime("%H%M")
out = pathlib.Path("runs") / stamp
out.mkdir(parents=True)
shutil.copy(__file__, out)
subprocess.run(["touch", "trained"])
writer = SummaryWriter(str(out))
nclass = 6
torch.backends.cudnn.benchmark = True
torch.set_default_dtype(torch.float64)


class Siamese(nn.Module):
    def __init__(self, nclass=nclass):
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30), nn.ReLU())
        self.out = nn.Linear(30, nclass)

    def forward(self, left, right):
        return self.out((self.embed(left) - self.embed(right)).abs())


siamese = Siamese().double()
writer.add_graph(siamese, (torch.randn(2, 20), torch.randn(2, 20)))
for epoch in range(2):
    writer.add_scalar("loss", 0.0, epoch)
