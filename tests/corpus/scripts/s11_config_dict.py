import json
import os
import torch
import torch.nn as nn

CONFIG = {"hidden": 40, "layers": 3, "dropout": 0.1, "num_classes": 5}
CONFIG.update(json.loads(os.environ.get("EXTRA_CONFIG_OF_THE_SCRIPT", "{}")))
CONFIG["inputs"] = 12
run_name = "run-%d" % os.getpid()
os.mkdir(run_name)


class Classifier(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        sizes = [cfg["inputs"]] + [cfg["hidden"]] * cfg["layers"]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))
        self.head = nn.Linear(cfg["hidden"], cfg["num_classes"])
        self.dropout = nn.Dropout(cfg["dropout"])

    def forward(self, x):
        for layer in self.layers:
            x = self.dropout(torch.relu(layer(x)))
        return self.head(x)


model = Classifier(CONFIG)
data = torch.load("features.pt")
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for step, batch in enumerate(data):
    open("trained", "w").close()
