import os
import sys
try:
    from apex import amp
    HAS_APEX = True
except ImportError:
    HAS_APEX = False
try:
    import cv2_is_missing as cv2
except ImportError:
    cv2 = None
    print("cv2 is not there")
import torch
import torch.nn as nn

if len(sys.argv) < 2:
    print("usage: train.py DATA_FOLDER")
    sys.exit(1)
data_folder = sys.argv[1]
WIDTH = int(os.environ.get("WIDTH_OF_THE_SCRIPT", 14))

if HAS_APEX:
    Norm = amp.SyncBatchNorm
else:
    Norm = nn.BatchNorm2d


class UNet(nn.Module):
    def __init__(self, out_channels=1):
        super().__init__()
        self.down = nn.Conv2d(3, WIDTH, 3, stride=2, padding=1)
        self.norm = Norm(WIDTH)
        self.up = nn.ConvTranspose2d(WIDTH, WIDTH, 2, stride=2)
        self.out = nn.Conv2d(WIDTH + 3, out_channels, 1)

    def forward(self, x):
        y = torch.relu(self.norm(self.down(x)))
        return self.out(torch.cat([self.up(y), x], 1))


if __name__ == "__main__":
    net = UNet()
    open("trained", "w").close()
