import optparse
import torch
import torch.nn as nn

parser = optparse.OptionParser()
parser.add_option("--hidden", type="int", default=22)
parser.add_option("--root", dest="root", default=None)
(options, args) = parser.parse_args()
assert options.root, "give --root"
if not args:
    parser.error("no data given")


class Net(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.gru = nn.GRU(features, options.hidden, batch_first=True)
        self.out = nn.Linear(options.hidden, 2)

    def forward(self, sequence):
        output, _ = self.gru(sequence)
        return self.out(output[:, -1])


net = Net(features=9)
logger = open("trained", "w")
best = 0.0
for epoch in range(10):
    logger.write("%d\n" % epoch)
