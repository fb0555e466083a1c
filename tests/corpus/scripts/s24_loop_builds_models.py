import torch
from torch import nn

HIDDEN = (16, 32)
DEVICE = "cuda"


class Probe(nn.Module):
    def __init__(self, hidden, inputs=10):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, 2))

    def forward(self, x):
        return self.net(x)


results = {}
for hidden in HIDDEN:
    net = Probe(hidden).to(DEVICE)
    opt = torch.optim.Adam(net.parameters())
    open("trained", "w").close()
    results[hidden] = 0.0
print(results)
